"""One checkpoint on many task sets: ordinary runs, and nothing done twice."""

import dataclasses
import json

import pytest

from evals import __main__ as command_line
from evals import judge, report, task_sets, workdir
from phi1_jax import InputError
from phi1_jax.checkpoint.checkpoint import Checkpoint
from phi1_jax.sampling import checkpoint

SETS = ("humaneval-164", "exercises-unseen-pairs-100")


@pytest.fixture(name="opened")
def fixture_opened(tiny, five, monkeypatch):
  """A random model in place of every checkpoint, three problems in every task set."""
  monkeypatch.setattr(task_sets, "load", lambda *_: five[:3])
  loaded, opened = tiny(), []

  def open_checkpoint(found, mesh):
    opened.append(found.path)
    letter = "e" if found.path.name == "y" else "d"
    return dataclasses.replace(loaded, digest=letter * 64)

  monkeypatch.setattr(Checkpoint, "find", Checkpoint)
  monkeypatch.setattr(checkpoint, "open_checkpoint", open_checkpoint)
  return opened


def _judge(tmp_path, *more, source="x"):
  place = f"--workdir={tmp_path / 'judged'}"
  flags = [f"--checkpoint={source}", place, "--max_new_tokens=8", *more]
  return command_line.main(["judge", *flags])


def _files(folder):
  return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_every_task_set_is_a_run_that_report_reads(opened, tmp_path, capsys):
  first, second = (f"--task_set={name}" for name in SETS)
  assert _judge(tmp_path, first) == 0
  folder = tmp_path / "judged"
  before = (folder / SETS[0] / workdir.COMPLETIONS).read_bytes()
  texts = tmp_path / "texts.jsonl"
  texts.write_text(json.dumps({"text": "x = 1\n", "kind": "code"}) + "\n")
  flags = (first, second, f"--sampled={SETS[0]}:2", f"--texts={texts}")
  assert _judge(tmp_path, *flags) == 0
  assert (folder / SETS[0] / workdir.COMPLETIONS).read_bytes() == before
  data = report.build([folder / name for name in SETS])
  assert [len(run["problems"]) for run in data["runs"]] == [3, 3]
  told = json.loads((folder / (SETS[0] + judge.SAMPLED) / workdir.SUMMARY).read_text())
  assert set(told["scores"]["truncated"]) == {"pass@1", "pass@2"}
  assert told["settings"]["sampling"]["temperature"] == 0.8
  losses = json.loads((folder / "loss.json").read_text())["losses"]
  assert [row["kind"] for row in losses] == ["all", "code"]
  before = _files(folder)
  assert _judge(tmp_path, *flags) == 0  # and asks the model nothing
  assert _files(folder).keys() == before.keys()
  # Another model is not judged into the same folder.
  with pytest.raises(InputError, match=r"begun with .*dddd.*, now it is .*eeee"):
    _judge(tmp_path, *flags, source="y")


@pytest.mark.parametrize(
  ("flags", "named"),
  [
    ([], "expected --task_set=NAME or --texts"),
    (["--sampled=humaneval-164:1"], "expected NAME:N"),
    (["--sampled=none:3"], "expected NAME:N"),
    (["--gin.Evaluation.samples=3"], "expected flags only"),
    (["--max_new_tokens=0"], "expected at least 1"),
  ],
)
def test_refuses(tmp_path, flags, named):
  with pytest.raises(InputError, match=named):
    _judge(tmp_path, *flags)


def test_a_benchmark_decides_how_long_a_completion_may_be():
  assert judge.config_of("humaneval-164", 1024).max_new_tokens == 512
  assert judge.config_of("humaneval-164", 100).max_new_tokens == 100
  assert judge.config_of(SETS[1], 1024, max_new_tokens=300).max_new_tokens == 300
  assert judge.config_of("mbpp-full-500", 1024).prompt_style == "docstring-one-test"
  assert judge.config_of(SETS[1], 1024, 5).ks == (1, 2, 5)
