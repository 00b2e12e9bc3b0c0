"""AdamW behind clipping, as one optax transformation."""

import jax
import optax

from phi1_jax.optim import schedule
from phi1_jax.optim.config import OptimizerConfig

# How the model names what multiplies a vector; the rest are biases and norms.
_MATRICES = ("kernel", "embedding")


def make_optimizer(
  config: OptimizerConfig, total_steps: int, params_or_shapes
) -> optax.GradientTransformation:
  """Clips by global norm, then AdamW on the linear schedule.

  Args:
    config: the optimizer.
    total_steps: length of the run, which the schedule needs.
    params_or_shapes: the tree of parameters, arrays or shapes; says what decays.
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
  """True for every leaf that decays, by name: stacking gives biases two dims too."""

  def decays(path, _) -> bool:
    return config.decay == "all" or path[-1].key in _MATRICES

  return jax.tree_util.tree_map_with_path(decays, params_or_shapes)
