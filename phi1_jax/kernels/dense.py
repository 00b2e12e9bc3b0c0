"""Attention that XLA compiles: the reference implementation and a faster one.

B batch, T query positions, S key positions, N heads, H head_dim.
"""

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from phi1_jax.kernels import dropout
from phi1_jax.kernels.grid import MASKED

# The number of blocks of queries is at most MAX_BLOCKS, and none is smaller than
# MIN_BLOCK. More blocks skip more scores above the diagonal; fewer blocks make larger
# matrix products.
MAX_BLOCKS = 8
MIN_BLOCK = 128


def reference(
  q_BTNH: jax.Array,
  k_BSNH: jax.Array,
  v_BSNH: jax.Array,
  segment_ids_BT: jax.Array | None,
  dropout_rate: float,
  dropout_key: jax.Array | None,
) -> jax.Array:
  """Attend with every query to every key at once (see `attention.attention`)."""
  every = slice(None), slice(0, q_BTNH.shape[1])
  weights_BNTS = _weights(q_BTNH, k_BSNH, segment_ids_BT, *every)
  weights_BNTS = dropout.dropout(weights_BNTS, dropout_rate, dropout_key)
  return jnp.einsum("BNTS,BSNH->BTNH", weights_BNTS.astype(v_BSNH.dtype), v_BSNH)


def blocked(
  q_BTNH: jax.Array,
  k_BSNH: jax.Array,
  v_BSNH: jax.Array,
  segment_ids_BT: jax.Array | None,
  dropout_rate: float,
  dropout_key: jax.Array | None,
) -> jax.Array:
  """Attend with blocks of queries to the keys up to them (see `reference`)."""
  batch, length, heads, _ = q_BTNH.shape
  hashes = None
  if dropout_key is not None and dropout_rate:
    rows_BNT = dropout.row_hashes(dropout_key, (batch, heads, length))
    hashes = rows_BNT, dropout.column_hashes(dropout_key, length)
  block = max(MIN_BLOCK, -(-length // MAX_BLOCKS))
  contexts = []
  for start in range(0, length, block):
    queries, keys = slice(start, start + block), slice(0, min(start + block, length))
    weights_BNTS = _weights(q_BTNH, k_BSNH, segment_ids_BT, queries, keys)
    if hashes:
      rows_BNT, columns_S = hashes
      kept_BNTS = dropout.keep(
        rows_BNT[:, :, queries, None], columns_S[keys], dropout_rate
      )
      weights_BNTS = jnp.where(kept_BNTS, weights_BNTS / (1 - dropout_rate), 0.0)
    contexts.append(
      jnp.einsum("BNTS,BSNH->BTNH", weights_BNTS.astype(v_BSNH.dtype), v_BSNH[:, keys])
    )
  context_BTE = jnp.concatenate(contexts, axis=1).reshape(batch, length, -1)
  # Saved by the policies that save the context, in whole rows (see model.layers).
  return checkpoint_name(context_BTE, "context").reshape(q_BTNH.shape)


def _weights(q_BTNH, k_BSNH, segment_ids_BT, queries: slice, keys: slice) -> jax.Array:
  """Return the softmax of the masked scores of some queries and keys."""
  scores_BNTS = jnp.einsum(
    "BTNH,BSNH->BNTS",
    q_BTNH[:, queries],
    k_BSNH[:, keys],
    preferred_element_type=jnp.float32,
  )
  positions_T = jnp.arange(q_BTNH.shape[1])
  allowed_BNTS = (positions_T[queries, None] >= positions_T[keys])[None, None]
  if segment_ids_BT is not None:
    ids_BT1, ids_B1S = segment_ids_BT[:, queries, None], segment_ids_BT[:, None, keys]
    allowed_BNTS = allowed_BNTS & (ids_BT1 == ids_B1S)[:, None]
  scores_BNTS = jnp.where(allowed_BNTS, scores_BNTS / q_BTNH.shape[-1] ** 0.5, MASKED)
  return jax.nn.softmax(scores_BNTS, axis=-1)
