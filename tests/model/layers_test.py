"""LayerNorm, projections and rotation by their formulas; sizes and what they imply."""

import dataclasses
import pathlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from phi1_jax.cli import gin_config
from phi1_jax.model import decoder, layers, rotary
from phi1_jax.model.config import ModelConfig
from phi1_jax.parallel import sharding
from phi1_jax.parallel.mesh import MeshConfig, make_mesh
from phi1_jax.planning import hlo


def _config(**changes):
  sizes = (31, 2, 3, 5, 4, 7, 11, 13)
  return ModelConfig(*sizes, **{"dtype": "float32", **changes})


def _init(module, *inputs):
  return nn.unbox(module.init(jax.random.key(0), *inputs))


def test_layer_norm_is_mean_and_variance_in_float32():
  x = 100 + jax.random.normal(jax.random.key(1), (2, 3, 7), jnp.bfloat16)
  module = layers.LayerNorm(_config(dtype="bfloat16", layer_norm_epsilon=0.01))
  params = {"params": {"scale": jnp.arange(7.0), "bias": jnp.arange(7.0) - 3}}
  wide = np.asarray(x, np.float64)
  normal = wide - wide.mean(-1, keepdims=True)
  normal /= np.sqrt(wide.var(-1, keepdims=True) + 0.01)
  expected = normal * np.arange(7) + np.arange(7) - 3
  output = module.apply(params, x)
  assert output.dtype == jnp.bfloat16
  np.testing.assert_allclose(np.asarray(output, np.float64), expected, rtol=8e-3)


@pytest.mark.parametrize("param_dtype", ["float32", "bfloat16"])
def test_gradients_of_a_frequent_token_are_summed_in_float32(param_dtype):
  """In bfloat16, a sum of ones ends at 256."""
  module = layers.Embedding(_config(dtype="bfloat16", param_dtype=param_dtype))
  tokens = jnp.concatenate([jnp.full(4096, 3), jnp.arange(5)])[None]
  params = _init(module, tokens)

  def loss(params):
    return jnp.sum(module.apply(params, tokens).astype("float32")) * 1e-3

  gradient = jax.grad(loss)(params)["params"]["embedding"]
  assert gradient.dtype == param_dtype
  small = float(jnp.asarray(1e-3, "bfloat16"))
  counts = np.bincount(tokens[0], minlength=31)[:, None]
  np.testing.assert_allclose(
    gradient.astype("float32"),
    np.broadcast_to(counts * small, gradient.shape),
    rtol=1e-6 if param_dtype == "float32" else 4e-3,
  )


def test_gradients_of_the_table_are_not_all_reduced():
  """Each device of fsdp sums its own columns: it sends less than the table."""
  fsdp, vocabulary, width = 8, 512, 64
  config = dataclasses.replace(_config(), vocabulary_size=vocabulary, embed_dim=width)
  module = layers.Embedding(config)
  mesh = make_mesh(MeshConfig(data=1, fsdp=fsdp), jax.devices()[:fsdp])
  table = jax.ShapeDtypeStruct(
    (vocabulary, width), "float32", sharding=NamedSharding(mesh, P(None, "fsdp"))
  )
  rows = NamedSharding(mesh, sharding.BATCH)
  tokens = jax.ShapeDtypeStruct((fsdp, 4), "int32", sharding=rows)

  def gradient(table, tokens):
    def loss(table):
      params = {"params": {"embedding": table}}
      return jnp.sum(jnp.sin(module.apply(params, tokens)))

    return jax.grad(loss)(table)

  with sharding.layout(mesh):
    step = jax.jit(gradient, out_shardings=table.sharding)
    text = step.lower(table, tokens).compile().as_text()
  found = hlo.traffic(text, [0] * fsdp).inside
  found.pop("all-gather")  # of the table's values, for the lookup
  assert sum(each["bytes"] for each in found.values()) < vocabulary * width


@pytest.mark.parametrize("sizes", [((3, 5), (20, 7)), ((20, 7), (3, 5))])
def test_projection_contracts_several_dims_and_starts_small(sizes):
  """Its gradient is its own: narrowing and widening take other ways on a CPU."""
  module = layers.Projection(_config(), *sizes, ("heads", None, None, None))
  x = jax.random.normal(jax.random.key(1), (2, 13, *sizes[0]))
  params = _init(module, x)["params"]
  assert abs(float(jnp.std(params["kernel"])) - 0.02) < 1e-3
  assert not params["bias"].any()
  params["bias"] = jax.random.normal(jax.random.key(2), sizes[1])

  def plain(params, x):
    return jnp.einsum("btnh,nhij->btij", x, params["kernel"]) + params["bias"]

  def ours(params, x):
    return module.apply({"params": params}, x)

  np.testing.assert_allclose(ours(params, x), plain(params, x), atol=1e-6)
  found, expected = (
    jax.grad(lambda params, x, f=f: jnp.sum(jnp.sin(f(params, x))), (0, 1))(params, x)
    for f in (ours, plain)
  )
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), found, expected
  )


def test_mlp_uses_the_tanh_gelu():
  config = _config()
  x = jax.random.normal(jax.random.key(1), (2, 3, 7)) * 50
  params = _init(layers.MLP(config), x)
  up, down = params["params"]["up"], params["params"]["down"]
  u = x @ up["kernel"]
  gelu = 0.5 * u * (1 + np.tanh(np.sqrt(2 / np.pi) * (u + 0.044715 * u**3)))
  np.testing.assert_allclose(
    layers.MLP(config).apply(params, x), gelu @ down["kernel"], atol=1e-6
  )


def _x(dtype="float32"):
  return jax.random.normal(jax.random.key(0), (2, 7, 3, 11), dtype)


def test_rotates_pairs_as_complex_numbers_and_passes_the_other_dims():
  x = np.asarray(_x())
  rotated = np.asarray(rotary.rotate(_x(), *rotary.tables(7, 6, 100.0)))
  pairs = x[..., :3] + 1j * x[..., 3:6]
  angles = np.arange(7)[:, None] * 100.0 ** (-np.arange(3) / 3)
  turned = pairs * np.exp(1j * angles)[:, None, :]
  np.testing.assert_allclose(rotated[..., :3], turned.real, atol=1e-6)
  np.testing.assert_allclose(rotated[..., 3:6], turned.imag, atol=1e-6)
  np.testing.assert_array_equal(rotated[..., 6:], x[..., 6:])
  # It computes in float32.
  coarse, tables = _x("bfloat16"), rotary.tables(7, 6, 100.0)
  exact = rotary.rotate(coarse.astype(jnp.float32), *tables).astype(jnp.bfloat16)
  np.testing.assert_array_equal(rotary.rotate(coarse, *tables), exact)


def test_products_depend_on_distance_only():
  cos, sin = rotary.tables(9, 10, 100.0)
  q, k = jnp.broadcast_to(_x()[:, :1, :2], (2, 2, 9, 2, 11))
  scores = jnp.einsum(
    "btnh,bsnh->bnts", rotary.rotate(q, cos, sin), rotary.rotate(k, cos, sin)
  )
  np.testing.assert_allclose(scores[..., 1:, 1:], scores[..., :-1, :-1], atol=2e-5)


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
