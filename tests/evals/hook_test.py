"""Evaluation while a model trains."""

import dataclasses
import functools
import json
import types

import jax
import pytest

from evals import hook, report, task_sets, workdir
from phi1_jax import InputError, storage
from phi1_jax.problems import files
from phi1_jax.text import tokenizer as tokenizers


@pytest.fixture
def setup(tiny, five, tmp_path, monkeypatch):
  """A training run of a random model, as far as the hook looks at it."""
  few = [dataclasses.replace(p, examples=p.tests) for p in five[:3]]
  monkeypatch.setattr(task_sets, "load", lambda *_: few)
  monkeypatch.delenv(files.ENVIRONMENT, raising=False)
  config_of = functools.partial(hook.judge.config_of, max_new_tokens=8)
  monkeypatch.setattr(hook.judge, "config_of", config_of)
  loaded, local = tiny(), tmp_path / "local"
  loaded.tokenizer.save(tmp_path / tokenizers.FILE_NAME)
  local.mkdir()
  # From step 15 on, the batches were half as large.
  rows = [{"step": 10, "tokens_seen": 100}, {"step": 20, "tokens_seen": 175}]
  rows.append({"step": 20, "eval/loss": 2.0})
  (local / "metrics.jsonl").write_text("".join(f"{json.dumps(r)}\n" for r in rows))
  train = types.SimpleNamespace(last_step=99)
  return types.SimpleNamespace(
    config=types.SimpleNamespace(model=loaded.config, train=train),
    mesh=loaded.mesh,
    workdir=tmp_path / "run",
    local=local,
    store=types.SimpleNamespace(directory=tmp_path),
    state=types.SimpleNamespace(params=loaded.params),
  )


@pytest.mark.parametrize("where", ["here", "gs://"])
def test_an_evaluation_is_a_run_of_its_own(setup, request, where):
  if where == "gs://":
    setup.workdir = storage.parse(request.getfixturevalue("gcs").folder)
  evaluate = hook.humaneval(setup, setup.store)
  scores = dict(evaluate(20, setup.state))
  assert scores == {"eval/humaneval_truncated": 0.0, "eval/humaneval_sanitized": 0.0}
  folder = setup.workdir / "evals" / "humaneval-164-000020"
  noted = storage.read_json(folder / workdir.RUN)["generate"]
  assert (noted["step"], noted["tokens_seen"]) == (20, 175)
  data = report.build([folder])
  assert {point["step"] for point in data["points"]} == {20}
  # A run that is started again at this step asks the model nothing.
  before = (folder / workdir.COMPLETIONS).read_bytes()
  assert dict(evaluate(20, setup.state)) == scores
  assert (folder / workdir.COMPLETIONS).read_bytes() == before
  if where == "gs://":
    return
  # One that comes to this step with other rounding is judged, and nothing is lost.
  setup.state.params = jax.tree.map(lambda x: x * (1 + 1e-6), setup.state.params)
  assert set(dict(evaluate(20, setup.state))) == set(scores)
  aside = folder.with_name(f"{folder.name}.0")
  assert (aside / workdir.COMPLETIONS).read_bytes() == before
  digests = [storage.read_json(f / workdir.RUN)["settings"] for f in (aside, folder)]
  assert digests[0]["model"]["digest"] != digests[1]["model"]["digest"]


def test_the_last_step_shows_shares_and_an_example(setup, capsys):
  setup.config.data = types.SimpleNamespace(
    mixture="grammar_exercises", grammar_exercises=3, grammar_tables=()
  )
  dict(hook.exercises(setup, setup.store)(98, setup.state))
  assert "solved:" not in capsys.readouterr().out
  dict(hook.exercises(setup, setup.store)(99, setup.state))
  text = capsys.readouterr().out
  share = "0 of 3 (95% interval 0 to 56%)"
  assert f"solved: {share} of exercises-unseen-triples-100-000099\n" in text
  # Which of these functions the training exercises have, is looked up in a process.
  assert f"  whose function is not in training: {share}\n" in text
  assert text.count("\n  -> ") == 1  # one failed example, and none that is solved
  assert text.endswith("exercises-unseen-triples-100-000099\n")


def test_each_task_set_has_its_own_metrics(setup, monkeypatch):
  scores = {v: {"pass@1": {"value": 0.5}} for v in ("truncated", "sanitized")}
  noted = []

  def judge(folder, asked, config, backend):
    noted.append(backend.facts()["tokens_seen"])
    return {"scores": scores}

  monkeypatch.setattr(hook.judge, "judge", judge)
  hooks = ("humaneval", "mbpp", "exercises", "handwritten")
  made = [getattr(hook, name)(setup, setup.store) for name in hooks]
  named = [name for each in made for name, _ in each(21, setup.state)]
  assert named == [f"eval/{h}_{v}" for h in hooks for v in ("truncated", "sanitized")]
  assert noted == [None] * 4  # of a step without a row
  monkeypatch.setattr(jax, "process_count", lambda: 2)
  with pytest.raises(InputError, match="one process"):
    hook.humaneval(setup, setup.store)
