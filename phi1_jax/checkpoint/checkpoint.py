"""A checkpoint on disk: where it is, what it belongs to, and its arrays.

It is one Orbax step folder with two items: `state`, the train state as a pytree of
arrays, and `meta`, JSON with what the state belongs to (model, optimizer, token store,
windows read) and the fingerprints of its arrays.
"""

import contextlib
import dataclasses
import functools
import json
from collections.abc import Mapping
from typing import Any, Self

import jax
import orbax.checkpoint as ocp
from etils import epath  # what Orbax calls a path

from phi1_jax import InputError, storage
from phi1_jax.checkpoint.fingerprint import fingerprints, model_digest, named_leaves
from phi1_jax.model.config import ModelConfig
from phi1_jax.parallel import hosts
from phi1_jax.storage import AnyPath
from phi1_jax.text import tokenizer as tokenizers
from phi1_jax.text.tokenizer import Tokenizer

# What reading a damaged checkpoint raises: TensorStore and Orbax (ValueError for a
# checksum, a torn chunk or index), JSON, a missing file or key.
_DAMAGE = (ValueError, KeyError, FileNotFoundError, EOFError, NotADirectoryError)
_INIT_FROM = "use Checkpoint.init_from to take its parameters only"


class DamagedError(InputError):
  """A checkpoint that does not read back as it was written."""


@dataclasses.dataclass(frozen=True)
class Checkpoint:
  """A checkpoint on disk; each part is read when it is asked for.

  What reads it raises DamagedError if it does not read back as it was written, and
  StorageError if the storage kept failing, which says nothing about the checkpoint.
  """

  path: AnyPath  # the step folder, local or gs://

  @classmethod
  def find(cls, place: str | AnyPath) -> Self:
    """Return the checkpoint of a step folder, or the newest one of a run.

    Args:
      place: a step folder, a `checkpoints` folder, or a run's work directory.

    Raises:
      InputError: there is no checkpoint.
    """
    found = _newest(storage.full(storage.parse(place)))
    if found is None:
      raise InputError(
        f"{place}: no checkpoint here; expected a step folder, a checkpoints folder or "
        "a work directory of phi1_jax.train"
      )
    return cls(found)

  @functools.cached_property
  def meta(self) -> dict[str, Any]:
    """What was saved beside the arrays."""
    try:
      meta = json.loads(storage.read_bytes(self.path / "meta" / "metadata"))
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:
      raise self._damaged(f"meta does not read: {error}") from error
    needed = {"step", "fingerprints", "tokenizer"}
    if not isinstance(meta, dict) or not needed <= meta.keys():
      raise self._damaged("its meta is not that of a phi1_jax checkpoint")
    return meta

  @property
  def digest(self) -> str:
    """The sha256 (hex) over all parameters' fingerprints and the tokenizer."""
    return model_digest(self.meta["fingerprints"], self.meta["tokenizer"])

  def model(self, **changes: Any) -> ModelConfig:
    """Return its model, with some fields replaced.

    Raises:
      InputError: it is not that of a phi model.
    """
    try:
      return ModelConfig(**{**self.meta["config"]["model"], **changes})
    except (KeyError, TypeError) as error:
      raise InputError(
        f"{self.path}: its meta describes no phi model ({error}); expected a "
        "checkpoint of phi1_jax.train or phi1_jax.convert"
      ) from None

  def tokenizer(self) -> Tokenizer:
    """Return the tokenizer beside it, or CodeGen's if it was trained with that.

    Raises:
      InputError: no tokenizer, or another one than that of the training.
    """
    digest = self.meta["tokenizer"]
    for place in (self.path, self.path.parent, self.path.parent.parent):
      if storage.exists(place / tokenizers.FILE_NAME):
        found = tokenizers.load(place)
        if found.digest != digest:
          raise InputError(
            f"{place / tokenizers.FILE_NAME}: not the tokenizer of {self.path}: got "
            f"digest {found.digest[:12]}, expected {digest[:12]}"
          )
        return found
    if tokenizers.codegen().digest == digest:
      return tokenizers.codegen()
    raise InputError(
      f"{self.path}: no {tokenizers.FILE_NAME} beside it; expected the one it was "
      "trained with in its work directory"
    )

  def check(self, expected: Mapping[str, Any]) -> None:
    """Refuse it if entries of its meta differ from those that a run needs."""
    for name, want in expected.items():
      got = self.meta.get(name)
      if isinstance(want, Mapping) and isinstance(got, Mapping):
        keys = sorted(key for key in {*want, *got} if want.get(key) != got.get(key))
        got, want = (", ".join(f"{k}={x.get(k)}" for k in keys) for x in (got, want))
      if got != want:
        raise InputError(
          f"{self.path}: this checkpoint has another {name}: got {got}, expected "
          f"{want}; change the gin bindings, or use another checkpoint or --workdir"
        )

  def restore(self, abstract_state: Any, expected: Mapping[str, Any]) -> Any:
    """Return its arrays, read straight into the shardings asked for.

    All hosts must call it.

    Args:
      abstract_state: the tree to restore, as `jax.ShapeDtypeStruct`s with shardings,
        which may differ from those it was saved with; a dict with fewer keys than the
        saved state restores just those.
      expected: entries that the meta must hold.

    Raises:
      InputError: it is whole but belongs to another model or store.
    """
    with hosts.shared_errors(f"reading {self.path}", DamagedError):
      self.check(expected)
      try:
        state = storage.retrying(
          lambda: self._read(abstract_state), f"reading {self.path}"
        )
      except InputError:
        raise
      except _DAMAGE as error:
        if "RESOURCE_EXHAUSTED" in str(error):  # XLA has no memory left
          raise
        raise self._damaged(error) from error
    for name, value in fingerprints(state).items():
      if self.meta["fingerprints"].get(name) != value:
        raise self._damaged(f"{name} is not what was saved")
    return state

  def _read(self, abstract_state: Any) -> Any:
    """Read this host's part of the arrays, without waiting for other hosts.

    Refuses a checkpoint that is whole but has no such arrays as are asked for: Orbax
    would convert an array of another dtype, which then looks damaged.
    """
    asked = named_leaves(abstract_state)
    if missing := sorted(asked.keys() - self.meta["fingerprints"].keys()):
      raise InputError(
        f"{self.path}: this checkpoint has no array {missing[0]} ({len(missing)} "
        f"missing); it was saved with another optimizer or version: {_INIT_FROM}"
      )
    place = epath.Path(self.path / "state")
    with contextlib.closing(ocp.PyTreeCheckpointHandler()) as reader:
      metadata = reader.metadata(place)
      saved = named_leaves(getattr(metadata, "tree", metadata))
      for name in asked.keys() & saved.keys():
        got, want = (f"{x.dtype}{list(x.shape)}" for x in (saved[name], asked[name]))
        if got != want:
          raise InputError(
            f"{self.path}: {name} was saved as {got}, this run has {want}; change the "
            "gin bindings back (Optimizer.moment_dtype, Model.param_dtype), or "
            f"{_INIT_FROM}"
          )
      arguments = ocp.args.PyTreeRestore(
        abstract_state,
        restore_args=ocp.checkpoint_utils.construct_restore_args(abstract_state),
        partial_restore=True,
      )
      state = reader.restore(place, args=arguments)
    # What a partial restore does not find, it leaves as it was asked for.
    for name, leaf in named_leaves(state).items():
      if not isinstance(leaf, jax.Array):
        raise KeyError(f"{name} is missing")
    return state

  def _damaged(self, reason: object) -> DamagedError:
    return DamagedError(
      f"{self.path}: damaged checkpoint ({reason}); name an earlier one"
    )


def exists_in(workdir: AnyPath) -> bool:
  """Return whether a run would go on from its own work directory."""
  return _newest(workdir / "checkpoints") is not None


def _newest(start: AnyPath) -> AnyPath | None:
  for folder in (start, start / "checkpoints"):
    names = storage.names(folder)
    if "meta" in names and "state" in names:
      return folder  # that its fingerprints agree is checked when it is read
    for step in sorted((int(name) for name in names if name.isdigit()), reverse=True):
      path = folder / str(step)
      # A save to the cloud may have been killed before its end.
      if not storage.is_remote(path) or storage.exists(path / "commit_success.txt"):
        return path
  return None
