"""The learning rate of each step."""

import optax

from phi1_jax import InputError
from phi1_jax.optim.config import OptimizerConfig


def linear_warmup_linear_decay(
  config: OptimizerConfig, total_steps: int
) -> optax.Schedule:
  """From 0 at step 0 up to the peak at `warmup_steps`, then down to the last step.

  At `total_steps` and after, the rate is the end fraction of the peak. The rate of the
  n-th update is the schedule at n - 1, so the first update of a run with a warmup only
  fills the moments.

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
