"""Reading token by token must give what the plain forward pass gives."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from phi1_jax.model import cache as caches
from phi1_jax.model.config import ModelConfig
from phi1_jax.model.decoder import Decoder

CONFIG = ModelConfig(
  *(97, 3, 5, 14, 6, 11, 13, 32), initializer_range=0.3, dtype="float32"
)
LENGTH = 17


@pytest.fixture(scope="module")
def model():
  tokens_BT = jax.random.randint(jax.random.key(0), (2, LENGTH), 0, 97)
  init, apply = jax.jit(Decoder(CONFIG).init), jax.jit(Decoder(CONFIG).apply)
  params = nn.unbox(init(jax.random.key(1), tokens_BT))["params"]
  full = apply({"params": params}, tokens_BT)
  return tokens_BT, caches.by_layer(params, CONFIG), np.asarray(full)


@pytest.fixture(scope="module")
def read():
  @jax.jit
  def extend(params, cache, tokens_BT, starts_B):
    hidden_BTD, cache = caches.extend(CONFIG, params, cache, tokens_BT, starts_B)
    return caches.logits(CONFIG, params, hidden_BTD), cache

  return extend


@pytest.mark.parametrize("first", range(1, LENGTH))
def test_decoding_from_every_position_equals_the_full_pass(model, read, first):
  tokens_BT, params, full_BTV = model
  # Rubbish in the cache: nothing behind a row's tokens may be attended to.
  cache = jax.tree.map(lambda x: x + 9.0, caches.empty(CONFIG, 2, 23))
  logits_BTV, cache = read(params, cache, tokens_BT[:, :first], jnp.zeros(2, int))
  np.testing.assert_allclose(logits_BTV, full_BTV[:, :first], atol=2e-5)
  for place in range(first, min(first + 4, LENGTH)):
    token_B1 = tokens_BT[:, place : place + 1]
    logits_B1V, cache = read(params, cache, token_B1, jnp.full(2, place))
    np.testing.assert_allclose(logits_B1V[:, 0], full_BTV[:, place], atol=2e-5)


def test_rows_stand_at_places_of_their_own(model, read):
  tokens_BT, params, full_BTV = model
  cache = caches.empty(CONFIG, 2, 23)
  _, cache = read(params, cache, tokens_BT[:, :9], jnp.zeros(2, int))
  # The second row goes back to its fifth token; the first goes on.
  token_B1 = jnp.stack([tokens_BT[0, 9:10], tokens_BT[1, 5:6]])
  logits_B1V, _ = read(params, cache, token_B1, jnp.asarray([9, 5]))
  np.testing.assert_allclose(logits_B1V[0, 0], full_BTV[0, 9], atol=2e-5)
  np.testing.assert_allclose(logits_B1V[1, 0], full_BTV[1, 5], atol=2e-5)


def test_insert_replaces_rows_and_drops_what_is_out_of_range(model, read):
  tokens_BT, params, full_BTV = model
  _, short = read(
    params, caches.empty(CONFIG, 2, 8), tokens_BT[:, :8], jnp.zeros(2, int)
  )
  cache = caches.insert(caches.empty(CONFIG, 3, 23), short, jnp.asarray([2, 3]))
  assert not np.asarray(cache.keys[0][:2]).any()
  token_B1 = jnp.tile(tokens_BT[:1, 8:9], (3, 1))
  logits_B1V, _ = read(params, cache, token_B1, jnp.full(3, 8))
  np.testing.assert_allclose(logits_B1V[2, 0], full_BTV[0, 8], atol=2e-5)


def test_a_head_that_is_tied_to_the_embedding(read):
  """Of two models that differ in the head alone, this one has fewer parameters."""
  config = dataclasses.replace(CONFIG, tie_embeddings=True)
  tokens_BT = jax.random.randint(jax.random.key(0), (2, LENGTH), 0, 97)
  params = nn.unbox(Decoder(config).init(jax.random.key(1), tokens_BT))["params"]
  assert params["head"].keys() == {"bias"}
  count = sum(leaf.size for leaf in jax.tree.leaves(params))
  assert count == config.num_parameters()
  assert count == CONFIG.num_parameters() - 97 * CONFIG.embed_dim
  full_BTV = Decoder(config).apply({"params": params}, tokens_BT)
  untied = {**params, "head": {**params["head"]}}
  untied["head"]["kernel"] = params["embedding"]["embedding"].T
  expected = Decoder(CONFIG).apply({"params": untied}, tokens_BT)
  np.testing.assert_array_equal(full_BTV, expected)
  split = caches.by_layer(params, config)
  cache = caches.empty(config, 2, LENGTH)
  logits_BTV, _ = read(split, cache, tokens_BT, jnp.zeros(2, int))
  np.testing.assert_allclose(logits_BTV, full_BTV, atol=2e-5)


def test_matrices_take_the_computations_dtype_and_consumed_parameters_are_free():
  config = dataclasses.replace(CONFIG, dtype="bfloat16")
  params = nn.unbox(Decoder(config).init(jax.random.key(1), jnp.zeros((1, 1), int)))
  split = caches.by_layer(params["params"], config)
  assert len(split["layers"]) == config.num_layers
  assert split["layers"][0]["mlp"]["up"]["kernel"].dtype == jnp.bfloat16
  assert split["layers"][0]["norm"]["scale"].dtype == jnp.float32
  assert split["head"]["bias"].dtype == jnp.float32
  consumed = caches.by_layer(params["params"], config, consume=True)
  assert all(leaf.is_deleted() for leaf in jax.tree.leaves(params))
  jax.tree.map(np.testing.assert_array_equal, split, consumed)
