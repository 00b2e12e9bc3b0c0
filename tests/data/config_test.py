"""DataConfig refuses what cannot be meant, by name."""

import pytest

from phi1_jax import InputError
from phi1_jax.data.config import DataConfig


@pytest.mark.parametrize(
  ("name", "value", "message"),
  [
    ("mixture", "", "Data.mixture"),
    ("store", "", "Data.store"),
    ("tokenizer", "train", "Data.trained_vocabulary_size"),
    ("trained_vocabulary_size", 4096, "with Data.tokenizer = 'train'"),
    ("held_out_fraction", 1.0, "expected 0 <= it < 1"),
    ("held_out_fraction", float("nan"), "expected 0 <= it < 1"),
    ("shards", 0, "Data.shards: got 0"),
    ("processes", -1, "Data.processes: got -1"),
    ("rates", {"a": -0.5}, "Data.rates: got .*-0.5"),
    ("rates", {"a": float("nan")}, "Data.rates: got .*nan"),
    ("rates", {"a": 0.0}, "positive numbers"),
  ],
)
def test_what_cannot_be_meant_is_refused(name, value, message):
  with pytest.raises(InputError, match=message):
    DataConfig(**{"mixture": "m", "store": "s", name: value})
  with pytest.raises(InputError, match="got 294, expected 295 to 65536"):
    DataConfig("m", "s", tokenizer="train", trained_vocabulary_size=294)
