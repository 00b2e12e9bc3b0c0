"""Documents, the sources that give them, and the split by hash."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np

from phi1_jax.text.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class Document:
  """A text to train on.

  Attributes:
    text: the text, or what comes after the prompt.
    group: documents of one group are held out together; None = its own text.
    prompt: text before it, which is encoded on its own.
    ids: ids [T] of prompt and text, if the source tokenizes; None = encode them.
  """

  text: str
  group: str | None = None
  prompt: str = ""
  ids: tuple[np.ndarray, np.ndarray] | None = None


@dataclasses.dataclass(frozen=True)
class Drop:
  """The reason why a file or a row gives no documents, and its place, if known."""

  reason: str
  place: str = ""


class Source(Protocol):
  """Origin of a task's documents."""

  def describe(self) -> list[dict[str, Any]]:
    """Return a manifest's entries: names, versions, licences, hashes; no paths."""
    ...

  def num_shards(self, wanted: int) -> int:
    """Return the number of shards to read it in, at most `wanted`."""
    ...

  def read(
    self, shard: int, shards: int, tokenizer: Tokenizer | None = None
  ) -> Iterator[Document | Drop]:
    """Yield the documents of a shard in a fixed order; seqio needs the tokenizer."""
    ...


def held_out(document: Document, fraction: float) -> bool:
  """Return whether a document is held out: by hash, so order and shards do not matter.

  Args:
    document: its group decides, or without one its text. A whole file is its own group,
      so a document made from a part of it goes to the same side.
    fraction: expected share of groups that are held out.
  """
  group = document.group
  if group is None:
    text = (document.prompt + document.text).encode()
    group = hashlib.sha256(text).hexdigest()
  position = int.from_bytes(hashlib.sha256(group.encode()).digest()[:8], "big")
  return position < fraction * 2**64
