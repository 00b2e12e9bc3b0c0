"""Mutation testing: asserts chosen so that slightly wrong solutions fail.

A mutant is the reference with one mistake:

  branch    a condition that is always true, or never
  operand   "and" or "or" without one of its sides
  edge      a comparison with the next number, or with < for <=
  constant  another number or string

A task whose branch or operand can be wrong without any difference in results does not
test that condition, and is refused. Mutated are functions of one number or one word
without loops, since a mutated loop may not end.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

NUMBERS = (*range(-30, 61), 97, 100, 128, -100, 999)
WORDS = (
  *("a", "b", "e", "m", "z", "A", "Q", "!", "7", "aa", "ab", "ba", "on", "No", "Abba"),
  *("level", "Level", "apple", "Banana", "kayak", "STOP", "stop!", "mississippi"),
  *("hello world", "Zebra crossing", "re-enter", "under_score", "1234", "a1b2c3"),
  *("test", "nest", "word", "careful", "quickly", "running", "walked", "anger"),
  *("in an inn", "letter", "noon", "tattle", "Eerie", "oxen", "ibis", "unit", "ok"),
)
_INPUTS: dict[type, tuple] = {int: NUMBERS, str: WORDS}
ESSENTIAL = ("branch", "operand")
_SWAPS = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt}


def strengthened(
  solution: str, name: str, tests: Sequence[str]
) -> tuple[str, ...] | None:
  """Return the tests of a function, and more of them so that mutants fail.

  None if some branch or operand decides nothing.
  """
  given = [_value(test) for test in tests]
  inputs = _INPUTS.get(type(given[0])) if len({*map(type, given)}) == 1 else None
  if inputs is None or not ends(solution, name):
    return tuple(tests)
  known = outcomes(solution, name, given)
  right = outcomes(solution, name, inputs)
  added: list[int] = []
  for kind, mutant in mutants(solution):
    if outcomes(mutant, name, given) != known:
      continue
    wrong = outcomes(mutant, name, inputs)
    telling = [place for place in range(len(inputs)) if wrong[place] != right[place]]
    if not telling and kind in ESSENTIAL:
      return None
    if telling and not set(telling).intersection(added):
      added.append(telling[len(telling) // 2])
  more = (f"assert {name}({inputs[p]!r}) == {right[p][1]!r}" for p in added)
  return (*tests, *more)


def ends(solution: str, name: str) -> bool:
  """Return whether a program has no loop and no recursion, so that mutants end."""
  nodes = list(ast.walk(ast.parse(solution)))
  loops = any(isinstance(n, ast.While | ast.For | ast.comprehension) for n in nodes)
  calls = (n.func for n in nodes if isinstance(n, ast.Call))
  return not loops and all(getattr(f, "id", None) != name for f in calls)


def mutants(solution: str) -> Iterator[tuple[str, str]]:
  """Yield kind and source of every mutant of a program, once."""
  tree = ast.parse(solution)
  seen = {ast.unparse(tree)}
  for index, node in enumerate(ast.walk(tree)):
    for kind, change in _changes(node):
      changed = copy.deepcopy(tree)
      change(list(ast.walk(changed))[index])
      source = ast.unparse(ast.fix_missing_locations(changed))
      if source not in seen:
        seen.add(source)
        yield kind, source


def _changes(node: ast.AST) -> Iterator[tuple[str, Callable[[Any], None]]]:
  if isinstance(node, ast.If | ast.IfExp):
    for value in (True, False):
      yield "branch", lambda n, v=value: setattr(n, "test", ast.Constant(v))
  if isinstance(node, ast.BoolOp):
    for place in range(len(node.values)):
      yield "operand", lambda n, p=place: n.values.pop(p)
  if isinstance(node, ast.Compare):
    swap = _SWAPS.get(type(node.ops[0]))
    if swap:
      yield "edge", lambda n, s=swap: n.ops.__setitem__(0, s())
  if isinstance(node, ast.Constant) and type(node.value) in (int, str):
    value: Any = node.value
    for other in (value + 1, value - 1) if type(value) is int else ("~",):
      yield "constant", lambda n, o=other: setattr(n, "value", o)


def outcomes(solution: str, name: str, inputs: Sequence[Any]) -> list[tuple[str, Any]]:
  """Return type and value of the result of a program of our own for each input."""
  space: dict[str, Any] = {}

  def outcome(value: Any) -> tuple[str, Any]:
    try:
      result = space[name](value)
    except Exception:
      return "raised", None
    return type(result).__name__, result

  try:
    exec(solution, space)
  except Exception:
    return [("raised", None)] * len(inputs)
  return [outcome(value) for value in inputs]


def _value(test: str) -> Any:
  """Return the only argument of an assert's call; None if it has others."""
  node = ast.parse(test).body[0]
  call = getattr(getattr(node, "test", None), "left", None)
  if not isinstance(call, ast.Call) or len(call.args) != 1 or call.keywords:
    return None
  try:
    return ast.literal_eval(call.args[0])
  except ValueError:
    return None
