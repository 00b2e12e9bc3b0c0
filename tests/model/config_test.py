"""Sizes, their consequences, and the gin files that state them."""

import dataclasses
import pathlib

import jax
import pytest

from phi1_jax.cli import gin_config
from phi1_jax.model import decoder
from phi1_jax.model.config import ModelConfig

_GIN = pathlib.Path(__file__).parents[2] / "gin" / "models"


def _model(file: str) -> ModelConfig:
  return gin_config.load([f"models/{file}"], [], {"Model": ModelConfig})["Model"]


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
  config = _model(file)
  shapes = jax.tree.leaves(decoder.parameter_shapes(config))
  assert config.num_parameters() == count
  assert sum(shape.size for shape in shapes) == count
  first_line = (_GIN / file).read_text().splitlines()[0]
  assert first_line.startswith(f"# {count:,} parameters")


def test_flops_of_phi1():
  config = _model("phi1.gin")
  assert config.flops_per_token(2048) == pytest.approx(8.48e9, rel=1e-3)
  # Without attention it is 6 per entry of a matrix that multiplies activations.
  assert config.flops_per_token(0) == 6 * (24 * 12 * 2048**2 + 51200 * 2048)


def test_shape_is_what_decides_the_parameters():
  config = ModelConfig(31, 3, 4, 11, 6, 13, 17, 5)
  for change in ({"mlp_dim": 18}, {"rope_base": 5.0}, {"param_dtype": "bfloat16"}):
    assert dataclasses.replace(config, **change).shape() != config.shape()
  for change in ({"dropout_rate": 0.0}, {"dtype": "float32"}, {"max_length": 9}):
    assert dataclasses.replace(config, **change).shape() == config.shape()
