"""One checkpoint on many task sets: ordinary runs, and nothing done twice."""

import dataclasses
import json

import jax
import pytest
from flax import linen as nn

from evals import __main__ as command_line
from evals import judge, report, task_sets, workdir
from phi1_jax import InputError
from phi1_jax.model.config import ModelConfig
from phi1_jax.model.decoder import Decoder
from phi1_jax.parallel.mesh import MeshConfig, make_mesh
from phi1_jax.problems import humaneval
from phi1_jax.sampling import checkpoint
from phi1_jax.text import tokenizer as tokenizers

MODEL = ModelConfig(320, 1, 8, 4, 2, 16, 16, 700, dtype="float32")
DIGESTS = {}  # checkpoint -> the digest of its model, where it is not the usual one
SETS = ("humaneval-164", "exercises-unseen-pairs-100")


@pytest.fixture(name="opened")
def fixture_opened(monkeypatch):
  """A random model in place of every checkpoint, three problems in every task set."""
  few = humaneval.load()[:3]
  monkeypatch.setattr(task_sets, "load", lambda *_: few)
  tokenizer = tokenizers.train(["def f(x):\n  return x + 1\n"] * 9, 300)
  mesh = make_mesh(MeshConfig(), jax.devices()[:1])
  init = jax.jit(Decoder(MODEL).init)
  params = nn.unbox(init(jax.random.key(0), jax.numpy.zeros((1, 1), int)))["params"]
  loaded = checkpoint.Loaded(MODEL, params, tokenizer, mesh, "d" * 64, 5, 50)
  count = []

  def open_checkpoint(path, mesh, dtype):
    count.append(path)
    return dataclasses.replace(loaded, digest=DIGESTS.get(str(path), loaded.digest))

  monkeypatch.setattr(checkpoint, "open_checkpoint", open_checkpoint)
  monkeypatch.setattr(judge, "_identity", str)
  return count


def _flags(tmp_path, *more):
  sets = [f"--task_set={name}" for name in SETS]
  place = f"--workdir={tmp_path / 'judged'}"
  return ["judge", "--checkpoint=x", place, "--max_new_tokens=8", *sets, *more]


def test_every_task_set_is_a_run_that_report_reads(opened, tmp_path, capsys):
  texts = tmp_path / "texts.jsonl"
  texts.write_text(json.dumps({"text": "x = 1\n", "kind": "code"}) + "\n")
  sampled = f"--sampled={SETS[0]}:2"
  flags = _flags(tmp_path, sampled, f"--texts={texts}")
  assert command_line.main(flags) == 0
  folder = tmp_path / "judged"
  data = report.build([folder / name for name in SETS])
  assert [len(run["problems"]) for run in data["runs"]] == [3, 3]
  told = json.loads((folder / (SETS[0] + judge.SAMPLED) / workdir.SUMMARY).read_text())
  assert set(told["scores"]["truncated"]) == {"pass@1", "pass@2"}
  assert told["settings"]["sampling"]["temperature"] == 0.8
  losses = json.loads((folder / "loss.json").read_text())["losses"]
  assert [row["kind"] for row in losses] == ["all", "code"]
  before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
  assert command_line.main(flags) == 0
  assert "was complete already" in capsys.readouterr().out
  assert before == {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
  assert len(opened) == 1


def test_what_is_asked_for_later_is_added(opened, tmp_path):
  assert command_line.main(_flags(tmp_path)[:-1]) == 0
  first = tmp_path / "judged" / SETS[0] / workdir.COMPLETIONS
  before = first.read_bytes()
  assert command_line.main(_flags(tmp_path)) == 0
  assert first.read_bytes() == before
  assert (tmp_path / "judged" / SETS[1] / workdir.SUMMARY).exists()
  assert len(opened) == 2


@pytest.mark.parametrize(
  ("flags", "named"),
  [
    (["judge", "--checkpoint=x"], "expected --task_set=NAME or --texts"),
    (["judge", "--checkpoint=x", "--sampled=humaneval-164:1"], "expected NAME:N"),
    (["judge", "--checkpoint=x", "--sampled=none:3"], "expected NAME:N"),
    (["judge", "--checkpoint=x", "--gin.Evaluation.samples=3"], "expected flags only"),
    (["judge", "--checkpoint=x", "--max_new_tokens=0"], "expected at least 1"),
  ],
)
def test_refuses(flags, named):
  with pytest.raises(InputError, match=named):
    command_line.main(flags)


def test_another_model_is_not_judged_into_the_same_folder(
  opened, tmp_path, monkeypatch
):
  assert command_line.main(_flags(tmp_path)) == 0
  before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
  monkeypatch.setattr(judge, "_identity", lambda path: f"{path}, trained on")
  monkeypatch.setitem(DIGESTS, "x", "e" * 64)
  with pytest.raises(InputError, match=r"begun with .*dddd.*, now it is .*eeee"):
    command_line.main(_flags(tmp_path))
  assert before == {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}


def test_a_damaged_checkpoint_is_told_in_a_line(tmp_path):
  step = tmp_path / "checkpoints" / "5"
  for part in ("meta", "state"):
    (step / part).mkdir(parents=True)
  flags = [f"--checkpoint={tmp_path}", f"--workdir={tmp_path / 'judged'}"]
  with pytest.raises(InputError, match=r"5: damaged checkpoint .* name an earlier one"):
    command_line.main(["judge", *flags, f"--task_set={SETS[0]}"])


def test_a_benchmark_decides_how_long_a_completion_may_be():
  assert judge.config_of("humaneval-164", 1024).max_new_tokens == 512
  assert judge.config_of("humaneval-164", 100).max_new_tokens == 100
  asked_for = judge.config_of(SETS[1], 1024, max_new_tokens=300)
  assert asked_for.max_new_tokens == 300
  assert judge.config_of("mbpp-full-500", 1024).prompt_style == "docstring-one-test"
  assert judge.config_of(SETS[1], 1024, 5).ks == (1, 2, 5)
