"""Conversion of a Hugging Face folder to a checkpoint of ours, tensor by tensor.

The parameters are first made on the devices, as zeros; then each tensor is read and
written into its place there. So host memory holds one tensor at a time, beside the
parameters if the host is the device. The whole folder is checked before that.
"""

import contextlib
import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from phi1_jax import InputError, storage
from phi1_jax.checkpoint.manager import CheckpointConfig, Checkpoints
from phi1_jax.interop import hf_config, hf_tokenizer, layouts, safetensors
from phi1_jax.interop.layouts import Layout, Tensor
from phi1_jax.interop.staging import staged
from phi1_jax.model import DType
from phi1_jax.model.config import ModelConfig
from phi1_jax.model.decoder import abstract_parameters
from phi1_jax.parallel.mesh import MeshConfig, make_mesh
from phi1_jax.storage import AnyPath


@dataclasses.dataclass(frozen=True)
class Source:
  """A folder with a complete model, its layout and our config, and notes to print."""

  folder: AnyPath
  files: tuple[safetensors.File, ...]
  layout: Layout
  config: ModelConfig
  notes: tuple[str, ...] = ()

  @property
  def num_bytes(self) -> int:
    """Bytes of all tensors."""
    return sum(tensor.num_bytes for file in self.files for tensor in file.tensors)

  @property
  def dtypes(self) -> tuple[str, ...]:
    """Dtypes of the parameters, e.g. ("float16",)."""
    stored = (tensor for file in self.files for tensor in file.tensors)
    used = {x.dtype for x in stored if not layouts.is_buffer(x.name)}
    return tuple(sorted(safetensors.DTYPES[dtype].name for dtype in used))


def open_source(folder: AnyPath, param_dtype: DType = "float32") -> Source:
  """Read a folder's config and headers, and check every tensor's name and shape.

  A model that transformers computes in float32, by its config or else by its tensors,
  is computed in float32 here too, others in bfloat16.

  Args:
    folder: with config.json and model.safetensors, or an index of several files.
    param_dtype: dtype of our parameters.

  Raises:
    InputError: lists every tensor that is missing, unknown or of another shape.
  """
  content = hf_config.read(folder)
  path = folder / hf_config.FILE_NAME
  config = hf_config.to_model_config(content, path, param_dtype)
  files = safetensors.open_folder(folder)
  stored = [tensor for file in files for tensor in file.tensors]
  names = {tensor.name for tensor in stored}
  layout = layouts.detect(names, content["model_type"], config)
  if lines := layouts.misfits(layout.tensors(config), stored):
    raise InputError(
      f"{folder}: {len(lines)} tensors are not those of {layout.name} with the sizes "
      f"of {path.name}:\n  " + "\n  ".join(lines)
    )
  dropout = content.get("embd_pdrop")
  note = f"embd_pdrop={dropout} is left out: no such dropout here"
  source = Source(folder, tuple(files), layout, config, (note,) if dropout else ())
  theirs = content.get("dtype") or content.get("torch_dtype") or source.dtypes[0]
  if theirs == "float32":
    config = dataclasses.replace(config, dtype=theirs)
  return dataclasses.replace(source, config=config)


def device_mesh(config: ModelConfig) -> Mesh:
  """Return a mesh of as many devices as the parameters divide over, fully sharded."""
  devices = jax.devices()
  return make_mesh(MeshConfig(), devices[: math.gcd(config.embed_dim, len(devices))])


def load(
  source: Source, mesh: Mesh, advance: Callable[[int], None]
) -> tuple[dict[str, Any], dict[str, str]]:
  """Return the parameters of a source on a mesh, and the sha256 (hex) of each file.

  Args:
    source: from `open_source`.
    mesh: the devices.
    advance: called with the bytes of each tensor that was read.

  Raises:
    InputError: a tensor holds NaN, infinity, or a number beyond the dtype's range.
  """
  arrays = _zeros(layouts.flatten(abstract_parameters(source.config, mesh)))
  expected = source.layout.tensors(source.config)
  digests: dict[str, str] = {}
  for stored, content in safetensors.read(source.files, digests):
    if tensor := expected.get(stored.name):
      tensor.check(content, jnp.dtype(source.config.param_dtype), source.folder)
      arrays[tensor.path] = _put(arrays[tensor.path], tensor, content)
    advance(stored.num_bytes)
    del content  # before the next one is read
  return layouts.unflatten(arrays), digests


def convert(
  source: Source,
  out: AnyPath,
  advance: Callable[[int], None],
  say: Callable[[str], None],
) -> None:
  """Make `out` a work directory with the source as its checkpoint of step 0.

  Args:
    source: from `open_source`.
    out: the folder to make.
    advance: called with the bytes of each tensor that was read.
    say: called with lines to print.

  Raises:
    InputError: `out` cannot be made, or the tokenizer does not fit the model.
  """
  config = source.config
  num_bytes = config.num_parameters() * jnp.dtype(config.param_dtype).itemsize
  # Orbax compresses, but random bits hardly: half is the least that is needed.
  with staged(out, num_bytes // 2) as folder:
    tokenizer, origin = hf_tokenizer.take_over(
      source.folder, folder, config.vocabulary_size
    )
    say(f"tokenizer: {origin} ({tokenizer.vocabulary_size:,} ids)")
    params, digests = load(source, device_mesh(config), advance)
    meta = {
      "config": {"model": dataclasses.asdict(config)},
      "model_shape": config.shape(),
      "store": None,
      "tokenizer": tokenizer.digest,
      "tokens_seen": 0,
      "provenance": {
        "folder": storage.full(source.folder).name,
        "layout": source.layout.name,
        "dtypes": source.dtypes,
        "sha256": digests,
      },
    }
    say(f"saving {out}")
    checkpoints = Checkpoints(
      folder / "checkpoints", CheckpointConfig(asynchronous=False)
    )
    with contextlib.closing(checkpoints):
      checkpoints.save(0, {"params": params}, meta)


def _zeros(abstract: dict[str, jax.ShapeDtypeStruct]) -> dict[str, jax.Array]:
  """Return arrays of zeros with the shardings of `abstract`."""

  def zeros():
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), abstract)

  shardings = {path: leaf.sharding for path, leaf in abstract.items()}
  return jax.jit(zeros, out_shardings=shardings)()


def _put(array: jax.Array, tensor: Tensor, content: np.ndarray) -> jax.Array:
  """Write one tensor into our array in place; each device writes its own part."""
  place = array.sharding
  assert isinstance(place, NamedSharding)
  spec = [*place.spec, *[None] * (array.ndim - len(place.spec))]
  parts = NamedSharding(place.mesh, PartitionSpec(*(spec[a] for a in tensor.axes)))
  piece = jax.device_put(tensor.unfold(content), parts)
  start = tuple(np.int32(index) for index in tensor.start)
  return _write(array, piece, start, tensor.groups, place).block_until_ready()


@functools.partial(jax.jit, donate_argnums=0, static_argnums=(3, 4))
def _write(array, piece, start, groups, place):
  tensor = Tensor("", "", array.shape, start, groups)
  block = tensor.ours(piece).astype(array.dtype)
  array = jax.lax.dynamic_update_slice(array, block, start)
  return jax.lax.with_sharding_constraint(array, place)
