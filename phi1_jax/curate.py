"""Curates data: from raw code to the sets that the registry's tasks read.

    python -m phi1_jax.curate annotate --gin_file=gin/curate/annotate.gin

A stage reads what other stages kept and leaves a folder of its own, runs/curate/STAGE
if --workdir names no other. The same command goes on, or says that it is complete.
`all` runs every stage in order, each in its folder below the work directory.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import errno
import logging
import os
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from phi1_jax import InputError, storage
from phi1_jax.cli import command
from phi1_jax.cli.progress import Progress
from phi1_jax.curation.document import LossError
from phi1_jax.curation.folder import COMPLETED, STAGE
from phi1_jax.curation.stages import STAGES, Work, requests
from phi1_jax.llm.client import BudgetError, RequestError
from phi1_jax.llm.config import LlmConfig
from phi1_jax.problems import mbpp

log = logging.getLogger("phi1_jax.curate")

ALL = "all"
FAILED = 1
CONFIGURABLES = {
  **{stage.part: stage.config for stage in STAGES.values()},
  "Llm": LlmConfig,
}
_DECONTAMINATE = "decontaminate"
# All of MBPP: which part a model will be judged with is not known here.
_MBPP = "mbpp-full-974"
_ROOT = Path("runs/curate")
_RUNNER = "FnApiRunner"
_PIPELINES = ("filter", "deduplicate", _DECONTAMINATE)
_FAILURES = (BudgetError, RequestError, LossError)
# Fields that name the folder of another stage: its name alone means the one beside.
_FOLDERS = ("inputs", "labels", "classifier", "compare_with")
_LOCAL = (*_FOLDERS, "prompt", "benchmarks")


def main(argv: Sequence[str] | None = None) -> int:
  """Runs one stage, or all of them."""
  arguments = _parser().parse(argv)
  if not arguments.gin_files:
    arguments.gin_files = [f"gin/curate/{arguments.stage}.gin"]
  if arguments.tau and arguments.stage != _DECONTAMINATE:
    raise InputError(f"--tau: got it for {arguments.stage}, expected decontaminate")
  arguments.tau = arguments.tau and _taus(arguments.tau)
  if arguments.runner != _RUNNER and arguments.stage not in (ALL, *_PIPELINES):
    raise InputError(
      f"--runner: got {arguments.runner} for {arguments.stage}, which is no pipeline; "
      f"expected it with {', '.join(_PIPELINES)}"
    )
  if arguments.benchmarks:
    os.environ[mbpp.ENVIRONMENT] = arguments.benchmarks
  _quiet()
  # All are read before the first runs: what is wrong with the last is said at once.
  works = [(*place, _work(*place, arguments)) for place in _places(arguments)]
  for name, folder, work in works:
    try:
      _estimate(name, work) if arguments.estimate else _run(name, folder, work)
    except _FAILURES as error:
      print(f"error: {error}", file=sys.stderr)
      return FAILED
    except OSError as error:
      if error.errno != errno.ENOSPC:
        raise
      print(
        f"error: {folder}: the disk is full; make room and run the same command "
        "again, which pays for nothing twice",
        file=sys.stderr,
      )
      return FAILED
  return command.DONE


def _parser() -> command.Parser:
  parser = command.Parser(
    "curate",
    f"Curates data, stage by stage: {', '.join(STAGES)}, or {ALL}.",
    "python -m phi1_jax.curate exercises --gin_file=gin/curate/exercises.gin",
  )
  parser.epilog = f"{parser.epilog}\n\n{_parameters()}"
  add = parser.add_argument
  add("stage", choices=[*STAGES, ALL], metavar="STAGE", help="which one, or all")
  add(
    "--workdir",
    type=storage.parse,
    help=f"the stage's folder (default: {_ROOT}/STAGE; {_ROOT}/pruned with --tau)",
  )
  add(
    "--estimate",
    action="store_true",
    help="say what a stage that asks an LLM would cost, send nothing, and stop",
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
  add(
    "--runner",
    default=_RUNNER,
    help="Beam's name of the runner, such as DataflowRunner, FlinkRunner, DaskRunner",
  )
  add(
    "--beam_option",
    dest="beam_options",
    action="append",
    default=[],
    metavar="--NAME=VALUE",
    help="an option of that runner (repeatable): --beam_option=--region=europe-west4",
  )
  return parser


def _parameters() -> str:
  """What each stage may be told, as its gin names."""
  lines = ["parameters (--gin.PART.NAME=VALUE; phi1_jax/curation/config.py says more):"]
  for name, stage in STAGES.items():
    fields = ", ".join(field.name for field in dataclasses.fields(stage.config))
    text = f"{name}: {stage.part}.{{{fields}}}"
    lines += textwrap.wrap(text, 78, initial_indent="  ", subsequent_indent="    ")
  return "\n".join(lines)


def _taus(text: str) -> tuple[float, ...]:
  try:
    found = tuple(float(part) for part in text.split(","))
  except ValueError:
    found = ()
  if not found or not all(0 < tau < 1 for tau in found):
    raise InputError(f"--tau: got {text!r}, expected numbers such as 0.95,0.9,0.85,0.8")
  return found


def _quiet() -> None:
  """Beam logs at its root what concerns nobody here."""
  logging.getLogger().addFilter(lambda record: "apitools" not in record.getMessage())
  logging.getLogger("apache_beam").setLevel(logging.ERROR)


def _places(arguments: argparse.Namespace) -> list[tuple[str, Path]]:
  """The stages to run, each with its folder."""
  if arguments.stage == ALL:
    root = arguments.workdir or _ROOT
    return [(name, root / name) for name in STAGES]
  name = "pruned" if arguments.tau else arguments.stage
  return [(arguments.stage, arguments.workdir or _ROOT / name)]


def _work(name: str, folder: Path, arguments: argparse.Namespace) -> Work:
  """A stage, configured."""
  from phi1_jax.cli import gin_config  # after --help

  def load(part: str) -> Any:
    classes = {part: CONFIGURABLES[part]}
    return gin_config.load(
      arguments.gin_files, arguments.gin_bindings, classes, partial=True
    )[part]

  _check_local("--workdir", folder)
  config = _beside(load(STAGES[name].part), folder)
  for field in _LOCAL:
    _check_local(f"{STAGES[name].part}.{field}", getattr(config, field, None))
  if name == _DECONTAMINATE:
    config = _with_mbpp(config, arguments)
    if arguments.stage == ALL:  # not only after all stages before it
      from phi1_jax.curation import references

      references.Index.of(config.benchmarks, config.ngram)
  work = Work(
    config=config,
    folder=folder,
    door=lambda: _door(name, load("Llm")),
    bar=Progress,
    engine=(arguments.runner, tuple(arguments.beam_options)),
    taus=arguments.tau,
  )
  if work.asks:
    load("Llm")  # what is wrong with it is said now
  checkpoint = getattr(work.config, "checkpoint", None)
  if checkpoint and not storage.parse(checkpoint).exists():
    raise InputError(
      f"{STAGES[name].part}.checkpoint: no {checkpoint}; expected the work directory "
      "of a training, such as that of\npython -m phi1_jax.train "
      "--gin_file=gin/quickstart_pretrain.gin"
    )
  return work


def _check_local(name: str, value: Any) -> None:
  """Refuse a path on cloud storage where only a local one can be used."""
  for path in value if isinstance(value, tuple) else (value,):
    if path is not None and storage.is_remote(storage.parse(path)):
      raise InputError(
        f"{name}: got {path}, expected a local path, since curation reads and writes "
        "local files only; copy the folder. (Publish.directory may be gs://)"
      )


def _with_mbpp(config: Any, arguments: argparse.Namespace) -> Any:
  """What decontaminate is told, and MBPP if its folder is named (see --benchmarks)."""
  named = os.environ.get(mbpp.ENVIRONMENT)
  told = any(name == "Decontaminate.benchmarks" for name, _ in arguments.gin_bindings)
  if not named or told or any(name in mbpp.TASK_SETS for name in config.benchmarks):
    return config
  log.info(
    "decontaminate: looks for %s too, as --benchmarks or $%s names %s; "
    "to look for something else, give --gin.Decontaminate.benchmarks",
    *(_MBPP, mbpp.ENVIRONMENT, named),
  )
  return dataclasses.replace(config, benchmarks=(*config.benchmarks, _MBPP))


def _beside(config: Any, folder: Path) -> Any:
  """The config with names of stages replaced by the folders beside this one."""

  def resolve(value: Any) -> Any:
    if isinstance(value, tuple):
      return tuple(resolve(each) for each in value)
    beside = folder.parent / str(value)
    return str(beside) if value in STAGES or (beside / STAGE).is_file() else value

  fields = {field.name for field in dataclasses.fields(config)}
  changed = {n: resolve(getattr(config, n)) for n in _FOLDERS if n in fields}
  return dataclasses.replace(config, **changed)


@contextlib.contextmanager
def _door(name: str, config: LlmConfig) -> Iterator[Any]:
  """The desk at which a stage asks, with a bar that shows money and time."""
  from phi1_jax.curation.desk import Desk
  from phi1_jax.llm.client import Client

  with _money_bar(name) as show, Client(config, show) as client:
    yield Desk(config, client)


@contextlib.contextmanager
def _money_bar(name: str) -> Iterator[Callable[[Any], None]]:
  """A bar over replies; gives the function that moves it."""
  with contextlib.ExitStack() as opened:
    bars: list[Progress] = []
    seen = 0

    def show(now: Any) -> None:
      nonlocal seen
      if now.done < seen:  # a second pass counts from the start
        bars.pop().close()
        seen = 0
      if not bars:
        bars.append(opened.enter_context(Progress(now.total, "replies", name)))
      bars[0].update(now.done - seen, **now.budget.figures())
      seen = now.done

    yield show


def _run(name: str, folder: Path, work: Work) -> None:
  """Runs a stage and says what came of it."""
  log.info("%s -> %s", name, folder)
  with storage.Lease(folder, f"running {name}"):
    was_done = (folder / COMPLETED).exists()
    print(_summary(name, STAGES[name].run(work)))
  print(f"{'was complete already' if was_done else 'written'}: {folder}", flush=True)


def _estimate(name: str, work: Work) -> None:
  """Says what a stage would cost."""
  if not work.asks:
    print(f"{name}: asks no LLM, costs nothing")
    return
  with work.door() as desk:
    print(f"{name}: {desk.estimate(requests(name, work, desk)).text()}")


def _summary(name: str, stats: dict[str, Any]) -> str:
  """What a stage did, in a few lines."""
  lines = [f"{name}: done"]
  if "read" in stats:  # a study keeps a set per rate, not one of its own
    lines = [f"{name}: read {stats['read']:,}, kept {stats['kept']:,}"]
    lines += [f"  dropped {n:,}: {reason}" for reason, n in stats["dropped"].items()]
  lines += [f"  {label}: {value}" for label, value in stats.get("cost", {}).items()]
  if run := stats.get("run"):
    lines.append(f"  {run['seconds']:.1f} s, peak {run['peak_memory_mib']:.0f} MiB")
  return "\n".join(lines)


if __name__ == "__main__":
  command.run(main)
