"""Unseen exercises as problems: the same everywhere, unseen, and solvable."""

import pytest

from evals import exercises, prompts
from evals.config import EvaluationConfig
from phi1_jax.grammar import reserve


@pytest.mark.parametrize("task_set", exercises.TASK_SETS)
def test_a_task_set_is_unseen_by_composition_wording_or_length(task_set):
  problems = exercises.load(task_set)
  assert len(problems) == len({problem.entry_point for problem in problems}) == 100
  for problem in problems:
    assert reserve.name_is_reserved(problem.entry_point)
    assert problem.solution == problem.prompt + problem.reference
    namespace = {}
    exec("\n".join([problem.solution, *problem.tests]), namespace)


def test_no_stop_string_cuts_a_reference():
  for task_set in exercises.TASK_SETS:
    EvaluationConfig(task_set, "as-is")
    for problem in exercises.load(task_set):
      completion = prompts.reference_completion(problem, "as-is")
      assert not any(stop in completion for stop in prompts.stops("as-is"))


@pytest.mark.parametrize("menu", ["all", "first"])
def test_sets_of_different_tiers_share_no_problem(menu):
  tiers = [
    {problem.solution for problem in exercises.load(task_set)}
    for task_set, (_, of_menu) in exercises.TASK_SETS.items()
    if of_menu == menu
  ]
  assert len(tiers) == 4
  assert len(set().union(*tiers)) == 400
