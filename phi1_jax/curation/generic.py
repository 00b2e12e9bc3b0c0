"""Functions that anybody writes: a match with one of them proves nothing by itself.

Benchmarks ask for some of them. A text that matches such a problem is a copy only if
its words match too.
"""

import functools
from pathlib import Path

from phi1_jax.text import source, trees

MATCH = 0.95


def known(shape: trees.Shape) -> bool:
  """Return whether a function is one of idioms.txt, but for its names and strings."""
  return any(trees.match_rate(shape, other, MATCH) >= MATCH for other in _shapes())


@functools.cache
def _shapes() -> tuple[trees.Shape, ...]:
  text = (Path(__file__).parent / "idioms.txt").read_text(encoding="utf-8")
  found = (trees.shape(function.node) for function in source.functions(text))
  return tuple(shape for shape in found if shape)
