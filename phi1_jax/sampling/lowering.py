"""Prefill and decode from shapes alone, to compile them for machines not at hand.

Each is traced (`jax.stages.Traced`): its FLOPs can be counted, and `.lower()` goes on.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax.linen.spmd import logical_to_mesh_axes
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from phi1_jax.model import cache as caches
from phi1_jax.model.config import ModelConfig
from phi1_jax.model.decoder import abstract_parameters
from phi1_jax.parallel import sharding
from phi1_jax.sampling import loop
from phi1_jax.sampling.methods import Greedy


def trace_prefill(config: ModelConfig, mesh: Mesh, rows: int, length: int) -> Any:
  """Reading `rows` prompts of `length` tokens, into a cache for as many."""
  with sharding.layout(mesh):
    prompts = [_rows(mesh, rows, length, dtype="int32")]
    scalars = [_rows(mesh, rows, dtype="int32")] * 3
    return loop.prefill.trace(
      config,
      _parameters(config, mesh),
      _state(config, mesh, rows, length),
      _rows(mesh, rows, dtype="int32"),
      *prompts,
      *scalars,
      _rows(mesh, rows, 2, dtype="uint32"),
    )


def trace_decode(
  config: ModelConfig, mesh: Mesh, rows: int, length: int, steps: int = 16
) -> Any:
  """`steps` greedy tokens for `rows` rows whose caches hold `length` tokens."""
  with sharding.layout(mesh):
    return loop.decode.trace(
      config,
      Greedy(),
      steps,
      (config.vocabulary_size, 0),
      _parameters(config, mesh),
      _state(config, mesh, rows, length),
      _rows(mesh, rows, dtype="bool"),
    )


def _rows(mesh: Mesh, *shape: int, dtype: str) -> jax.ShapeDtypeStruct:
  """An array whose first dim is the batch."""
  place = sharding.batch_sharding(mesh)
  return jax.ShapeDtypeStruct(shape, jnp.dtype(dtype), sharding=place)


def _state(config: ModelConfig, mesh: Mesh, rows: int, length: int) -> loop.State:
  cache = NamedSharding(mesh, logical_to_mesh_axes(caches.NAMES) or PartitionSpec())
  batch = sharding.batch_sharding(mesh)

  def placed(leaf):
    place = cache if leaf.ndim == len(caches.NAMES) else batch
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place)

  shapes = jax.eval_shape(lambda: loop.empty(config, rows, length))
  return jax.tree.map(placed, shapes)


def _parameters(config: ModelConfig, mesh: Mesh):
  """What `caches.by_layer` makes, where it leaves it: as the parameters lie."""
  stored = abstract_parameters(config, mesh)
  shapes = jax.eval_shape(lambda params: caches.by_layer(params, config), stored)

  def layer(shape, leaf):
    place = NamedSharding(mesh, PartitionSpec(*leaf.sharding.spec[1:]))
    return jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=place)

  def whole(shape, leaf):
    return jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=leaf.sharding)

  placed = {
    name: jax.tree.map(whole, tree, stored[name])
    for name, tree in shapes.items()
    if name != "layers"
  }
  placed["layers"] = tuple(
    jax.tree.map(layer, tree, stored["layers"]) for tree in shapes["layers"]
  )
  return placed
