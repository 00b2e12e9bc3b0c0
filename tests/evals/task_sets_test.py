"""Task sets: the same problems everywhere, unseen, solvable, and not cut by stops."""

import pytest

from evals import prompts, selftest, task_sets
from evals.config import EvaluationConfig
from phi1_jax.grammar import reserve
from phi1_jax.problems import written
from phi1_jax.problems.problem import digest
from phi1_jax.sampling import stopping
from phi1_jax.sandbox.sandbox import Sandbox
from tests.evals.conftest import reference_completion


@pytest.mark.parametrize("task_set", task_sets.TIERS)
def test_a_task_set_is_unseen_by_composition_wording_or_length(task_set):
  problems = task_sets.load(task_set)
  assert len(problems) == len({problem.entry_point for problem in problems}) == 100
  for problem in problems:
    assert reserve.name_is_reserved(problem.entry_point)
    assert problem.solution == problem.prompt + problem.reference
    exec("\n".join([problem.solution, *problem.tests]), {})


@pytest.mark.parametrize("style", ["as-is", "stripped"])
@pytest.mark.parametrize(
  "task_set",
  [*task_sets.TIERS, task_sets.HANDWRITTEN, task_sets.DOCTESTS, written.UNCONVENTIONAL],
)
def test_no_stop_string_cuts_a_reference(task_set, style):
  EvaluationConfig(task_set, style)
  for problem in task_sets.load(task_set):
    completion = reference_completion(problem, style)
    assert stopping.cut(completion, prompts.stops(style))[0] == completion
    prefix = prompts.build(problem, style).prefix
    assert (prefix + completion).rstrip() == problem.solution.rstrip()


def test_sets_of_different_tiers_share_no_problem():
  solutions = [
    problem.solution for name in task_sets.TIERS for problem in task_sets.load(name)
  ]
  assert len(task_sets.TIERS) == 4
  assert len(set(solutions)) == 400


def test_problems_written_by_hand():
  for name, begins in (
    ("exercises-handwritten-100", "Handwritten"),
    ("unconventional-50", "Unconventional"),
  ):
    ids = [problem.id for problem in task_sets.load(name)]
    assert ids == [f"{begins}/{i}" for i in range(len(ids))]
    assert name.endswith(f"-{len(ids)}")


def test_doctests_are_those_that_were_frozen():
  found = digest(task_sets.load("doctests-75"))
  assert found == "c6aa95cb84f713e0bfd26278f382cc6d1430d663eb2cfdca175a2387ac7fff31"
  take = next(p for p in task_sets.load("doctests-75") if p.entry_point == "take")
  assert take.prompt.startswith("from itertools import islice\n\n\ndef take(n, ")
  assert take.reference == "    return list(islice(iterable, n))\n"
  assert take.tests == (
    "assert take(3, range(10)) == [0, 1, 2]\n",
    "assert take(10, range(3)) == [0, 1, 2]\n",
  )


def test_doctests_pass_in_the_sandbox_and_empty_bodies_fail():
  problems = task_sets.load("doctests-75")
  cases = selftest.references(problems) + selftest.empty_bodies(problems)
  assert len(cases) == 150
  with Sandbox(workers=2) as sandbox:
    assert selftest.complaints(cases, sandbox) == []
