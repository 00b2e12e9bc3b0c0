import dataclasses

import pytest

from phi1_jax import InputError
from phi1_jax.training.config import RuntimeConfig, TrainConfig

CONFIG = TrainConfig(100, 24, 16)


@pytest.mark.parametrize(
  ("changes", "shards", "parts"),
  [
    ({}, 8, 1),
    ({"sequences_per_device": 3}, 8, 1),
    ({"sequences_per_device": 1}, 8, 3),
    ({"sequences_per_device": 4}, 2, 3),
    ({"sequences_per_device": 99}, 2, 1),  # more than its share
  ],
)
def test_accumulation_steps(changes, shards, parts):
  assert dataclasses.replace(CONFIG, **changes).accumulation_steps(shards) == parts


@pytest.mark.parametrize(
  ("changes", "shards", "named"),
  [
    ({}, 16, r"Train\.batch_size: got 24, expected a multiple of the 16 devices"),
    ({"sequences_per_device": 2}, 8, r"sequences_per_device: got 2, .* divisor of 3"),
  ],
)
def test_accumulation_that_does_not_divide(changes, shards, named):
  with pytest.raises(InputError, match=named):
    dataclasses.replace(CONFIG, **changes).accumulation_steps(shards)


def test_steps_of_a_profile_that_is_not_taken():
  assert RuntimeConfig(profile_at=3, profile_steps=9).profile_steps == 9
  with pytest.raises(InputError, match=r"no effect without Runtime\.profile_at"):
    RuntimeConfig(profile_steps=9)
