"""Asserts that notice a wrong branch, a lost operand, a wrong edge or constant."""

import pytest

from evals import mutants, task_sets

SOLUTION = '''def f(n):
    """Say."""
    if n > 10 and n % 2 == 0:
        return n * 3
    return n - 1
'''


def _passes(source, tests):
  space = {}
  try:
    exec(source, space)
    for test in tests:
      exec(test, space)
  except Exception:
    return False
  return True


def test_every_kind_of_mistake_is_made_once():
  found = list(mutants.mutants(SOLUTION))
  assert len({source for _, source in found}) == len(found)
  kinds = [kind for kind, _ in found]
  assert kinds.count("branch") == 2
  assert kinds.count("operand") == 2
  assert kinds.count("edge") == 1
  assert kinds.count("constant") == 11  # ten of five numbers, one of the docstring


def test_weak_tests_are_made_strong_enough():
  weak = ("assert f(12) == 36", "assert f(3) == 2")
  strong = mutants.strengthened(SOLUTION, "f", weak)
  assert strong[:2] == weak
  assert _passes(SOLUTION, strong)
  alive = [m for _, m in mutants.mutants(SOLUTION) if _passes(m, strong)]
  right = mutants.outcomes(SOLUTION, "f", mutants.NUMBERS)
  for mutant in alive:  # another docstring; n > 11, which for even n is n > 10
    assert mutants.outcomes(mutant, "f", mutants.NUMBERS) == right
  assert len(alive) == 2


def test_a_condition_that_decides_nothing_is_refused():
  solution = "def f(n):\n    return n < 0 and n < 16\n"
  assert mutants.strengthened(solution, "f", ("assert f(3) is False",)) is None
  tests = ("assert f(3) == False", "assert f(-1) == True")
  assert mutants.strengthened(solution, "f", tests) is None


@pytest.mark.parametrize(
  "body",
  [
    "  while n > 0:\n    n -= 1\n  return n\n",
    "  return f(n - 1) if n else 0\n",
    "  return sum(i for i in range(n))\n",
  ],
)
def test_what_a_mutation_may_keep_from_ending_is_left_alone(body):
  tests = ("assert f(0) == 0",)
  assert mutants.strengthened(f"def f(n):\n{body}", "f", tests) == tests


@pytest.mark.parametrize("tier", ["unseen-triples", "unseen-pairs", "reserved-frames"])
def test_no_wrong_branch_passes_a_problem_of_the_ruler(tier):
  for problem in task_sets.load(f"exercises-{tier}-100"):
    assert _passes(problem.solution, problem.tests)
    if not mutants.ends(problem.solution, problem.entry_point):
      continue  # not a task about one number or word
    for kind, mutant in mutants.mutants(problem.solution):
      if kind in mutants.ESSENTIAL:
        assert not _passes(mutant, problem.tests), (problem.id, mutant)
