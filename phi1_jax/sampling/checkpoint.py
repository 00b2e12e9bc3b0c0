"""A checkpoint opened for reading text with it: config, parameters, tokenizer."""

import contextlib
import dataclasses
import hashlib
import json
import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax._src.clusters import cloud_tpu_cluster  # what JAX itself asks for its hosts
from jax.sharding import Mesh

from phi1_jax import InputError
from phi1_jax.checkpoint import manager
from phi1_jax.model.config import ModelConfig
from phi1_jax.model.decoder import abstract_parameters
from phi1_jax.parallel.mesh import MeshConfig, make_mesh
from phi1_jax.storage import AnyPath
from phi1_jax.text import tokenizer as tokenizers
from phi1_jax.text.tokenizer import Tokenizer

# A copy of the model on every device, each with its own part of the batch.
COPIES = MeshConfig(data=-1, fsdp=1, tensor=1)


@dataclasses.dataclass(frozen=True)
class Loaded:
  """A model ready to be read with.

  Attributes:
    config: its sizes, with the dtype of the computation that was asked for.
    params: the parameters as `model.decoder` documents them, laid out on `mesh`.
    tokenizer: the one it was trained with.
    mesh: where it lies.
    digest: sha256 (hex) over every parameter's fingerprint and the tokenizer: equal
      digests are equal models.
    step: the training step of the checkpoint.
    tokens_seen: how many tokens it was trained on.
    path: the step folder.
  """

  config: ModelConfig
  params: Any
  tokenizer: Tokenizer
  mesh: Mesh
  digest: str
  step: int = 0
  tokens_seen: int = 0
  path: AnyPath | None = None


def one_host_mesh(config: MeshConfig = COPIES) -> Mesh:
  """Return a mesh of all devices of this host, for commands that run on one host.

  Raises:
    InputError: see `check_one_host`, or the devices do not divide so.
  """
  check_one_host()
  return make_mesh(config)


def check_one_host() -> None:
  """Refuse a TPU slice of several hosts, where JAX would wait for all of them.

  Raises:
    InputError: says where to run the command instead.
  """
  hosts = _slice_hosts() if "tpu" in (jax.config.values["jax_platforms"] or "") else 1
  # Only where one host is certain: this makes JAX look for its devices.
  hosts = hosts if hosts > 1 else jax.process_count()
  if hosts > 1:
    raise InputError(
      f"got devices of {hosts} hosts, expected those of one: this command does not run "
      "on several. Run it on a machine of its own, or here with JAX_PLATFORMS=cpu"
    )


def _slice_hosts() -> int:
  """Return the number of hosts of this TPU slice, without touching a device."""
  names = os.environ.get("TPU_PROCESS_ADDRESSES")
  names = names or os.environ.get("TPU_WORKER_HOSTNAMES", "")
  if os.environ.get("TPU_PROCESS_BOUNDS") == "1,1,1":  # the user restricts it
    return 1
  if not names:
    # The machine's metadata; where there is none, JAX knows of no other host either.
    with contextlib.suppress(Exception):
      cluster = cloud_tpu_cluster.GceTpuCluster
      return len(cluster._get_worker_list_in_slice()) if cluster.is_env_present() else 1
  return len(names.split(","))


def open_checkpoint(
  path: str | AnyPath, mesh: Mesh, dtype: str | None = None
) -> Loaded:
  """Restores the parameters of a checkpoint, each device its own part only.

  Args:
    path: a work directory, its checkpoints folder, or one step folder, local or gs://.
    mesh: where the parameters are to lie.
    dtype: dtype of the computation; None is the one it was trained in.

  Raises:
    InputError: no checkpoint, a damaged one, parameters that are not finite, or no
      tokenizer that belongs to it.
  """
  folder = manager.find(path)
  meta = read_meta(folder)
  try:
    # How the attention is computed was right for the machine that trained it.
    fields = {**meta["config"]["model"], "attention": "auto"}
    if dtype is not None:
      fields["dtype"] = dtype
    config = ModelConfig(**fields)
    abstract = {"params": abstract_parameters(config, mesh)}
    restored, meta = manager.restore(folder, abstract, {})
  except manager.DamagedError as error:
    raise error.refusal(folder) from None
  except (KeyError, TypeError) as error:
    raise InputError(
      f"{folder}: its meta describes no phi model ({error}); expected a checkpoint of "
      "phi1_jax.train or phi1_jax.convert"
    ) from None
  _check_finite(folder, restored["params"])
  tokenizer = _tokenizer(folder, meta["tokenizer"])
  return Loaded(
    config=config,
    params=restored["params"],
    tokenizer=tokenizer,
    mesh=mesh,
    digest=model_digest(meta),
    step=meta["step"],
    tokens_seen=meta.get("tokens_seen") or 0,
    path=folder,
  )


def check_log_probs(loaded: Loaded, log_probs: np.ndarray) -> None:
  """Refuse log-probabilities that are not finite: the computation overflowed.

  Raises:
    InputError: names the checkpoint and the dtype to use.
  """
  if not np.isfinite(log_probs).all():
    raise InputError(
      f"{loaded.path or 'the model'}: got log-probabilities that are NaN or infinite, "
      f"computed in {loaded.config.dtype}; use --dtype=float32, or another checkpoint"
    )


@jax.jit
def _count_not_finite(params: Any) -> Any:
  return jax.tree.map(lambda leaf: jnp.count_nonzero(~jnp.isfinite(leaf)), params)


def _check_finite(folder: AnyPath, params: Any) -> None:
  """Refuse parameters that are not finite; they are counted where they lie."""
  for place, leaf in jax.tree_util.tree_leaves_with_path(_count_not_finite(params)):
    if leaf:
      name = jax.tree_util.keystr(place, simple=True, separator="/")
      raise InputError(
        f"{folder}: {name} holds {int(leaf):,} values that are NaN or infinite, "
        "expected finite numbers; name an earlier checkpoint"
      )


def read_meta(step: AnyPath) -> dict[str, Any]:
  """What a checkpoint says about itself, as it was saved.

  Args:
    step: its folder.

  Raises:
    InputError: it does not read.
  """
  try:
    return manager.read_meta(step)
  except manager.DamagedError as error:
    raise error.refusal(step) from None


def model_digest(meta: dict[str, Any]) -> str:
  """What `Loaded.digest` is, from a checkpoint's meta."""
  prints = {k: v for k, v in meta["fingerprints"].items() if k.startswith("params/")}
  content = json.dumps([prints, meta["tokenizer"]], sort_keys=True)
  return hashlib.sha256(content.encode()).hexdigest()


def _tokenizer(folder: AnyPath, digest: str) -> Tokenizer:
  """The tokenizer beside the checkpoint, or CodeGen's where that is the one."""
  for place in (folder, folder.parent, folder.parent.parent):
    if (place / tokenizers.FILE_NAME).is_file():
      found = tokenizers.load(place)
      if found.digest != digest:
        raise InputError(
          f"{place / tokenizers.FILE_NAME}: not the tokenizer of {folder}: got digest "
          f"{found.digest[:12]}, expected {digest[:12]}"
        )
      return found
  if tokenizers.codegen().digest == digest:
    return tokenizers.codegen()
  raise InputError(
    f"{folder}: no {tokenizers.FILE_NAME} beside it; expected the one it was trained "
    "with in its work directory"
  )
