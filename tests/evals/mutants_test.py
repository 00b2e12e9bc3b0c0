"""Asserts that notice a wrong branch, a lost operand, a wrong edge or constant."""

import collections

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
    exec("\n".join([source, *tests]), space)
  except Exception:
    return False
  return True


def test_weak_tests_are_made_strong_enough():
  found = list(mutants.mutants(SOLUTION))
  assert len({source for _, source in found}) == len(found)
  # Ten constants of five numbers, one of the docstring.
  kinds = {"branch": 2, "operand": 2, "edge": 1, "constant": 11}
  assert collections.Counter(kind for kind, _ in found) == kinds
  weak = ("assert f(12) == 36", "assert f(3) == 2")
  strong = mutants.strengthened(SOLUTION, "f", weak)
  assert strong[:2] == weak
  assert _passes(SOLUTION, strong)
  alive = [m for _, m in found if _passes(m, strong)]
  right = mutants.outcomes(SOLUTION, "f", mutants.NUMBERS)
  for mutant in alive:  # another docstring; n > 11, which for even n is n > 10
    assert mutants.outcomes(mutant, "f", mutants.NUMBERS) == right
  assert len(alive) == 2


@pytest.mark.parametrize(
  ("body", "tests", "refused"),
  [
    ("return n < 0 and n < 16", ["f(3) is False"], True),
    ("return n < 0 and n < 16", ["f(3) == False", "f(-1) == True"], True),
    # What a mutation may keep from ending is left alone.
    ("while n > 0:\n    n -= 1\n  return n", ["f(0) == 0"], False),
    ("return f(n - 1) if n else 0", ["f(0) == 0"], False),
    ("return sum(i for i in range(n))", ["f(0) == 0"], False),
  ],
)
def test_a_condition_that_decides_nothing_is_refused(body, tests, refused):
  tests = tuple(f"assert {test}" for test in tests)
  found = mutants.strengthened(f"def f(n):\n  {body}\n", "f", tests)
  assert found == (None if refused else tests)


@pytest.mark.parametrize("tier", ["unseen-triples", "unseen-pairs", "reserved-frames"])
def test_no_wrong_branch_passes_a_problem_of_the_ruler(tier):
  for problem in task_sets.load(f"exercises-{tier}-100"):
    assert _passes(problem.solution, problem.tests)
    if not mutants.ends(problem.solution, problem.entry_point):
      continue  # not a task about one number or word
    for kind, mutant in mutants.mutants(problem.solution):
      if kind in mutants.ESSENTIAL:
        assert not _passes(mutant, problem.tests), (problem.id, mutant)
