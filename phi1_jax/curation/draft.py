"""What a teacher wrote, before anybody believes it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, Protocol

from phi1_jax.curation.document import Document, Drop


@dataclasses.dataclass(frozen=True)
class Draft:
  """A text, and how to find out whether it is right.

  Attributes:
    document: what is kept if it is.
    code: what is run: a whole program, without the tests.
    tests: sources that must pass after it; () if running to the end is enough.
  """

  document: Document
  code: str
  tests: tuple[str, ...] = ()


class Teacher(Protocol):
  """Writes drafts: an LLM, or what stands in for one."""

  def identity(self) -> dict[str, Any]:
    """What decides the drafts beside the stage's own settings."""
    ...

  def facts(self) -> dict[str, Any]:
    """What stats and cards say: "models", "prompts", "cost"."""
    ...

  def drafts(self) -> Iterator[Draft | Drop]:
    """Drafts, or why there is none, in an order that never varies."""
    ...
