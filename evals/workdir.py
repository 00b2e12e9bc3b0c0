"""The work directory of an evaluation.

run.json           settings and model, which decide the completions, and facts of each
                   stage; written when a stage begins and ends
completions.jsonl  one line per sample, append-only
verdicts.jsonl     one line per sample and variant, append-only
summary.json       the scores, written last
"""

import argparse
import contextlib
import math
import os
from collections.abc import Iterator, Mapping
from typing import Any

from phi1_jax import storage
from phi1_jax.problems import files
from phi1_jax.storage import AnyPath

RUN, SUMMARY = "run.json", "summary.json"
COMPLETIONS, VERDICTS = "completions.jsonl", "verdicts.jsonl"


@contextlib.contextmanager
def opened(folder: AnyPath, doing: str) -> Iterator[storage.Mirror]:
  """Make and lock a folder; give a local copy, which is uploaded when the block ends.

  A local folder is its own copy. `doing` is the work of this process: "judging".

  Raises:
    InputError: it cannot be written, or another process on this machine holds it.
  """
  with storage.Lease(folder, doing) as lease:
    mirror = storage.Mirror(folder, lease)
    mirror.fetch()
    try:
      yield mirror
    finally:
      mirror.upload()


def note(workdir: AnyPath, stage: str, facts: Mapping[str, Any]) -> None:
  """Add facts of a stage to run.json; seconds add up over restarts."""
  run = storage.read_json(workdir / RUN)
  before = run.get(stage, {})
  seconds = before.get("seconds", 0.0) + facts.get("seconds", 0.0)
  run[stage] = {**before, **facts, "seconds": round(seconds, 3)}
  storage.write_json(workdir / RUN, run)


def note_benchmarks(workdir: AnyPath, given: str | None) -> None:
  """Keep where a run's files of MBPP or EvalPlus were, for `benchmarks_of`."""
  if folder := given or os.environ.get(files.ENVIRONMENT):
    note(workdir, "execute", {"benchmarks": str(storage.full(storage.parse(folder)))})


def benchmarks_of(run: Mapping[str, Any], given: str | None) -> str | None:
  """Return the folder to look for a run's benchmark in: as given, or as judged.

  `run` is the content of run.json or summary.json.
  """
  folder = given or run.get("execute", {}).get("benchmarks")
  return folder if given or (folder and storage.exists(storage.parse(folder))) else None


def finite(value: float | None) -> float | None:
  """Return None for infinity and NaN, which JSON cannot hold."""
  return value if value is not None and math.isfinite(value) else None


def columns(lines: list[tuple[str, ...]]) -> list[str]:
  """Return lines of a table with aligned columns."""
  widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
  return [
    "  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip()
    for line in lines
  ]


def add_benchmarks(parser: argparse.ArgumentParser) -> None:
  """Add the flag for the folder of downloaded benchmarks."""
  parser.add_argument(
    "--benchmarks",
    metavar="FOLDER",
    help="where MBPP's and EvalPlus' files are (default: "
    "$PHI1_JAX_BENCHMARKS, else ~/.cache/phi1_jax/benchmarks, filled when empty)",
  )
