"""A judge of educational value that needs no network: features of the code itself.

It stands in for the LLM of the paper's section 2.1, and is always named as a stand-in.
The weights were set by hand; how far it agrees with an LLM is not known until both have
judged the same sample (`Annotate.compare_with`).

Code without explanation gets less than 3 of 5 points, however much logic it has: that
keeps out collections of competition answers. Code of a library that explains itself
gets 3 or more even if it imports its own modules.
"""

import ast
import builtins
import collections
import dataclasses
import re
import sys
from collections.abc import Iterator
from typing import Any

from phi1_jax.curation import sketches
from phi1_jax.text import source

VERSION = 2
_LOGIC = (ast.For, ast.While, ast.If, ast.IfExp, ast.BoolOp, ast.Compare, ast.BinOp)
_LOGIC += (ast.AugAssign, ast.comprehension, ast.Return, ast.Yield)
_FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)
_LONG_FUNCTION, _LONG_FILE, _SHORT_FILE = 60, 600, 5  # lines
_NO_DOCUMENTATION_LINES = 4  # functions up to this length explain themselves
_FEWEST_WORDS = 4  # of a docstring that explains
_PROSE = re.compile(r"#+\s*[A-Za-z][\w']*(?:[\s,;:]+[\w'`(\"-]+){2,}")
_CODE = re.compile(
  r"#+\s*(?:import\b|from\s+\S+\s+import|def\b|class\b|return\b|@|[\w.]+\s*(?:=|\()"
  r"|(?:if|for|while|with|elif)\b.*:$)"
)
_NOTEBOOK = re.compile(r"^# (?:In ?\[[ \d]*\]:|%%)|get_ipython\(\)", re.MULTILINE)
_CONTEST = re.compile(
  r"^class Solution\b|\b(?:raw_)?input\(\)\.(?:split|strip)|stdin\.readline"
  r"|map\(int, ?(?:raw_)?input\(\)",
  re.MULTILINE,
)


@dataclasses.dataclass(frozen=True)
class Features:
  """Features of a file; every share is from 0 to 1."""

  lines: int  # that are not blank
  comments: float  # share of them that are comments in prose, or docstrings
  # Share of classes, and of functions of more than 4 lines, with a docstring of 4 words
  # or more.
  documented: float
  introduced: bool  # whether a docstring or comment introduces the file
  # Nodes that compute, branch, loop or return, per line of code; at most 1.
  logic: float
  # Share of top-level and class-level statements that only import, assign a constant or
  # set an attribute.
  boilerplate: float
  own: float  # share of imported packages that are the standard library's
  short: float  # share of functions of at most 60 lines
  named: float  # share of uses of names that have at least three letters
  examples: bool  # whether a docstring shows a doctest, or the file asserts something
  repeated: float  # share of lines that stand in the file more than once
  script: float  # share of top-level statements that do something
  notebook: bool  # whether it was converted from a notebook
  contest: bool  # whether it has the form of answers in a competition

  def brief(self) -> str:
    """Return the features on one line."""
    return ", ".join(
      f"{name} {value:.2f}" if isinstance(value, float) else f"{name} {value}"
      for name, value in dataclasses.asdict(self).items()
    )


def weigh(found: Features) -> float:
  """Return the score of features: points for what is good, less what is bad."""
  explained = (
    1.3 * found.documented
    + 0.8 * min(found.comments / 0.2, 1.0)  # a fifth of the lines says enough
    + 0.3 * found.introduced
  )
  readable = (
    1.3 * min(found.logic / 0.7, 1.0)
    + 0.5 * found.short
    + 0.5 * max(found.named - 0.4, 0.0) / 0.6
    + 0.4 * found.own
    + 0.2 * found.examples
  )
  bad = 1.4 * max(found.boilerplate - 0.5, 0.0) / 0.5 + 1.0 * found.repeated
  bad += 0.6 * (found.lines > _LONG_FILE) + 1.5 * (found.lines < _SHORT_FILE)
  bad += 0.8 * found.notebook + 0.5 * max(found.script - 0.3, 0.0) / 0.7
  bad += 0.8 * (found.contest and explained < 1.6)
  total = min(explained, 2.3) + min(readable, 2.7) - bad
  return round(min(max(total, 0.0), 5.0), 1)


def features(text: str) -> Features | None:
  """Return the features of a file; None if this interpreter cannot parse it."""
  text = sketches.without_licence(text)
  tree = source.parse(text)
  lines = [line.strip() for line in text.splitlines() if line.strip()]
  if tree is None or not lines:
    return None
  nodes: dict[type, list[Any]] = collections.defaultdict(list)
  for node in ast.walk(tree):
    nodes[type(node)].append(node)

  def of(*kinds: type) -> list[Any]:
    return [
      node for each, found in nodes.items() if issubclass(each, kinds) for node in found
    ]

  docstrings = {
    node: ast.get_docstring(node, clean=False) or ""
    for node in of(*_FUNCTION, ast.ClassDef, ast.Module)
  }
  docstring_lines = sum(d.count("\n") + 1 for d in docstrings.values() if d)
  words = {node: len(docstring.split()) for node, docstring in docstrings.items()}
  introduction = words.pop(tree)
  sizes = {node: (node.end_lineno or node.lineno) - node.lineno + 1 for node in words}
  documented = [
    words[node] >= _FEWEST_WORDS
    for node, size in sizes.items()
    if words[node] >= _FEWEST_WORDS or size > _NO_DOCUMENTATION_LINES
  ]
  short = [sizes[node] <= _LONG_FUNCTION for node in of(*_FUNCTION)]
  names = collections.Counter(node.id for node in of(ast.Name))
  names.update(node.arg for node in of(ast.arg))
  names = {n: c for n, c in names.items() if n not in vars(builtins)}
  said = sum(count for name, count in names.items() if len(name.strip("_")) >= 3)
  packages = [a.name for node in of(ast.Import) for a in node.names]
  # Relative imports count as one package.
  packages += ["" if n.level else n.module or "" for n in of(ast.ImportFrom)]
  own = [n in sys.stdlib_module_names for n in {p.split(".")[0] for p in packages}]
  comments = [line for line in lines if line[0] == "#"]
  prose = [line for line in comments if _PROSE.match(line) and not _CODE.match(line)]
  code_lines = max(len(lines) - len(comments) - docstring_lines, 1)
  outer = list(_outer_statements(tree))
  counts = collections.Counter(line for line in lines if len(line) > 12)
  return Features(
    lines=len(lines),
    comments=min((len(prose) + docstring_lines) / len(lines), 1.0),
    documented=_share(sum(documented), len(documented)),
    introduced=introduction >= _FEWEST_WORDS or bool(_PROSE.match(lines[0])),
    logic=min(len(of(*_LOGIC)) / code_lines, 1.0),
    boilerplate=_share(sum(map(_is_boilerplate, outer)), len(outer)),
    own=_share(sum(own), len(own), 1.0),
    short=_share(sum(short), len(short)),
    named=_share(said, sum(names.values())),
    examples=">>>" in text or bool(of(ast.Assert)),
    repeated=_share(sum(c for c in counts.values() if c > 1), counts.total()),
    script=_share(sum(map(_is_script, tree.body)), len(tree.body)),
    notebook=bool(_NOTEBOOK.search(text)),
    contest=bool(_CONTEST.search(text)),
  )


def _outer_statements(node: ast.Module | ast.ClassDef) -> Iterator[ast.stmt]:
  """Yield the statements of the module and of its classes without docstrings."""
  for inner in node.body:
    if isinstance(inner, ast.ClassDef):
      yield from _outer_statements(inner)
    elif not _is_constant(inner):
      yield inner


def _is_constant(node: ast.stmt) -> bool:
  """Return whether a statement is a constant, such as a docstring."""
  return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _is_boilerplate(node: ast.stmt) -> bool:
  """Return whether a statement imports, names a constant, or only sets attributes."""
  if isinstance(node, (ast.Import, ast.ImportFrom, ast.Pass)):
    return True
  if isinstance(node, (ast.Assign, ast.AnnAssign)):
    calls = (ast.Call, ast.BinOp, ast.ListComp, ast.Lambda)
    return not any(isinstance(inner, calls) for inner in ast.walk(node))
  if isinstance(node, _FUNCTION):
    inner = [s for s in node.body if not isinstance(s, ast.Expr)]
    branches = any(isinstance(n, _LOGIC[:4]) for n in ast.walk(node))
    return len(inner) <= 1 and not branches
  return False


def _is_script(node: ast.stmt) -> bool:
  kinds = (*_FUNCTION, ast.ClassDef, ast.Import, ast.ImportFrom, ast.If)
  return not (_is_constant(node) or isinstance(node, kinds) or _is_boilerplate(node))


def _share(hits: int, total: int, of_nothing: float = 0.0) -> float:
  return hits / total if total else of_nothing
