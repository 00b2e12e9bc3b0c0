"""python -m evals judge: one checkpoint on many task sets, opened once.

    WORKDIR/<task set>/   an ordinary run of that task set, greedy, which `report` shows
    WORKDIR/<task set>-sampled/   the same with several samples, for pass@k
    WORKDIR/loss.json     nats per byte of held-out texts

Prompts are as published; the longest completion depends on the benchmark. The same
command resumes.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evals import execute, generate, prompts, selftest, summary, task_sets, workdir
from evals.backends import Backend, CheckpointBackend
from evals.config import PROMPT_STYLES, EvaluationConfig
from evals.task_sets import KNOWN, benchmark_of
from phi1_jax import InputError, storage
from phi1_jax.cli import command
from phi1_jax.sandbox.sandbox import Sandbox
from phi1_jax.text import settings_file

SAMPLED = "-sampled"
# Solutions of exercises are short, and a model that does not end them fails anyway.
MAX_NEW_TOKENS = dict.fromkeys(("humaneval", "mbpp", "humaneval+", "mbpp+"), 512) | {
  "exercises": 192
}
_TEMPERATURE, _TOP_P = 0.8, 0.95  # of pass@k; the values of Chen et al.'s pass@100


def judge(
  folder: Path,
  asked: Mapping[str, prompts.Prompt],
  config: EvaluationConfig,
  backend: Backend,
) -> dict[str, Any]:
  """Generate, execute and score one task set, or resume that; return its summary.

  The folder is the work directory, locked by this process; `asked` holds the prompts
  by problem id.
  """
  settings = generate.settings(config, backend.identity())
  settings_file.begin(folder / workdir.RUN, settings)
  problems = [prompt.problem for prompt in asked.values()]
  workers = config.workers or None
  with Sandbox(workers=workers, memory_bytes=config.memory_bytes) as sandbox:
    ready = functools.cache(lambda: selftest.check(problems, sandbox))
    generate.generate(folder, asked, config, backend, ready)
    execute.execute(folder, asked, sandbox, ready)
  return summary.write(folder, summary.read(folder, asked), config.ks)


def config_of(
  task_set: str, longest: int, samples: int = 1, max_new_tokens: int | None = None
) -> EvaluationConfig:
  """Return the default settings for a task set, greedy for one sample per problem.

  `longest` are the most new tokens that the model allows, `max_new_tokens` those of a
  completion, over the benchmark's.
  """
  benchmark = benchmark_of(task_set) or task_set
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


def main(parser: command.Parser, argv: Sequence[str]) -> int:
  """Judge a checkpoint."""
  add, path = parser.add_argument, storage.parse
  words = "work directory, checkpoints or step folder"
  add("--checkpoint", type=path, required=True, help=words)
  add("--workdir", type=path, default=Path("runs/judged"), help="gets the runs")
  words = f"repeatable: {', '.join(KNOWN)}"
  repeated = {"dest": "task_sets", "action": "append", "default": []}
  add("--task_set", **repeated, choices=KNOWN, metavar="NAME", help=words)
  add("--sampled", metavar="NAME:N", help="a task set again, N samples per problem")
  words = "JSON lines of held-out texts"
  add("--texts", type=path, metavar="FILE", help=words)
  words = "of a completion (default: by benchmark, at most half the model's length)"
  add("--max_new_tokens", type=int, help=words)
  workdir.add_benchmarks(parser)
  arguments = parser.parse(argv)
  if arguments.gin_files or arguments.gin_bindings:
    raise InputError("judge: got gin files or bindings, expected flags only (--help)")
  if arguments.max_new_tokens is not None and arguments.max_new_tokens < 1:
    raise InputError(
      f"--max_new_tokens: got {arguments.max_new_tokens}, expected at least 1"
    )
  wanted = {name: (name, 1) for name in arguments.task_sets}
  if arguments.sampled:
    name, _, number = arguments.sampled.rpartition(":")
    if name not in KNOWN or not number.isdigit() or int(number) < 2:
      raise InputError(
        f"--sampled: got {arguments.sampled!r}, expected NAME:N with N of 2 or more, "
        "such as humaneval-164:10"
      )
    wanted[name + SAMPLED] = (name, int(number))
  if not wanted and not arguments.texts:
    raise InputError("judge: expected --task_set=NAME or --texts=FILE, got neither")
  with workdir.opened(arguments.workdir, "judging") as mirror:
    _judge_all(mirror, wanted, arguments)
  return command.DONE


def _judge_all(mirror: storage.Mirror, wanted: Mapping[str, tuple], arguments) -> None:
  from evals import loss  # JAX is loaded when it is needed
  from phi1_jax.checkpoint.checkpoint import Checkpoint
  from phi1_jax.sampling.checkpoint import one_host_mesh, open_checkpoint

  folder, benchmarks = mirror.local, arguments.benchmarks
  problems = {name: task_sets.load(of, benchmarks) for name, (of, _) in wanted.items()}
  texts = [loss.read(file, 10_000) for file in filter(None, [arguments.texts])]
  loaded = open_checkpoint(Checkpoint.find(arguments.checkpoint), one_host_mesh())
  longest = loaded.config.max_length // 2
  for name, (task_set, samples) in wanted.items():
    config = config_of(task_set, longest, samples, arguments.max_new_tokens)
    style = config.prompt_style
    asked = prompts.build_all(problems[name], task_set, style, benchmarks)
    with workdir.opened(folder / name, "judging"):
      found = judge(folder / name, asked, config, CheckpointBackend(loaded, config))
      workdir.note_benchmarks(folder / name, benchmarks)
    mirror.upload()
    print(summary.table([(name, found)]), flush=True)
  if texts:
    print(loss.write(folder, loaded, texts))
