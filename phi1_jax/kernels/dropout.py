"""Dropout whose mask is a hash of the position, computed when needed and never stored.

A general-purpose generator takes about a hundred operations per random word, which on
a CPU is more than the matrix products around it. Here, an element's bits come from a
hash of its row and a hash of its column, mixed by two multiplications. The backward
pass computes them again. The mask depends on the key and the logical position only,
not on blocking, sharding or the device.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np


def row_hashes(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
  """Return a uint32 hash per row, in the given shape; rows are numbered in order."""
  index = jnp.zeros(shape, jnp.uint32)
  for axis in range(len(shape)):
    stride = np.uint32(math.prod(shape[axis + 1 :]) % 2**32)
    index += jax.lax.broadcasted_iota(jnp.uint32, shape, axis) * stride
  return _finalise(index + jax.random.bits(jax.random.fold_in(key, 0), (), jnp.uint32))


def column_hashes(key: jax.Array, size: int) -> jax.Array:
  """Return a uint32 hash per column."""
  index = jax.lax.iota(jnp.uint32, size)
  return _finalise(index + jax.random.bits(jax.random.fold_in(key, 1), (), jnp.uint32))


def keep(rows: jax.Array, columns: jax.Array, rate: float) -> jax.Array:
  """Return True with probability 1 - rate for every pair of hashes (broadcast)."""
  bits = (rows ^ columns) * np.uint32(0x7FEB352D)
  bits = (bits ^ (bits >> np.uint32(15))) * np.uint32(0x846CA68B)
  # Signed, because vector units have no unsigned comparison.
  threshold = np.int32(round(rate * 2**32) - 2**31)
  return jax.lax.bitcast_convert_type(bits, jnp.int32) >= threshold


def dropout(x: jax.Array, rate: float, key: jax.Array | None) -> jax.Array:
  """Zero elements with probability `rate` and scale the others by 1/(1 - rate).

  Args:
    x: [..., columns], floating.
    rate: in [0, 1); at 0, x is returned and the key not used.
    key: a PRNG key.
  """
  if not rate:
    return x
  assert key is not None
  rows = row_hashes(key, x.shape[:-1])[..., None]
  return _dropout(x, rate, rows, column_hashes(key, x.shape[-1]))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _dropout(x, rate, rows, columns):
  scaled = x * jnp.asarray(1 / (1 - rate), x.dtype)
  return jnp.where(keep(rows, columns, rate), scaled, jnp.zeros((), x.dtype))


def _dropout_forward(x, rate, rows, columns):
  return _dropout(x, rate, rows, columns), (rows, columns)


def _dropout_backward(rate, hashes, gradient):
  return _dropout(gradient, rate, *hashes), None, None


_dropout.defvjp(_dropout_forward, _dropout_backward)


def _finalise(x: jax.Array) -> jax.Array:
  """Apply a bijection of uint32 in which every input bit reaches every output bit.

  The multipliers are those of the "lowbias32" search for low-bias integer hashes.
  """
  x = (x ^ (x >> np.uint32(16))) * np.uint32(0x7FEB352D)
  x = (x ^ (x >> np.uint32(15))) * np.uint32(0x846CA68B)
  return x ^ (x >> np.uint32(16))
