"""What the optimizer's configuration refuses."""

import pytest

from phi1_jax import InputError
from phi1_jax.optim.config import OptimizerConfig


@pytest.mark.parametrize(
  ("name", "value", "expected"),
  [
    ("peak_learning_rate", 0.0, "a positive number"),
    ("peak_learning_rate", "1e-3", "a positive number"),
    ("warmup_steps", -1, "an integer >= 0"),
    ("warmup_steps", 750.0, "an integer >= 0"),
    ("weight_decay", -0.1, "a number >= 0"),
    ("beta1", 1.0, "a number in [0, 1)"),
    ("beta2", -0.1, "a number in [0, 1)"),
    ("epsilon", 0.0, "a positive number"),
    ("clip_norm", None, "a positive number"),
    ("decay", "kernels", "one of matrices, all"),
    ("end_learning_rate_fraction", 1.5, "a number in [0, 1]"),
    ("schedule", "step", "one of linear, cosine, wsd"),
    ("schedule", ["linear"], "one of linear, cosine, wsd"),
    ("decay_steps", 100, "None with schedule='linear'"),
    ("name", "sgd", "one of adamw, muon"),
    ("moment_dtype", "float16", "one of None, float32, bfloat16"),
  ],
)
def test_refuses(name, value, expected):
  values = {"peak_learning_rate": 1e-3, "warmup_steps": 750, "weight_decay": 0.1}
  with pytest.raises(InputError) as error:
    OptimizerConfig(**{**values, name: value})
  assert str(error.value) == f"Optimizer.{name}: got {value!r}, expected {expected}."


@pytest.mark.parametrize("steps", [None, 0, 2.0])
def test_wsd_needs_the_steps_of_its_decay(steps):
  with pytest.raises(
    InputError, match=f"decay_steps: got {steps}, expected a positive"
  ):
    OptimizerConfig(1e-3, 750, 0.1, schedule="wsd", decay_steps=steps)
