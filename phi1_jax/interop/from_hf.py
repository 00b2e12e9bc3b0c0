"""A folder of Hugging Face's to a checkpoint of ours, one tensor at a time.

The parameters are made where they are to live, empty, each device its own part; every
tensor that is read is written into its place there, in its own dtype until then. So
host memory holds one tensor at a time, beside the parameters where the host is the
device. A folder is checked whole before anything is made.
"""

import contextlib
import dataclasses
import functools
import math
from collections.abc import Callable
from pathlib import Path
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
from phi1_jax.model.config import ModelConfig
from phi1_jax.model.decoder import abstract_parameters
from phi1_jax.parallel.mesh import MeshConfig, make_mesh
from phi1_jax.storage import AnyPath


@dataclasses.dataclass(frozen=True)
class Source:
  """A folder that was found to hold a whole model.

  Attributes:
    folder: where it is.
    files: its safetensors files.
    layout: how their tensors are named and arranged.
    config: the model as ours.
    notes: what a person should know about it.
  """

  folder: AnyPath
  files: tuple[safetensors.File, ...]
  layout: Layout
  config: ModelConfig
  notes: tuple[str, ...] = ()

  @property
  def num_bytes(self) -> int:
    """Bytes of all its tensors."""
    return sum(tensor.num_bytes for file in self.files for tensor in file.tensors)

  @property
  def dtypes(self) -> tuple[str, ...]:
    """The dtypes of its parameters, e.g. ("float16",)."""
    stored = (tensor for file in self.files for tensor in file.tensors)
    used = {x.dtype for x in stored if not layouts.is_buffer(x.name)}
    return tuple(sorted(safetensors.DTYPES[dtype].name for dtype in used))


def open_source(folder: AnyPath, param_dtype: str = "float32") -> Source:
  """Reads a folder's config and headers, and checks every tensor's name and shape.

  Args:
    folder: with config.json and model.safetensors, or an index of several files.
    param_dtype: dtype that our parameters are to have.

  Raises:
    InputError: something is missing, unknown or misshapen; all of it is listed.
  """
  content = hf_config.read(folder)
  path = folder / hf_config.FILE_NAME
  config = hf_config.to_model_config(content, path, param_dtype)
  files = safetensors.open_folder(folder)
  stored = {tensor.name: tensor for file in files for tensor in file.tensors}
  layout = layouts.detect(set(stored), content["model_type"], config)
  expected = layout.tensors(config)
  given = {name: tensor.shape for name, tensor in stored.items()}
  lines = layouts.misfits(expected, given)
  lines += [
    f"dtype: {name}, got {tensor.dtype}, expected {', '.join(safetensors.DTYPES)}"
    for name, tensor in stored.items()
    if name in expected and tensor.dtype not in safetensors.DTYPES
  ]
  if lines:
    raise InputError(
      f"{folder}: {len(lines)} tensors are not those of {layout.name} with the sizes "
      f"of {path.name}:\n  " + "\n  ".join(lines)
    )
  notes = []
  if content.get("embd_pdrop"):
    notes.append(
      f"embd_pdrop={content['embd_pdrop']} is left out: no such dropout here"
    )
  return Source(folder, tuple(files), layout, config, tuple(notes))


def device_mesh(config: ModelConfig) -> Mesh:
  """As many devices as the parameters divide over, fully sharded."""
  devices = jax.devices()
  return make_mesh(MeshConfig(), devices[: math.gcd(config.embed_dim, len(devices))])


def load(
  source: Source, mesh: Mesh, advance: Callable[[int], None]
) -> tuple[dict[str, Any], dict[str, str]]:
  """The parameters of a source, laid out on a mesh.

  Args:
    source: from `open_source`.
    mesh: the devices.
    advance: is told the bytes of every tensor that was read.

  Returns:
    The tree that `model.decoder` documents, and the sha256 (hex) of each file.

  Raises:
    InputError: a tensor holds NaN, infinity, or a number that its dtype here cannot.
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
  """Makes `out` a work directory whose only checkpoint, of step 0, is the source.

  Args:
    source: from `open_source`.
    out: the folder to make.
    advance: is told the bytes of every tensor that was read.
    say: is told what a person should know.

  Raises:
    InputError: `out` cannot be made, or the tokenizer does not suit the model.
  """
  config = source.config
  num_bytes = config.num_parameters() * jnp.dtype(config.param_dtype).itemsize
  # What is written is compressed, random bits hardly: half is surely needed.
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
        "folder": _name(source.folder),
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


def _name(folder: AnyPath) -> str:
  return folder.name if storage.is_remote(folder) else Path(folder).absolute().name


def _zeros(abstract: dict[str, jax.ShapeDtypeStruct]) -> dict[str, jax.Array]:
  """Arrays of zeros, each device its own part of them."""
  places = {path: leaf.sharding for path, leaf in abstract.items()}
  make = jax.jit(
    lambda: {
      path: jnp.zeros(leaf.shape, leaf.dtype) for path, leaf in abstract.items()
    },
    out_shardings=places,
  )
  return make()


def _put(array: jax.Array, tensor: Tensor, content: np.ndarray) -> jax.Array:
  """Writes one tensor into our array, in place, each device its own part of it."""
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
  block = tensor.ours(piece, jnp).astype(array.dtype)
  array = jax.lax.dynamic_update_slice(array, block, start)
  return jax.lax.with_sharding_constraint(array, place)
