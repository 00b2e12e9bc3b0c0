"""The schedule by its closed form."""

import numpy as np
import pytest

from phi1_jax import InputError
from phi1_jax.optim import schedule
from phi1_jax.optim.config import OptimizerConfig


def _rates(steps, total, **changes):
  values = {"peak_learning_rate": 1e-3, "warmup_steps": 750, "weight_decay": 0.1}
  config = OptimizerConfig(**{**values, **changes})
  rate = schedule.make_schedule(config, total)
  return [float(rate(step)) for step in steps]


def test_linear_as_in_the_pretraining_of_the_paper():
  steps = [0, 1, 375, 750, 18375, 24000, 36000, 40000]
  expected = [0, 1e-3 / 750, 5e-4, 1e-3, 5e-4, 1e-3 * 12000 / 35250, 0, 0]
  np.testing.assert_allclose(_rates(steps, 36000), expected, rtol=1e-5, atol=1e-10)
  rates = _rates([0, 50, 100], 100, warmup_steps=0, end_learning_rate_fraction=0.2)
  np.testing.assert_allclose(rates, [1e-3, 6e-4, 2e-4], rtol=1e-5)


def test_cosine_by_its_formula():
  steps = np.array([0, 25, 50, 60, 75, 90, 100, 200])
  changes = {"schedule": "cosine", "end_learning_rate_fraction": 0.1}
  rates = _rates(steps, 100, warmup_steps=50, **changes)
  done = np.clip((steps - 50) / 50, 0, 1)
  falling = 0.1 + 0.9 * (1 + np.cos(np.pi * done)) / 2
  expected = 1e-3 * np.where(steps < 50, steps / 50, falling)
  np.testing.assert_allclose(rates, expected, rtol=1e-5, atol=1e-10)


@pytest.mark.parametrize("warmup", [0, 10])
def test_wsd_stays_at_the_peak_until_its_decay(warmup):
  steps = np.array([0, 5, 10, 79, 80, 85, 100, 200])
  changes = {"schedule": "wsd", "decay_steps": 20, "end_learning_rate_fraction": 0.5}
  rates = _rates(steps, 100, warmup_steps=warmup, **changes)
  rising = np.minimum(steps / warmup, 1) if warmup else 1
  expected = 1e-3 * rising * (1 - 0.5 * np.clip((steps - 80) / 20, 0, 1))
  np.testing.assert_allclose(rates, expected, rtol=1e-5)


@pytest.mark.parametrize(
  ("total", "changes", "message"),
  [
    (750, {}, "got 750, expected fewer than the run's 750"),
    (800, {"schedule": "wsd", "decay_steps": 51}, "got 51, expected at most the 50"),
  ],
)
def test_refuses_what_does_not_fit_into_the_run(total, changes, message):
  with pytest.raises(InputError, match=message):
    _rates([0], total, **changes)
