"""Causal self-attention: one signature, several implementations.

`reference` is the definition; every other implementation is tested against it in
value and in its three gradients. An implementation states what it honours, and a
combination that it does not honour is refused: nothing falls back in silence.

B batch, T query positions, S key positions, N heads, H head_dim.
"""

import dataclasses
import functools
import logging
from collections.abc import Callable

import jax
import jax.numpy as jnp

from phi1_jax import InputError
from phi1_jax.kernels import dropout

_LOG = logging.getLogger(__name__)

# Finite, so that no row of a block can become NaN.
_MASKED = -1e30

# The xla implementation cuts the queries into at most so many blocks, none smaller than
# this: more blocks skip more of the upper triangle, fewer are larger matrix products.
MAX_BLOCKS = 8
MIN_BLOCK = 64


def attention(
  q_BTNH: jax.Array,
  k_BSNH: jax.Array,
  v_BSNH: jax.Array,
  *,
  segment_ids_BT: jax.Array | None = None,
  dropout_rate: float = 0.0,
  dropout_key: jax.Array | None = None,
  implementation: str = "auto",
) -> jax.Array:
  """softmax(q·k / sqrt(H)) · v over the positions up to and including one's own.

  Args:
    q_BTNH: queries.
    k_BSNH: keys, S = T.
    v_BSNH: values.
    segment_ids_BT: positions attend within equal ids only; None is one segment.
    dropout_rate: dropout on the attention weights.
    dropout_key: its PRNG key; needed if the rate is positive.
    implementation: one of `NAMES`.

  Returns:
    The context BTNH in the dtype of the queries; softmax is computed in float32.

  Raises:
    InputError: an unknown implementation, or one that cannot do what is asked.
  """
  packed, drops = segment_ids_BT is not None, dropout_rate > 0
  if implementation == "auto":
    implementation = choose(jax.default_backend(), packed=packed, drops=drops)
  refusal = _refusal(implementation, jax.default_backend(), packed, drops)
  if refusal:
    raise InputError(f"attention={implementation!r} {refusal}.")
  if drops and dropout_key is None:
    raise InputError(f"attention: dropout_rate={dropout_rate} needs a dropout_key.")
  return IMPLEMENTATIONS[implementation].run(
    q_BTNH, k_BSNH, v_BSNH, segment_ids_BT, dropout_rate, dropout_key
  )


@functools.cache  # so that each choice is logged once
def choose(platform: str, *, packed: bool, drops: bool) -> str:
  """The first implementation that can do what is asked on this platform."""
  name = next(
    name for name in IMPLEMENTATIONS if _refusal(name, platform, packed, drops) is None
  )
  _LOG.info(
    "attention: %s (platform %s, segment ids %s, dropout %s)",
    *(name, platform, packed, drops),
  )
  return name


def _refusal(name: str, platform: str, packed: bool, drops: bool) -> str | None:
  """Why this implementation cannot do this, or None."""
  if name not in IMPLEMENTATIONS:
    return f"is unknown, expected one of {', '.join(NAMES)}"
  entry = IMPLEMENTATIONS[name]
  if entry.platforms and platform not in entry.platforms:
    return f"runs on {', '.join(entry.platforms)}, not on {platform}"
  if packed and not entry.segment_ids:
    return "does not honour segment ids"
  if drops and not entry.dropout:
    return "has no dropout; set Model.attention_dropout_rate to 0"
  return None


def reference(q_BTNH, k_BSNH, v_BSNH, segment_ids_BT, dropout_rate, dropout_key):
  """Every query with every key, at once."""
  length, head_dim = q_BTNH.shape[1], q_BTNH.shape[-1]
  scores_BNTS = jnp.einsum(
    "BTNH,BSNH->BNTS", q_BTNH, k_BSNH, preferred_element_type=jnp.float32
  )
  allowed_BNTS = jnp.tril(jnp.ones((length, length), bool))[None, None]
  if segment_ids_BT is not None:
    same_BTS = segment_ids_BT[:, :, None] == segment_ids_BT[:, None, :]
    allowed_BNTS = allowed_BNTS & same_BTS[:, None]
  scores_BNTS = jnp.where(allowed_BNTS, scores_BNTS / head_dim**0.5, _MASKED)
  weights_BNTS = jax.nn.softmax(scores_BNTS, axis=-1)
  weights_BNTS = dropout.dropout(weights_BNTS, dropout_rate, dropout_key)
  return jnp.einsum("BNTS,BSNH->BTNH", weights_BNTS.astype(v_BSNH.dtype), v_BSNH)


def xla(q_BTNH, k_BSNH, v_BSNH, segment_ids_BT, dropout_rate, dropout_key):
  """Blocks of queries with the keys up to them: skips most of the upper triangle."""
  batch, length, heads, head_dim = q_BTNH.shape
  hashes = None
  if dropout_rate:
    rows_BNT = dropout.row_hashes(dropout_key, (batch, heads, length))
    hashes = rows_BNT, dropout.column_hashes(dropout_key, length)
  block = max(MIN_BLOCK, -(-length // MAX_BLOCKS))
  contexts = []
  for start in range(0, length, block):
    stop = min(start + block, length)
    queries, keys = slice(start, stop), slice(0, stop)
    scores_BNTS = jnp.einsum(
      "BTNH,BSNH->BNTS",
      q_BTNH[:, queries],
      k_BSNH[:, keys],
      preferred_element_type=jnp.float32,
    )
    allowed_BNTS = (jnp.arange(start, stop)[:, None] >= jnp.arange(stop))[None, None]
    if segment_ids_BT is not None:
      ids_BT1, ids_B1S = segment_ids_BT[:, queries, None], segment_ids_BT[:, None, keys]
      allowed_BNTS = allowed_BNTS & (ids_BT1 == ids_B1S)[:, None]
    scores_BNTS = jnp.where(allowed_BNTS, scores_BNTS / head_dim**0.5, _MASKED)
    weights_BNTS = jax.nn.softmax(scores_BNTS, axis=-1)
    if hashes:
      rows_BNT, columns_S = hashes
      kept_BNTS = dropout.keep(
        rows_BNT[:, :, queries, None], columns_S[keys], dropout_rate
      )
      weights_BNTS = jnp.where(kept_BNTS, weights_BNTS / (1 - dropout_rate), 0.0)
    contexts.append(
      jnp.einsum("BNTS,BSNH->BTNH", weights_BNTS.astype(v_BSNH.dtype), v_BSNH[:, keys])
    )
  return jnp.concatenate(contexts, axis=1)


@dataclasses.dataclass(frozen=True)
class Implementation:
  """What runs, and what it honours; no platforms means all of them."""

  run: Callable[..., jax.Array]
  platforms: tuple[str, ...] = ()
  segment_ids: bool = True
  dropout: bool = True


# In the order in which "auto" prefers them.
IMPLEMENTATIONS = {
  "xla": Implementation(xla),
  "reference": Implementation(reference),
}
NAMES = ("auto", *IMPLEMENTATIONS)
