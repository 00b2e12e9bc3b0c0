"""Gradient clipping and AdamW as an optax transformation."""

import jax
import optax

from phi1_jax.optim import schedule
from phi1_jax.optim.config import OptimizerConfig

# The names of matrices in the model; other parameters are biases and norms.
_MATRICES = ("kernel", "embedding")


def make_optimizer(
  config: OptimizerConfig, total_steps: int, params_or_shapes
) -> optax.GradientTransformation:
  """Return clipping by global norm, followed by AdamW with the linear schedule.

  Args:
    config: the optimizer.
    total_steps: length of the run, for the schedule.
    params_or_shapes: the tree of parameters, for the names of those that decay.
  """
  return optax.chain(
    optax.clip_by_global_norm(config.clip_norm),
    optax.adamw(
      schedule.linear_warmup_linear_decay(config, total_steps),
      b1=config.beta1,
      b2=config.beta2,
      eps=config.epsilon,
      weight_decay=config.weight_decay,
      mask=decay_mask(config, params_or_shapes),
    ),
  )


def decay_mask(config: OptimizerConfig, params_or_shapes):
  """Return True for every leaf that decays, by name: stacked biases have two dims."""

  def decays(path, _) -> bool:
    return config.decay == "all" or path[-1].key in _MATRICES

  return jax.tree_util.tree_map_with_path(decays, params_or_shapes)
