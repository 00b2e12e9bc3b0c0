"""Unseen exercises as problems: the same everywhere, unseen, and solvable."""

import pytest

from evals import exercises, prompts, report
from evals.config import EvaluationConfig
from phi1_jax.grammar import reserve
from phi1_jax.problems import written


@pytest.mark.parametrize("task_set", exercises.TIERS)
def test_a_task_set_is_unseen_by_composition_wording_or_length(task_set):
  problems = exercises.load(task_set)
  assert len(problems) == len({problem.entry_point for problem in problems}) == 100
  for problem in problems:
    assert reserve.name_is_reserved(problem.entry_point)
    assert problem.solution == problem.prompt + problem.reference
    namespace = {}
    exec("\n".join([problem.solution, *problem.tests]), namespace)


@pytest.mark.parametrize("style", ["as-is", "stripped"])
@pytest.mark.parametrize("task_set", [*exercises.TASK_SETS, written.UNCONVENTIONAL])
def test_no_stop_string_cuts_a_reference(task_set, style):
  EvaluationConfig(task_set, style)
  for problem in report.load_problems(task_set, None):
    completion = prompts.reference_completion(problem, style)
    assert not any(stop in completion for stop in prompts.stops(style))
    prefix = prompts.build(problem, style).prefix
    assert (prefix + completion).rstrip() == problem.solution.rstrip()


def test_sets_of_different_tiers_share_no_problem():
  tiers = [
    {problem.solution for problem in exercises.load(task_set)}
    for task_set in exercises.TIERS
  ]
  assert len(tiers) == 4
  assert len(set().union(*tiers)) == 400


def test_written_problems_are_task_sets_of_two_benchmarks():
  assert exercises.HANDWRITTEN == "exercises-handwritten-100"
  assert set(exercises.TASK_SETS) == {*exercises.TIERS, exercises.HANDWRITTEN}
  loaded = report.load_problems("exercises-handwritten-100", None)
  assert [problem.id for problem in loaded] == [f"Handwritten/{i}" for i in range(100)]
  loaded = report.load_problems("unconventional-50", None)
  assert [problem.id for problem in loaded] == [
    f"Unconventional/{i}" for i in range(50)
  ]
