"""The schedule by its closed form."""

import numpy as np
import pytest

from phi1_jax import InputError
from phi1_jax.optim import schedule
from phi1_jax.optim.config import OptimizerConfig


def _rates(steps, total, **changes):
  values = {"peak_learning_rate": 1e-3, "warmup_steps": 750, "weight_decay": 0.1}
  config = OptimizerConfig(**{**values, **changes})
  rate = schedule.linear_warmup_linear_decay(config, total)
  return [float(rate(step)) for step in steps]


def test_pretraining_of_the_paper():
  steps = [0, 1, 375, 750, 18375, 24000, 36000, 40000]
  expected = [0, 1e-3 / 750, 5e-4, 1e-3, 5e-4, 1e-3 * 12000 / 35250, 0, 0]
  np.testing.assert_allclose(_rates(steps, 36000), expected, rtol=1e-5, atol=1e-10)


def test_end_fraction():
  rates = _rates([50, 75, 100], 100, warmup_steps=50, end_learning_rate_fraction=0.2)
  np.testing.assert_allclose(rates, [1e-3, 6e-4, 2e-4], rtol=1e-5)


def test_without_warmup_starts_at_the_peak():
  np.testing.assert_allclose(_rates([0, 5], 10, warmup_steps=0), [1e-3, 5e-4])


def test_refuses_a_warmup_as_long_as_the_run():
  with pytest.raises(InputError, match="got 750, expected fewer than the run's 750"):
    _rates([0], 750)
