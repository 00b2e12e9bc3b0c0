"""The compiled part of sampling: prefill, and many decode steps in one loop.

B rows (slots), V vocabulary, C tokens that one call of the loop may add.

Every row has a next token to read, `token_B`, at `position_B`: prefill reads a prompt
up to its last token, and every decode step reads one token and chooses the next. So
tokens are chosen in one place, and prompts of length one need no prefill.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from phi1_jax.model import cache as caches
from phi1_jax.model.cache import Cache
from phi1_jax.model.config import ModelConfig
from phi1_jax.sampling.methods import Method


@struct.dataclass
class State:
  """State of the rows."""

  cache: Cache  # keys and values of the tokens that each row has read
  token_B: jax.Array  # the next token to read
  position_B: jax.Array  # its position, the number of tokens that have been read
  left_B: jax.Array  # number of tokens that may still be chosen; a row with none rests
  chosen_B: jax.Array  # number of tokens chosen; makes the next random number with:
  key_B2: jax.Array  # the row's random key, as raw uint32 data


def empty(config: ModelConfig, rows: int, length: int) -> State:
  """Return rows at rest, with a cache for `length` tokens each."""
  cache = caches.empty(config, rows, length)
  zeros_B = jnp.zeros(rows, jnp.int32)
  keys_B2 = jnp.zeros((rows, 2), jnp.uint32)
  return State(cache, zeros_B, zeros_B, zeros_B, zeros_B, keys_B2)


@functools.partial(jax.jit, static_argnums=0, donate_argnums=2)
def prefill(
  config: ModelConfig,
  params: Any,
  state: State,
  rows_P: jax.Array,
  read_PT: jax.Array,
  token_P: jax.Array,
  position_P: jax.Array,
  left_P: jax.Array,
  key_P2: jax.Array,
) -> State:
  """Start P rows on new prompts.

  Args:
    config: the model.
    params: from `model.cache.by_layer`.
    state: donated.
    rows_P: numbers of the rows; a number that is out of range is padding.
    read_PT: the prompts up to their last token, padded at the end. The cache behind a
      prompt is overwritten before it is attended to.
    token_P: the last token of each prompt.
    position_P: its position in the prompt.
    left_P: the most tokens that each row may choose.
    key_P2: their random keys.
  """
  new = caches.empty(config, *read_PT.shape)
  starts_P = jnp.zeros_like(token_P)
  _, new = caches.extend(config, params, new, read_PT, starts_P)

  def put(values_B, values_P):
    return values_B.at[rows_P].set(values_P, mode="drop")

  return State(
    cache=caches.insert(state.cache, new, rows_P),
    token_B=put(state.token_B, token_P),
    position_B=put(state.position_B, position_P),
    left_B=put(state.left_B, left_P),
    chosen_B=put(state.chosen_B, 0),
    key_B2=put(state.key_B2, key_P2),
  )


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3), donate_argnums=5)
def decode(
  config: ModelConfig,
  method: Method,
  steps: int,
  tokens: tuple[int, int],
  params: Any,
  state: State,
  wanted_B: jax.Array,
) -> tuple[State, jax.Array, jax.Array]:
  """Read and choose tokens for `steps` steps in every row that does not rest.

  A row rests after the end of text, and when it has no tokens left.

  Args:
    config: the model.
    method: chooses tokens.
    steps: C, the most tokens per row.
    tokens: (number of ids that may be chosen, id of the end of text).
    params: from `model.cache.by_layer`.
    state: donated.
    wanted_B: False sends a row to rest.

  Returns:
    The state; tokens_BC, -1 where a row rested; and log_probs_BC, the logarithm of
    each token's probability under the model (temperature 1, all tokens).
  """
  state = dataclasses.replace(state, left_B=jnp.where(wanted_B, state.left_B, 0))

  def step(state, _):
    return _step(config, method, tokens, params, state)

  # Ending when all rows rest would make devices wait for each other at every step.
  state, (tokens_CB, log_probs_CB) = jax.lax.scan(step, state, length=steps)
  return state, tokens_CB.T, log_probs_CB.T


def _step(config, method, tokens, params, state):
  """Read a token and choose the next in every row that is awake; -1 for others."""
  num_ids, end = tokens
  hidden_B1D, cache = caches.extend(
    config, params, state.cache, state.token_B[:, None], state.position_B
  )
  logits_BV = caches.logits(config, params, hidden_B1D)[:, 0]
  allowed_V = jnp.arange(logits_BV.shape[-1]) < num_ids
  key_B = jax.vmap(jax.random.fold_in)(
    jax.random.wrap_key_data(state.key_B2), state.chosen_B
  )
  token_B = method.choose(jnp.where(allowed_V, logits_BV, -jnp.inf), key_B)
  log_probs_BV = jax.nn.log_softmax(logits_BV, axis=-1)
  log_prob_B = jnp.take_along_axis(log_probs_BV, token_B[:, None], axis=-1)[:, 0]
  awake_B = state.left_B > 0
  moved_B = awake_B.astype(jnp.int32)
  state = State(
    cache=cache,
    token_B=jnp.where(awake_B, token_B, state.token_B),
    position_B=state.position_B + moved_B,
    left_B=jnp.where(token_B == end, 0, state.left_B - moved_B),
    chosen_B=state.chosen_B + moved_B,
    key_B2=state.key_B2,
  )
  return state, (jnp.where(awake_B, token_B, -1), log_prob_B)
