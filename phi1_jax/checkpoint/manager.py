"""The checkpoints of a run: saved, kept, restored; a damaged one is skipped by name.

Restore order, the only place where it is written down:

  1. the newest whole checkpoint of the run's own work directory;
  2. else `Checkpoint.resume_from`: state and step of another run, which goes on here;
  3. else `Checkpoint.init_from`: only the parameters of another run (finetuning);
  4. else from scratch.

In 1, a checkpoint that twice does not read back as it was written is moved to
`checkpoints_damaged/` and the one before it is tried. Storage that fails for a passing
reason is read again, and never moves a checkpoint. 2 and 3 name one checkpoint, or a
folder of them whose newest is taken; damage there is refused, not worked around.
"""

import contextlib
import dataclasses
import functools
import itertools
import logging
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import orbax.checkpoint as ocp

from phi1_jax import InputError, storage
from phi1_jax.checkpoint.checkpoint import Checkpoint, DamagedError
from phi1_jax.checkpoint.fingerprint import fingerprints
from phi1_jax.parallel import hosts
from phi1_jax.settings import Positive, PositiveInt, Settings
from phi1_jax.storage import AnyPath, retry

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class CheckpointConfig(Settings):
  """When to save, what to keep, and where to start from.

  Attributes:
    every: steps between saves; the last step is always saved.
    every_minutes: save also when so many minutes have passed since the last save.
    keep_latest: how many of the newest checkpoints stay.
    keep_every: checkpoints whose step is a multiple of this stay for ever.
    keep_best: how many checkpoints with the lowest held-out loss stay, too.
    resume_from: a checkpoint of another run whose state, step included, goes on here.
    init_from: a checkpoint of another run whose parameters are the start of this one.
    asynchronous: write while training goes on.
  """

  every: PositiveInt = 1000
  every_minutes: Positive | None = None
  keep_latest: PositiveInt = 2
  keep_every: PositiveInt | None = None
  keep_best: PositiveInt | None = None
  resume_from: str | None = None
  init_from: str | None = None
  asynchronous: bool = True

  def __post_init__(self):
    super().__post_init__()
    if self.resume_from and self.init_from:
      raise InputError(
        f"Checkpoint: got both resume_from={self.resume_from!r} (state and step) and "
        f"init_from={self.init_from!r} (parameters only), expected one of them"
      )


# Arrays are stored in chunks and files of this size. Orbax would make a file of all of
# them, and hold it in memory until it is written.
_PIECE_BYTES = 64 << 20

_AGAIN_SECONDS = 1.0  # before a checkpoint that looks damaged is read again


class Checkpoints:
  """The checkpoints of one work directory.

  Args:
    directory: the folder that holds one folder per step, local or gs://.
    config: when to save and what to keep.

  Attributes:
    losses: held-out loss by step, for `keep_best`; the caller adds to it.
  """

  def __init__(self, directory: AnyPath, config: CheckpointConfig):
    self.directory = storage.full(directory)
    self.config = config
    self.losses: dict[int, float] = {}
    self._saved_at = time.monotonic()
    self._failure: BaseException | None = None  # of the last save
    _report_failures_once()
    self._manager = self._open()

  def _open(self) -> ocp.CheckpointManager:
    options = ocp.CheckpointManagerOptions(
      preservation_policy=self,
      enable_async_checkpointing=self.config.asynchronous,
      cleanup_tmp_directories=True,  # what a kill left of a save is 17 GB large
    )

    def opened() -> ocp.CheckpointManager:
      return ocp.CheckpointManager(self.directory, options=options)

    if hosts.count() > 1:  # hosts meet inside, so one alone must not try again
      storage.names(self.directory)
      return opened()
    return storage.retrying(opened, f"listing {self.directory}")

  def kept(self, steps: Sequence[int]) -> set[int]:
    """Return those of the steps whose checkpoints stay."""
    config = self.config
    ranked = sorted((self.losses[step], step) for step in steps if step in self.losses)
    best = (step for _, step in ranked[: config.keep_best or 0])
    periodic = (x for x in steps if config.keep_every and x % config.keep_every == 0)
    return {*sorted(steps)[-config.keep_latest :], *best, *periodic}

  def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
    """Answer Orbax, which asks after each save."""
    del context
    kept = self.kept([each.step for each in checkpoints])
    return [each.step in kept for each in checkpoints]

  def due(self, step: int, last_step: int) -> bool:
    """Return whether the number of the step asks for a save."""
    return step > 0 and (step % self.config.every == 0 or step == last_step)

  def overdue(self) -> bool:
    """Return whether `every_minutes` have passed since the last save."""
    minutes = self.config.every_minutes
    return minutes is not None and time.monotonic() - self._saved_at >= 60 * minutes

  def save(self, step: int, state: Any, meta: Mapping[str, Any]) -> None:
    """Save in the background; wait only for an earlier save to finish.

    A save that fails is reported by `failing`.
    """
    if step in self._manager.all_steps():
      return
    meta = {**meta, "step": step, "fingerprints": fingerprints(state)}
    pieces = jax.tree.map(lambda _: ocp.SaveArgs(chunk_byte_size=_PIECE_BYTES), state)
    arguments = ocp.args.Composite(
      state=ocp.args.PyTreeSave(
        state, save_args=pieces, ocdbt_target_data_file_size=_PIECE_BYTES
      ),
      meta=ocp.args.JsonSave(meta),
    )
    self._saved_at = time.monotonic()
    try:
      self._manager.save(step, args=arguments, force=True)
    except Exception as error:
      if hosts.count() > 1:  # the others wait inside: end, so that they notice
        raise storage.StorageError(
          f"{self.directory}: host {hosts.index()} cannot save step {step} "
          f"({retry.one_line(error)})"
        ) from error
      self._failure = error

  def failing(self, *, wait: bool = False) -> bool:
    """Return whether the last save has failed by now, or when it has ended."""
    if self._failure is None:
      try:  # a save that failed may still wait for other hosts
        self._manager.check_for_errors()
        if wait or not self._manager.is_saving_in_progress():
          self._manager.wait_until_finished()
      except Exception as error:
        self._failure = error
    return self._failure is not None

  def save_again(self, step: int, state: Any, meta: Mapping[str, Any]) -> None:
    """Save after a failed save, and wait for the end of it. All hosts must call it.

    Raises:
      StorageError: this one fails, too.
    """
    reason = retry.one_line(self._failure) if self._failure else "on another host"
    log.warning("a checkpoint could not be saved (%s); saving again", reason)
    with contextlib.suppress(Exception):  # it raises what has been reported
      self._manager.close()
    self._failure, self._manager = None, self._open()
    self.save(step, state, meta)
    self.failing(wait=True)
    reason = self._failure and retry.one_line(self._failure)
    reasons = list(filter(None, hosts.exchange("saving again", reason)))
    if reasons:
      newest = max(self._manager.all_steps(), default="none")
      raise storage.StorageError(
        f"{self.directory}: the checkpoint of step {step} could not be saved, twice "
        f"({reasons[0]}); the newest that is whole: {newest}. Make room or repair the "
        "storage, and run the same command again"
      )

  def finish(self, step: int, state: Any, meta: Mapping[str, Any]) -> None:
    """Wait until the last save is on disk; if it fails, save again once.

    Then apply `keep_best` to the losses that were measured since that save began.

    Raises:
      StorageError: it fails twice.
    """
    if any(hosts.exchange("the last save", self.failing(wait=True))):
      self.save_again(step, state, meta)
    if self.config.keep_best:
      steps = self._manager.all_steps()
      for gone in sorted({*steps} - self.kept(steps)):
        self._manager.delete(gone)

  def restore_latest(self, abstract_state: Any, expected: Mapping[str, Any]):
    """Restore the newest whole checkpoint of this directory.

    Args:
      abstract_state: `jax.ShapeDtypeStruct`s with the shardings to restore to; they
        may differ from those it was saved with.
      expected: entries that the meta must hold.

    Returns:
      The state and its checkpoint, or None when the directory holds none.

    Raises:
      InputError: a checkpoint of another model or store, or none that is whole.
      StorageError: the storage kept failing; all checkpoints are as they were.
    """
    found = sorted(self._manager.all_steps(), reverse=True)
    steps = hosts.exchange("listing checkpoints", found)[0]
    for step in steps:
      path = self.directory / str(step)
      for attempt in range(2):  # a mount may give wrong bytes once
        found = Checkpoint(path)
        try:
          return found.restore(abstract_state, expected), found
        except DamagedError as error:
          said = "skipping" if attempt else "reading again"
          log.warning("%s %s", said, retry.one_line(error))
          time.sleep(0 if attempt else _AGAIN_SECONDS)
      self._set_aside(path)
    if steps:
      raise InputError(
        f"{self.directory}: all {len(steps)} checkpoints are damaged; they are now in "
        f"{self.directory}_damaged. Run again to start from scratch, or restore a copy"
      )
    return None

  def _set_aside(self, path: AnyPath) -> None:
    """Move a damaged checkpoint out of the way of the save that will replace it."""
    with hosts.shared_errors("setting a checkpoint aside"):
      if hosts.is_first():
        aside = self.directory.with_name(f"{self.directory.name}_damaged")
        there = storage.names(aside)
        names = (f"{path.name}.{n}" if n else path.name for n in itertools.count())
        storage.move(path, aside / next(name for name in names if name not in there))
    self._manager.reload()

  def close(self) -> None:
    """Finish saves under way and release the directory."""
    self._manager.close()

  def __enter__(self) -> "Checkpoints":
    return self

  def __exit__(self, kind: object, error: BaseException | None, _: object) -> None:
    if error is None:
      self.close()
    elif not hosts.lost(error):  # a save waits ten minutes for a host that is gone
      with contextlib.suppress(Exception):  # `error` is the one to report
        self.close()


@functools.cache
def _report_failures_once() -> None:
  """Keep a failed save from printing a traceback for each of its arrays.

  Orbax raises the first failure. It closes its event loop then, so asyncio logs the
  other failures, and TensorStore reports each write that finds the loop closed.
  """
  logging.getLogger("asyncio").setLevel(logging.CRITICAL)
  show = sys.unraisablehook

  def hook(unraisable) -> None:
    if str(unraisable.exc_value) != "Event loop is closed":
      show(unraisable)

  sys.unraisablehook = hook
