"""Which checks of a solution are taken: plain ones, that say something.

A teacher's asserts are not trusted either. Those that are kept compare calls of the
function with literal values, so they can do nothing but call it; and together they
expect more than one value, so that no constant passes.
"""

from __future__ import annotations

import ast
import doctest
import warnings
from collections.abc import Iterable, Iterator

# Builtins that a check may use around the call.
_AROUND = frozenset(("abs", "dict", "float", "frozenset", "int", "isinstance", "len"))
_AROUND |= frozenset(("list", "round", "set", "sorted", "str", "sum", "tuple", "bool"))
_LONGEST = 2000  # characters
_NODES = (
  ast.Assert,
  ast.BinOp,
  ast.BoolOp,
  ast.Call,
  ast.Compare,
  ast.Constant,
  ast.Dict,
  ast.List,
  ast.Name,
  ast.Set,
  ast.Subscript,
  ast.Tuple,
  ast.UnaryOp,
  ast.boolop,
  ast.cmpop,
  ast.expr_context,
  ast.keyword,
  ast.operator,
  ast.unaryop,
)


def plain(statement: ast.stmt, name: str) -> bool:
  """Whether a statement is an assert about calls of `name` on literal values.

  Args:
    statement: as parsed.
    name: of the function.
  """
  if not isinstance(statement, ast.Assert):
    return False
  called = False
  for node in ast.walk(statement):
    if isinstance(node, ast.Call):
      called |= isinstance(node.func, ast.Name) and node.func.id == name
    if isinstance(node, ast.Name) and node.id != name and node.id not in _AROUND:
      return False
    if not isinstance(node, _NODES) or isinstance(node, ast.Pow):
      return False  # 9**9**9 would never end
  return called


def taken(statements: Iterable[ast.stmt], name: str) -> tuple[str, ...]:
  """The plain asserts among statements as sources, each once, without messages."""
  found: dict[str, None] = {}
  for statement in statements:
    if isinstance(statement, ast.Assert) and plain(statement, name):
      source = ast.unparse(ast.Assert(test=statement.test, msg=None))
      if len(source) <= _LONGEST:
        found[source] = None
  return tuple(found)


def of_examples(docstring: str, name: str) -> tuple[str, ...]:
  """The doctest examples of a docstring whose results are literals, as asserts."""
  return taken(_examples(docstring), name)


def _examples(docstring: str) -> Iterator[ast.stmt]:
  try:
    examples = doctest.DocTestParser().get_examples(docstring)
  except ValueError:  # prose that looks like a prompt
    return
  for example in examples:
    if example.exc_msg or doctest.SKIP in example.options:
      continue
    try:
      got = ast.parse(example.source.strip(), mode="eval").body
      wanted = ast.parse(example.want.strip() or "None", mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
      continue
    yield ast.Assert(test=ast.Compare(got, [ast.Eq()], [wanted]), msg=None)


def expects_several(asserts: Iterable[str], name: str) -> bool:
  """Whether no constant answer could pass all of the asserts.

  Args:
    asserts: as `taken` gives them.
    name: of the function; what remains when its calls are blanked out is what an
      assert expects.
  """
  return len({_expectation(source, name) for source in asserts}) > 1


class _Blank(ast.NodeTransformer):
  """Puts `_` in the place of every call of a function."""

  def __init__(self, name: str):
    self._name = name

  def visit_Call(self, node: ast.Call) -> ast.expr:
    if isinstance(node.func, ast.Name) and node.func.id == self._name:
      return ast.Name("_", ast.Load())
    self.generic_visit(node)
    return node


def _expectation(source: str, name: str) -> str:
  statement = _parse(source).body[0]
  assert isinstance(statement, ast.Assert)
  wanted = ast.unparse(_Blank(name).visit(statement.test)).replace(" is ", " == ")
  return {"_": "_ == True", "not _": "_ == False"}.get(wanted, wanted)


def _parse(source: str) -> ast.Module:
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    return ast.parse(source)
