"""Checkpoints loaded for inference: config, parameters, tokenizer."""

import contextlib
import dataclasses
import os
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax._src.clusters import cloud_tpu_cluster  # what JAX itself asks for its hosts
from jax.sharding import Mesh

from phi1_jax import InputError, cores, storage
from phi1_jax.checkpoint.checkpoint import Checkpoint
from phi1_jax.model.config import ModelConfig
from phi1_jax.model.decoder import abstract_parameters
from phi1_jax.parallel import compiler
from phi1_jax.parallel.mesh import MeshConfig, make_mesh, split_cpu
from phi1_jax.storage import AnyPath
from phi1_jax.text.tokenizer import Tokenizer

# A copy of the model on every device, each with its own part of the batch.
COPIES = MeshConfig(data=-1, fsdp=1, tensor=1)
# What a CPU's caches hold together. With a copy on each of two cores, 2.6M parameters
# decode 1.3 times as fast as on one device of both, 5.3M 1.2 times, 29M 0.8 times.
_CACHE_BYTES = 48 << 20


@dataclasses.dataclass(frozen=True)
class Loaded:
  """A model loaded for inference."""

  config: ModelConfig  # with the requested dtype of the computation
  params: Any  # see `model.decoder`; laid out on `mesh`
  tokenizer: Tokenizer
  mesh: Mesh
  digest: str  # sha256 (hex) over every parameter's fingerprint and the tokenizer
  step: int = 0
  tokens_seen: int | None = 0
  path: AnyPath | None = None  # the step folder


def one_host_mesh(config: MeshConfig = COPIES) -> Mesh:
  """Return a mesh of all devices of this host, for commands that run on one host."""
  split_cpu(config.cpu_devices)  # before JAX looks for its devices
  check_one_host()
  return make_mesh(config)


def for_many_texts(checkpoint: Checkpoint) -> MeshConfig:
  """Return the mesh on which a checkpoint decodes many texts fastest.

  XLA attends to the cache on one core per device, so that a CPU has a device for each
  core, with a copy of the model, as long as all copies fit into its caches.
  """
  parameters = checkpoint.model().num_parameters()
  return dataclasses.replace(COPIES, cpu_devices=copies(parameters))


def copies(parameters: int) -> int:
  """Return the number of a CPU's devices for a model; see `for_many_texts`."""
  return max(1, min(cores(), _CACHE_BYTES // (4 * parameters)))


def check_one_host() -> None:
  """Refuse a TPU slice of several hosts, where JAX would wait for all of them."""
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
    with contextlib.suppress(Exception):  # no metadata server: JAX finds no host either
      cluster = cloud_tpu_cluster.GceTpuCluster
      return len(cluster._get_worker_list_in_slice()) if cluster.is_env_present() else 1
  return len(names.split(","))


def open_checkpoint(
  checkpoint: Checkpoint, mesh: Mesh, dtype: str | None = None
) -> Loaded:
  """Load a checkpoint for inference; each device restores its own part.

  Args:
    checkpoint: where it is on disk.
    mesh: the devices for the parameters.
    dtype: dtype of the computation; None is that of the training.

  Raises:
    InputError: it is damaged, its parameters are not finite, or no tokenizer belongs
      to it.
  """
  _use_compilation_cache()
  # The training chose an attention kernel for its own machine.
  changes = {"attention": "auto", **({"dtype": dtype} if dtype else {})}
  config, tokenizer = checkpoint.model(**changes), checkpoint.tokenizer()
  abstract = {"params": abstract_parameters(config, mesh)}
  params = checkpoint.restore(abstract, {})["params"]
  _check_finite(checkpoint.path, params)
  meta = checkpoint.meta
  return Loaded(
    config,
    params,
    tokenizer,
    mesh,
    digest=checkpoint.digest,
    step=meta["step"],
    tokens_seen=meta.get("tokens_seen") or 0,
    path=checkpoint.path,
  )


def _use_compilation_cache() -> None:
  """Keep compiled programs in this machine's cache folder for the next start."""
  if jax.config.values["jax_compilation_cache_dir"] is None:
    compiler.cache_in(storage.cache_folder() / "compiled", most_bytes=2 << 30)
    # Sampling compiles dozens of small programs.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def check_log_probs(loaded: Loaded, log_probs: np.ndarray) -> None:
  """Refuse log-probabilities that are not finite: the computation overflowed."""
  if not np.isfinite(log_probs).all():
    raise InputError(
      f"{loaded.path or 'the model'}: got log-probabilities that are NaN or infinite, "
      f"computed in {loaded.config.dtype}; use --dtype=float32, or another checkpoint"
    )


def _check_finite(folder: AnyPath, params: Any) -> None:
  """Refuse parameters that are not finite; the devices count them."""

  def count(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: jnp.count_nonzero(~jnp.isfinite(leaf)), tree)

  for place, leaf in jax.tree_util.tree_leaves_with_path(jax.jit(count)(params)):
    if leaf:
      name = jax.tree_util.keystr(place, simple=True, separator="/")
      raise InputError(
        f"{folder}: {name} holds {int(leaf):,} values that are NaN or infinite, "
        "expected finite numbers; name an earlier checkpoint"
      )
