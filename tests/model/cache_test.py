"""Reading token by token must give what the plain forward pass gives."""

import dataclasses
import functools

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
def read():
  @functools.partial(jax.jit, static_argnums=0)
  def extend(config, params, cache, tokens_BT, starts_B):
    hidden_BTD, cache = caches.extend(config, params, cache, tokens_BT, starts_B)
    return caches.logits(config, params, hidden_BTD), cache

  return extend


@pytest.mark.parametrize("tied", [False, True])
def test_rows_go_on_at_places_of_their_own(read, tied):
  """What a sampler does with it is in tests/sampling."""
  config = dataclasses.replace(CONFIG, tie_embeddings=tied)
  tokens_BT = jax.random.randint(jax.random.key(0), (2, LENGTH), 0, 97)
  params = nn.unbox(Decoder(config).init(jax.random.key(1), tokens_BT))["params"]
  full_BTV = np.asarray(Decoder(config).apply({"params": params}, tokens_BT))
  split = caches.by_layer(params, config)
  # Rubbish in the cache: nothing behind a row's tokens may be attended to.
  cache = jax.tree.map(lambda x: x + 9.0, caches.empty(config, 2, 23))
  logits_BTV, cache = read(config, split, cache, tokens_BT[:, :9], jnp.zeros(2, int))
  np.testing.assert_allclose(logits_BTV, full_BTV[:, :9], atol=2e-5)
  # The second row goes back to its sixth token; the first goes on.
  for step in range(4):
    places = jnp.asarray([9 + step, 5 + step])
    token_B1 = jnp.stack([tokens_BT[row, places[row]] for row in range(2)])[:, None]
    logits_B1V, cache = read(config, split, cache, token_B1, places)
    for row in range(2):
      expected = full_BTV[row, places[row]]
      np.testing.assert_allclose(logits_B1V[row, 0], expected, atol=2e-5)
  # Rows are replaced; one that is out of range is dropped.
  more = caches.insert(caches.empty(config, 3, 23), cache, jnp.asarray([2, 3]))
  assert not np.asarray(more.keys[0][:2]).any()
  np.testing.assert_array_equal(more.keys[0][2, :13], cache.keys[0][0, :13])


def test_a_tied_head_is_the_embedding_transposed():
  config = dataclasses.replace(CONFIG, tie_embeddings=True)
  tokens_BT = jax.random.randint(jax.random.key(0), (2, LENGTH), 0, 97)
  params = nn.unbox(Decoder(config).init(jax.random.key(1), tokens_BT))["params"]
  assert params["head"].keys() == {"bias"}
  count = sum(leaf.size for leaf in jax.tree.leaves(params))
  assert count == config.num_parameters()
  assert count == CONFIG.num_parameters() - 97 * CONFIG.embed_dim
  full_BTV = Decoder(config).apply({"params": params}, tokens_BT)
  head = {**params["head"], "kernel": params["embedding"]["embedding"].T}
  expected = Decoder(CONFIG).apply({"params": {**params, "head": head}}, tokens_BT)
  np.testing.assert_array_equal(full_BTV, expected)


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


def test_a_resized_cache_keeps_the_tokens_and_frees_the_old_one():
  cache = caches.empty(CONFIG, 2, 8)
  marked = jax.tree.map(lambda x: x + jnp.arange(8.0)[:, None], cache)
  longer = caches.resized(marked, 16)
  assert longer.length == 16
  assert all(array.is_deleted() for array in jax.tree.leaves(marked))
  for array in jax.tree.leaves(longer):
    assert array[0, 0, :, 0].tolist() == [*range(8), *[0] * 8]
  shorter = caches.resized(longer, 4)
  assert shorter.keys[0][1, 0, :, 0].tolist() == [0, 1, 2, 3]
