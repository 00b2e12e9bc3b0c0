"""Candidates are run, alone or many together; the outcome is the same."""

import pytest

from phi1_jax.curation.checking import Candidate, Checker
from phi1_jax.curation.document import Document, Drop, Keep, identify
from phi1_jax.sandbox.sandbox import Sandbox


@pytest.fixture(scope="module")
def sandbox():
  with Sandbox(workers=2) as opened:
    yield opened


def candidate(code, *tests):
  made = Document(identify("s", code), code, "s", "MIT", "exercise", "g")
  return Candidate(made, code, tests)


CANDIDATES = [
  candidate("def f(x):\n  return x + 1\n", "assert f(1) == 2", "assert f(2) == 3"),
  candidate("def g(x):\n  return x\n", "assert g(1) == 2"),
  candidate("def h(x):\n  return 1 / 0\n", "assert h(1) == 2"),
  candidate(
    "def f(x):\n  return -x\n", "assert f(1) == -1"
  ),  # the same name as the first
  candidate("while True:\n  pass\n"),
  candidate("def k(x)\n"),
  candidate("import os\nos._exit(0)\n", "assert k(1)"),
  candidate("print('no tests: running to the end is enough')\n"),
  candidate("assert 1 == 2\n"),
]
OUTCOMES = [
  None,
  "code: wrong",
  "code: raised",
  None,
  "code: cpu_limit",
  "code: syntax_error",
  "code: exited",
  None,
  "code: raised",
]


@pytest.mark.parametrize("together", [False, True])
def test_what_fails_is_dropped_with_the_reason(sandbox, together):
  checker = Checker(sandbox, "exercises", together, cpu_seconds=0.5)
  found = list(checker.decisions(CANDIDATES))
  assert [getattr(d, "reason", None) for d in found] == OUTCOMES
  assert [d.document.id for d in found] == [d.document.id for d in CANDIDATES]
  verdicts = [d.document.provenance["exercises"]["verdict"] for d in found]
  assert verdicts.count("passed") == 3


@pytest.mark.parametrize("together", [False, True])
def test_the_names_of_a_neighbour_do_not_count(sandbox, together):
  candidates = [
    candidate("import math\nLIMIT = 3\ndef f(x):\n  return math.ceil(x)\n", "f(1)"),
    candidate("def g(x):\n  return math.ceil(x)\n", "assert g(1) == 1"),
    candidate("def h(x):\n  return x + LIMIT\n", "assert h(1) == 4"),
    candidate("def k(x):\n  return cmath.isfinite(x)\n", "import cmath", "assert k(1)"),
    candidate("import cmath\n", "assert cmath.pi > 3"),
  ]
  found = Checker(sandbox, "exercises", together).decisions(candidates)
  assert [isinstance(each, Keep) for each in found] == [True, False, False, False, True]


def test_programs_that_pass_together_share_a_process(sandbox, monkeypatch):
  programs = []

  def run(given):
    programs.extend(given := list(given))
    return sandbox_run(given)

  sandbox_run = sandbox.run
  monkeypatch.setattr(sandbox, "run", run)
  candidates = [
    candidate(f"def f(x):\n  return {n}\n", f"assert f(1) == {n}") for n in range(9)
  ]
  found = Checker(sandbox, "exercises", together=True).decisions(candidates)
  assert all(isinstance(each, Keep) for each in found)
  assert len(programs) == 1


def test_evidence_names_the_test_that_failed(sandbox):
  (found,) = Checker(sandbox, "exercises").decisions([CANDIDATES[1]])
  assert isinstance(found, Drop)
  assert found.evidence["failed_test"] == "assert g(1) == 2"
  assert "got 1" in found.evidence["detail"]


def test_marked_instead_of_dropped(sandbox):
  (found,) = Checker(sandbox, "textbooks", mark=True).decisions([CANDIDATES[8]])
  assert isinstance(found, Keep)
  assert found.document.provenance["textbooks"]["verdict"] == "raised"


def test_a_program_without_end_is_not_run(sandbox):
  long = candidate("x = 1\n" * 20_000)
  (found,) = Checker(sandbox, "textbooks").decisions([long])
  assert isinstance(found, Drop)
  assert found.reason == "too long to run"


def test_drops_pass_through_in_their_place(sandbox):
  drop = Drop(CANDIDATES[1].document, "written before")
  found = list(
    Checker(sandbox, "exercises").decisions([CANDIDATES[0], drop, CANDIDATES[3]])
  )
  assert [type(d) for d in found] == [Keep, Drop, Keep]
  assert found[1] is drop
