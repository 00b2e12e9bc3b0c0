"""python -m evals BENCHMARK: generate, execute, and score one task set."""

import argparse
import dataclasses
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from evals import execute, prompts, report, selftest, summary, workdir
from evals.config import TASK_SETS, EvaluationConfig
from phi1_jax import InputError, storage
from phi1_jax.cli import command
from phi1_jax.cli.progress import Progress
from phi1_jax.llm.completions import CompletionsClient
from phi1_jax.problems.problem import Problem
from phi1_jax.sandbox.sandbox import Sandbox
from phi1_jax.storage import AnyPath
from phi1_jax.text import settings_file

FAILED = 1
STAGES = ("generate", "execute", "report")


def main(benchmark: str, about: str, argv: Sequence[str]) -> int:
  """Judges a model on a benchmark; the same command goes on.

  Args:
    benchmark: a name of `TASK_SETS`.
    about: what --help says of it.
    argv: flags.
  """
  arguments = _parser(benchmark, about).parse(argv)
  config = _config(benchmark, arguments)
  stages = arguments.stage or STAGES
  if arguments.references:
    return _judge_references(config, arguments)
  folder = arguments.workdir or command.default_workdir(arguments.gin_files)
  if "generate" not in stages:
    config = _as_begun(folder, config, arguments)
  problems = report.load_problems(config.task_set, arguments.benchmarks)
  asked = prompts.build_all(
    problems, config.task_set, config.prompt_style, arguments.benchmarks
  )
  with workdir.opened(folder, "evaluating") as mirror:
    if "generate" in stages:
      _generate(mirror.local, problems, asked, config, arguments)
      mirror.upload()
    if "execute" in stages:
      with _sandbox(config, arguments) as sandbox:
        print(sandbox.describe(), flush=True)
        identity = execute.judge_identity(sandbox)
        execute.execute(mirror.local, problems, asked, sandbox, identity)
      mirror.upload()
    if "report" in stages:
      found = summary.summarize(mirror.local, problems, asked, config.ks)
      print(summary.table([(folder.name, found)]))
      print(f"written to {folder / workdir.SUMMARY}")
  return command.DONE


def _parser(benchmark: str, about: str) -> command.Parser:
  parser = command.Parser(
    benchmark,
    about,
    f"python -m evals {benchmark} --checkpoint=runs/finetune",
  )
  parser.prog = f"python -m evals {benchmark}"
  add = parser.add_argument
  add(
    "--checkpoint",
    type=storage.parse,
    help="work directory, checkpoints folder, or step folder",
  )
  add("--base_url", help="an OpenAI-compatible endpoint instead of a checkpoint")
  add("--model", help="the model's name there")
  add(
    "--completions",
    type=storage.parse,
    help="judge this JSONL of task_id and completion instead of asking a model",
  )
  add("--workdir", type=storage.parse, help="default: runs/<names of the gin files>")
  add("--task_set", choices=TASK_SETS[benchmark], help="over Evaluation.task_set")
  add("--prompt_style", help="over Evaluation.prompt_style")
  add(
    "--stage",
    action="append",
    choices=STAGES,
    help="only this half (repeatable; default: all three)",
  )
  add(
    "--require_isolation",
    action="store_true",
    help="refuse to execute with less than a full sandbox",
  )
  add(
    "--references",
    action="store_true",
    help="judge the reference solutions, print how many pass, and stop",
  )
  report.add_benchmarks(parser)
  return parser


def _config(benchmark: str, arguments: argparse.Namespace) -> EvaluationConfig:
  from phi1_jax.cli import gin_config  # after --help

  if not arguments.gin_files:
    arguments.gin_files = [f"gin/evals/{benchmark}.gin"]
  bindings = list(arguments.gin_bindings)
  for name in ("task_set", "prompt_style"):
    if getattr(arguments, name) is not None:
      bindings.append((f"Evaluation.{name}", repr(getattr(arguments, name))))
  classes = {"Evaluation": EvaluationConfig}
  config = gin_config.load(arguments.gin_files, bindings, classes)["Evaluation"]
  if config.task_set not in TASK_SETS[benchmark]:
    raise InputError(
      f"Evaluation.task_set: got {config.task_set!r} for `python -m evals {benchmark}`,"
      f" expected one of {', '.join(TASK_SETS[benchmark])}"
    )
  return config


def _as_begun(
  folder: AnyPath, config: EvaluationConfig, arguments: argparse.Namespace
) -> EvaluationConfig:
  """Without generating, task set and prompt style are those of the run."""
  run = storage.read_json(folder / workdir.RUN)
  names = ("task_set", "prompt_style")
  given = {n: getattr(arguments, n) for n in names if getattr(arguments, n) is not None}
  settings_file.check(folder, run, given)
  return dataclasses.replace(config, **{n: run["settings"][n] for n in names})


def _generate(
  folder: Path,
  problems: Sequence[Problem],
  asked: dict[str, prompts.Prompt],
  config: EvaluationConfig,
  arguments: argparse.Namespace,
) -> None:
  from evals import backends, generate

  ways = [arguments.checkpoint, arguments.base_url, arguments.completions]
  if sum(way is not None for way in ways) != 1:
    raise InputError(
      "expected one of --checkpoint=DIR, --base_url=URL, --completions=FILE, got "
      f"{sum(way is not None for way in ways)} of them"
    )
  if arguments.completions:
    generate.read_completions(arguments.completions, problems)
    identity = settings_file.digest(
      storage.read_bytes(arguments.completions).decode(errors="replace")
    )
    source = {"kind": "completions", "digest": identity}
    settings = generate.settings(config, source) | {"sampling": None, "seed": None}
    settings_file.begin(folder / workdir.RUN, settings)
    generate.take(folder, arguments.completions, problems)
    return
  if arguments.checkpoint:
    backend = backends.CheckpointBackend(arguments.checkpoint, config)
  else:
    if not arguments.model:
      raise InputError("--base_url: expected --model=NAME beside it")
    client = CompletionsClient(arguments.base_url, arguments.model)
    backend = backends.EndpointBackend(client, config)
  settings_file.begin(
    folder / workdir.RUN, generate.settings(config, backend.identity())
  )
  generate.generate(folder, problems, asked, config, backend)


def _sandbox(config: EvaluationConfig, arguments: argparse.Namespace) -> Sandbox:
  return Sandbox(
    workers=config.workers or None,
    require_isolation=arguments.require_isolation,
    memory_bytes=config.memory_bytes,
  )


def _judge_references(config: EvaluationConfig, arguments: argparse.Namespace) -> int:
  problems = report.load_problems(config.task_set, arguments.benchmarks)
  cases = selftest.references(problems)
  with _sandbox(config, arguments) as sandbox:
    started = time.monotonic()
    with Progress(len(cases), "references", "judging", interval=None) as bar:
      failed = []
      for complaint in selftest.complaints(cases, sandbox):
        failed += [complaint] if complaint else []
        bar.update(1)
    seconds = time.monotonic() - started
    passed = len(cases) - len(failed)
    print(
      f"{passed}/{len(cases)} references pass ({sandbox.isolation}, {seconds:.1f} s)"
    )
  for complaint in sorted(failed):
    print(f"  {complaint}", file=sys.stderr)
  return FAILED if failed else command.DONE
