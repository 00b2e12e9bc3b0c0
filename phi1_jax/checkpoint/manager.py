"""Saves and restores a run's state; a damaged checkpoint is skipped by name.

A checkpoint is one Orbax step folder with two items: `state`, the train state as a
pytree of arrays, and `meta`, JSON that says what the state is (model, optimizer,
token store, tokens seen) and holds its fingerprints.

Restore order, the only place where it is written down:

  1. the newest whole checkpoint of the run's own work directory;
  2. else `Checkpoint.resume_from`: state and step of another run, which goes on here;
  3. else `Checkpoint.init_from`: only the parameters of another run (finetuning);
  4. else from scratch.

In 1, a checkpoint that does not read back as it was written is moved to
`checkpoints_damaged/` and the one before it is tried. 2 and 3 name one checkpoint, or
a folder of them whose newest is taken; damage there is refused, not worked around.
"""

import contextlib
import dataclasses
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath  # what Orbax calls a path

from phi1_jax import InputError
from phi1_jax.checkpoint.fingerprint import fingerprints
from phi1_jax.parallel import hosts

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
  """When to save, what to keep, and where to start from.

  Attributes:
    every: steps between saves; the last step is always saved.
    keep_latest: how many of the newest checkpoints stay.
    keep_every: checkpoints whose step is a multiple of this stay for ever.
    resume_from: a checkpoint of another run whose state, step included, goes on here.
    init_from: a checkpoint of another run whose parameters are the start of this one;
      or a gin file, whose run `train` trains first, in runs/<name of the file>.
    asynchronous: write while training goes on.
  """

  every: int = 1000
  keep_latest: int = 2
  keep_every: int | None = None
  resume_from: str | None = None
  init_from: str | None = None
  asynchronous: bool = True

  def __post_init__(self):
    """Refuses periods that are not positive and two places to start from."""
    for name in ("every", "keep_latest", "keep_every"):
      value = getattr(self, name)
      if value is not None and value < 1:
        raise InputError(f"Checkpoint.{name}: got {value}, expected at least 1")
    if self.resume_from and self.init_from:
      raise InputError(
        f"Checkpoint: got both resume_from={self.resume_from!r} (state and step) and "
        f"init_from={self.init_from!r} (parameters only), expected one of them"
      )


# Arrays are stored in chunks and files of this size. Orbax would make a file of all of
# them, and hold it in memory until it is written.
_PIECE_BYTES = 64 << 20

_EXHAUSTED = "RESOURCE_EXHAUSTED"  # how XLA says that memory has run out


class DamagedError(Exception):
  """A checkpoint that does not read back as it was written."""

  def refusal(self, place: object) -> InputError:
    """What to tell who asked for this checkpoint, by its place."""
    return InputError(f"{place}: damaged checkpoint ({self}); name an earlier one")


class Checkpoints:
  """The checkpoints of one work directory.

  Args:
    directory: the folder that holds one folder per step.
    config: when to save and what to keep.
  """

  def __init__(self, directory: Path, config: CheckpointConfig):
    self.directory = directory.absolute()
    self.config = config
    self._manager = self._open(cleanup=True)

  def _open(self, *, cleanup: bool = False) -> ocp.CheckpointManager:
    policies = ocp.checkpoint_managers
    kept: list[Any] = [policies.LatestN(self.config.keep_latest)]
    if self.config.keep_every:
      kept.append(policies.EveryNSteps(self.config.keep_every))
    return ocp.CheckpointManager(
      self.directory,
      options=ocp.CheckpointManagerOptions(
        preservation_policy=policies.AnyPreservationPolicy(kept),
        enable_async_checkpointing=self.config.asynchronous,
        # What a kill left of a save is 17 GB large. Orbax removes it in a thread that
        # only a save waits for, so that it may not begin a second time.
        cleanup_tmp_directories=cleanup,
      ),
    )

  def due(self, step: int, last_step: int) -> bool:
    """Whether the state at `step` is to be saved."""
    return step > 0 and (step % self.config.every == 0 or step == last_step)

  def save(self, step: int, state: Any, meta: Mapping[str, Any]) -> None:
    """Saves in the background; waits only for an earlier save to finish."""
    if step in self._manager.all_steps():
      return
    meta = {**meta, "step": step, "fingerprints": fingerprints(state)}
    self._manager.save(
      step,
      args=ocp.args.Composite(
        state=ocp.args.PyTreeSave(
          state,
          save_args=jax.tree.map(
            lambda _: ocp.SaveArgs(chunk_byte_size=_PIECE_BYTES), state
          ),
          ocdbt_target_data_file_size=_PIECE_BYTES,
        ),
        meta=ocp.args.JsonSave(meta),
      ),
      force=True,
    )

  def restore_latest(self, abstract_state: Any, expected: Mapping[str, Any]):
    """Restores the newest whole checkpoint of this directory.

    Args:
      abstract_state: `jax.ShapeDtypeStruct`s with the shardings to restore to; they
        may differ from those it was saved with.
      expected: entries that the meta must hold (see `check_meta`).

    Returns:
      (state, meta), or None when the directory holds no checkpoint.

    Raises:
      InputError: a checkpoint of another model or store, or none that is whole.
    """
    found = sorted(self._manager.all_steps(), reverse=True)
    steps = hosts.exchange("listing checkpoints", found)[0]
    for step in steps:
      path = self.directory / str(step)
      try:
        return restore(path, abstract_state, expected)
      except DamagedError as error:
        log.warning(
          "skipping damaged checkpoint %s (%s)", path, str(error).split("\n")[0][:200]
        )
        self._set_aside(path)
    if steps:
      raise InputError(
        f"{self.directory}: all {len(steps)} checkpoints are damaged; they are now in "
        f"{self.directory}_damaged. Run again to start from scratch, or restore a copy"
      )
    return None

  def _set_aside(self, path: Path) -> None:
    """Moves a damaged checkpoint out of the way of the save that will replace it."""
    self._manager.close()
    if hosts.is_first():
      aside = Path(f"{self.directory}_damaged")
      aside.mkdir(exist_ok=True)
      number = sum(1 for _ in aside.glob(f"{path.name}*"))
      path.rename(aside / (f"{path.name}.{number}" if number else path.name))
    hosts.exchange("setting a checkpoint aside", None)
    self._manager = self._open()

  def wait(self) -> None:
    """Waits until what was saved is on disk."""
    self._manager.wait_until_finished()

  def close(self) -> None:
    """Finishes saves under way and releases the directory."""
    self._manager.wait_until_finished()
    self._manager.close()

  def __enter__(self) -> "Checkpoints":
    return self

  def __exit__(self, kind: object, error: BaseException | None, _: object) -> None:
    # A save under way waits for all hosts, ten minutes for one that is gone.
    if error is None or not hosts.lost(error):
      self.close()


def find(path: str) -> Path:
  """The step folder that `path` names: itself, or the newest one inside it.

  `path` may be a step folder, a `checkpoints` folder, or a run's work directory.
  """
  found = _newest(Path(path).absolute())
  if found is None:
    raise InputError(
      f"{path}: no checkpoint here; expected a step folder, a checkpoints folder or a "
      "work directory of phi1_jax.train"
    )
  return found


def holds_checkpoint(workdir: Path) -> bool:
  """Whether a run would go on from its own work directory."""
  return _newest(workdir / "checkpoints") is not None


def _newest(start: Path) -> Path | None:
  for folder in (start, start / "checkpoints"):
    if (folder / "meta").is_dir() and (folder / "state").is_dir():
      return folder
    steps = [p for p in folder.glob("*") if p.name.isdigit() and p.is_dir()]
    if steps:
      return max(steps, key=lambda step: int(step.name))
  return None


def read_meta(path: Path) -> dict[str, Any]:
  """Reads what a checkpoint says about itself, without reading its arrays."""
  try:
    with contextlib.closing(ocp.JsonCheckpointHandler()) as reader:
      meta = reader.restore(epath.Path(path / "meta"))
  except (OSError, ValueError, KeyError, json.JSONDecodeError) as error:
    raise DamagedError(f"meta does not read: {error}") from error
  if not isinstance(meta, dict) or not {"step", "fingerprints"} <= meta.keys():
    raise DamagedError("meta is not that of a phi1_jax checkpoint")
  return meta


def restore(path: Path, abstract_state: Any, expected: Mapping[str, Any]):
  """Restores one checkpoint whole, straight into the shardings asked for.

  Args:
    path: a step folder.
    abstract_state: the tree to restore, as `jax.ShapeDtypeStruct`s with shardings; a
      dict with fewer keys than the saved state restores just those.
    expected: entries that the meta must hold (see `check_meta`).

  Returns:
    (state, meta).

  Raises:
    DamagedError: it does not read back as it was written.
    InputError: it is whole but belongs to another model or store.
  """
  with hosts.agreed(f"reading {path}", DamagedError):
    meta = read_meta(path)
    check_meta(path, meta, expected)
    _check_arrays(path, meta, abstract_state)
    state = _read_state(path, abstract_state)
  for name, value in fingerprints(state).items():
    if meta["fingerprints"].get(name) != value:
      raise DamagedError(f"{name} is not what was saved")
  return state, meta


def _read_state(path: Path, abstract_state: Any) -> Any:
  """Reads this host's part of the arrays, without waiting for other hosts."""
  arguments = ocp.args.PyTreeRestore(
    abstract_state,
    restore_args=ocp.checkpoint_utils.construct_restore_args(abstract_state),
    partial_restore=True,
  )
  try:
    with contextlib.closing(ocp.PyTreeCheckpointHandler()) as reader:
      state = reader.restore(epath.Path(path / "state"), args=arguments)
  except Exception as error:  # the storage layers raise all sorts
    if isinstance(error, MemoryError | PermissionError) or _EXHAUSTED in str(error):
      raise  # it says nothing about the checkpoint
    raise DamagedError(str(error)) from error
  # What a partial restore does not find, it leaves as it was asked for.
  for place, leaf in jax.tree_util.tree_leaves_with_path(state):
    if not isinstance(leaf, jax.Array):
      name = jax.tree_util.keystr(place, simple=True, separator="/")
      raise DamagedError(f"{name} is missing")
  return state


def _check_arrays(path: Path, meta: Mapping[str, Any], abstract_state: Any) -> None:
  """Refuses a checkpoint that is whole but has no such arrays as are asked for."""
  leaves = jax.tree_util.tree_leaves_with_path(abstract_state)
  names = {jax.tree_util.keystr(key, simple=True, separator="/") for key, _ in leaves}
  missing = sorted(names - meta["fingerprints"].keys())
  if missing:
    raise InputError(
      f"{path}: this checkpoint has no array {missing[0]} ({len(missing)} missing); it "
      "was saved with another optimizer or version: use Checkpoint.init_from to take "
      "its parameters only"
    )


def check_meta(
  path: Path, meta: Mapping[str, Any], expected: Mapping[str, Any]
) -> None:
  """Refuses a whole checkpoint whose meta differs from what this run needs."""
  for name, want in expected.items():
    got = meta.get(name)
    if isinstance(want, Mapping) and isinstance(got, Mapping):
      keys = sorted(k for k in {*want, *got} if want.get(k) != got.get(k))
      if keys:
        theirs = ", ".join(f"{k}={got.get(k)}" for k in keys)
        ours = ", ".join(f"{k}={want.get(k)}" for k in keys)
        raise InputError(
          f"{path}: this checkpoint has another {name}: got {theirs}, expected {ours}; "
          "change the gin bindings, or use another --workdir"
        )
    elif got != want:
      raise InputError(
        f"{path}: this checkpoint has another {name}: got {got}, expected {want}; "
        "change the gin bindings, or use another --workdir"
      )
