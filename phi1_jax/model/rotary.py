"""Rotary position embedding on part of each head (Su et al. 2021, arXiv 2104.09864).

Pairs are half-split, as in the released phi-1: of the R rotated dims, dim i is paired
with dim i + R/2. The remaining dims of a head stay as they are.

B batch, T length, N heads, H head_dim, R rotary_dim, P pairs: R/2.
"""

import jax
import jax.numpy as jnp
import numpy as np


def tables(length: int, rotary_dim: int, base: float) -> tuple[jax.Array, jax.Array]:
  """Return the cosines and sines of the rotation angles.

  Args:
    length: number of positions, from 0.
    rotary_dim: number of rotated dims R.
    base: angle of pair i at position t is t / base^(2i/R).

  Returns:
    The cosines and sines, float32, TP with a column per pair.
  """
  exponents = np.arange(0, rotary_dim, 2, dtype=np.float32) / rotary_dim
  frequencies = (1.0 / base**exponents).astype(np.float32)
  angles = np.arange(length, dtype=np.float32)[:, None] * frequencies
  return jnp.asarray(np.cos(angles)), jnp.asarray(np.sin(angles))


def rotate(x_BTNH: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
  """Rotate the first R dims of every head, in float32; keep shape and dtype.

  The cosines and sines are TP, or BTP where rows have their own positions.
  """
  cos, sin, pairs = cos[..., None, :], sin[..., None, :], cos.shape[-1]
  rest_BTNH = x_BTNH[..., 2 * pairs :]
  one, other = (
    x_BTNH[..., start : start + pairs].astype(jnp.float32) for start in (0, pairs)
  )
  turned = one * cos - other * sin, other * cos + one * sin
  return jnp.concatenate([*(y.astype(x_BTNH.dtype) for y in turned), rest_BTNH], -1)
