"""Sizes, their consequences, and the gin files that state them."""

import ast
import dataclasses
import pathlib
import re

import jax
import pytest

from phi1_jax import InputError
from phi1_jax.model import decoder
from phi1_jax.model.config import ModelConfig

_GIN = pathlib.Path(__file__).parents[2] / "gin" / "models"
_TINY = {
  "vocabulary_size": 31,
  "num_layers": 2,
  "num_heads": 3,
  "head_dim": 5,
  "rotary_dim": 4,
  "embed_dim": 7,
  "mlp_dim": 11,
  "max_length": 13,
}


def _read_gin(name: str) -> dict:
  """The bindings of a model's gin file, includes first."""
  bindings: dict = {}
  for line in (_GIN / name).read_text().splitlines():
    if included := re.fullmatch(r"include 'gin/models/(.+)'", line):
      bindings |= _read_gin(included[1])
    elif bound := re.fullmatch(r"Model\.(\w+) = ([^#]+?)( *#.*)?", line):
      bindings[bound[1]] = ast.literal_eval(bound[2])
    else:
      assert not line or line.startswith("#"), line
  return bindings


@pytest.mark.parametrize(
  ("file", "count"),
  [
    ("phi1.gin", 1_418_270_720),
    ("phi1_small.gin", 356_794_368),
    ("micro.gin", 2_566_784),
    ("nano.gin", 1_055_488),
  ],
)
def test_parameter_count_of_formula_file_and_tree(file, count):
  config = ModelConfig(**_read_gin(file))
  shapes = jax.tree.leaves(decoder.parameter_shapes(config))
  assert config.num_parameters() == count
  assert sum(shape.size for shape in shapes) == count
  first_line = (_GIN / file).read_text().splitlines()[0]
  assert first_line.startswith(f"# {count:,} parameters")


def test_parameter_count_of_primes():
  config = ModelConfig(**_TINY)
  shapes = jax.tree.leaves(decoder.parameter_shapes(config))
  assert config.num_parameters() == sum(shape.size for shape in shapes)


def test_flops_of_phi1():
  config = ModelConfig(**_read_gin("phi1.gin"))
  assert config.flops_per_token(2048) == pytest.approx(8.48e9, rel=1e-3)
  # Without attention it is 6 per entry of a matrix that multiplies activations.
  assert config.flops_per_token(0) == 6 * (24 * 12 * 2048**2 + 51200 * 2048)


@pytest.mark.parametrize(
  ("name", "value", "expected"),
  [
    ("num_layers", 0, "a positive integer"),
    ("embed_dim", 2.0, "a positive integer"),
    ("num_heads", True, "a positive integer"),
    ("rotary_dim", 3, "an even number <= head_dim=5"),
    ("rotary_dim", 6, "an even number <= head_dim=5"),
    ("dropout_rate", 1.0, "a number in [0, 1)"),
    ("attention_dropout_rate", -0.1, "a number in [0, 1)"),
    ("layer_norm_epsilon", 0, "a positive number"),
    ("rope_base", "10000", "a positive number"),
    ("scan_layers", 1, "True or False"),
    ("dtype", "int8", "one of float32, bfloat16, float16"),
    ("param_dtype", "half", "one of float32, bfloat16, float16"),
    ("remat", "everything", "one of none, full, dots, qkv_context"),
    ("attention", "fast", "one of auto, "),
  ],
)
def test_refuses(name, value, expected):
  with pytest.raises(InputError) as error:
    ModelConfig(**{**_TINY, name: value})
  assert str(error.value).startswith(f"Model.{name}: got {value!r}, expected ")
  assert expected in str(error.value)


def test_is_frozen():
  with pytest.raises(dataclasses.FrozenInstanceError):
    ModelConfig(**_TINY).num_layers = 3  # pyright: ignore


def test_shape_is_what_decides_the_parameters():
  config = ModelConfig(31, 3, 4, 11, 6, 13, 17, 5)
  for change in ({"mlp_dim": 18}, {"rope_base": 5.0}, {"param_dtype": "bfloat16"}):
    assert dataclasses.replace(config, **change).shape() != config.shape()
  for change in ({"dropout_rate": 0.0}, {"dtype": "float32"}, {"max_length": 9}):
    assert dataclasses.replace(config, **change).shape() == config.shape()
