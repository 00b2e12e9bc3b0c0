"""Gradient clipping and AdamW or Muon as an optax transformation."""

import math
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from optax import contrib

from phi1_jax.optim import schedule
from phi1_jax.optim.config import OptimizerConfig

# The names of matrices in the model; other parameters are biases and norms.
_MATRICES = ("kernel", "embedding")

# Axes of inputs and of outputs of the matrices of the layers, which are stacked.
_AXES = {
  "qkv": (1, (3, 4)),
  "out": ((1, 2), 3),
  "up": (1, 2),
  "down": (1, 2),
}


def make_optimizer(
  config: OptimizerConfig, total_steps: int, params_or_shapes, mesh: Mesh | None = None
) -> optax.GradientTransformation:
  """Return clipping by global norm, followed by the optimizer with its schedule.

  Args:
    config: the optimizer.
    total_steps: length of the run, for the schedule.
    params_or_shapes: the tree of parameters, for the names of those that decay.
    mesh: devices that share Muon's work by layers; None leaves that to the compiler.
  """
  rate = schedule.make_schedule(config, total_steps)
  mask = decay_mask(config, params_or_shapes)
  adamw = optax.adamw(
    rate,
    b1=config.beta1,
    b2=config.beta2,
    eps=config.epsilon,
    weight_decay=config.weight_decay,
    mu_dtype=config.moment_dtype,
    mask=mask,
  )
  clip = optax.clip_by_global_norm(config.clip_norm)
  if config.name == "adamw":
    return optax.chain(clip, adamw)
  axes = muon_axes(params_or_shapes)
  # Not `contrib.muon`: its own AdamW decays norms too, and its labels enter the boxes
  # of logical names.
  orthogonal = contrib.scale_by_muon(
    mu_dtype=config.moment_dtype, weight_dimension_numbers=axes
  )
  muon = optax.chain(
    orthogonal if mesh is None else _split_by_layers(orthogonal, mesh),
    optax.stateless(lambda updates, _: jax.tree.map(_like_adamw, updates, axes)),
    optax.add_decayed_weights(config.weight_decay, mask),
    optax.scale_by_learning_rate(rate),
  )
  labels = jax.tree.map(
    lambda x: "adamw" if x == optax.MaskedNode() else "muon",
    axes,
    is_leaf=lambda x: isinstance(x, (contrib.MuonDimensionNumbers, optax.MaskedNode)),
  )
  return optax.chain(clip, optax.partition({"adamw": adamw, "muon": muon}, labels))


def _split_by_layers(
  muon: optax.GradientTransformation, mesh: Mesh
) -> optax.GradientTransformation:
  """Split Muon over the devices that hold different sequences, by layers.

  Each device makes whole matrices orthogonal. Left alone, the compiler splits every
  product of the iteration, and gathers a matrix in each (or repeats all on each copy).
  """

  def split(x: jax.Array) -> jax.Array:
    choices = (("data", "fsdp"), ("fsdp",), ("data",))
    sizes = [math.prod(mesh.shape[axis] for axis in axes) for axes in choices]
    fitting = [
      axes
      for axes, size in zip(choices, sizes, strict=True)
      if size > 1 and x.shape[0] % size == 0 and mesh.shape["tensor"] == 1
    ]
    if not fitting:
      return x
    place = NamedSharding(mesh, PartitionSpec(fitting[0]))
    return jax.lax.with_sharding_constraint(x, place)

  def update(updates, state, params=None):
    updates, state = muon.update(jax.tree.map(split, updates), state, params)
    return jax.tree.map(split, updates), state

  return optax.GradientTransformation(muon.init, update)


def _like_adamw(update: jax.Array, axes: contrib.MuonDimensionNumbers) -> jax.Array:
  """Scale orthogonal matrices to the root mean square of AdamW's updates, about 0.2."""
  sides = (
    math.prod(update.shape[axis] for axis in np.atleast_1d(side)) for side in axes
  )
  return update * (0.2 * max(sides) ** 0.5)


def decay_mask(config: OptimizerConfig, params_or_shapes):
  """Return True for every leaf that decays, by name: stacked biases have two dims."""

  def decays(path, _) -> bool:
    return config.decay == "all" or path[-1].key in _MATRICES

  return jax.tree_util.tree_map_with_path(decays, params_or_shapes)


def muon_axes(params_or_shapes):
  """Return the axes of the rows and columns of each leaf that Muon moves.

  Other axes number matrices: those of layers, and of queries, keys and values. Leaves
  that AdamW moves have a `MaskedNode`.
  """

  def axes(path, _) -> Any:
    *above, module, leaf = (key.key for key in path)
    if "layers" not in above or leaf != "kernel":
      return optax.MaskedNode()
    return contrib.MuonDimensionNumbers(*_AXES[module])

  return jax.tree_util.tree_map_with_path(axes, params_or_shapes)
