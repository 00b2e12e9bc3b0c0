"""Programs whose grade is known, mixed among those that a grader reads.

reference   the reference solution: a 10
empty       the reference without a body: a 0
constant    the reference's signature, and one answer for all inputs: a 0
misreading  a wrong solution by hand, where the task set has such: a plausible slip,
            so no 0, but what the tests refuse does not belong above the middle
"""

import ast
import dataclasses
from collections.abc import Iterator, Sequence

from phi1_jax.problems import written
from phi1_jax.problems.problem import Problem, parse
from phi1_jax.text import settings_file

KINDS = ("reference", "empty", "constant", "misreading")
# One of them for each problem, by its id.
_CONSTANTS = (0, 1, True, "", "a", None)


@dataclasses.dataclass(frozen=True)
class Planted:
  """A program whose grade is known.

  Attributes:
    kind: one of `KINDS`.
    problem: id of the problem.
    code: the whole program.
  """

  kind: str
  problem: str
  code: str


def plant(problems: Sequence[Problem], task_set: str, number: int) -> Iterator[Planted]:
  """The planted programs of some problems of a task set.

  Args:
    problems: all of the set.
    task_set: its name, which says whether there are wrong solutions by hand.
    number: of problems to plant programs of. Which ones depends on their ids alone, and
      more of them hold the fewer.
  """
  wrong = wrong_solutions(task_set)
  chosen = sorted(problems, key=lambda problem: settings_file.digest(problem.id))[
    :number
  ]
  for problem in chosen:
    yield Planted("reference", problem.id, problem.solution)
    yield Planted("empty", problem.id, problem.empty_solution())
    yield Planted("constant", problem.id, constant_solution(problem))
    for code in wrong.get(problem.id, ()):
      yield Planted("misreading", problem.id, code)


def wrong_solutions(task_set: str) -> dict[str, tuple[str, ...]]:
  """Problem id -> wrong solutions by hand; empty where a task set has none."""
  name = task_set.removeprefix("exercises-")
  if name not in written.TASK_SETS:
    return {}
  found = written.wrong_solutions(name).items()
  return {problem: tuple(code for _, code in pairs) for problem, pairs in found}


def constant_solution(problem: Problem) -> str:
  """The reference with its entry point giving one answer to everything."""
  tree = parse(problem.solution)
  place = int(settings_file.digest(problem.id), 16) % len(_CONSTANTS)
  for node in tree.body:
    if isinstance(node, ast.FunctionDef) and node.name == problem.entry_point:
      # With the docstring, as completions have it: its absence would give it away.
      kept = node.body[:1] if ast.get_docstring(node) is not None else []
      node.body = [*kept, ast.Return(ast.Constant(_CONSTANTS[place]))]
  return ast.unparse(tree) + "\n"
