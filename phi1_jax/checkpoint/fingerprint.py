"""Fingerprints of arrays, by which a damaged checkpoint is recognised.

The storage format has no checksum over its chunks: a flipped bit restores without a
word. So each save records 32 bits per array, computed where the array lives, and
each restore computes them again.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp


def _sum(x: jax.Array, first: jax.Array) -> jax.Array:
  """Return the sum of an array's bits, each weighted by 2 · (first + its place) + 1."""
  bits = jax.lax.bitcast_convert_type(x, f"uint{8 * x.dtype.itemsize}")
  place = first
  for axis in range(x.ndim):  # one iota an axis stays sharded; a flat one would not
    stride = math.prod(x.shape[axis + 1 :]) % 2**32
    iota = jax.lax.broadcasted_iota(jnp.uint32, x.shape, axis)
    place = place + iota * jnp.uint32(stride)
  weight = 2 * place + 1
  return jnp.sum(bits.astype(jnp.uint32) * weight, dtype=jnp.uint32)


@functools.partial(jax.jit, static_argnums=1)
def _fingerprint(x: jax.Array, by_layer: bool) -> jax.Array:
  """Return the sum of an array's bits, weighted by an odd number for each place.

  Integer sums wrap around and do not care about order, so the result is the same
  under every sharding; an odd weight is invertible mod 2**32, so a change of one
  element always shows, and two swapped elements show unless their places weigh the
  same. Elements are 32 bits or less.

  On a CPU the weighted bits are written to memory before they are summed; `by_layer`
  does so for one place of the first axis at a time.
  """
  zero = jnp.zeros((), jnp.uint32)
  if not by_layer:
    return _sum(x, zero)
  size = jnp.uint32(math.prod(x.shape[1:]) % 2**32)

  def add(layer: jax.Array, total: jax.Array) -> jax.Array:
    return total + _sum(x[layer], layer.astype(jnp.uint32) * size)

  return jax.lax.fori_loop(0, x.shape[0], add, zero)


def fingerprints(tree: Any) -> dict[str, int]:
  """Return the 32-bit fingerprint of every array in a tree, by its path.

  One array after the other, so that memory for the largest is enough.
  """
  found = {}
  for name, leaf in named_leaves(tree).items():
    # Layers that are stacked and not split over devices.
    stacked = leaf.ndim > 2 and leaf.sharding.shard_shape(leaf.shape)[0] == len(leaf)
    found[name] = int(_fingerprint(leaf, stacked))
  return found


def named_leaves(tree: Any) -> dict[str, Any]:
  """Return the leaves of a tree by their path: "params/head/kernel"."""
  return {
    jax.tree_util.keystr(path, simple=True, separator="/"): leaf
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
  }
