"""Curates data: from raw code to the sets that the registry's tasks read.

    python -m phi1_jax.curate deduplicate --gin_file=gin/curate/deduplicate.gin

A stage reads what other stages kept and leaves a folder, runs/curate/STAGE if --workdir
names no other. The same command resumes it, or says that it is complete. `all` runs
`publish` and the stages whose folders are read, each in its folder below the work
directory.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import errno
import importlib
import logging
import os
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phi1_jax import InputError, storage
from phi1_jax.cli import command
from phi1_jax.cli.progress import Progress
from phi1_jax.curation.config import EXECUTORS, STAGES
from phi1_jax.llm.client import BudgetError, RequestError
from phi1_jax.llm.config import LlmConfig
from phi1_jax.problems import mbpp
from phi1_jax.storage import AnyPath

if TYPE_CHECKING:
  from phi1_jax.curation.engine import Job

log = logging.getLogger("phi1_jax.curate")

ALL = "all"
FAILED = 1
CONFIGURABLES = {
  **{config.gin_name: config for _, config in STAGES.values()},
  "Llm": LlmConfig,
}
_DECONTAMINATE = "decontaminate"
# Flags of one stage, and the stages that take them.
_FLAGS = {"tau": (_DECONTAMINATE,), "against": ("deduplicate", ALL)}
# All of MBPP: which part a model will be judged with is not known here.
_MBPP = "mbpp-full-974"
_ROOT = Path("runs/curate")
# Fields that name the folder of another stage: its name alone means the folder beside.
_FOLDERS = ("inputs", "against", "labels", "classifier", "compare_with")


def main(argv: Sequence[str] | None = None) -> int:
  """Run one stage, or all of them."""
  arguments = _parser().parse(argv)
  if not arguments.gin_files:
    arguments.gin_files = [f"gin/curate/{arguments.stage}.gin"]
  for flag, stages in _FLAGS.items():
    if getattr(arguments, flag) and arguments.stage not in stages:
      got = f"got it for {arguments.stage}, expected {stages[0]}"
      raise InputError(f"--{flag}: {got}")
  arguments.tau = arguments.tau and _taus(arguments.tau)
  if arguments.benchmarks:
    os.environ[mbpp.ENVIRONMENT] = arguments.benchmarks
  # These need the extra "curate", which --help does without.
  from phi1_jax.curation.deduplicate import LossError
  from phi1_jax.curation.engine import TaskError
  from phi1_jax.curation.folder import EmptyError

  # All settings are read before the first stage runs.
  if arguments.stage == ALL:
    root = arguments.workdir or _ROOT
    jobs = _read([(name, _job(name, root / name, arguments)) for name in STAGES])
  else:
    folder = arguments.workdir or _ROOT / (
      "pruned" if arguments.tau else arguments.stage
    )
    jobs = [(arguments.stage, _job(arguments.stage, folder, arguments))]
  for name, job in jobs:
    try:
      _estimate(name, job) if arguments.estimate else _run(name, job, arguments.tau)
    except (BudgetError, RequestError, LossError, EmptyError, TaskError) as error:
      print(f"error: {error}", file=sys.stderr)
      return FAILED
    except OSError as error:
      if error.errno != errno.ENOSPC:
        raise
      full = "the disk is full; make room and run the same command again"
      print(
        f"error: {job.folder}: {full}, which pays for nothing twice", file=sys.stderr
      )
      return FAILED
  return command.DONE


def _parser() -> command.Parser:
  parser = command.Parser(
    "curate",
    f"Curates data, stage by stage: {', '.join(STAGES)}, or {ALL}.",
    "python -m phi1_jax.curate exercises --gin_file=gin/curate/exercises.gin",
  )
  lines = ["", "", "parameters (--gin.PART.NAME=VALUE; phi1_jax/curation/config.py):"]
  for name, (_, config) in STAGES.items():
    fields = ", ".join(field.name for field in dataclasses.fields(config))
    text = f"{name}: {config.gin_name}.{{{fields}}}"
    lines += textwrap.wrap(text, 78, initial_indent="  ", subsequent_indent="    ")
  parser.epilog = f"{parser.epilog}{chr(10).join(lines)}"
  add = parser.add_argument
  add("stage", choices=[*STAGES, ALL], metavar="STAGE", help="which one, or all")
  add(
    "--workdir",
    type=storage.parse,
    help=f"the stage's folder (default: {_ROOT}/STAGE; {_ROOT}/pruned with --tau)",
  )
  add(
    "--executor",
    default="local",
    help=f"{', '.join(EXECUTORS)}; all workers must reach the paths (default: local)",
  )
  add("--tasks", type=int, help="parts of the input (default: by its size)")
  add("--workers", type=int, help="tasks at the same time (default: all cores)")
  add(
    "--estimate",
    action="store_true",
    help="print the cost of a stage that needs an LLM, send nothing, and stop",
  )
  add(
    "--against",
    action="append",
    default=[],
    metavar="INPUT",
    help="deduplicate: an existing set whose near-duplicates go (repeatable)",
  )
  add(
    "--tau",
    metavar="T,T,...",
    help="decontaminate: the paper's pruning study at these AST match rates",
  )
  add(
    "--benchmarks",
    metavar="FOLDER",
    help="decontaminate: where mbpp.jsonl is (default: $PHI1_JAX_BENCHMARKS, else "
    "~/.cache/phi1_jax/benchmarks, filled when empty). Folder or variable also adds "
    f"{_MBPP} to what the gin files look for, unless they name a set of MBPP or "
    "--gin.Decontaminate.benchmarks is given",
  )
  return parser


def _taus(text: str) -> list[float]:
  with contextlib.suppress(ValueError):
    taus = [float(each) for each in text.split(",")]
    different = {f"{tau:g}" for tau in taus}  # the names of their folders
    if len(different) == len(taus) and all(0 < tau < 1 for tau in taus):
      return taus
  raise InputError(
    f"--tau: got {text!r}, expected different numbers between 0 and 1, such as "
    "0.95,0.9,0.85,0.8"
  )


def _read(jobs: list[tuple[str, Job]]) -> list[tuple[str, Job]]:
  """Return the last job, and those whose folders the returned ones read."""
  wanted, found = {os.path.abspath(jobs[-1][1].folder)}, []
  for name, job in reversed(jobs):
    if os.path.abspath(job.folder) not in wanted:
      log.info("%s: left out, as no stage reads it", name)
      continue
    found.insert(0, (name, job))
    for field in _FOLDERS:
      value = getattr(job.config, field, None) or ()
      values = (value,) if isinstance(value, str) else value
      wanted |= {os.path.abspath(storage.parse(each)) for each in values}
  return found


def _job(name: str, folder: AnyPath, arguments: argparse.Namespace) -> Job:
  """Return a stage's job, with its settings checked."""
  from phi1_jax.cli import gin_config  # after --help
  from phi1_jax.curation.engine import Job

  def load(part: str) -> Any:
    classes = {part: CONFIGURABLES[part]}
    return gin_config.load(
      arguments.gin_files, arguments.gin_bindings, classes, partial=True
    )[part]

  config = load(STAGES[name][1].gin_name)
  if name == "deduplicate" and arguments.against:
    config = dataclasses.replace(config, against=tuple(arguments.against))
  config = _beside(config, folder)
  if name == _DECONTAMINATE:
    config = _decontaminate(config, arguments)
  runs = arguments.executor, arguments.tasks, arguments.workers, Progress
  job = Job(config, folder, *runs, lambda: _client(name, load("Llm")))
  if job.needs_llm:
    load("Llm")  # so that its errors come first
    # The bar of the replies shows the money too; two bars would fight for a line.
    job = dataclasses.replace(job, bar=None)
  checkpoint = getattr(config, "checkpoint", None)
  if checkpoint and not storage.exists(storage.parse(checkpoint)):
    raise InputError(
      f"{config.gin_name}.checkpoint: no {checkpoint}; expected the work directory "
      "of a training, such as that of\npython -m phi1_jax.train "
      "--gin_file=gin/quickstart_pretrain.gin"
    )
  return job


def _decontaminate(config: Any, arguments: argparse.Namespace) -> Any:
  """Return the settings with those of the flags, after a look at the benchmarks."""
  named = os.environ.get(mbpp.ENVIRONMENT)
  told = any(name == "Decontaminate.benchmarks" for name, _ in arguments.gin_bindings)
  if named and not told and not any(n in mbpp.TASK_SETS for n in config.benchmarks):
    log.info(
      "decontaminate: looks for %s too, as --benchmarks or $%s names %s; to look for "
      "something else, give --gin.Decontaminate.benchmarks",
      *(_MBPP, mbpp.ENVIRONMENT, named),
    )
    config = dataclasses.replace(config, benchmarks=(*config.benchmarks, _MBPP))
  else:
    log.info("decontaminate: looks for %s alone", ", ".join(config.benchmarks))
  if arguments.stage == ALL:  # not only after all stages before it
    from phi1_jax.curation import decontaminate

    decontaminate.index(tuple(config.benchmarks), config.ngram)
  return config


def _beside(config: Any, folder: AnyPath) -> Any:
  """Return the settings with names of stages replaced by the folders beside."""
  from phi1_jax.curation.folder import STAGE, naming

  def resolve(value: Any) -> Any:
    if isinstance(value, tuple):
      return tuple(resolve(each) for each in value)
    if value is None or storage.parse(value).name != str(value):
      return value
    beside = folder.parent / str(value)
    return str(beside) if value in STAGES or storage.exists(beside / STAGE) else value

  changed = {}
  for name in _FOLDERS:
    if hasattr(config, name):
      with naming(f"{config.gin_name}.{name}"):
        changed[name] = resolve(getattr(config, name))
  return dataclasses.replace(config, **changed)


@contextlib.contextmanager
def _client(name: str, config: LlmConfig) -> Iterator[Any]:
  """Open a client whose bar shows money and time."""
  from phi1_jax.llm.client import Client

  bar, seen = None, 0

  def show(now: Any) -> None:
    nonlocal bar, seen
    if bar is None or now.done < seen:  # a further pass counts from the start
      if bar:
        bar.close()
      bar, seen = opened.enter_context(Progress(now.total, "replies", name)), 0
    bar.update(now.done - seen, **now.budget.figures())
    seen = now.done

  with contextlib.ExitStack() as opened, Client(config, show) as client:
    yield client


def _run(name: str, job: Job, taus: list[float] | None) -> None:
  """Run a stage, or the pruning study, and print a summary."""
  from phi1_jax.curation.folder import COMPLETED

  log.info("%s -> %s", name, job.folder)
  with storage.Lease(job.folder, f"running {name}"):
    if taus:
      from phi1_jax.curation import decontaminate

      for row in decontaminate.study(job, taus):
        removed = f"removed {row['removed']:,} of {row['read']:,} ({row['share']:.1%})"
        close = {n: len(each["similar"]) for n, each in row["benchmarks"].items()}
        found = ", ".join(f"{count} of {name}" for name, count in close.items())
        print(f"tau {row['tau']:g}: {removed}; problems with a close match: {found}")
      print(f"written: {job.folder / decontaminate.STUDY}", flush=True)
      return
    was_done = storage.exists(job.folder / COMPLETED)
    print(_summary(name, _module(name).run(job)))
  done = "was complete already" if was_done else "written"
  print(f"{done}: {job.folder}", flush=True)


def _estimate(name: str, job: Job) -> None:
  """Print the cost of a stage."""
  if not job.needs_llm:
    return print(f"{name}: asks no LLM, costs nothing")
  fields = ("sections", "exercises", "sample")
  number = next(field for field in fields if hasattr(job.config, field))
  with job.client() as client:
    estimate = client.estimate(_module(name).requests(job, client))
    print(f"{name}: {estimate.text(f'{job.config.gin_name}.{number}')}")


def _module(stage: str) -> Any:
  return importlib.import_module(f"phi1_jax.curation.{STAGES[stage][0]}")


def _summary(name: str, stats: dict[str, Any]) -> str:
  """Return a few lines about what a stage did."""
  lines = [f"{name}: read {stats['read']:,}, kept {stats['kept']:,}"]
  lines += [f"  dropped {n:,}: {reason}" for reason, n in stats["dropped"].items()]
  masked = stats.get("masked")
  if isinstance(masked, dict):
    lines += [f"  masked {n:,}: {kind}" for kind, n in masked.items()]
  lines += [f"  {label}: {value}" for label, value in stats.get("cost", {}).items()]
  if run := stats.get("run"):
    lines.append(f"  {run['seconds']:.1f} s, peak {run['peak_memory_mib']:.0f} MiB")
  return "\n".join(lines)


if __name__ == "__main__":
  command.run(main)
