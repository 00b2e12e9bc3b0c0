"""Conversion of a checkpoint of ours to a folder that transformers loads."""

import itertools
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import SingleDeviceSharding

from phi1_jax import storage
from phi1_jax.checkpoint.checkpoint import Checkpoint
from phi1_jax.interop import hf_config, hf_tokenizer, layouts, safetensors
from phi1_jax.interop.layouts import Tensor
from phi1_jax.interop.staging import staged
from phi1_jax.model import decoder
from phi1_jax.storage import AnyPath

_BATCH_BYTES = 256 << 20  # of arrays restored together: each restore takes time


def convert(
  source: Checkpoint,
  out: AnyPath,
  dtype: str,
  max_shard_bytes: int,
  advance: Callable[[int], None],
) -> None:
  """Write config.json, the tensors and the tokenizer.

  Args:
    source: the checkpoint.
    out: the folder to make.
    dtype: dtype of the tensors.
    max_shard_bytes: see `safetensors.write`.
    advance: called with the bytes of each tensor that was written.

  Raises:
    InputError: `out` cannot be made, the checkpoint is damaged, has no tokenizer, or
      holds NaN, infinity or a number beyond the dtype's range.
  """
  config, tokenizer = source.model(), source.tokenizer()
  eos_id, target = tokenizer.eos_id, jnp.dtype(dtype)
  tensors = sorted(layouts.PHI.tensors(config).values(), key=lambda tensor: tensor.path)
  with staged(out, config.num_parameters() * target.itemsize) as folder:
    content = hf_config.from_model_config(config, eos_id, dtype)
    storage.write_json(folder / hf_config.FILE_NAME, content)
    storage.write_json(
      folder / "generation_config.json",
      {"bos_token_id": eos_id, "eos_token_id": eos_id},
    )
    hf_tokenizer.write(folder, tokenizer, config.max_length)
    shapes = {tensor.name: tensor.shape for tensor in tensors}
    arrays = _arrays(source, tensors, target, advance)
    safetensors.write(folder, shapes, target, arrays, max_shard_bytes)


def _arrays(
  source: Checkpoint,
  tensors: list[Tensor],
  dtype: np.dtype,
  advance: Callable[[int], None],
) -> Iterator[np.ndarray]:
  """Yield the tensors in order; one batch of our arrays is in memory at a time."""
  shapes = layouts.flatten(decoder.parameter_shapes(source.model()))
  batches = _batches(shapes)
  for _, batch in itertools.groupby(tensors, key=lambda tensor: batches[tensor.path]):
    batch = list(batch)
    paths = {tensor.path for tensor in batch}
    arrays = _restore(source, {path: shapes[path] for path in paths})
    for tensor in batch:
      theirs = tensor.read(arrays[tensor.path])
      tensor.check(theirs, dtype, source.path)
      yield theirs.astype(dtype, copy=False)
      advance(theirs.size * dtype.itemsize)
      del theirs
    del arrays  # before the next ones are restored


def _batches(shapes: dict[str, jax.ShapeDtypeStruct]) -> dict[str, int]:
  """Return the number of the batch that each array, by path, is restored in.

  A batch is at most as large as the largest array, or as `_BATCH_BYTES`.
  """
  sizes = {path: leaf.size * leaf.dtype.itemsize for path, leaf in shapes.items()}
  most = max(_BATCH_BYTES, *sizes.values())
  numbers, number, used = {}, 0, 0
  for path in sorted(sizes):
    if used + sizes[path] > most:
      number, used = number + 1, 0
    numbers[path] = number
    used += sizes[path]
  return numbers


def _restore(
  source: Checkpoint, shapes: dict[str, jax.ShapeDtypeStruct]
) -> dict[str, np.ndarray]:
  """Return some of the checkpoint's arrays."""
  place = SingleDeviceSharding(jax.local_devices()[0])
  leaves = {
    path: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place)
    for path, leaf in shapes.items()
  }
  state = source.restore({"params": layouts.unflatten(leaves)}, {})
  return layouts.flatten(jax.tree.map(np.asarray, state["params"]))
