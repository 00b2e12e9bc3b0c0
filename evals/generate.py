"""The first stage: requests the completions that are not on the disk yet."""

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from evals import extraction, prompts, workdir
from evals.backends import Backend, Generated, Wanted
from evals.config import EvaluationConfig
from evals.prompts import Prompt
from phi1_jax import storage
from phi1_jax.cli.progress import Progress
from phi1_jax.sampling import stopping
from phi1_jax.text import settings_file


def settings(config: EvaluationConfig, model: Mapping[str, Any]) -> dict[str, Any]:
  """Return the settings that decide completions, for run.json."""
  return {
    "task_set": config.task_set,
    "prompt_style": config.prompt_style,
    "stops": list(prompts.stops(config.prompt_style)),
    "sampling": config.sampling(),
    "seed": config.seed,
    "model": dict(model),
  }


def completion_key(
  run_settings: Mapping[str, Any], problem_id: str, prompt: str, sample: int
) -> str:
  """Return the key of a completion: a digest of all that decides it."""
  of = {"problem": problem_id, "prompt": _sha256(prompt), "sample": sample}
  return settings_file.digest({**run_settings, **of})


def generate(
  folder: Path,
  asked: Mapping[str, Prompt],
  config: EvaluationConfig,
  backend: Backend,
  ready: Callable[[], None] = lambda: None,
) -> int:
  """Add the missing lines of completions.jsonl; return how many were made.

  The folder is a work directory whose run.json has been written; `asked` holds the
  prompts by problem id. `ready` is called before the first request; it may refuse.
  """
  run_settings = settings(config, backend.identity())
  stops = prompts.stops(config.prompt_style)
  started, tokens = time.monotonic(), 0
  with storage.JsonLines(folder / workdir.COMPLETIONS) as journal:
    done = {row.get("key") for row in journal.rows}
    places = {
      completion_key(run_settings, name, prompt.text, sample): (prompt, sample)
      for name, prompt in asked.items()
      for sample in range(config.samples)
    }
    wanted = [
      Wanted(key, prompt.text, f"{prompt.problem.id}, sample {sample}")
      for key, (prompt, sample) in places.items()
      if key not in done
    ]
    if wanted:
      ready()
    # Before the first request: a killed process must not leave a run that looks whole.
    workdir.note(folder, "generate", {"samples": config.samples})
    there = len(places) - len(wanted)
    with Progress(len(places), "samples", "generating", initial=there) as bar:
      try:
        for answer in backend.complete(wanted) if wanted else ():
          journal.append(_row(answer, *places[answer.key], stops))
          tokens += answer.tokens or 0
          seconds = time.monotonic() - started
          bar.update(1, tokens=f"{tokens / seconds:,.0f}/s")
      finally:  # an interruption must not lose the time that was spent
        seconds = time.monotonic() - started if wanted else 0.0
        facts = backend.facts() | {"samples": config.samples, "seconds": seconds}
        workdir.note(folder, "generate", facts)
  return len(wanted)


def _row(
  answer: Generated, prompt: Prompt, sample: int, stops: Sequence[str]
) -> dict[str, Any]:
  completion, stop = stopping.cut(answer.text, stops)
  if prompt.chat:
    completion = extraction.code_block(answer.text, prompt.problem.entry_point)
  return {
    "key": answer.key,
    "task_id": prompt.problem.id,
    "sample": sample,
    "prompt_sha256": _sha256(prompt.text),
    "text": answer.text,
    "completion": completion,
    "stop": stop,
    "finish": answer.finish,
    "tokens": answer.tokens,
    "log_probs": workdir.finite(answer.log_probs),
    "seconds": round(answer.seconds, 4),
  }


def _sha256(text: str) -> str:
  return hashlib.sha256(text.encode()).hexdigest()
