"""Task sets: the same problems everywhere, unseen and solvable."""

from evals import selftest, task_sets
from phi1_jax.grammar import reserve
from phi1_jax.problems.problem import digest
from phi1_jax.sandbox.sandbox import Sandbox


def test_task_sets_are_unseen_and_share_no_problem():
  tiers = [task_sets.load(task_set) for task_set in task_sets.TIERS]
  assert len({p.solution for problems in tiers for p in problems}) == 400
  for problems in tiers:
    assert len(problems) == len({problem.entry_point for problem in problems}) == 100
    for problem in problems:
      assert reserve.name_is_reserved(problem.entry_point)
      assert problem.solution == problem.prompt + problem.reference
      exec("\n".join([problem.solution, *problem.tests]), {})
  for name in ("exercises-handwritten-100", "unconventional-50"):
    ids = [problem.id for problem in task_sets.load(name)]
    begins, count = name.removeprefix("exercises-").split("-")
    assert ids == [f"{begins.capitalize()}/{i}" for i in range(int(count))]


def test_doctests_are_those_that_were_frozen_and_judge_in_the_sandbox():
  problems = task_sets.load("doctests-75")
  expected = "c6aa95cb84f713e0bfd26278f382cc6d1430d663eb2cfdca175a2387ac7fff31"
  assert digest(problems) == expected
  take = next(p for p in problems if p.entry_point == "take")
  assert take.prompt.startswith("from itertools import islice\n\n\ndef take(n, ")
  assert take.reference == "    return list(islice(iterable, n))\n"
  tests = ("take(3, range(10)) == [0, 1, 2]", "take(10, range(3)) == [0, 1, 2]")
  assert take.tests == tuple(f"assert {test}\n" for test in tests)
  with Sandbox(workers=2) as sandbox:
    assert selftest.failures(problems, sandbox) == []
