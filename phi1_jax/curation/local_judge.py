"""A judge of educational value that needs no network: features of the code itself.

It stands in for the LLM of the paper's section 2.1 where none is at hand, and is always
named as what it is. What raises and lowers the score is what the paper says of good and
bad files: self-contained, explained, algorithmic, against boilerplate, constants,
settings and logic that cannot be followed without other files. Weights were set by hand
before anything was trained on its labels; how far it agrees with a real LLM is not
known until both have judged the same sample (`Annotate.compare_with`).
"""

from __future__ import annotations

import ast
import builtins
import collections
import dataclasses
import io
import sys
import tokenize
from collections.abc import Iterator

from phi1_jax.text import source

VERSION = 1
_LOGIC = (ast.For, ast.While, ast.If, ast.IfExp, ast.BoolOp, ast.Compare, ast.BinOp)
_LOGIC += (ast.AugAssign, ast.comprehension, ast.Return, ast.Yield)
_FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)
_LONG_FUNCTION, _LONG_FILE, _SHORT_FILE = 60, 600, 5  # lines


@dataclasses.dataclass(frozen=True)
class Features:
  """What the judge sees of a file; every share is from 0 to 1.

  Attributes:
    lines: lines that are not blank.
    comments: share of them that are comments or docstrings.
    documented: share of functions and classes with a docstring.
    logic: nodes that compute, branch, loop or return, per line of code; at most 1.
    boilerplate: share of top-level and class-level statements that only import,
      assign a constant or set an attribute.
    own: share of imported packages that are the standard library's.
    short: share of functions of at most 60 lines.
    named: share of identifiers of at least three letters, i, j, k, n, x, y counted too.
    examples: whether a docstring shows a doctest, or the file asserts something.
    repeated: share of lines that stand in the file more than once.
  """

  lines: int
  comments: float
  documented: float
  logic: float
  boilerplate: float
  own: float
  short: float
  named: float
  examples: bool
  repeated: float


def score(text: str) -> float:
  """Educational value from 0 to 5, in steps of a tenth; 0 for what does not parse.

  Args:
    text: a Python file.
  """
  found = features(text)
  return 0.0 if found is None else weigh(found)


def weigh(found: Features) -> float:
  """The score of features: five points for what is good, less what is bad."""
  good = (
    1.0 * found.documented
    + 0.8 * min(found.comments / 0.2, 1.0)  # a fifth of the lines says enough
    + 1.4 * found.logic
    + 0.7 * found.own
    + 0.5 * found.short
    + 0.3 * found.named
    + 0.3 * found.examples
  )
  bad = 1.6 * max(found.boilerplate - 0.3, 0.0) / 0.7 + 1.0 * found.repeated
  if found.lines > _LONG_FILE:
    bad += 0.6
  if found.lines < _SHORT_FILE:
    bad += 1.5
  return round(min(max(good - bad, 0.0), 5.0), 1)


def features(text: str) -> Features | None:
  """The features of a file; None if it is not Python 3."""
  tree = source.parse(text)
  if tree is None:
    return None
  lines = [line.strip() for line in text.splitlines() if line.strip()]
  if not lines:
    return None
  nodes = list(ast.walk(tree))
  functions = [node for node in nodes if isinstance(node, _FUNCTION)]
  documented = [*functions, *(node for node in nodes if isinstance(node, ast.ClassDef))]
  comments = comment_lines(text, tree)
  code_lines = max(len(lines) - comments, 1)
  statements = list(_outer_statements(tree))
  return Features(
    lines=len(lines),
    comments=min(comments / len(lines), 1.0),
    documented=_share(bool(ast.get_docstring(node)) for node in documented),
    logic=min(sum(isinstance(node, _LOGIC) for node in nodes) / code_lines, 1.0),
    boilerplate=_share(map(_is_boilerplate, statements)),
    own=_share((name in sys.stdlib_module_names for name in _packages(nodes)), 1.0),
    short=_share(_length(node) <= _LONG_FUNCTION for node in functions),
    named=_share(_says_something(name) for name in _identifiers(nodes)),
    examples=">>>" in text or any(isinstance(node, ast.Assert) for node in nodes),
    repeated=_repeated(lines),
  )


def comment_ratio(text: str) -> float:
  """Share of lines that are comments or docstrings; 0 for what does not parse.

  Alone it is the baseline that a classifier has to beat: classifiers of educational
  value are known to reward comments for their own sake.
  """
  found = features(text)
  return 0.0 if found is None else found.comments


def comment_lines(text: str, tree: ast.Module) -> int:
  """Lines that hold nothing but a comment or a part of a docstring."""
  documented = (ast.Module, ast.ClassDef, *_FUNCTION)
  count = 0
  for node in ast.walk(tree):
    if isinstance(node, documented) and node.body:
      first = node.body[0]
      if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
        value = first.value.value
        count += value.count("\n") + 1 if isinstance(value, str) else 0
  try:
    tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
  except (tokenize.TokenError, SyntaxError):
    return count
  own = (t for t in tokens if t.type == tokenize.COMMENT)
  return count + sum(not t.line[: t.start[1]].strip() for t in own)


def _outer_statements(tree: ast.Module) -> Iterator[ast.stmt]:
  """Statements of the module and of its classes, docstrings left out."""
  bodies: list[list[ast.stmt]] = [tree.body]
  while bodies:
    for node in bodies.pop():
      if isinstance(node, ast.ClassDef):
        bodies.append(node.body)
      elif not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):
        yield node


def _is_boilerplate(node: ast.stmt) -> bool:
  """Whether a statement imports, names a constant, or is a method that only sets."""
  if isinstance(node, (ast.Import, ast.ImportFrom, ast.Pass)):
    return True
  if isinstance(node, (ast.Assign, ast.AnnAssign)):
    calls = (ast.Call, ast.BinOp, ast.ListComp, ast.Lambda)
    return not any(isinstance(inner, calls) for inner in ast.walk(node))
  if isinstance(node, _FUNCTION):
    inner = [s for s in node.body if not isinstance(s, ast.Expr)]
    return len(inner) <= 1 and not any(
      isinstance(n, _LOGIC[:4]) for n in ast.walk(node)
    )
  return False


def _packages(nodes: list[ast.AST]) -> set[str]:
  """Packages that are imported; a relative import is one that is not here."""
  found = set()
  for node in nodes:
    if isinstance(node, ast.Import):
      found.update(alias.name.split(".")[0] for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      found.add("." if node.level else (node.module or "").split(".")[0])
  return found


def _identifiers(nodes: list[ast.AST]) -> set[str]:
  names = {node.id for node in nodes if isinstance(node, ast.Name)}
  names |= {node.arg for node in nodes if isinstance(node, ast.arg)}
  return names - vars(builtins).keys()


def _says_something(name: str) -> bool:
  return len(name.strip("_")) >= 3 or name in "ijknxy"


def _length(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
  return (node.end_lineno or node.lineno) - node.lineno + 1


def _repeated(lines: list[str]) -> float:
  long = [line for line in lines if len(line) > 12]
  if not long:
    return 0.0
  counts = collections.Counter(long)
  return sum(count for count in counts.values() if count > 1) / len(long)


def _share(hits, of_nothing: float = 0.0) -> float:
  values = list(hits)
  return sum(values) / len(values) if values else of_nothing
