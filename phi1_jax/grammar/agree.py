"""Which problems ask for a function that the training exercises hold.

    python -m phi1_jax.grammar.agree 70000 [TABLE ...] < problems.json

Reads a list of [id, name of the function, asserts] and prints the ids of those for
which the solution of some training exercise passes every assert. The asserts of
benchmarks are run in this process, and are trusted.
"""

from __future__ import annotations

import ast
import copy
import dataclasses
import json
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from phi1_jax.grammar import solve, teacher

SECONDS = 0.2  # that a solution may take for the asserts of a problem


@dataclasses.dataclass(frozen=True)
class Problem:
  """A function by its asserts.

  Attributes:
    id: of the problem.
    calls: arguments and answer of each assert; None where an assert is of another form.
  """

  id: str
  calls: tuple[tuple[tuple[Any, ...], Any], ...] | None

  @property
  def arity(self) -> int:
    """Number of arguments; -1 if the calls are unknown."""
    return len(self.calls[0][0]) if self.calls else -1


def read(id: str, name: str, tests: Iterable[str]) -> Problem:
  """Return a problem from its asserts `assert name(...) == literal`.

  HumanEval's `check(candidate)` is read, too.
  """
  calls = []
  try:
    for test in tests:
      for node in ast.walk(ast.parse(test)):
        if isinstance(node, ast.Assert):
          calls.append(_call(node.test, name))
  except (ValueError, SyntaxError, TypeError):
    return Problem(id, None)
  return Problem(id, tuple(calls) or None)


def _call(node: ast.expr, name: str) -> tuple[tuple[Any, ...], Any]:
  """Return arguments and answer of `name(...) == literal`, `is` and `not` included."""
  if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
    return _call(node.operand, name)[0], False
  answer: Any = True
  if isinstance(node, ast.Compare):
    if not isinstance(node.ops[0], ast.Eq | ast.Is):
      raise ValueError("another comparison")
    answer = ast.literal_eval(node.comparators[0])
    node = node.left
  if not isinstance(node, ast.Call) or getattr(node.func, "id", "") not in (
    name,
    "candidate",
  ):
    raise ValueError("another call")
  return tuple(ast.literal_eval(argument) for argument in node.args), answer


def agreeing(
  problems: Sequence[Problem], count: int, tables: tuple[str, ...] = ()
) -> set[str]:
  """Return the ids of the problems whose function is in training.

  Args:
    problems: with asserts that can be read; others never agree.
    count: training exercises, the first of seed 0.
    tables: of users.
  """
  left = {problem.id: problem for problem in problems if problem.calls}
  found: set[str] = set()
  for function, constants, arity in functions(count, tables):
    for problem in list(left.values()):
      if problem.arity == arity and _passes(function, constants, problem):
        found.add(problem.id)
        del left[problem.id]
  return found


def functions(
  count: int, tables: tuple[str, ...]
) -> Iterator[tuple[Any, tuple[Any, ...], int]]:
  """Yield each function of the training exercises once, with constants and arity."""
  known = set()
  for exercise in teacher.exercises(0, 0, count, tables=tables):
    if exercise.solution not in known:
      known.add(exercise.solution)
      source, constants = exercise.solution
      arity = len(ast.literal_eval(f"({exercise.calls[0].arguments},)"))
      yield solve.compiled(source), constants, arity


class _Slow(Exception):
  pass


def _stop(*_: Any) -> None:
  raise _Slow


def _passes(function: Any, constants: tuple[Any, ...], problem: Problem) -> bool:
  try:
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
    try:
      for arguments, answer in problem.calls or ():
        given = function(*copy.deepcopy(arguments), *constants)
        if given != answer or type(given) is not type(answer):
          return False
      return True
    finally:
      signal.setitimer(signal.ITIMER_VIRTUAL, 0)
  except (Exception, _Slow):  # it is another function
    return False


def main() -> None:
  """Read problems from standard input and print the ids that agree."""
  signal.signal(signal.SIGVTALRM, _stop)
  problems = [read(*each) for each in json.load(sys.stdin)]
  tables = tuple(sys.argv[2:])
  print(json.dumps(sorted(agreeing(problems, int(sys.argv[1]), tables))))


if __name__ == "__main__":
  main()
