"""Evaluation while a model trains: hooks for `Runtime.hooks`.

    --gin.Runtime.hooks='{"evals.hook:humaneval": 1000}'

A hook logs eval/NAME_truncated and eval/NAME_sanitized, by its own name.
Each evaluation is an ordinary run in `evals/<task set>-<step>` of the training's work
directory, so `python -m evals report` shows them side by side. Use it for monitoring:
choose a checkpoint by held-out loss (`summary.json` of the training names the best),
not by a benchmark that it will be judged on.
"""

import functools
import itertools
import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from evals import generate, judge, prompts, score, summary, task_sets, workdir
from evals.backends import CheckpointBackend
from evals.execute import VARIANTS
from phi1_jax import InputError, storage
from phi1_jax.checkpoint.fingerprint import fingerprints, model_digest
from phi1_jax.data.config import DataConfig
from phi1_jax.data.token_store import TokenStore
from phi1_jax.problems.problem import Problem
from phi1_jax.sampling.checkpoint import Loaded
from phi1_jax.storage import AnyPath
from phi1_jax.telemetry.writers import read_metrics
from phi1_jax.text import settings_file
from phi1_jax.text import tokenizer as tokenizers
from phi1_jax.training.hooks import Values
from phi1_jax.training.setup import Setup
from phi1_jax.training.state import TrainState

Run = Callable[[int, TrainState], Values]
_SHOWN_LINES = 12  # of a completion; a model that never ends repeats itself


def _hook(
  setup: Setup, store: TokenStore, *, metric: str, task_set: str, show: str = ""
) -> Run:
  """Return a hook of pass@1, greedy; `show` is what the last step prints."""
  if jax.process_count() > 1:
    raise InputError(
      f"Runtime.hooks: {task_set} is judged by one process, this run has "
      f"{jax.process_count()}; run `python -m evals` on its checkpoints instead"
    )
  model = setup.config.model
  config = judge.config_of(task_set, model.max_length // 2)
  asked = prompts.build_all(task_sets.load(task_set), task_set, config.prompt_style)
  tokenizer = tokenizers.load(str(store.directory))

  def run(step: int, state: TrainState) -> Values:
    rows = read_metrics(setup.local / "metrics.jsonl")
    tokens = {row["step"]: row["tokens_seen"] for row in rows if "tokens_seen" in row}
    # The same digest that the checkpoint of this step has, if there is one.
    prints = fingerprints({"params": state.params})
    digest = model_digest(prints, tokenizer.digest)
    seen = tokens.get(step)
    loaded = Loaded(model, state.params, tokenizer, setup.mesh, digest, step, seen)
    backend = CheckpointBackend(loaded, config)
    folder = setup.workdir / "evals" / f"{task_set}-{step:06d}"
    _make_room(folder, generate.settings(config, backend.identity()))
    with workdir.opened(folder, "evaluating") as mirror:
      scores = judge.judge(mirror.local, asked, config, backend)["scores"]
      workdir.note_benchmarks(mirror.local, None)
      if show and step == setup.config.train.last_step:
        found = summary.read(mirror.local, asked)
        _show(asked, found, folder, setup.config.data, examples=show == "examples")
    for variant in VARIANTS:
      yield f"eval/{metric}_{variant}", scores[variant]["pass@1"]["value"]

  return run


def _of(metric: str, task_set: str, show: str = "") -> Callable[..., Run]:
  return functools.partial(_hook, metric=metric, task_set=task_set, show=show)


humaneval = _of("humaneval", "humaneval-164")
mbpp = _of("mbpp", "mbpp-full-500")  # $PHI1_JAX_BENCHMARKS says where
exercises = _of("exercises", "exercises-unseen-triples-100", "examples")
handwritten = _of("handwritten", task_sets.HANDWRITTEN, "shares")


def _make_room(folder: AnyPath, settings: Mapping[str, Any]) -> None:
  """Move an evaluation aside that was begun with other parameters at this step.

  A training that resumes from an earlier checkpoint, on other devices for example,
  repeats a step with other rounding, and must not end because of it.
  """
  begun = folder / workdir.RUN
  if not storage.exists(begun):
    return
  try:
    wanted = json.loads(json.dumps(settings))  # as it was written
    settings_file.check(folder, storage.read_json(begun), wanted)
  except InputError:
    places = (folder.with_name(f"{folder.name}.{n}") for n in itertools.count())
    storage.move(folder, next(place for place in places if not storage.names(place)))


def _seen(problems: Sequence[Problem], data: DataConfig) -> set[str] | None:
  """Return the ids of problems whose function a training exercise computes too.

  None if training reads other exercises than the grammar teacher's.
  """
  if data.mixture != "grammar_exercises":
    return None
  command = [sys.executable, "-m", "phi1_jax.grammar.agree"]
  command += [str(data.grammar_exercises), *data.grammar_tables]
  asked = json.dumps([[p.id, p.entry_point, p.tests] for p in problems])
  run = subprocess.run(command, input=asked, stdout=subprocess.PIPE, text=True)
  return set(json.loads(run.stdout)) if run.returncode == 0 else None


def _show(
  asked: Mapping[str, prompts.Prompt],
  samples: summary.Samples,
  folder: AnyPath,
  data: DataConfig,
  *,
  examples: bool,
) -> None:
  """Print how many problems are solved, and a solved and a failed one as `examples`."""
  right = summary.correct(samples, "truncated")
  problems = [prompt.problem for prompt in asked.values()]
  seen = _seen(problems, data)

  def share(of: Sequence[Problem]) -> str:
    count = sum(right[problem.id][0] for problem in of)
    low, high = score.wilson(count, len(of))
    return f"{count} of {len(of)} (95% interval {100 * low:.0f} to {100 * high:.0f}%)"

  print(f"solved: {share(problems)} of {folder.name}")
  for text, kept in (("is in training", True), ("is not in training", False)):
    some = [p for p in problems if (p.id in (seen or ())) == kept]
    if seen is not None and some:
      print(f"  whose function {text}: {share(some)}")
  for passed in (True, False) if examples else ():
    for problem in [p for p in problems if right[p.id][0] == passed][:1]:
      row = samples[problem.id][0]
      verdict = row["variants"]["truncated"]
      lines = row["completion"].rstrip().split("\n")
      if len(lines) > _SHOWN_LINES:
        lines = [*lines[:_SHOWN_LINES], "    ..."]
      code = "\n".join(lines)
      told = "passes its tests" if passed else verdict["detail"] or verdict["outcome"]
      print(f"\n{problem.prompt}{code}\n\n  -> {told}\n")
  print(f"all of them: python -m evals report {folder}", flush=True)
