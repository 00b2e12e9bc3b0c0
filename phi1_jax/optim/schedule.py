"""Learning rate schedule."""

import optax

from phi1_jax import InputError
from phi1_jax.optim.config import OptimizerConfig


def linear_warmup_linear_decay(
  config: OptimizerConfig, total_steps: int
) -> optax.Schedule:
  """Return a rate that rises from 0 to the peak and then falls to its end fraction.

  The peak is at `warmup_steps`, the end at `total_steps`; both parts are linear. The
  n-th update has the rate at n - 1, so that with a warmup the first update changes the
  moments only.

  Raises:
    InputError: the warmup leaves no step for the decay.
  """
  if config.warmup_steps >= total_steps:
    raise InputError(
      f"Optimizer.warmup_steps: got {config.warmup_steps}, expected fewer than the "
      f"run's {total_steps} steps."
    )
  peak = config.peak_learning_rate
  decay = optax.linear_schedule(
    peak,
    peak * config.end_learning_rate_fraction,
    total_steps - config.warmup_steps,
  )
  if not config.warmup_steps:
    return decay
  warmup = optax.linear_schedule(0.0, peak, config.warmup_steps)
  return optax.join_schedules([warmup, decay], [config.warmup_steps])
