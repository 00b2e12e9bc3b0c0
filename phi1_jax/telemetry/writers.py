"""Where a run's numbers go: metrics.jsonl, TensorBoard, the terminal, summary.json.

A row of metrics.jsonl is one JSON object. Training rows: step, loss, grad_norm,
learning_rate, tokens_seen, the figures of `throughput.FIGURES`, hbm_peak_gib.
Evaluation rows: step and eval/<name>. What is not finite is null: NaN is not JSON.

A run that resumes at step k drops what the run before it wrote and this one writes
again: the rows after k, and the evaluation rows of k. So nothing is there twice,
whenever the process was killed.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import math
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

from phi1_jax import InputError, storage
from phi1_jax.storage import AnyPath
from phi1_jax.telemetry.terminal import format_row

log = logging.getLogger(__name__)


class Recorder:
  """Writes scalars to every place at once, on process 0 only.

  Args:
    workdir: folder of the run; metrics.jsonl and tensorboard/ go there.
    resumed_at: step of the checkpoint the run goes on from, None for a new run.
    num_steps: last step of the run, for the terminal.
    process_index: `jax.process_index()`; any other than 0 writes nothing.
    emit: prints a line; `tqdm.write` where a progress bar is on the terminal.
  """

  def __init__(
    self,
    workdir: str | Path,
    *,
    resumed_at: int | None = None,
    num_steps: int | None = None,
    process_index: int = 0,
    emit: Callable[[str], object] = print,
  ):
    self._num_steps, self._emit = num_steps, emit
    self._file = self._board = None
    if process_index == 0:
      workdir = Path(workdir)
      self._file = MetricsFile(workdir / "metrics.jsonl", resumed_at=resumed_at)
      # TensorBoard hides what earlier processes wrote at purge_step and later.
      purge_step = 0 if resumed_at is None else resumed_at + 1
      # Without a suffix, two starts within one second would share a file.
      if board := _summary_writer():
        self._board = board(
          str(workdir / "tensorboard"),
          purge_step=purge_step,
          filename_suffix=f".{purge_step}",
        )

  def write(self, step: int, scalars: Mapping[str, Any]) -> None:
    """Records numbers (Python, NumPy or JAX scalars, or None) of one step."""
    if self._file is None:
      return
    values = {name: _number(value) for name, value in scalars.items()}
    self._file.write(step, values)
    if self._board is not None:
      for name, value in values.items():
        if value is not None:
          group = name if "/" in name else f"train/{name}"
          self._board.add_scalar(group, value, step)
    self._emit(format_row(step, values, self._num_steps))

  def flush(self) -> None:
    """Write out what is still in memory, so that the files can be uploaded."""
    if self._board is not None:
      try:
        self._board.flush()
      except OSError as error:  # a full disk; metrics.jsonl has the numbers
        log.warning("tensorboard/: %s", error.strerror)

  def close(self) -> None:
    """Flushes and closes the files."""
    if self._file is not None:
      self._file.close()
    if self._board is not None:
      self._board.close()

  def __enter__(self) -> Self:
    return self

  def __exit__(self, kind: object, *_: object) -> None:
    # What ends the run is to be reported, not that its rows do not fit on the disk.
    with contextlib.suppress(*[OSError] if kind else []):
      self.close()


def _summary_writer() -> type | None:
  """tensorboardX's writer, without the torch that it would load for tensors.

  torch costs seconds and memory, and no training run here has use for it. None where
  tensorboardX is not installed: metrics.jsonl has the numbers.
  """
  if importlib.util.find_spec("tensorboardX") is None:
    log.warning("tensorboardX is not installed: no tensorboard/, only metrics.jsonl")
    return None
  hide = "torch" not in sys.modules
  if hide:
    sys.modules["torch"] = None  # pyright: ignore[reportArgumentType]  # "not there"
  try:
    from tensorboardX import SummaryWriter
  finally:
    if hide:
      del sys.modules["torch"]
  return SummaryWriter


class MetricsFile:
  """Appends rows to metrics.jsonl; a row is on the disk when `write` returns.

  Args:
    path: the file; its folder is created if missing.
    resumed_at: see `truncate_after`; None drops all rows.

  Raises:
    InputError: the file holds something else than rows.
  """

  def __init__(self, path: str | Path, *, resumed_at: int | None = None):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    truncate_after(path, -1 if resumed_at is None else resumed_at)
    self._lines = storage.JsonLines(path, patient=True)

  def write(self, step: int, scalars: Mapping[str, Any]) -> None:
    """Append one row."""
    self._lines.append(_jsonable({"step": step, **scalars}))

  def close(self) -> None:
    """Close the file."""
    self._lines.close()


def read_metrics(path: str | AnyPath) -> list[dict[str, Any]]:
  """Return the rows of a metrics.jsonl; a torn last line is left out.

  Raises:
    InputError: the file is missing, or a line is not a row.
  """
  path = storage.parse(path)
  if not path.is_file():
    raise InputError(f"{path}: no such file; expected the metrics.jsonl of a run")
  rows = storage.read_lines(path)
  for number, row in enumerate(rows, 1):
    try:
      row["step"] = int(row["step"])
    except (ValueError, KeyError, TypeError):
      raise InputError(
        f"{path} line {number}: got {str(row)[:60]}, expected a row with a step; "
        "move the file away, or use another --workdir"
      ) from None
  return rows


def truncate_after(path: Path, step: int) -> None:
  """Drop rows after `step`, evaluations of it, and a torn last line, atomically."""
  if path.exists():
    rows = [row for row in read_metrics(path) if _stays(row, step)]
    storage.write_text(path, "".join(json.dumps(row) + "\n" for row in rows))


def _stays(row: Mapping[str, Any], step: int) -> bool:
  evaluation = any(name.startswith("eval/") for name in row)
  return row["step"] < step or (row["step"] == step and not evaluation)


def write_summary(path: AnyPath, summary: Mapping[str, Any]) -> None:
  """Write summary.json atomically; numbers that are not finite become null."""
  storage.write_json(path, _jsonable(summary))


def _number(value: Any) -> int | float | None:
  """A Python number from a scalar of any library."""
  if value is None or isinstance(value, (int, float)):
    return value
  number = value.item()  # NumPy and JAX scalars, and arrays of one element
  return number if isinstance(number, int) else float(number)


def _jsonable(value: Any) -> Any:
  """The same value in what JSON knows."""
  if isinstance(value, Mapping):
    return {str(key): _jsonable(item) for key, item in value.items()}
  if isinstance(value, (list, tuple)):
    return [_jsonable(item) for item in value]
  if value is None or isinstance(value, (str, bool)):
    return value
  number = _number(value)
  return number if number is None or math.isfinite(number) else None
