"""Types and ranges of settings."""

import dataclasses
from typing import Any, Literal

import pytest

from phi1_jax import InputError
from phi1_jax.checkpoint.manager import CheckpointConfig
from phi1_jax.data.config import DataConfig
from phi1_jax.model.config import ModelConfig
from phi1_jax.optim.config import OptimizerConfig
from phi1_jax.parallel.mesh import MeshConfig
from phi1_jax.settings import Positive, PositiveInt, Seed, Settings, Share, checked
from phi1_jax.training.config import RuntimeConfig, TrainConfig

MODEL = {"vocabulary_size": 8, "num_layers": 1, "num_heads": 1, "head_dim": 4}
MODEL |= {"rotary_dim": 2, "embed_dim": 4, "mlp_dim": 8, "max_length": 8}
RATES = {"peak_learning_rate": 1e-3, "warmup_steps": 750, "weight_decay": 0.1}
BPE = {"mixture": "m", "store": "s", "tokenizer": "train"}
RUN = {"total_steps": 100, "batch_size": 24, "sequence_length": 16}


@pytest.mark.parametrize(
  ("hint", "good", "bad"),
  [
    (int, [0, -3], [True, 1.0, None, "1"]),
    (float, [0.5, 2], [True, float("nan"), float("inf"), "1", None]),
    (bool, [True], [1, "True", None]),
    (str, ["", "a"], [b"a", 1, None]),
    (PositiveInt, [1], [0, True, 1.0]),
    (PositiveInt | None, [1, None], [0, "None"]),
    (PositiveInt | Literal[-1], [1, -1], [0, -2, -1.0]),
    (Seed, [0, 2**32 - 1], [-1, 2**32]),
    (Positive, [1e-300, 3], [0, -1.0, float("nan")]),
    (Share, [0, 0.999], [1, -0.001]),
    (Literal["a", "b"], ["a"], ["c", None, ["a"]]),
    (tuple[str, ...], [(), ("a",), ["a"]], ["a", (1,), {"a"}]),
    (dict[str, Positive], [{}, {"a": 1}], [{"a": 0}, {1: 1.0}, [("a", 1)]]),
    (Any, [None, {"a": [1, {"b": "c"}]}, 1.5], [object(), {"a": {1, 2}}]),
  ],
)
def test_what_fits_a_type(hint, good, bad):
  for value in good:
    assert checked("X.y", value, hint) == (tuple(value) if value == ["a"] else value)
  for value in bad:
    with pytest.raises(InputError, match=r"^X\.y: got "):
      checked("X.y", value, hint)


def test_a_subclass_of_str_fits_no_setting():
  class Reference(str):  # as `@name` of a gin file
    __slots__ = ()

  for hint in (str, Any, dict[str, Any]):
    with pytest.raises(InputError):
      checked("X.y", {"a": Reference("@f")} if hint is dict else Reference("@f"), hint)


def test_numbers_and_lists_are_converted():
  assert type(checked("X.y", 3, Positive | None)) is float
  assert type(checked("X.y", 3, PositiveInt | None)) is int
  assert checked("X.y", ["a", "b"], tuple[str, ...]) == ("a", "b")


@pytest.mark.parametrize(
  ("part", "given", "name", "bad"),
  [
    (ModelConfig, MODEL, "num_layers", 0),
    (ModelConfig, MODEL, "embed_dim", 2.0),
    (ModelConfig, MODEL, "rotary_dim", 3),
    (ModelConfig, MODEL, "rotary_dim", 6),
    (ModelConfig, MODEL, "attention_dropout_rate", -0.1),
    (ModelConfig, MODEL, "layer_norm_epsilon", 0),
    (ModelConfig, MODEL, "param_dtype", "half"),
    (ModelConfig, MODEL, "remat", None),
    (ModelConfig, MODEL, "attention", "fast"),
    (OptimizerConfig, RATES, "peak_learning_rate", 0.0),
    (OptimizerConfig, RATES, "warmup_steps", 750.0),
    (OptimizerConfig, RATES, "weight_decay", -0.1),
    (OptimizerConfig, RATES, "beta1", 1.0),
    (OptimizerConfig, RATES, "end_learning_rate_fraction", 1.5),
    (OptimizerConfig, RATES, "moment_dtype", "float16"),
    (OptimizerConfig, RATES, "decay_steps", 100),
    (OptimizerConfig, RATES | {"schedule": "wsd"}, "decay_steps", None),
    (OptimizerConfig, RATES | {"schedule": "wsd"}, "decay_steps", 0),
    (TrainConfig, RUN, "batch_size", 0),
    (TrainConfig, RUN, "seed", 2**32),
    (TrainConfig, RUN, "evaluate_every", 0),
    (TrainConfig, RUN, "z_loss", -1.0),
    (TrainConfig, RUN, "stop_at_step", 101),
    (TrainConfig, RUN, "head_chunks", 5),
    (RuntimeConfig, {}, "profile_at", 0),
    (RuntimeConfig, {}, "profile_steps", 6),
    (RuntimeConfig, {}, "hooks", {"m:f": 0}),
    (MeshConfig, {}, "fsdp", 0),
    (MeshConfig, {}, "dcn_data", 0),
    (CheckpointConfig, {}, "keep_latest", 0),
    (CheckpointConfig, {}, "every_minutes", 0.0),
    (DataConfig, {"mixture": "m", "store": "s"}, "mixture", ""),
    (DataConfig, {"mixture": "m", "store": "s"}, "store", ""),
    (DataConfig, {"mixture": "m", "store": "s"}, "trained_vocabulary_size", 4096),
    (DataConfig, {"mixture": "m", "store": "s"}, "held_out_fraction", 1.0),
    (DataConfig, {"mixture": "m", "store": "s"}, "rates", {}),
    (DataConfig, {"mixture": "m", "store": "s"}, "rates", {"a": 0.0}),
    (DataConfig, {"mixture": "m", "store": "s"}, "loss_on", "prompts"),
    (DataConfig, BPE, "trained_vocabulary_size", 294),
  ],
)
def test_a_part_refuses_a_value_by_name(part, given, name, bad):
  with pytest.raises(InputError) as error:
    part(**{**given, name: bad})
  assert str(error.value).startswith(f"{part.gin_name}.{name}")
  assert "\n" not in str(error.value)


def test_settings_are_frozen():
  with pytest.raises(dataclasses.FrozenInstanceError):
    MeshConfig().fsdp = 3  # pyright: ignore[reportAttributeAccessIssue]


def test_the_gin_name_is_the_name_of_the_class():
  assert issubclass(MeshConfig, Settings)
  assert MeshConfig.gin_name == "Mesh"
