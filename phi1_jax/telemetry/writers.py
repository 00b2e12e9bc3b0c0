"""Writers of a run's numbers: metrics.jsonl, TensorBoard, W&B, terminal, summary.json.

A row of metrics.jsonl is a JSON object. Training rows: step, loss, grad_norm,
learning_rate, tokens_seen, the figures of `throughput.FIGURES`, hbm_peak_gib.
Evaluation rows: step and eval/<name>. Numbers that are not finite become null, because
JSON has no NaN.

A run that resumes at step k writes the rows after k and the evaluation rows of k again.
It removes the old ones first, so no row is there twice, whenever the run was killed.
"""

import contextlib
import importlib.util
import json
import logging
import math
import secrets
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

from phi1_jax import InputError, how_to_install, storage
from phi1_jax.storage import AnyPath
from phi1_jax.telemetry import throughput
from phi1_jax.telemetry.terminal import format_row

log = logging.getLogger(__name__)

# The name of the run at Weights & Biases, in its work directory.
WANDB_ID = "wandb_id.txt"
# Names of the trainer's own numbers, which no hook may take.
OWN = {
  *("step", "loss", "grad_norm", "learning_rate", "z_loss", "targets", "tokens_seen"),
  *("hbm_peak_gib", "skipped_steps", "vanished_updates", *throughput.FIGURES),
  *("eval/loss", "eval/bits_per_byte"),
}


class Recorder:
  """Writes scalars to metrics.jsonl, tensorboard/, the terminal and W&B.

  Args:
    workdir: folder of the run.
    resumed_at: step of the checkpoint that the run continues from, None for a new run.
    num_steps: last step of the run, for the terminal.
    process_index: `jax.process_index()`; only process 0 writes.
    emit: prints a line, such as `Progress.write`.
    wandb_project: a project of Weights & Biases; None writes nothing there.
    config: the run's settings, for W&B.

  Raises:
    InputError: metrics.jsonl holds something else, or W&B cannot be used.
  """

  def __init__(
    self,
    workdir: str | Path,
    *,
    resumed_at: int | None = None,
    num_steps: int | None = None,
    process_index: int = 0,
    emit: Callable[[str], object] = print,
    wandb_project: str | None = None,
    config: Mapping[str, Any] | None = None,
  ):
    self._num_steps, self._emit = num_steps, emit
    self._lines = self._board = self._wandb = None
    if process_index != 0:
      return
    path = Path(workdir) / "metrics.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    truncate_after(path, -1 if resumed_at is None else resumed_at)
    self._lines = storage.JsonLines(path, patient=True)
    # TensorBoard hides values that earlier processes wrote at purge_step and later.
    purge_step = 0 if resumed_at is None else resumed_at + 1
    self._board = _summary_writer()(
      str(path.with_name("tensorboard")),
      purge_step=purge_step,
      # Without a suffix, two starts in the same second would share a file.
      filename_suffix=f".{purge_step}",
    )
    if wandb_project:
      self._wandb = _open_wandb(path.parent, wandb_project, config)

  def write(self, step: int, scalars: Mapping[str, Any]) -> None:
    """Write numbers (Python, NumPy or JAX scalars, or None) of one step.

    The row is synced to disk when this returns.
    """
    if self._lines is None:
      return
    values = {name: _number(value) for name, value in scalars.items()}
    self._lines.append(_jsonable({"step": step, **values}))
    known = {
      name if "/" in name else f"train/{name}": value
      for name, value in values.items()
      if value is not None
    }
    if self._board is not None:
      for name, value in known.items():
        self._board.add_scalar(name, value, step)
    if self._wandb is not None:
      self._wandb.log({**known, "step": step})
    self._emit(format_row(step, values, self._num_steps))

  def flush(self) -> None:
    """Flush the files, so that they can be uploaded."""
    if self._board is not None:
      try:
        self._board.flush()
      except OSError as error:  # a full disk; metrics.jsonl has the numbers
        log.warning("tensorboard/: %s", error.strerror)

  def close(self, *, failed: bool = False) -> None:
    """Flush and close the files; `failed` is what W&B shows of the run."""
    with contextlib.ExitStack() as stack:  # all of them, if one raises
      if self._lines is not None:
        stack.callback(self._lines.close)
      if self._board is not None:
        stack.callback(self._board.close)
      if self._wandb is not None:
        stack.callback(self._wandb.finish, exit_code=int(failed))

  def __enter__(self) -> Self:
    return self

  def __exit__(self, kind: object, *_: object) -> None:
    # A full disk must not hide the exception that ended the run.
    with contextlib.suppress(*[OSError] if kind else []):
      self.close(failed=kind is not None)


def check_wandb(project: str) -> None:
  """Refuse a project of Weights & Biases without wandb, or without login."""
  if importlib.util.find_spec("wandb") is None:
    raise InputError(
      f"Runtime.wandb_project: got {project!r}, but wandb is not installed: "
      f"{how_to_install('wandb')}"
    )
  import wandb

  try:
    # What its environment variables and its settings files say.
    if wandb.setup().settings.mode not in ("online", "run", "shared"):
      return
    if not wandb.login(prompt=False):
      raise _refusal(project, "no API key")
  except wandb.Error as error:
    raise _refusal(project, error) from None


def _refusal(project: str, reason: object) -> InputError:
  return InputError(
    f"Runtime.wandb_project: W&B refuses {project!r} ({reason}); run `wandb login`, or "
    "set WANDB_MODE=offline"
  )


def _open_wandb(workdir: Path, project: str, config: Mapping[str, Any] | None) -> Any:
  """Begin a run at Weights & Biases, or go on with the one of this work directory.

  W&B reads its own environment variables: WANDB_API_KEY, WANDB_MODE=offline.
  """
  import wandb  # the extra `wandb`

  name = workdir / WANDB_ID
  if not name.exists():
    storage.write_text(name, secrets.token_hex(8))
  try:
    run = wandb.init(
      project=project,
      id=storage.read_text(name),
      name=workdir.name,
      resume="allow",
      dir=workdir,
      config=dict(config or {}),
      settings=wandb.Settings(console="off", silent=True),
    )
  except wandb.Error as error:
    raise _refusal(project, error) from None
  # Our own step, since W&B's cannot go back when a killed run repeats steps.
  run.define_metric("*", step_metric="step")
  return run


def _summary_writer() -> Any:
  """Import tensorboardX's writer without torch, which takes seconds and memory."""
  hide = "torch" not in sys.modules
  if hide:
    sys.modules["torch"] = None  # pyright: ignore[reportArgumentType]  # import fails
  try:
    from tensorboardX import SummaryWriter
  finally:
    if hide:
      del sys.modules["torch"]
  return SummaryWriter


def read_metrics(path: str | AnyPath) -> list[dict[str, Any]]:
  """Return the rows of a metrics.jsonl without a torn last line.

  Raises:
    InputError: the file is missing, or a line is not a row.
  """
  path = storage.parse(path)
  if not storage.retrying(path.is_file, f"looking for {path}"):
    raise InputError(f"{path}: no such file; expected the metrics.jsonl of a run")
  rows = storage.read_lines(path)
  for number, row in enumerate(rows, 1):
    try:
      row["step"] = int(row["step"])
    except (ValueError, KeyError, TypeError):
      raise InputError(
        f"{path}, line {number}: got {str(row)[:60]}, expected a row with a step; "
        "move the file away, or use another --workdir"
      ) from None
  return rows


def truncate_after(path: Path, step: int) -> None:
  """Remove rows after `step`, evaluations of it, and a torn last line, atomically."""
  if not path.exists():
    return
  kept = [
    json.dumps(row) + "\n"
    for row in read_metrics(path)
    # An evaluation counts as later than its step.
    if row["step"] + any(name.startswith("eval/") for name in row) <= step
  ]
  storage.write_text(path, "".join(kept))


def write_summary(path: AnyPath, summary: Mapping[str, Any]) -> None:
  """Write summary.json atomically; numbers that are not finite become null."""
  storage.write_json(path, _jsonable(summary))


def _number(value: Any) -> int | float | None:
  """Return a Python number for a scalar of any library."""
  if value is None or isinstance(value, (int, float)):
    return value
  number = value.item()  # NumPy and JAX scalars, and arrays of one element
  return number if isinstance(number, int) else float(number)


def _jsonable(value: Any) -> Any:
  """Return a value as JSON has it."""
  if isinstance(value, Mapping):
    return {str(key): _jsonable(item) for key, item in value.items()}
  if isinstance(value, (list, tuple)):
    return [_jsonable(item) for item in value]
  if isinstance(value, (str, bool)):
    return value
  number = _number(value)
  return number if number is None or math.isfinite(number) else None
