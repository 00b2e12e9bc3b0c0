"""The command `study`: its exit codes, and how it resumes."""

import os
import signal

import pytest

from evals import __main__ as command_line
from evals.study import command, graph, page, plan, results
from evals.study.graph import Step
from phi1_jax import storage
from phi1_jax.cli import command as commands
from phi1_jax.problems import mbpp
from phi1_jax.storage import mirror


@pytest.fixture(name="study")
def fixture_study(tmp_path, monkeypatch):
  """Runs `study` with steps of its own; gives its exit code."""
  monkeypatch.delenv(mbpp.ENVIRONMENT, raising=False)
  monkeypatch.setattr(command, "_gin_files", lambda steps: {})
  monkeypatch.setattr(results, "gather", lambda config, folder: {})
  monkeypatch.setattr(page, "render", lambda data: "a page")

  def study(*functions, folder=tmp_path):
    steps = [
      Step(f"step {place}", tuple(f"step {i}" for i in range(place)), function=each)
      for place, each in enumerate(functions)
    ]
    monkeypatch.setattr(plan.Plan, "steps", lambda _: steps)
    return command_line.main(["study", f"--workdir={folder}"])

  return study


def _terminate(*_):
  os.kill(os.getpid(), signal.SIGTERM)


def test_a_stopped_study_on_cloud_storage_resumes_with_what_its_steps_left(
  study, gcs, tmp_path, capsys, monkeypatch
):
  place = storage.parse(gcs.folder)
  local = mirror.local_copy(place)
  in_the_bucket = []
  pruned = local / "curate" / "pruned" / "pruned-0.95" / "COMPLETED"

  def first():
    pruned.parent.mkdir(parents=True)
    pruned.write_text("{}")

  def second():
    in_the_bucket.append((place / "curate/pruned/pruned-0.95/COMPLETED").exists())
    in_the_bucket.append(storage.read_lines(place / graph.STEPS))
    _terminate()

  assert study(first, second, pytest.fail, folder=place) == commands.PREEMPTED
  out = capsys.readouterr().out
  assert "stopped; run the same command to go on" in out
  assert "written" not in out
  # A step is uploaded before its row, so a row in the bucket means a whole step.
  assert in_the_bucket == [True, []]
  rows = storage.read_lines(place / graph.STEPS)
  assert [row["step"] for row in rows] == ["step 0", "step 1"]
  monkeypatch.setenv("PHI1_JAX_CACHE", str(tmp_path / "another machine"))
  local = mirror.local_copy(place)
  fetched = []

  def third():
    fetched.append((local / "curate/pruned/pruned-0.95/COMPLETED").read_text())
    (local / "study.json").write_text("{}")

  steps = (pytest.fail, pytest.fail, third)
  assert study(*steps, folder=place) == commands.DONE
  assert fetched == ["{}"]
  assert storage.read_text(place / "study.json") == "{}"
  assert f"written to {place}/study.html" in capsys.readouterr().out
  assert not storage.is_held(place)
  assert command_line.main(["study", f"--workdir={place}", "--plan"]) == commands.DONE
  assert "3 steps, 3 done" in capsys.readouterr().out


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_the_page_is_written_is_no_other_code(
  study, monkeypatch, number
):
  before = signal.getsignal(signal.SIGTERM)
  # A shell's background processes, such as these tests, may ignore Ctrl-C.
  interrupt = signal.signal(signal.SIGINT, signal.default_int_handler)
  monkeypatch.setattr(results, "gather", lambda *_: signal.raise_signal(number))
  try:
    assert study(lambda: None) == commands.PREEMPTED
  finally:
    signal.signal(signal.SIGINT, interrupt)
  assert signal.getsignal(signal.SIGTERM) is before


def test_a_step_that_fails_is_told_by_its_name(study, capsys):
  def fail():
    raise OSError(28, "No space left on device")

  assert study(fail, lambda: None) == 1
  assert "step step 0: [Errno 28] No space left" in capsys.readouterr().err
