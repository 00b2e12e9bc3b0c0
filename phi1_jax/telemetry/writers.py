"""Where a run's numbers go: metrics.jsonl, TensorBoard, the terminal, summary.json.

A row of metrics.jsonl is one JSON object. Training rows: step, loss, grad_norm,
learning_rate, tokens_seen, the figures of `throughput.FIGURES`, hbm_peak_gib.
Evaluation rows: step and eval/<name>. What is not finite is null: NaN is not JSON.

A run that resumes at step k drops what the run before it wrote and this one writes
again: the rows after k, and the evaluation rows of k. So nothing is there twice,
whenever the process was killed.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import math
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

from phi1_jax import InputError
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

  def close(self) -> None:
    """Flushes and closes the files."""
    if self._file is not None:
      self._file.close()
    if self._board is not None:
      self._board.close()

  def __enter__(self) -> Self:
    return self

  def __exit__(self, *_: object) -> None:
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
    self._file = path.open("a", encoding="utf-8")

  def write(self, step: int, scalars: Mapping[str, Any]) -> None:
    """Appends one row."""
    self._file.write(json.dumps(_jsonable({"step": step, **scalars})) + "\n")
    self._file.flush()
    os.fsync(self._file.fileno())

  def close(self) -> None:
    """Closes the file."""
    self._file.close()


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
  """The rows of a metrics.jsonl; a last line that a kill cut short is left out.

  Raises:
    InputError: the file is missing, or a line is not a row.
  """
  path = Path(path)
  if not path.is_file():
    raise InputError(f"{path}: no such file; expected the metrics.jsonl of a run")
  # A row ends with its newline, so what follows the last one is no row.
  lines = path.read_bytes().split(b"\n")[:-1]
  rows = []
  for number, line in enumerate(lines, 1):
    try:
      row = json.loads(line)
      row["step"] = int(row["step"])
    except (ValueError, KeyError, TypeError) as error:
      raise InputError(
        f"{path} line {number} is not a JSON object with a step: {line[:60]!r}; "
        "move the file away, or use another --workdir"
      ) from error
    rows.append(row)
  return rows


def truncate_after(path: str | Path, step: int) -> None:
  """Drops rows after `step`, evaluations of it, and a torn last line, atomically."""
  path = Path(path)
  if path.exists():
    rows = [row for row in read_metrics(path) if _stays(row, step)]
    _write_atomically(path, "".join(json.dumps(row) + "\n" for row in rows))


def _stays(row: Mapping[str, Any], step: int) -> bool:
  evaluation = any(name.startswith("eval/") for name in row)
  return row["step"] < step or (row["step"] == step and not evaluation)


def write_summary(path: str | Path, summary: Mapping[str, Any]) -> None:
  """Writes summary.json: the whole file or none of it; what is not finite is null."""
  _write_atomically(Path(path), json.dumps(_jsonable(summary), indent=2) + "\n")


def _write_atomically(path: Path, text: str) -> None:
  temporary = path.with_name(f".{path.name}.partial")
  with temporary.open("w", encoding="utf-8") as file:
    file.write(text)
    file.flush()
    os.fsync(file.fileno())
  temporary.replace(path)


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
