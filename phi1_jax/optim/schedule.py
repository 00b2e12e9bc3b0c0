"""Learning rate schedules."""

import optax

from phi1_jax import InputError
from phi1_jax.optim.config import OptimizerConfig


def make_schedule(config: OptimizerConfig, total_steps: int) -> optax.Schedule:
  """Return a rate that rises from 0 to the peak and later falls to its end fraction.

  The peak is at `warmup_steps`, the end at `total_steps`; the warmup is linear. The
  n-th update has the rate at n - 1, so that with a warmup the first update changes the
  moments only.

  Raises:
    InputError: the warmup, or warmup and decay, do not fit into the run.
  """
  warmup, peak = config.warmup_steps, config.peak_learning_rate
  if warmup >= total_steps:
    raise InputError(
      f"Optimizer.warmup_steps: got {warmup}, expected fewer than the run's "
      f"{total_steps} steps; recipes set it by --gin.WARMUP_STEPS=N"
    )
  decay_steps = config.decay_steps or total_steps - warmup
  if decay_steps > total_steps - warmup:
    raise InputError(
      f"Optimizer.decay_steps: got {decay_steps}, expected at most the "
      f"{total_steps - warmup} steps after the warmup"
    )
  end = config.end_learning_rate_fraction
  if config.schedule == "cosine":
    decay = optax.cosine_decay_schedule(peak, decay_steps, alpha=end)
  else:
    decay = optax.linear_schedule(peak, peak * end, decay_steps)
  rise = optax.linear_schedule(0.0, peak, max(warmup, 1))
  pieces = [rise, optax.constant_schedule(peak), decay]
  return optax.join_schedules(pieces, [warmup, total_steps - decay_steps])
