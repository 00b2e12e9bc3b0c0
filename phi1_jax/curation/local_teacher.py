"""The only contact with `phi1_jax.grammar`, which teaches without a language model."""

from collections.abc import Iterator
from typing import Any

from phi1_jax.grammar import teacher

MENUS = tuple(teacher.MENUS)
VERSION = teacher.VERSION


def exercises(
  seed: int, start: int, stop: int, menu: str
) -> Iterator[tuple[str, tuple[str, ...], str, dict[str, Any]]]:
  """Yield the exercises of a range: text, tests, idea, facts for the provenance."""
  for made in teacher.exercises(seed, start, stop, menu=menu):
    facts = {
      "family": made.family,
      "composition": list(made.composition),
      "frame": made.frame,
      "tests": list(made.tests),
    }
    yield made.text, tuple(made.tests), repr(made.composition), facts


def sections(
  seed: int, start: int, stop: int
) -> Iterator[tuple[str, str, dict[str, Any]]]:
  """Yield the textbook sections of a range: text, code, facts for the provenance."""
  for index in range(start, stop):
    made = teacher.section(seed, index)
    code = "\n\n".join(made.code)
    yield made.text, code, {"topic": made.topic, "audience": made.audience}
