"""Written problems: solvable, frozen, unknown to HumanEval.

References must pass and misreadings must fail in the sandbox, as in an evaluation.
"""

import re
from pathlib import Path

import pytest

from phi1_jax import InputError
from phi1_jax.problems import humaneval, written
from phi1_jax.sandbox.program import Program
from phi1_jax.sandbox.sandbox import Sandbox

EVERY = [problem for name in written.TASK_SETS for problem in written.load(name)]


def test_references_pass_and_every_misreading_fails_by_an_assert():
  of_id = {problem.id: problem for problem in EVERY}
  codes = {(id, "reference"): problem.solution for id, problem in of_id.items()}
  codes |= {(id, "empty"): problem.empty_solution() for id, problem in of_id.items()}
  for id, several in written.wrong_solutions("unconventional-50").items():
    codes |= {(id, misreading): code for misreading, code in several}
  assert len(codes) >= 400
  programs = [
    Program(f"{id}: {kind}", code, of_id[id].tests, of_id[id].cpu_seconds)
    for (id, kind), code in codes.items()
  ]
  with Sandbox(workers=1) as sandbox:
    outcomes = {verdict.key: verdict.outcome for verdict in sandbox.run(programs)}
  for id, kind in codes:
    outcome = outcomes[f"{id}: {kind}"]
    assert (outcome == "passed") == (kind == "reference"), (id, kind, outcome)
    assert kind in ("reference", "empty") or outcome == "wrong", (id, kind, outcome)


def test_nothing_is_shared_with_humaneval():
  def runs(prompt):
    some = re.findall(r"[a-z0-9]+", prompt.lower())
    return {tuple(some[i : i + 13]) for i in range(len(some) - 12)}

  benchmark = humaneval.load()
  theirs = set().union(*(runs(problem.prompt) for problem in benchmark))
  assert len(theirs) > 5000
  assert [p.id for p in EVERY if runs(p.prompt) & theirs] == []
  names = {problem.entry_point for problem in EVERY}
  assert len(names) == 150
  assert not names & {problem.entry_point for problem in benchmark}


@pytest.mark.parametrize("task_set", written.TASK_SETS)
def test_refuses_a_changed_file(tmp_path, monkeypatch, task_set):
  file, _ = written.TASK_SETS[task_set]
  content = (Path(written.__file__).parent / file).read_bytes()
  (tmp_path / file).write_bytes(content.replace(b"== 5", b"== 6", 1))
  monkeypatch.setattr(written, "_FOLDER", tmp_path)
  named = f"{file}: got sha256 .*if the change is meant, .* into TASK_SETS of"
  for read in (written.load, written.wrong_solutions):
    with pytest.raises(InputError, match=named):
      read(task_set)
