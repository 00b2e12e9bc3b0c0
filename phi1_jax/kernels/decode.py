"""Writes new tokens into a key-value cache, and attends to it.

The cache keeps heads before positions, so that products with it read memory in order:
reading the cache and the weights takes most of the time of decoding.

B batch, T new positions, S cache positions, N heads, H head_dim.
"""

import jax
import jax.numpy as jnp

from phi1_jax.kernels.grid import MASKED


def write(cache_BNSH: jax.Array, new_BTNH: jax.Array, starts_B: jax.Array) -> jax.Array:
  """Write T new keys or values of each row after its first `starts_B` positions.

  A row whose new positions would pass the end of the cache is written at its end
  instead. Callers no longer read such a row.
  """
  new_BNTH = new_BTNH.astype(cache_BNSH.dtype).swapaxes(1, 2)
  put = jax.vmap(lambda row, new, start: jax.lax.dynamic_update_slice(row, new, start))
  zeros_B = jnp.zeros_like(starts_B)
  return put(cache_BNSH, new_BNTH, (zeros_B, starts_B, zeros_B))


def attend(
  q_BTNH: jax.Array, k_BNSH: jax.Array, v_BNSH: jax.Array, positions_BT: jax.Array
) -> jax.Array:
  """Return softmax(q·k / sqrt(H)) · v over the cache up to each query's position.

  Args:
    q_BTNH: queries.
    k_BNSH: keys, including those of the queries' own positions.
    v_BNSH: values.
    positions_BT: the position of each query in the cache, from 0.

  Returns:
    The context BTNH in the dtype of the queries; softmax is computed in float32.
  """
  length, head_dim = k_BNSH.shape[2:]
  scores_BNTS = jnp.einsum(
    "BTNH,BNSH->BNTS", q_BTNH, k_BNSH, preferred_element_type=jnp.float32
  )
  allowed_BNTS = (jnp.arange(length) <= positions_BT[:, :, None])[:, None]
  scores_BNTS = jnp.where(allowed_BNTS, scores_BNTS / head_dim**0.5, MASKED)
  weights_BNTS = jax.nn.softmax(scores_BNTS, axis=-1)
  return jnp.einsum("BNTS,BNSH->BTNH", weights_BNTS.astype(v_BNSH.dtype), v_BNSH)
