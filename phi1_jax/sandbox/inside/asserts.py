"""Runs tests and reports the statement that failed with its values.

`assert f(2) == 3` is compiled as `assert __got__(f(2)) == __expected__(3)`: both keep
their argument and hand it on, so nothing is evaluated twice to write the message.
"""

from __future__ import annotations

import ast
import functools
import operator

from . import differential

DETAIL_LENGTH = 500
_SOURCE_LENGTH = 2000
_SHOWN_VALUE = 160
_LONG = 8000  # characters of a test that is compiled anew for each program


class Stop(BaseException):
  """The program is decided; no `except Exception` of a test may catch this.

  Attributes:
    outcome: the label.
  """

  def __init__(self, outcome: str, detail: str):
    super().__init__(detail)
    self.outcome = outcome


class _Keep(ast.NodeTransformer):
  """Transformer that wraps both sides of a comparison and calls `__same__` for `is`."""

  def visit_Compare(self, node):
    self.generic_visit(node)
    how, right = node.ops[0], node.comparators[0]
    known = isinstance(right, ast.Constant) and right.value in (None, True, False, ...)
    if len(node.ops) > 1 or not isinstance(how, (ast.Is, ast.IsNot)) or known:
      return node
    same = ast.Call(ast.Name("__same__", ast.Load()), [node.left, right], [])
    if isinstance(how, ast.IsNot):
      same = ast.UnaryOp(ast.Not(), same)
    return ast.fix_missing_locations(ast.copy_location(same, node))

  def visit_Assert(self, node):
    self.generic_visit(node)
    if isinstance(node.test, ast.Compare):
      node.test.left = self._wrap("__got__", node.test.left)
      if len(node.test.ops) == 1:
        node.test.comparators[0] = self._wrap("__expected__", node.test.comparators[0])
    return node

  def _wrap(self, name: str, value):
    call = ast.Call(ast.Name(name, ast.Load()), [value], [])
    return ast.fix_missing_locations(ast.copy_location(call, value))


class _Sides:
  """The two sides of the last comparison in an assert."""

  def __init__(self, namespace: dict):
    self.got = self.expected = None
    namespace["__got__"] = self._keep_got
    namespace["__expected__"] = self._keep_expected

  def _keep_got(self, value):
    self.got = value
    return value

  def _keep_expected(self, value):
    self.expected = value
    return value


def run(tests, namespace: dict, absent=()) -> dict:
  """Execute tests in order; return outcome, detail and failed_test.

  Args:
    tests: sources.
    namespace: what they may use; theirs is added.
    absent: names that the code should have defined and did not.
  """
  sides = _Sides(namespace)
  namespace.setdefault("__same__", operator.is_)  # where there is but one process
  namespace[differential.NAME] = differential.check
  names = {f"<test {number}>": source for number, source in enumerate(tests)}
  for name, source in names.items():
    try:
      compiled = _compile(source, name)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
      return _verdict("broken_tests", one_line(error), source)
    try:
      exec(compiled, namespace)
    except BaseException as error:
      source, statement = _failed(names, error, name)
      outcome, detail = classify(error, statement, sides, absent)
      own = isinstance(error, differential.Differs)
      failed = error.test if own else _segment(source, statement)
      return _verdict(outcome, detail, failed)
  return _verdict("passed", "", None)


def _compile(source: str, name: str):
  compiled = _keep_compiled if len(source) < _LONG else _keep_compiled.__wrapped__
  return compiled(source, name)


# Samples of one problem share its tests, and those of a benchmark's problems alternate.
@functools.lru_cache(maxsize=2048)
def _keep_compiled(source: str, name: str):
  return compile(_Keep().visit(ast.parse(source)), name, "exec", dont_inherit=True)


def one_line(error: BaseException) -> str:
  """Return an exception as one line, whatever its __str__ does."""
  try:
    text = str(error)
  except BaseException:
    text = "(its text cannot be had)"
  name = type.__getattribute__(type(error), "__name__")
  return " ".join(f"{name}: {text[:DETAIL_LENGTH]}".split())[:DETAIL_LENGTH]


def _verdict(outcome: str, detail: str, failed) -> dict:
  failed = failed if failed is None else failed[:_SOURCE_LENGTH]
  return {"outcome": outcome, "detail": detail[:DETAIL_LENGTH], "failed_test": failed}


def classify(
  error: BaseException, statement=None, sides: _Sides | None = None, absent=()
):
  """Return outcome and detail of an exception that ended a test."""
  if isinstance(error, Stop):
    return error.outcome, str(error)
  from_code = getattr(error, "line_from_code", None)
  if isinstance(error, MemoryError):
    return "memory_limit", from_code or "MemoryError in the tests"
  if isinstance(error, SystemExit):
    return "exited", from_code or one_line(error)
  if from_code:
    return "raised", from_code
  if isinstance(error, AssertionError) and isinstance(statement, ast.Assert):
    return "wrong", "AssertionError: " + _explain(statement.test, sides)
  if isinstance(error, AssertionError):
    return "wrong", one_line(error)
  if isinstance(error, NameError) and getattr(error, "name", None) in absent:
    return "no_entry_point", f"the code does not define {error.name}"
  return "raised", one_line(error) + " (in the tests)"


def _explain(test, sides: _Sides | None) -> str:
  text = ast.unparse(test)
  if sides is None or not isinstance(test, ast.Compare):
    return text[:DETAIL_LENGTH]
  text = f"{text[: DETAIL_LENGTH - 2 * _SHOWN_VALUE - 60]}, got {_show(sides.got)}"
  if len(test.ops) == 1 and not _is_literal(test.comparators[0]):
    text += f", expected {_show(sides.expected)}"
  return text


def _is_literal(node) -> bool:
  return not any(isinstance(n, (ast.Name, ast.Call)) for n in ast.walk(node))


def _show(value) -> str:
  try:
    return repr(value)[:_SHOWN_VALUE]
  except BaseException as error:
    return f"({type(error).__name__} in its repr)"


def _failed(sources: dict, error: BaseException, name: str):
  """Return the source and statement of the innermost line of the tests in a traceback.

  It may be in an earlier test than `name`, which calls what that one defined: so it is
  an assert of HumanEval's `check`, not the call of `check`.
  """
  line, trace = 0, error.__traceback__
  while trace is not None:
    if trace.tb_frame.f_code.co_filename in sources:
      name, line = trace.tb_frame.f_code.co_filename, trace.tb_lineno
    trace = trace.tb_next
  around = [
    node
    for node in ast.walk(ast.parse(sources[name]))
    if isinstance(node, ast.stmt) and node.lineno <= line <= (node.end_lineno or 0)
  ]
  smallest = min(around, key=lambda n: (n.end_lineno or 0) - n.lineno, default=None)
  return sources[name], smallest


def _segment(source: str, statement):
  return None if statement is None else ast.get_source_segment(source, statement)
