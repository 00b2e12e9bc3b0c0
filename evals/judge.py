"""python -m evals judge: one checkpoint on many task sets, opened once.

    WORKDIR/<task set>/   an ordinary run of that task set, greedy, which `report` shows
    WORKDIR/<task set>-sampled/   the same with several samples, for pass@k
    WORKDIR/loss.json     nats per byte of held-out texts
    WORKDIR/COMPLETED     written last

Every prompt is put as published; how many tokens a completion may take depends on the
benchmark. The same command goes on, or says that nothing is left to do.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evals import execute, generate, prompts, report, summary, workdir
from evals.backends import Backend, LoadedBackend
from evals.config import PROMPT_STYLES, TASK_SETS, EvaluationConfig, benchmark_of
from phi1_jax import InputError, storage
from phi1_jax.cli import command
from phi1_jax.problems.problem import Problem, digest
from phi1_jax.sandbox.sandbox import Sandbox
from phi1_jax.storage import AnyPath
from phi1_jax.text import settings_file

COMPLETED = "COMPLETED"
SAMPLED = "-sampled"
# Solutions of exercises are short, and a model that does not end them fails anyway.
MAX_NEW_TOKENS = dict.fromkeys(("humaneval", "mbpp", "humaneval+", "mbpp+"), 512) | {
  "exercises": 192
}
_TEMPERATURE, _TOP_P = 0.8, 0.95  # of pass@k; the values of Chen et al.'s pass@100


def judge(
  folder: Path,
  problems: Sequence[Problem],
  asked: Mapping[str, prompts.Prompt],
  config: EvaluationConfig,
  backend: Backend,
) -> dict[str, Any]:
  """Generates, executes and scores one task set; goes on where it was.

  Args:
    folder: work directory of the run, held by this process.
    problems: of the task set.
    asked: their prompts by id.
    config: how to sample.
    backend: who answers.

  Returns:
    What summary.json holds.
  """
  settings_file.begin(
    folder / workdir.RUN, generate.settings(config, backend.identity())
  )
  generate.generate(folder, problems, asked, config, backend)
  with Sandbox(
    workers=config.workers or None, memory_bytes=config.memory_bytes
  ) as sandbox:
    identity = execute.judge_identity(sandbox)
    execute.execute(folder, problems, asked, sandbox, identity)
  return summary.summarize(folder, problems, asked, config.ks)


def config_of(
  task_set: str, longest: int, samples: int = 1, max_new_tokens: int | None = None
) -> EvaluationConfig:
  """How a task set is put to a model by those who name nothing but the set.

  Args:
    task_set: its name.
    longest: what the benchmark's number of new tokens is cut to.
    samples: completions per problem; one is greedy.
    max_new_tokens: of a completion, in place of all that.
  """
  benchmark = benchmark_of(task_set)
  config = EvaluationConfig(
    task_set,
    PROMPT_STYLES[benchmark][0],
    max_new_tokens=max_new_tokens or min(MAX_NEW_TOKENS.get(benchmark, 256), longest),
  )
  if samples == 1:
    return config
  ks = tuple(k for k in (1, 2, 5, 10, 100) if k <= samples)
  return dataclasses.replace(
    config, samples=samples, temperature=_TEMPERATURE, top_p=_TOP_P, ks=ks
  )


def main(about: str, argv: Sequence[str]) -> int:
  """Judges a checkpoint."""
  parser = command.Parser(
    "judge",
    about,
    "python -m evals judge --checkpoint=runs/quickstart --workdir=runs/judged "
    "--task_set=exercises-first-unseen-pairs-100 --task_set=humaneval-164",
  )
  parser.prog = "python -m evals judge"
  known = [name for names in TASK_SETS.values() for name in names]
  add = parser.add_argument
  add(
    "--checkpoint",
    type=storage.parse,
    required=True,
    help="work directory, checkpoints or step folder",
  )
  add(
    "--workdir", type=storage.parse, default=Path("runs/judged"), help="gets the runs"
  )
  add(
    "--task_set",
    dest="task_sets",
    action="append",
    default=[],
    choices=known,
    metavar="NAME",
    help=f"repeatable: {', '.join(known)}",
  )
  add("--sampled", metavar="NAME:N", help="a task set again, N samples per problem")
  add(
    "--texts", type=storage.parse, metavar="FILE", help="JSON lines of held-out texts"
  )
  add(
    "--max_new_tokens",
    type=int,
    help="of a completion (default: by benchmark, at most half the model's length)",
  )
  add("--benchmarks", metavar="FOLDER", help="where mbpp.jsonl is")
  arguments = parser.parse(argv)
  if arguments.gin_files or arguments.gin_bindings:
    raise InputError("judge: got gin files or bindings, expected flags only (--help)")
  if arguments.max_new_tokens is not None and arguments.max_new_tokens < 1:
    raise InputError(
      f"--max_new_tokens: got {arguments.max_new_tokens}, expected at least 1"
    )
  wanted = {name: [name, 1] for name in arguments.task_sets}
  if arguments.sampled:
    name, samples = _sampled(arguments.sampled, known)
    wanted[name + SAMPLED] = [name, samples]
  if not wanted and not arguments.texts:
    raise InputError("judge: expected --task_set=NAME or --texts=FILE, got neither")
  with workdir.opened(arguments.workdir, "judging") as mirror:
    _judge_all(mirror, wanted, arguments)
  return command.DONE


def _sampled(text: str, known: Sequence[str]) -> tuple[str, int]:
  name, _, number = text.rpartition(":")
  if name not in known or not number.isdigit() or int(number) < 2:
    raise InputError(
      f"--sampled: got {text!r}, expected NAME:N with N of 2 or more, such as "
      "humaneval-164:10"
    )
  return name, int(number)


def _identity(checkpoint: AnyPath) -> str:
  """Which model a path names now: the digest of what its step holds."""
  from phi1_jax.checkpoint import manager
  from phi1_jax.checkpoint.description import read_meta

  step = manager.find(checkpoint)
  return settings_file.digest([str(step), read_meta(step)["fingerprints"]])


def _digests(wanted: Mapping[str, list], benchmarks: str | None) -> dict[str, str]:
  return {
    name: digest(report.load_problems(task_set, benchmarks))
    for name, (task_set, _) in wanted.items()
  }


def _judge_all(mirror: storage.Mirror, wanted: Mapping[str, list], arguments) -> None:
  from evals import loss  # JAX is loaded when it is needed
  from phi1_jax.sampling.checkpoint import one_host_mesh, open_checkpoint

  folder = mirror.local
  asked_for = {
    "checkpoint": _identity(arguments.checkpoint),
    "problems": _digests(wanted, arguments.benchmarks),
    "wanted": wanted,
    "max_new_tokens": arguments.max_new_tokens,
    "texts": arguments.texts and loss.read(arguments.texts, 1).sha256,
  }
  if (folder / COMPLETED).exists() and (
    storage.read_json(folder / COMPLETED) == asked_for
  ):
    print(f"was complete already: {arguments.workdir}")
    return
  loaded = open_checkpoint(arguments.checkpoint, one_host_mesh(), None)
  longest = loaded.config.max_length // 2
  for name, (task_set, samples) in wanted.items():
    config = config_of(task_set, longest, samples, arguments.max_new_tokens)
    problems = report.load_problems(task_set, arguments.benchmarks)
    asked = prompts.build_all(
      problems, task_set, config.prompt_style, arguments.benchmarks
    )
    with workdir.opened(folder / name, "judging"):
      found = judge(
        folder / name, problems, asked, config, LoadedBackend(loaded, config)
      )
    mirror.upload()
    print(summary.table([(name, found)]), flush=True)
  if arguments.texts:
    texts = [loss.read(arguments.texts, 10_000)]
    length = loss.window_length(loaded)
    rows = loss.measure(loaded, texts, length)
    storage.write_json(folder / loss.RESULT, loss.result(loaded, texts, length, rows))
    print(loss.table(rows))
  storage.write_json(folder / COMPLETED, asked_for)
