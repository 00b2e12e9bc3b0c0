"""Which checks of a solution are taken: plain ones, that say something.

A teacher's asserts are not trusted either. Those that are kept compare calls of the
function with literal values, so they can do nothing but call it; and together they
expect more than one value, so that no constant passes.
"""

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
  """Return whether a statement asserts something about calls with literal values.

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
  """Return the plain asserts among statements as sources, each once."""
  found: dict[str, None] = {}
  for statement in statements:
    try:
      if isinstance(statement, ast.Assert) and plain(statement, name):
        source = ast.unparse(ast.Assert(test=statement.test, msg=None))
        if len(source) <= _LONGEST:
          found[source] = None
    except (RecursionError, ValueError):  # deeper, or a longer number, than any test
      continue
  return tuple(found)


def of_examples(docstring: str, name: str) -> tuple[str, ...]:
  """Return the doctest examples with literal results, as asserts."""
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
  """Return whether no constant answer could pass all of the asserts.

  Only asserts that say what a call gives count: `f(1) == 2`, `f(1) is None`, `f(1)`,
  `not f(1)`, and the same with something around the call, as in `abs(f(1) - 2) < 1e-9`.

  Args:
    asserts: as `taken` gives them.
    name: of the function.
  """
  expected = {_expectation(source, name) for source in asserts}
  return len(expected - {None}) > 1


class _Blank(ast.NodeTransformer):
  """A transformer that puts `_` in the place of every call of a function."""

  def __init__(self, name: str):
    self._name = name

  def visit_Call(self, node: ast.Call) -> ast.expr:
    if isinstance(node.func, ast.Name) and node.func.id == self._name:
      return ast.Name("_", ast.Load())
    self.generic_visit(node)
    return node


def _expectation(source: str, name: str) -> str | None:
  """Return the value that an assert expects of a call; None if it may be any."""
  statement = _parse(source).body[0]
  assert isinstance(statement, ast.Assert)
  test = _Blank(name).visit(statement.test)
  if isinstance(test, ast.Name):
    return f"_ == {_number(True)}"
  if isinstance(test, ast.UnaryOp) and isinstance(test.operand, ast.Name):
    return f"_ == {_number(False)}"
  if not (isinstance(test, ast.Compare) and len(test.ops) == 1):
    return None
  sides = [test.left, test.comparators[0]]
  calls = ["_" in {n.id for n in ast.walk(s) if isinstance(n, ast.Name)} for s in sides]
  if calls == [False, True]:
    sides.reverse()
  if calls[0] == calls[1]:
    return None
  if isinstance(test.ops[0], (ast.Eq, ast.Is)):
    return f"{ast.unparse(sides[0])} == {_value(sides[1])}"
  nearly = isinstance(test.ops[0], (ast.Lt, ast.LtE)) and isinstance(sides[0], ast.Call)
  return f"nearly {ast.unparse(sides[0])}" if nearly else None


def _number(value: float) -> str:
  return repr(float(value))


def _value(expression: ast.expr) -> str:
  """Return a literal in one form, so that 1 and 1.0 are the same answer."""
  try:
    value = ast.literal_eval(expression)
    return _number(value) if isinstance(value, (int, float)) else repr(value)
  except (ValueError, TypeError, SyntaxError, OverflowError, RecursionError):
    return ast.unparse(expression)


def _parse(source: str) -> ast.Module:
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    return ast.parse(source)
