"""Training state: step, parameters and optimizer state."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax.sharding import Mesh

from phi1_jax.model.decoder import Decoder
from phi1_jax.parallel import sharding


@struct.dataclass
class TrainState:
  """The state of a run after `step` updates."""

  step: jax.Array  # int32 scalar
  params: Any
  optimizer: Any


def abstract(
  model: Decoder, optimizer: optax.GradientTransformation, mesh: Mesh
) -> TrainState:
  """Return the state as shapes with shardings, without allocating."""
  boxed = jax.eval_shape(lambda: init(model, optimizer, jax.random.key(0)))
  return jax.tree.map(
    lambda shape, place: jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=place),
    sharding.unbox(boxed),
    sharding.shardings(boxed, mesh),
  )


def init(model: Decoder, optimizer: optax.GradientTransformation, key) -> TrainState:
  """Return the state before the first update, boxed with its logical axes."""
  params = model.init(key, jnp.zeros((1, 1), jnp.int32))["params"]
  return TrainState(
    step=jnp.zeros((), jnp.int32), params=params, optimizer=optimizer.init(params)
  )


def bytes_per_device(tree: Any) -> int:
  """Return the bytes that a device holds of an abstract tree with shardings."""
  return sum(
    math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
    for leaf in jax.tree.leaves(tree)
  )
