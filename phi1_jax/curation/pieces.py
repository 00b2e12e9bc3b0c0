"""The functions and notebook cells of a document, cut out one by one."""

import ast
import dataclasses
from collections.abc import Callable, Iterator

from phi1_jax.curation.read import CELL
from phi1_jax.text import source

_SHORTEST = 50  # characters; less is no document


@dataclasses.dataclass(frozen=True)
class Cut:
  """A text without some of its parts.

  Attributes:
    text: what is left; it parses if it did before.
    names: of the parts that are gone.
  """

  text: str
  names: list[str]


def without(text: str, close: Callable[[str], bool]) -> Cut | None:
  """Return a text without its parts that are too close to something.

  Args:
    text: a notebook with cells after `# %%`, or a module.
    close: whether a part is too close.

  Returns:
    None if no part is, or too little is left, or it does not parse.
  """
  lines = text.split("\n")
  cut = [part for part in _parts(text) if close("\n".join(lines[slice(*part[1])]))]
  if not cut:
    return None
  gone = {row for _, (start, stop) in cut for row in range(start, stop)}
  left = "\n".join(line for row, line in enumerate(lines) if row not in gone)
  if len(left.strip()) < _SHORTEST:
    return None
  if source.parse(text) is not None and source.parse(left) is None:
    return None
  return Cut(left, [name for name, _ in cut])


def _parts(text: str) -> Iterator[tuple[str, tuple[int, int]]]:
  """Yield names and lines [start, stop) of cells, or of functions and classes."""
  lines = text.split("\n")
  starts = [row for row, line in enumerate(lines) if line == CELL]
  if starts:
    for number, start in enumerate(starts):
      stop = starts[number + 1] if number + 1 < len(starts) else len(lines)
      yield f"cell {number + 1}", (start, stop)
    return
  tree = source.parse(text)
  for node in tree.body if tree else ():
    if isinstance(node, ast.ClassDef) and len(node.body) > 1:
      kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
      methods = [n for n in node.body if isinstance(n, kinds)]
      if len(methods) < len(node.body):  # the class stays a class without them
        yield from ((f"{node.name}.{n.name}", _span(n)) for n in methods)
        continue
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
      yield node.name, _span(node)


def _span(node: source.FunctionNode | ast.ClassDef) -> tuple[int, int]:
  first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
  return first - 1, node.end_lineno or node.lineno
