"""Goodput: the share of a run's time in which the steps of its result were trained.

starts.jsonl in the work directory has a line for each start of the run:

    {"time": 1795398100.0, "state": "starting"}

`time` is in Unix seconds. Lines with another state are those of earlier versions. The
time of the steps comes from metrics.jsonl, where a start removes the rows of the steps
that it repeats.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from phi1_jax import InputError, storage

FILE_NAME = "starts.jsonl"
_STATE = "starting"


def note_start(workdir: Path, began: float) -> None:
  """Append the line of a start that began at this time, in Unix seconds."""
  with storage.JsonLines(workdir / FILE_NAME) as lines:
    lines.append({"time": began, "state": _STATE})


def measure(
  workdir: Path, rows: Sequence[Mapping[str, Any]], now: float
) -> dict[str, float] | None:
  """Return where the time of a run went, from its first start until `now`.

  Args:
    workdir: the folder of starts.jsonl.
    rows: those of metrics.jsonl.
    now: Unix seconds.

  Returns:
    None without any start. Otherwise `starts`, their number; `total_seconds` since the
    first; `training_seconds`, those of the steps that the result comes from, waiting
    for input included; `goodput`, training / total.

  Raises:
    InputError: starts.jsonl holds something else.
  """
  lines = storage.read_lines(workdir / FILE_NAME)
  starts = [line.get("time") for line in lines if line.get("state") == _STATE]
  if not starts:
    return None
  if not isinstance(starts[0], float | int):
    raise InputError(
      f"{workdir / FILE_NAME}: got {lines[0]}, expected the time of a start; move the "
      "file away"
    )
  training, before = 0.0, None
  for row in rows:
    if seconds := row.get("step_seconds"):  # a mean over the steps since the last row
      training += seconds * (1 if before is None else row["step"] - before)
      before = row["step"]
  total = now - starts[0]
  return {
    "goodput": training / total,
    "starts": len(starts),
    "total_seconds": total,
    "training_seconds": training,
  }
