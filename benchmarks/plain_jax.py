"""A training step of phi in plain JAX, as nanodo writes one; nothing is for speed."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from phi1_jax.model.config import ModelConfig
from phi1_jax.model.decoder import Decoder
from phi1_jax.training.setup import RunConfig


def make(config: RunConfig) -> tuple[Any, Callable[[Any, Any], tuple[Any, jax.Array]]]:
  """Return the first state and (state, tokens [B, T + 1]) -> (state, loss)."""
  model, rates = config.model, config.optimizer
  optimizer = optax.chain(
    optax.clip_by_global_norm(rates.clip_norm),
    optax.adamw(rates.peak_learning_rate, rates.beta1, rates.beta2),
  )

  @jax.jit
  def first(key):
    params = nn.unbox(Decoder(model).init(key, jnp.zeros((1, 1), jnp.int32)))["params"]
    return params, optimizer.init(params), key

  @functools.partial(jax.jit, donate_argnums=0)
  def update(state, tokens):
    params, moments, key = state
    key, dropout = jax.random.split(key)
    loss, gradients = jax.value_and_grad(_loss)(params, tokens, dropout, model)
    updates, moments = optimizer.update(gradients, moments, params)
    return (optax.apply_updates(params, updates), moments, key), loss

  return first(jax.random.key(config.train.seed)), update


def _loss(params, tokens, key, model: ModelConfig) -> jax.Array:
  x = params["embedding"]["embedding"][tokens[:, :-1]]
  keys = jax.random.split(key, model.num_layers)
  unroll = 1 if model.scan_layers else model.num_layers
  block = functools.partial(_block, model)
  x, _ = jax.lax.scan(block, x, (params["layers"], keys), unroll=unroll)
  head = params["head"]
  logits = _norm(x, params["final_norm"]) @ head["kernel"] + head["bias"]
  losses = optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:])
  return losses.mean()


def _block(model: ModelConfig, x, layer):
  p, key = layer
  keys, y = jax.random.split(key, 3), _norm(x, p["norm"])
  qkv = p["attention"]["qkv"]
  qkv = jnp.einsum("btd,dpnh->pbtnh", y, qkv["kernel"]) + qkv["bias"][:, None, None]
  queries, memory = (_rotate(part, model) for part in qkv[:2])
  scores = jnp.einsum("btnh,bsnh->bnts", queries, memory)
  causal = jnp.tril(jnp.ones(scores.shape[-2:], bool))
  scores = jnp.where(causal, scores / model.head_dim**0.5, -1e9)
  weights = _drop(jax.nn.softmax(scores), model.attention_dropout_rate, keys[0])
  context, out = jnp.einsum("bnts,bsnh->btnh", weights, qkv[2]), p["attention"]["out"]
  attended = jnp.einsum("btnh,nhd->btd", context, out["kernel"]) + out["bias"]
  wide = jax.nn.gelu(y @ p["mlp"]["up"]["kernel"] + p["mlp"]["up"]["bias"])
  mlp = wide @ p["mlp"]["down"]["kernel"] + p["mlp"]["down"]["bias"]
  rate = model.dropout_rate
  return x + _drop(attended, rate, keys[1]) + _drop(mlp, rate, keys[2]), None


def _norm(x, p):
  x = (x - x.mean(-1, keepdims=True)) * jax.lax.rsqrt(x.var(-1, keepdims=True) + 1e-5)
  return x * p["scale"] + p["bias"]


def _drop(x, rate: float, key):
  if not rate:
    return x
  return jnp.where(jax.random.bernoulli(key, 1 - rate, x.shape), x / (1 - rate), 0.0)


def _rotate(x, model: ModelConfig):
  half = model.rotary_dim // 2
  frequencies = model.rope_base ** (-jnp.arange(half) / half)
  angles = (jnp.arange(x.shape[1])[:, None] * frequencies)[:, None]
  cos, sin = jnp.cos(angles), jnp.sin(angles)
  one, other, rest = jnp.split(x, (half, 2 * half), axis=-1)
  turned = one * cos - other * sin, other * cos + one * sin
  return jnp.concatenate([*turned, rest], axis=-1)
