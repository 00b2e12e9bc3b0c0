"""Rotary position embedding on part of each head (Su et al. 2021, arXiv 2104.09864).

Pairs are half-split, as in the released phi-1: of the R rotated dims, dim i is paired
with dim i + R/2. The remaining dims of a head stay as they are.

B batch, T length, N heads, H head_dim, R rotary_dim.
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
    cos_TR and sin_TR, float32, with each angle at both dims of its pair. The sine is
    negated on the first half, where the rotation subtracts.
  """
  exponents = np.arange(0, rotary_dim, 2, dtype=np.float32) / rotary_dim
  frequencies = (1.0 / base**exponents).astype(np.float32)
  angles = np.arange(length, dtype=np.float32)[:, None] * frequencies
  cos, sin = np.cos(angles), np.sin(angles)
  return (
    jnp.asarray(np.concatenate([cos, cos], -1)),
    jnp.asarray(np.concatenate([-sin, sin], -1)),
  )


def rotate(x_BTNH: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
  """Rotate the first R dims of every head, in float32; keep shape and dtype.

  The cosines and sines are TR, or BTR where rows have their own positions.
  """
  rotary_dim = cos.shape[-1]
  x_BTNR = x_BTNH[..., :rotary_dim].astype(jnp.float32)
  swapped_BTNR = jnp.roll(x_BTNR, rotary_dim // 2, axis=-1)
  rotated_BTNR = x_BTNR * cos[..., None, :] + swapped_BTNR * sin[..., None, :]
  return jnp.concatenate(
    [rotated_BTNR.astype(x_BTNH.dtype), x_BTNH[..., rotary_dim:]], axis=-1
  )
