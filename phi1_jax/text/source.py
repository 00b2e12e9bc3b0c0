"""Text as words, and the Python functions in it.

Both work on anything: a module, a textbook section with code between its paragraphs,
a file of Python 2, a file cut off in the middle.
"""

from __future__ import annotations

import ast
import dataclasses
import io
import re
import textwrap
import tokenize
import warnings
from collections.abc import Iterator

# A word or identifier; a number; an operator. Brackets, quotes, commas, colons and full
# stops are not words: a formatter sets them as it likes.
_WORD = re.compile(r"[^\W\d]\w*|\d(?:[\w.]*\w)?|[-+*/%<>=!&|^~@]{1,3}")
_FENCE = re.compile(r"^[ \t]*(?:```|~~~)[^\n]*\n(.*?)^[ \t]*(?:```|~~~)", re.M | re.S)
_DEFINITION = re.compile(r"[ \t]*(?:async[ \t]+)?def[ \t]+\w+[ \t]*\(")
FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


@dataclasses.dataclass(frozen=True)
class Function:
  """A function in a text.

  Attributes:
    name: its name.
    docstring: its docstring, "" if there is none.
    node: its syntax tree.
    source: the lines that define it, dedented.
  """

  name: str
  docstring: str
  node: FunctionNode
  source: str


def words(text: str) -> list[str]:
  """Return words, identifiers, numbers and operators of a text, in lower case.

  Comments and docstrings are text like any other: what is compared is what a model
  would read.

  >>> words("if n % 2 == 0:  # Even.")
  ['if', 'n', '%', '2', '==', '0', 'even']
  """
  return _WORD.findall(text.lower())


def lines(text: str) -> tuple[str, ...]:
  """Return the lines of a text without what a formatter may change.

  Line ends, indentation, trailing and repeated blanks, and empty lines are gone.
  """
  return tuple(" ".join(line.split()) for line in text.splitlines() if line.strip())


def decode(content: bytes) -> str:
  """Return the text of a Python file, in the encoding that it declares (PEP 263).

  Raises:
    UnicodeError: it is not text in that encoding, or in UTF-8 if there is none.
  """
  try:
    encoding, _ = tokenize.detect_encoding(io.BytesIO(content).readline)
    return content.decode(encoding)
  except (SyntaxError, LookupError):  # an unknown one
    return content.decode("utf-8-sig")


def parse(source: str) -> ast.Module | None:
  """Return the syntax tree of Python source, or None if it does not parse."""
  try:
    with warnings.catch_warnings():
      warnings.simplefilter("ignore")  # "\d" in a string is the author's affair
      return ast.parse(source)
  except (SyntaxError, ValueError, RecursionError, MemoryError):
    return None


def functions(text: str) -> list[Function]:
  """Return every function in a text, methods and nested ones included.

  Where the text as a whole is not Python, those of its fenced blocks, and whatever
  begins with `def` and parses.
  """
  text = text.replace("\r\n", "\n").replace("\r", "\n")
  tree = parse(text)
  if tree is not None:
    return list(_in_tree(tree, text))
  found: dict[str, Function] = {}
  for piece in (*_FENCE.findall(text), *_definitions(text)):
    piece = textwrap.dedent(piece)
    if (tree := parse(piece)) is not None:
      for function in _in_tree(tree, piece):
        found.setdefault(function.source, function)
  return list(found.values())


def _in_tree(tree: ast.Module, text: str) -> Iterator[Function]:
  # As the parser counts lines: a form feed or U+2028 ends none.
  every = text.split("\n")
  for node in _statements(tree):
    if isinstance(node, FunctionNode):
      source = textwrap.dedent("\n".join(every[node.lineno - 1 : node.end_lineno]))
      yield Function(node.name, ast.get_docstring(node) or "", node, source)


def _statements(root: ast.AST) -> Iterator[ast.AST]:
  """Yield all statements below a node in the order of the text."""
  left = [root]  # an `elif` is nested, and there may be a thousand of them
  while left:
    node = left.pop()
    if node is not root:
      yield node
    left += [
      below
      for name in ("cases", "finalbody", "orelse", "handlers", "body")
      for below in reversed(getattr(node, name, ()))
    ]


def _definitions(text: str) -> Iterator[str]:
  """Yield each `def` with the lines after it that are indented deeper."""
  every = text.split("\n")
  for start, line in enumerate(every):
    if _DEFINITION.match(line):
      indent = len(line) - len(line.lstrip())
      end = start + 1
      while end < len(every) and _continues(every[end], indent):
        end += 1
      yield "\n".join(every[start:end])


def _continues(line: str, indent: int) -> bool:
  return not line.strip() or len(line) - len(line.lstrip()) > indent or line[0] == ")"
