"""Types and ranges of settings."""

from typing import Any, Literal

import pytest

from phi1_jax import InputError
from phi1_jax.checkpoint.manager import CheckpointConfig
from phi1_jax.data.config import DataConfig
from phi1_jax.model.config import ModelConfig
from phi1_jax.optim.config import OptimizerConfig
from phi1_jax.parallel.mesh import MeshConfig
from phi1_jax.settings import Positive, PositiveInt, Seed, Share, checked
from phi1_jax.training.config import RuntimeConfig, TrainConfig

MODEL = {"vocabulary_size": 8, "num_layers": 1, "num_heads": 1, "head_dim": 4}
MODEL |= {"rotary_dim": 2, "embed_dim": 4, "mlp_dim": 8, "max_length": 8}
RATES = {"peak_learning_rate": 1e-3, "warmup_steps": 750, "weight_decay": 0.1}
WSD = RATES | {"schedule": "wsd"}
STORE = {"mixture": "m", "store": "s"}
RUN = {"total_steps": 100, "batch_size": 24, "sequence_length": 16}


class Reference(str):
  """A subclass of str, as gin's `@name`: it fits no setting."""

  __slots__ = ()


@pytest.mark.parametrize(
  ("hint", "good", "bad"),
  [
    (int, [0, -3], [True, 1.0, None, "1"]),
    (float, [0.5, 2], [True, float("nan"), float("inf"), "1", None]),
    (bool, [True], [1, "True", None]),
    (str, ["", "a"], [b"a", 1, None, Reference("@f")]),
    (PositiveInt, [1], [0, True, 1.0]),
    (PositiveInt | None, [1, None], [0, "None"]),
    (PositiveInt | Literal[-1], [1, -1], [0, -2, -1.0]),
    (Seed, [0, 2**32 - 1], [-1, 2**32]),
    (Positive | None, [1e-300, 3, None], [0, -1.0, float("nan")]),
    (Share, [0, 0.999], [1, -0.001]),
    (Literal["a", "b"], ["a"], ["c", None, ["a"]]),
    (tuple[str, ...], [(), ("a",), ["a"]], ["a", (1,), {"a"}]),
    (dict[str, Positive], [{}, {"a": 1}], [{"a": 0}, {1: 1.0}, [("a", 1)]]),
    (Any, [None, {"a": [1, {"b": "c"}]}], [object(), {"a": {1}}, Reference("@f")]),
    (dict[str, Any], [{"a": 1}], [{"a": Reference("@f")}]),
  ],
)
def test_what_fits_a_type(hint, good, bad):
  """Lists become tuples, and integers floats where a float is expected."""
  for value in good:
    found = checked("X.y", value, hint)
    assert found == (tuple(value) if value == ["a"] else value)
    assert hint is not float or type(found) is float
  for value in bad:
    with pytest.raises(InputError, match=r"^X\.y: got "):
      checked("X.y", value, hint)


@pytest.mark.parametrize(
  ("part", "given", "name", "bad"),
  [
    (ModelConfig, MODEL, "num_layers", 0),
    (ModelConfig, MODEL, "rotary_dim", 3),
    (ModelConfig, MODEL, "rotary_dim", 6),
    (ModelConfig, MODEL, "param_dtype", "half"),
    (OptimizerConfig, RATES, "beta1", 1.0),
    (OptimizerConfig, RATES, "end_learning_rate_fraction", 1.5),
    (OptimizerConfig, RATES, "decay_steps", 100),
    (OptimizerConfig, WSD, "decay_steps", None),
    (OptimizerConfig, WSD, "decay_steps", 0),
    (TrainConfig, RUN, "stop_at_step", 101),
    (TrainConfig, RUN, "head_chunks", 5),
    (RuntimeConfig, {}, "profile_steps", 6),
    (RuntimeConfig, {}, "hooks", {"m:f": 0}),
    (MeshConfig, {}, "fsdp", 0),
    (CheckpointConfig, {}, "every_minutes", 0.0),
    (DataConfig, STORE, "store", ""),
    (DataConfig, STORE, "mixture", ""),
    (DataConfig, STORE, "trained_vocabulary_size", 4096),
    (DataConfig, STORE, "rates", {}),
    (DataConfig, STORE | {"tokenizer": "train"}, "trained_vocabulary_size", 294),
  ],
)
def test_a_part_refuses_a_value_by_name(part, given, name, bad):
  with pytest.raises(InputError) as error:
    part(**{**given, name: bad})
  assert str(error.value).startswith(f"{part.gin_name}.{name}")
  assert "\n" not in str(error.value)
