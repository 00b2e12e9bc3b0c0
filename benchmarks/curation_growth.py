"""Documents per second and peak memory of a stage as its input grows, and two engines.

    python benchmarks/curation_growth.py --stage=deduplicate --documents=2000
    python benchmarks/curation_growth.py --stage=decontaminate --engines
    python benchmarks/curation_growth.py --stage=filter --classifier=FOLDER --engines

Each size runs in a process of its own, so that its peak memory is its own. With
--engines the same pipeline runs on FnApiRunner and on Beam's Dask runner with two
worker processes; the files of what they kept and dropped must be equal, byte by byte.
The input: exercises of the grammar, one in ten of them twice with one word changed, and
modules of the standard library, one for every hundred exercises.
"""

import argparse
import json
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from phi1_jax.curation import card, decontaminate, deduplicate
from phi1_jax.curation.config import (
  DecontaminateConfig,
  DeduplicateConfig,
  FilterConfig,
)
from phi1_jax.curation.document import Document, identify
from phi1_jax.curation.folder import line
from phi1_jax.curation.pipeline import LOCAL, Runner
from phi1_jax.data import corpora
from phi1_jax.grammar import teacher

DASK = "apache_beam.runners.dask.dask_runner.DaskRunner"
# What runs a stage, given inputs, a classifier's folder, the stage's own, the runner.
STAGES: dict[str, Callable[[str, str, Path, Runner], Any]] = {
  "deduplicate": lambda inputs, _, folder, runner: deduplicate.run(
    DeduplicateConfig((inputs,)), folder, runner
  ),
  "decontaminate": lambda inputs, _, folder, runner: decontaminate.run(
    DecontaminateConfig((inputs,)), folder, runner
  ),
  "filter": lambda inputs, classifier, folder, runner: filter_stage(
    FilterConfig((inputs,), classifier), folder, runner
  ),
}


def filter_stage(config: FilterConfig, folder: Path, runner: Runner) -> Any:
  """Runs the filter, whose imports would count as every stage's memory."""
  from phi1_jax.curation import filtering

  return filtering.run(config, folder, runner)


def write_input(folder: Path, documents: int, files: int = 8) -> int:
  """Writes the input, spread over some files; the number of its bytes."""
  opened = [(folder / f"part-{n}.jsonl").open("wb") for n in range(files)]
  for number, document in enumerate(made(documents)):
    opened[number % files].write(line(document.record()))
  for file in opened:
    file.close()
  return sum(path.stat().st_size for path in folder.glob("part-*.jsonl"))


def made(documents: int) -> Iterator[Document]:
  """So many documents, give or take a few."""
  cpython = next(c for c in corpora.embedded() if c.name == "cpython")
  for number, exercise in enumerate(teacher.exercises(0, 0, documents)):
    yield as_document("grammar", exercise.text)
    if number % 10 == 0:
      yield as_document("grammar", exercise.text.replace(" the ", " that ", 1))
    if number % 100 == 0:
      path = cpython.paths[number // 100 % len(cpython.paths)]
      found = corpora.code(cpython, path)
      if not isinstance(found, corpora.Drop):
        # One module may come again in a larger input: it is not to be a copy.
        yield from (as_document("cpython", f"# {number}\n{d.text}") for d in found)


def as_document(source: str, text: str) -> Document:
  """A text as a document."""
  made_from = identify(source, text)
  return Document(made_from, text, source, "MIT", "exercise", made_from)


def measure(
  stage: tuple[str, str], inputs: str, folder: str, runner: Runner, answer: Any
) -> None:
  """Runs a stage in this process: seconds, documents, kept, peak MiB."""
  before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
  started = time.monotonic()
  name, classifier = stage
  stats = STAGES[name](inputs, classifier, Path(folder), runner)
  seconds = time.monotonic() - started
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
  answer.put((seconds, stats["read"], stats["kept"], before, peak))


def in_a_process(
  stage: tuple[str, str], inputs: str, folder: Path, runner: Runner
) -> tuple[float, int, int, float, float]:
  """`measure` in a new process."""
  folder.mkdir()
  context = multiprocessing.get_context("spawn")
  answer = context.Queue()
  arguments = (stage, inputs, str(folder), runner, answer)
  process = context.Process(target=measure, args=arguments)
  process.start()
  process.join()
  if process.exitcode:
    sys.exit(f"{stage[0]} failed; its error stands above")
  return answer.get()


def growth(
  stage: tuple[str, str], documents: int, place: Path
) -> Iterator[tuple[object, ...]]:
  """Rows: how the cost grows from 1x to 8x."""
  for times in (1, 2, 4, 8):
    source = place / f"input-{times}"
    source.mkdir()
    size = write_input(source, documents * times)
    seconds, read, kept, before, peak = in_a_process(
      stage, str(source / "*.jsonl"), place / f"out-{times}", Runner(LOCAL)
    )
    yield (
      f"{times}x",
      f"{read:,}",
      f"{size / 1e6:.1f} MB",
      f"{kept:,}",
      f"{seconds:.1f} s",
      f"{read / seconds:,.0f}",
      f"{before:,.0f} MiB",
      f"{peak:,.0f} MiB",
    )


def engines(
  stage: tuple[str, str], documents: int, place: Path
) -> Iterator[tuple[object, ...]]:
  """Rows: the engines, and whether they kept the same."""
  from dask.distributed import LocalCluster

  source = place / "input"
  source.mkdir()
  write_input(source, documents)
  opened: Any = LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0")
  with opened as cluster:
    # Two partitions of the input's files, as there are two workers.
    options = (
      f"--dask_client_address={cluster.scheduler_address}",
      "--dask_partition_size=4",
    )
    runners = {LOCAL: Runner(LOCAL), "DaskRunner": Runner(DASK, options)}
    kept = {}
    for name, runner in runners.items():
      seconds, read, count, _, _ = in_a_process(
        stage, str(source / "*.jsonl"), place / name, runner
      )
      files = json.loads((place / name / "COMPLETED").read_text())
      kept[name] = files
      same = files == kept[LOCAL]
      cells = (f"{read:,}", f"{count:,}", f"{seconds:.1f} s", len(files), same)
      yield (name, *cells)


def main() -> None:
  """Parses the command line and prints the tables."""
  parser = argparse.ArgumentParser(description="Growth of a curation stage.")
  parser.add_argument("--stage", choices=sorted(STAGES), required=True)
  parser.add_argument("--documents", type=int, default=2000, help="exercises at 1x")
  parser.add_argument("--engines", action="store_true", help="compare two engines")
  parser.add_argument("--classifier", default="", help="filter: a trained one")
  arguments = parser.parse_args()
  if (arguments.stage == "filter") != bool(arguments.classifier):
    parser.error("--classifier: expected with --stage=filter, and only there")
  stage = (arguments.stage, arguments.classifier)
  with tempfile.TemporaryDirectory() as folder:
    if arguments.engines:
      head = ("engine", "read", "kept", "wall", "files", "same as the first")
      rows = engines(stage, arguments.documents, Path(folder))
    else:
      head = ("input", "documents", "size", "kept", "wall", "documents/s")
      head += ("memory before", "peak memory")
      rows = growth(stage, arguments.documents, Path(folder))
    print(f"{arguments.stage}\n\n{card.table(head, rows)}")


if __name__ == "__main__":
  sys.exit(main())
