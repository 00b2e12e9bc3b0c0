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
import functools
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from phi1_jax import InputError
from phi1_jax.cli import command
from phi1_jax.cli.progress import Progress
from phi1_jax.cli.workdir import held
from phi1_jax.curation import config as configs
from phi1_jax.curation.document import LossError
from phi1_jax.llm.budget import BudgetError
from phi1_jax.llm.client import RequestError
from phi1_jax.llm.config import LlmConfig

log = logging.getLogger("phi1_jax.curate")

ALL = "all"
# In the order in which `all` runs them, with the gin name of each.
STAGES = {
  "annotate": ("Annotate", configs.AnnotateConfig),
  "train-classifier": ("Classifier", configs.ClassifierConfig),
  "filter": ("Filter", configs.FilterConfig),
  "textbooks": ("Textbooks", configs.TextbooksConfig),
  "exercises": ("Exercises", configs.ExercisesConfig),
  "deduplicate": ("Deduplicate", configs.DeduplicateConfig),
  "decontaminate": ("Decontaminate", configs.DecontaminateConfig),
  "publish": ("Publish", configs.PublishConfig),
}
CONFIGURABLES = {**dict(STAGES.values()), "Llm": LlmConfig}
_ROOT = Path("runs/curate")
FAILED = 1
_FAILURES = (BudgetError, RequestError, LossError)
# Fields that name the folder of another stage: its name alone means the one beside.
_FOLDERS = ("inputs", "labels", "classifier", "compare_with")


def main(argv: Sequence[str] | None = None) -> int:
  """Runs one stage, or all of them."""
  arguments = _parser().parse(argv)
  if not arguments.gin_files:
    arguments.gin_files = [f"gin/curate/{arguments.stage}.gin"]
  if arguments.tau and arguments.stage != "decontaminate":
    raise InputError(f"--tau: got it for {arguments.stage}, expected decontaminate")
  arguments.tau = arguments.tau and _taus(arguments.tau)
  _quiet()
  stages = [_Stage(*place, arguments) for place in _places(arguments)]
  for stage in stages:
    try:
      stage.estimate() if arguments.estimate else stage.run()
    except _FAILURES as error:
      print(f"error: {error}", file=sys.stderr)
      return FAILED
    except OSError as error:
      if error.errno != errno.ENOSPC:
        raise
      print(
        f"error: {stage.folder}: the disk is full; make room and run the same command "
        "again, which pays for nothing twice",
        file=sys.stderr,
      )
      return FAILED
  return command.DONE


def _places(arguments: argparse.Namespace) -> list[tuple[str, Path]]:
  """The stages to run, each with its folder."""
  if arguments.stage == ALL:
    root = arguments.workdir or _ROOT
    return [(name, root / name) for name in STAGES]
  return [(arguments.stage, arguments.workdir or _ROOT / arguments.stage)]


def _parser() -> command.Parser:
  parser = command.Parser(
    "curate",
    f"Curates data, stage by stage: {', '.join(STAGES)}, or {ALL}.",
    "python -m phi1_jax.curate exercises --gin_file=gin/curate/exercises.gin",
  )
  add = parser.add_argument
  add("stage", choices=[*STAGES, ALL], metavar="STAGE", help="which one, or all")
  add("--workdir", type=Path, help=f"the stage's folder (default: {_ROOT}/STAGE)")
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
  add("--runner", default="FnApiRunner", help="Beam's name of the runner")
  add(
    "--beam_option",
    dest="beam_options",
    action="append",
    default=[],
    metavar="--NAME=VALUE",
    help="an option of that runner (repeatable): --beam_option=--region=europe-west4",
  )
  return parser


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


class _Stage:
  """One stage, configured.

  Args:
    name: of the stage.
    folder: where it is to be.
    arguments: of the command.
  """

  def __init__(self, name: str, folder: Path, arguments: argparse.Namespace):
    from phi1_jax.cli import gin_config  # after --help

    self.name, self.folder, self._arguments = name, folder, arguments
    part, cls = STAGES[name]
    load = functools.partial(
      gin_config.load, arguments.gin_files, arguments.gin_bindings
    )
    self._load = load
    self.config: Any = _beside(load({part: cls})[part], folder)

  def run(self) -> None:
    """Runs it and says what came of it."""
    log.info("%s -> %s", self.name, self.folder)
    with held(self.folder, f"running {self.name}"):
      print(_summary(self.name, _RUNS[self.name](self)))
    print(f"written to {self.folder}", flush=True)

  def estimate(self) -> None:
    """Says what it would cost."""
    if not self.asks:
      print(f"{self.name}: asks no LLM, costs nothing")
      return
    with self.asker() as (asker, desk):
      print(f"{self.name}: {asker.estimate(_requests(self, desk)).text()}")

  @property
  def asks(self) -> bool:
    """Whether an LLM is asked."""
    return "llm" in (
      getattr(self.config, "judge", None),
      getattr(self.config, "teacher", None),
    )

  @contextlib.contextmanager
  def asker(self) -> Iterator[tuple[Any, Any]]:
    """The door to the LLM, with a bar that shows money and time, and the desk at it."""
    from phi1_jax.curation.desk import Desk
    from phi1_jax.llm.asker import Asker

    config = self._load({"Llm": LlmConfig})["Llm"]
    with _money_bar(self.name) as show, Asker(config, show) as asker:
      yield asker, Desk(config, asker)

  @property
  def runner(self) -> Any:
    """Where Beam runs."""
    from phi1_jax.curation import pipeline

    return pipeline.Runner(self._arguments.runner, tuple(self._arguments.beam_options))

  @property
  def taus(self) -> tuple[float, ...] | None:
    """Match rates of the pruning study, if it was asked for."""
    return self._arguments.tau


def _beside(config: Any, folder: Path) -> Any:
  """The config with names of stages replaced by the folders beside this one."""

  def resolve(value: Any) -> Any:
    if isinstance(value, tuple):
      return tuple(resolve(each) for each in value)
    return str(folder.parent / value) if value in STAGES else value

  fields = {field.name for field in dataclasses.fields(config)}
  changed = {n: resolve(getattr(config, n)) for n in _FOLDERS if n in fields}
  return dataclasses.replace(config, **changed)


@contextlib.contextmanager
def _money_bar(name: str) -> Iterator[Callable[[Any], None]]:
  """A bar over requests; gives the function that moves it."""
  with contextlib.ExitStack() as held_open:
    bars: list[Progress] = []
    seen = 0

    def show(now: Any) -> None:
      nonlocal seen
      if not bars:
        bars.append(held_open.enter_context(Progress(now.total, "replies", name)))
      bars[0].update(now.done - seen, **now.figures())
      seen = now.done

    yield show


# What each stage needs, and how it is called. Imports are late: sklearn, Beam, JAX and
# TensorFlow take seconds each, and no stage needs all of them.


def _annotate(stage: _Stage) -> dict[str, Any]:
  from phi1_jax.curation import annotate

  if not stage.asks:
    return annotate.run(stage.config, stage.folder, annotate.LocalJudge())
  with stage.asker() as (_, desk):
    return annotate.run(stage.config, stage.folder, _llm_judge(stage, desk))


def _llm_judge(stage: _Stage, desk: Any) -> Any:
  from phi1_jax.curation import annotate, prompt

  asked = prompt.load(stage.config.prompt, annotate.PLACES)
  return annotate.LlmJudge(stage.config, desk, asked)


def _train_classifier(stage: _Stage) -> dict[str, Any]:
  from phi1_jax.curation import classifier

  return classifier.run(stage.config, stage.folder)


def _filter(stage: _Stage) -> dict[str, Any]:
  from phi1_jax.curation import filtering

  return filtering.run(stage.config, stage.folder, stage.runner)


def _teach(stage: _Stage, module: Any, mark: bool) -> dict[str, Any]:
  from phi1_jax.curation import judging, teaching
  from phi1_jax.sandbox.sandbox import Sandbox

  with contextlib.ExitStack() as opened:
    teacher: Any = module.GrammarTeacher(stage.config)
    if stage.asks:
      _, desk = opened.enter_context(stage.asker())
      teacher = _llm_teacher(stage, module, desk)
    # What this project wrote may run anywhere; what a model wrote, behind walls only.
    sandbox = opened.enter_context(Sandbox(require_isolation=stage.asks))
    total = (
      stage.config.exercises if module.STAGE == "exercises" else (stage.config.sections)
    )
    bar = (
      None
      if stage.asks
      else opened.enter_context(Progress(total, module.STAGE, stage.name))
    )
    judge = judging.Judge(
      sandbox,
      module.STAGE,
      together=teacher.trusted and module.STAGE == "exercises",
      mark=mark,
      cpu_seconds=getattr(stage.config, "cpu_seconds", 3.0),
      on_decision=(lambda: bar.update(1)) if bar else None,
    )
    return teaching.run(
      module.STAGE, module.VERSION, stage.config, stage.folder, teacher, judge
    )


def _llm_teacher(stage: _Stage, module: Any, desk: Any) -> Any:
  from phi1_jax.curation import prompt

  asked = prompt.load(stage.config.prompt, module.PLACES)
  return module.LlmTeacher(stage.config, desk, asked)


def _textbooks(stage: _Stage) -> dict[str, Any]:
  from phi1_jax.curation import textbooks

  return _teach(stage, textbooks, stage.config.failing_code == "mark")


def _exercises(stage: _Stage) -> dict[str, Any]:
  from phi1_jax.curation import exercises

  return _teach(stage, exercises, mark=False)


def _deduplicate(stage: _Stage) -> dict[str, Any]:
  from phi1_jax.curation import deduplicate

  return deduplicate.run(stage.config, stage.folder, stage.runner)


def _decontaminate(stage: _Stage) -> dict[str, Any]:
  from phi1_jax.curation import decontaminate
  from phi1_jax.curation import folder as folders

  embed = None
  if stage.config.checkpoint is not None:
    from phi1_jax.curation.embedding import Embedder

    embed = Embedder(stage.config.checkpoint, "mean", 512).embed
  if stage.taus is None:
    return decontaminate.run(stage.config, stage.folder, stage.runner, embed)
  decontaminate.study(stage.config, stage.folder, stage.taus, stage.runner, embed)
  print((stage.folder / "study.md").read_text())
  return folders.read_stats(stage.folder)


def _publish(stage: _Stage) -> dict[str, Any]:
  from phi1_jax.curation import publish

  return publish.run(stage.config, stage.folder)


_RUNS: dict[str, Callable[[_Stage], dict[str, Any]]] = {
  "annotate": _annotate,
  "train-classifier": _train_classifier,
  "filter": _filter,
  "textbooks": _textbooks,
  "exercises": _exercises,
  "deduplicate": _deduplicate,
  "decontaminate": _decontaminate,
  "publish": _publish,
}


def _requests(stage: _Stage, desk: Any) -> Iterator[Any]:
  """What a stage would ask."""
  if stage.name == "annotate":
    from phi1_jax.curation import annotate, read

    judge = _llm_judge(stage, desk)
    found, _ = annotate.sampled(read.read(stage.config.inputs), stage.config.sample)
    yield from judge.requests(found, 0)
    yield from judge.requests(found[: stage.config.second_pass], 1)
    return
  from phi1_jax.curation import exercises, textbooks

  module = exercises if stage.name == "exercises" else textbooks
  for request, _ in _llm_teacher(stage, module, desk).asked():
    yield request


def _summary(name: str, stats: dict[str, Any]) -> str:
  """What a stage did, in a few lines."""
  lines = [f"{name}: read {stats['read']:,}, kept {stats['kept']:,}"]
  lines += [f"  dropped {n:,}: {reason}" for reason, n in stats["dropped"].items()]
  for label, value in (stats.get("cost") or {}).items():
    lines.append(f"  {label}: {value}")
  run = stats.get("run")
  if run:
    lines.append(f"  {run['seconds']:.1f} s, peak {run['peak_memory_mib']:.0f} MiB")
  return "\n".join(lines)


if __name__ == "__main__":
  command.run(main)
