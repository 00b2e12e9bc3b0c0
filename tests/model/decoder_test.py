"""The decoder's properties: causality, dropout, scan, remat, packing, names."""

import dataclasses
import functools
import typing

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.cudnn import fused_attention_stablehlo as fused_attention

from phi1_jax.kernels import attention
from phi1_jax.model.config import ModelConfig, Remat
from phi1_jax.model.decoder import Decoder, parameter_shapes

_CONFIG = ModelConfig(
  *(31, 3, 2, 11, 6, 13, 17, 19), dtype="float32", initializer_range=0.3
)
_TOKENS = jax.random.randint(jax.random.key(1), (2, 7), 0, 31)


@functools.cache
def _params():
  variables = jax.jit(Decoder(_CONFIG).init)(jax.random.key(0), _TOKENS)
  return nn.unbox(variables)["params"]


def _apply(tokens=_TOKENS, params=None, config=_CONFIG, **arguments):
  variables = {"params": _params() if params is None else params}
  arrays = {
    name: arguments.pop(name)
    for name in ("segment_ids_BT", "rngs")
    if name in arguments
  }
  return _compiled(config, **arguments)(variables, tokens, arrays)


@functools.cache
def _compiled(config, **arguments):
  def run(variables, tokens, arrays):
    return Decoder(config).apply(variables, tokens, **arrays, **arguments)

  return jax.jit(run)


@functools.cache
def _loss_and_gradients(config):
  def loss(params):
    rngs = {"dropout": jax.random.key(5)}
    logits = _apply(params=params, config=config, deterministic=False, rngs=rngs)
    return jnp.mean(jax.nn.logsumexp(logits, -1) - logits[..., 3])

  return jax.jit(jax.value_and_grad(loss))(_params())


def test_bfloat16_is_close_to_float32():
  coarse = _apply(config=dataclasses.replace(_CONFIG, dtype="bfloat16"))
  exact = _apply()
  assert (coarse.shape, coarse.dtype) == ((2, 7, 31), jnp.float32)
  assert float(jnp.max(jnp.abs(coarse - exact))) < 0.05 * float(jnp.std(exact))


@jax.jit
@jax.grad
def _gradient(offset_BTD, params, position):
  """What an offset of the embeddings does to the logits at a position."""
  module = Decoder(_CONFIG).bind({"params": params})
  x = module.embedding(_TOKENS) + offset_BTD
  x, _ = module.layers(x, None, True)
  return jnp.sum(module.head(module.final_norm(x))[:, position] ** 2)


@pytest.mark.parametrize("position", [0, 3, 6])
def test_gradient_reaches_the_past_and_no_further(position):
  gradient = np.asarray(_gradient(jnp.zeros((2, 7, 13)), _params(), position))
  reached = np.any(gradient != 0, axis=(0, 2))
  np.testing.assert_array_equal(reached, np.arange(7) <= position)


@pytest.mark.parametrize("rate", ["dropout_rate", "attention_dropout_rate"])
def test_each_rate_drops_alone_and_follows_its_key(rate):
  none = {"dropout_rate": 0.0, "attention_dropout_rate": 0.0}
  config = dataclasses.replace(_CONFIG, **none)
  plain = _apply(config=config, deterministic=False)
  np.testing.assert_array_equal(plain, _apply())
  config = dataclasses.replace(config, **{rate: 0.2})
  run = functools.partial(_apply, config=config, deterministic=False)
  dropped = run(rngs={"dropout": jax.random.key(3)})
  assert not np.allclose(dropped, plain)
  np.testing.assert_array_equal(dropped, run(rngs={"dropout": jax.random.key(3)}))
  assert not np.allclose(dropped, run(rngs={"dropout": jax.random.key(4)}))


def test_each_layer_draws_its_own_mask():
  """With equal layers and one token, only the masks tell the layers apart."""
  # No branch changes x but for its bias, so that each layer adds one dropped 1.
  params = jax.tree.map(jnp.zeros_like, _params())
  params["layers"]["mlp"]["down"]["bias"] = jnp.ones((3, 13))
  config = dataclasses.replace(_CONFIG, dropout_rate=0.5, attention_dropout_rate=0.0)
  rngs = {"dropout": jax.random.key(3)}

  @jax.jit
  def run(params):
    module = Decoder(config).bind({"params": params}, rngs=rngs)
    return module.layers(module.embedding(_TOKENS), None, False)[0]

  assert set(np.unique(run(params))) == {0.0, 2.0, 4.0, 6.0}


@pytest.mark.parametrize(
  ("remat", "scan_layers"),
  [
    *((name, True) for name in typing.get_args(Remat)[1:]),
    ("none", False),
    ("full", False),
  ],
)
def test_remat_and_unrolling_change_no_number(remat, scan_layers):
  config = dataclasses.replace(_CONFIG, remat=remat, scan_layers=scan_layers)
  assert parameter_shapes(config) == jax.eval_shape(lambda: _params())
  loss, gradients = _loss_and_gradients(config)
  expected_loss, expected = _loss_and_gradients(_CONFIG)
  np.testing.assert_allclose(loss, expected_loss, rtol=1e-6)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), gradients, expected
  )


def _saved_shapes(remat):
  config = dataclasses.replace(_CONFIG, remat=remat)
  rngs = {"dropout": jax.random.key(5)}

  def forward(params):
    return _apply(params=params, config=config, deterministic=False, rngs=rngs)

  residuals = jax.eval_shape(lambda p: jax.vjp(forward, p)[1], _params())
  return [leaf.shape for leaf in jax.tree.leaves(residuals)]


def test_remat_saves_what_its_name_says():
  per_layer = (3, 2, 7)  # layers, batch, length
  names = ("full", "qkv_context", "matrices", "none")
  full, qkv, matrices, none = (_saved_shapes(name) for name in names)
  heads, hidden = (*per_layer, 2 * 11), (*per_layer, 17)
  assert heads not in full
  assert qkv.count(heads) == 4  # q, k, v and the context
  assert hidden not in full + qkv
  assert (matrices.count(heads), matrices.count(hidden)) == (4, 1)
  assert hidden in none


@pytest.mark.parametrize("remat", ["qkv_context", "matrices", "full"])
@pytest.mark.parametrize(
  ("name", "platform"), [("flash", "tpu"), ("flash", "gpu"), ("cudnn", "gpu")]
)
def test_statistics_of_fused_attention_are_saved(remat, name, platform, monkeypatch):
  """With them and the context, the forward kernel need not run again."""
  # Only GPUs have what JAX asks here before it traces cuDNN's kernel.
  monkeypatch.setattr(fused_attention, "check_cudnn_version", lambda: 91000)
  monkeypatch.setattr(fused_attention, "check_is_flash_attention", lambda *_, **__: 0)
  case = attention.Case(platform, "chip", "bfloat16", 128, 64, False, False)
  monkeypatch.setattr(attention, "_case", lambda *_: case)
  sizes = {"attention": name, "remat": remat, "dropout_rate": 0.0}
  config = ModelConfig(31, 2, 3, 64, 32, 128, 64, 128, **sizes)
  tokens = jnp.zeros((2, 128), jnp.int32)

  def forward(params):
    return Decoder(config).apply({"params": params}, tokens)

  saved = jax.eval_shape(lambda p: jax.vjp(forward, p)[1], parameter_shapes(config))
  found = [x.shape for x in jax.tree.leaves(saved) if x.dtype == "float32"]
  per_head = 2 * 2 * 3 * 128  # layers, batch, heads, length
  assert (per_head in [np.prod(shape) for shape in found]) is (remat != "full")


def test_packed_documents_do_not_see_each_other():
  first, second = _TOKENS[:1, :4], _TOKENS[1:, :3]
  packed = jnp.concatenate([first, second], axis=1)
  segments = jnp.asarray([[1, 1, 1, 1, 2, 2, 2]])
  logits = _apply(packed, segment_ids_BT=segments)
  np.testing.assert_allclose(logits[:, :4], _apply(first), atol=2e-6)
  # Positions go on counting; only their differences matter.
  np.testing.assert_allclose(logits[:, 4:], _apply(second), atol=2e-6)
  assert not np.allclose(_apply(packed)[:, 4:], _apply(second), atol=1e-3)
