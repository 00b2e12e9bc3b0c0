"""Logical axis names to mesh axes: one table, one check.

A sharding strategy is a table, not a model: modules name the axes of their
parameters and activations with words, and only this file says where each word goes.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from phi1_jax import InputError

# Order matters where one array has two words for the same mesh axis: the first wins.
# "batch" comes first, so an activation's "embed" stays whole where the batch is
# already split over fsdp, while a parameter's "embed" is split over it.
RULES: tuple[tuple[str, str | tuple[str, ...] | None], ...] = (
  ("batch", ("data", "fsdp")),
  ("vocab", "tensor"),
  ("heads", "tensor"),
  ("mlp", "tensor"),
  ("embed", "fsdp"),
  ("length", None),
  ("head_dim", None),
  ("qkv", None),
  ("norm", None),
  ("layers", None),
)

BATCH = PartitionSpec(("data", "fsdp"))


def shardings(boxed: Any, mesh: Mesh) -> Any:
  """Return the sharding of every leaf of an abstract tree with logical axis names.

  Args:
    boxed: `jax.eval_shape` of an init; leaves boxed by `nn.with_logical_partitioning`
      carry their words, other leaves are replicated.
    mesh: the mesh to lay them out on.

  Returns:
    The tree without boxes, with a `NamedSharding` at every leaf.

  Raises:
    InputError: a dimension that its mesh axis does not divide, by name and size.
  """
  specs = nn.logical_to_mesh(nn.get_partition_spec(boxed), RULES)
  shapes = unbox(boxed)

  def check(path, shape, spec):
    for size, axes in zip(shape.shape, spec, strict=False):
      axes = (axes,) if isinstance(axes, str) else axes or ()
      parts = int(np.prod([mesh.shape[axis] for axis in axes]))
      if size % parts:
        raise InputError(
          f"Mesh: {'/'.join(axes)}={parts} does not divide {size} in parameter "
          f"{jax.tree_util.keystr(path, simple=True, separator='/')} "
          f"of shape {shape.shape}; choose a divisor of {size}, "
          "or another size (Model.vocabulary_size may be larger than the tokenizer's)"
        )
    return NamedSharding(mesh, spec)

  return jax.tree_util.tree_map_with_path(check, shapes, specs)


def unbox(tree: Any) -> Any:
  """Remove the boxes with logical names; leaves may be arrays or shapes.

  `nn.unbox` would also constrain each value, which a shape outside jit cannot be.
  """

  def is_box(x: Any) -> bool:
    return isinstance(x, nn.Partitioned)

  return jax.tree.map(lambda x: x.value if is_box(x) else x, tree, is_leaf=is_box)


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """Return the sharding of a batch: rows over data and fsdp, columns whole."""
  return NamedSharding(mesh, BATCH)


def batch_shards(mesh: Mesh) -> int:
  """Return the number of parts that a batch is split into."""
  return mesh.shape["data"] * mesh.shape["fsdp"]


def host_rows(mesh: Mesh, batch_size: int) -> np.ndarray:
  """Return the rows of a global batch that this host holds: int64 [N], ascending.

  Not always one run of neighbours: on a TPU slice a mesh follows the network, so a
  host's devices may lie anywhere on it.
  """
  places = batch_sharding(mesh).addressable_devices_indices_map((batch_size,))
  every = np.arange(batch_size)
  held = [every[index[0]] for index in places.values() if index]
  return np.unique(np.concatenate(held))


def put_batch(rows: np.ndarray, mesh: Mesh, batch_size: int) -> jax.Array:
  """Return the global batch from this host's rows (those of `host_rows`, in order)."""
  shape = (batch_size, *rows.shape[1:])
  return jax.make_array_from_process_local_data(batch_sharding(mesh), rows, shape)


@contextlib.contextmanager
def layout(mesh: Mesh) -> Iterator[None]:
  """Map logical axis names inside the block to this mesh by `RULES`."""
  with jax.set_mesh(mesh), nn.logical_axis_rules(RULES):
    yield
