"""Evaluation while a model trains."""

import dataclasses
import json
import types

import jax
import pytest
from flax import linen as nn

from evals import hook, report, task_sets, workdir
from phi1_jax import InputError, storage
from phi1_jax.model.config import ModelConfig
from phi1_jax.model.decoder import Decoder
from phi1_jax.parallel.mesh import MeshConfig, make_mesh
from phi1_jax.problems import humaneval
from phi1_jax.text import tokenizer as tokenizers

MODEL = ModelConfig(320, 1, 8, 4, 2, 16, 16, 700, dtype="float32")


@pytest.fixture
def run(tmp_path, monkeypatch):
  """A training run of a random model, as far as the hook looks at it."""
  few = humaneval.load()[:3]
  monkeypatch.setattr(task_sets, "load", lambda *_: few)
  tokenizer = tokenizers.train(["def f(x):\n  return x + 1\n"] * 9, 300)
  tokenizer.save(tmp_path / tokenizers.FILE_NAME)
  mesh = make_mesh(MeshConfig(), jax.devices()[:1])
  config = types.SimpleNamespace(model=MODEL)
  local = tmp_path / "local"
  local.mkdir()
  # From step 15 on, the batches were half as large.
  rows = [{"step": 10, "tokens_seen": 100}, {"step": 20, "tokens_seen": 175}]
  rows.append({"step": 20, "eval/loss": 2.0})
  (local / "metrics.jsonl").write_text("".join(f"{json.dumps(r)}\n" for r in rows))
  setup = types.SimpleNamespace(
    config=config, mesh=mesh, workdir=tmp_path / "run", local=local
  )
  init = jax.jit(Decoder(MODEL).init)
  params = nn.unbox(init(jax.random.key(0), jax.numpy.zeros((1, 1), int)))["params"]
  return setup, types.SimpleNamespace(directory=tmp_path), params


@pytest.mark.parametrize("where", ["here", "gs://"])
def test_an_evaluation_is_a_run_of_its_own(run, request, where):
  setup, store, params = run
  if where == "gs://":
    setup.workdir = storage.parse(request.getfixturevalue("gcs").folder)
  evaluate = hook.humaneval(setup, store)
  state = types.SimpleNamespace(params=params)
  scores = dict(evaluate(20, state))
  assert scores == {"eval/humaneval_truncated": 0.0, "eval/humaneval_sanitized": 0.0}
  folder = setup.workdir / "evals" / "humaneval-164-000020"
  noted = storage.read_json(folder / workdir.RUN)["generate"]
  assert (noted["step"], noted["tokens_seen"]) == (20, 175)
  data = report.build([folder])
  assert {point["step"] for point in data["points"]} == {20}
  # A run that is started again at this step asks the model nothing.
  before = (folder / workdir.COMPLETIONS).read_bytes()
  assert dict(evaluate(20, state)) == scores
  assert (folder / workdir.COMPLETIONS).read_bytes() == before
  # One that comes to this step with other rounding is judged, and nothing is lost.
  other = jax.tree.map(lambda x: x * (1 + 1e-6), params)
  assert set(dict(evaluate(20, types.SimpleNamespace(params=other)))) == set(scores)
  aside = folder.with_name(f"{folder.name}.0")
  assert (aside / workdir.COMPLETIONS).read_bytes() == before
  digests = [storage.read_json(f / workdir.RUN)["settings"] for f in (aside, folder)]
  assert digests[0]["model"]["digest"] != digests[1]["model"]["digest"]


def test_each_task_set_has_its_own_metrics(run, monkeypatch):
  setup, store, params = run
  few = [dataclasses.replace(p, examples=p.tests) for p in task_sets.load("any")]
  monkeypatch.setattr(task_sets, "load", lambda *_: few)
  scores = {v: {"pass@1": {"value": 0.5}} for v in ("truncated", "sanitized")}
  monkeypatch.setattr(hook.judge, "judge", lambda *_: {"scores": scores})
  state = types.SimpleNamespace(params=params)
  setup.config.train = types.SimpleNamespace(last_step=99)
  hooks = ("humaneval", "mbpp", "exercises", "handwritten")
  named = [n for h in hooks for n, _ in getattr(hook, h)(setup, store)(20, state)]
  assert named == [f"eval/{h}_{v}" for h in hooks for v in ("truncated", "sanitized")]


def test_tokens_of_a_step_without_a_row_are_not_known(run):
  setup, store, params = run
  state = types.SimpleNamespace(params=params)
  assert len([*hook.humaneval(setup, store)(21, state)]) == 2
  folder = setup.workdir / "evals" / "humaneval-164-000021"
  noted = storage.read_json(folder / workdir.RUN)["generate"]
  assert (noted["step"], noted["tokens_seen"]) == (21, None)


def test_several_processes_are_refused(run, monkeypatch):
  setup, store, _ = run
  monkeypatch.setattr(jax, "process_count", lambda: 2)
  with pytest.raises(InputError, match="one process"):
    hook.humaneval(setup, store)
