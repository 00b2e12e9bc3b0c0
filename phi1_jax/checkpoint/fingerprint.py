"""Fingerprints of arrays, by which a damaged checkpoint is recognised.

The storage format has no checksum over its chunks: a flipped bit restores without a
word. So each save records 32 bits per array, computed where the array lives, and
each restore computes them again.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


@jax.jit
def _sum(x: jax.Array, first: jax.Array) -> jax.Array:
  """Return the sum of an array's bits, each weighted by 2 · (first + its place) + 1.

  Integer sums wrap around and do not care about order, so the result is the same
  under every sharding; an odd weight is invertible mod 2**32, so a change of one
  element always shows, and two swapped elements show unless their places weigh the
  same. Elements are 32 bits or less.
  """
  bits = jax.lax.bitcast_convert_type(x, f"uint{8 * x.dtype.itemsize}")
  place = first
  for axis in range(x.ndim):  # one iota an axis stays sharded; a flat one would not
    stride = math.prod(x.shape[axis + 1 :]) % 2**32
    iota = jax.lax.broadcasted_iota(jnp.uint32, x.shape, axis)
    place = place + iota * jnp.uint32(stride)
  weight = 2 * place + 1
  return jnp.sum(bits.astype(jnp.uint32) * weight, dtype=jnp.uint32)


def fingerprints(tree: Any) -> dict[str, int]:
  """Return the 32-bit fingerprint of every array in a tree, by its path.

  On a CPU the weighted bits are written to memory before they are summed: one layer at
  a time of a stack of matrices that is not split.
  """
  found = {}
  for name, leaf in named_leaves(tree).items():
    stacked = leaf.ndim > 2 and leaf.sharding.shard_shape(leaf.shape)[0] == len(leaf)
    parts = (leaf[n] for n in range(len(leaf))) if stacked else [leaf]
    size = math.prod(leaf.shape[1:])
    sums = [_sum(x, np.uint32(n * size % 2**32)) for n, x in enumerate(parts)]
    found[name] = sum(map(int, sums)) % 2**32
  return found


def named_leaves(tree: Any) -> dict[str, Any]:
  """Return the leaves of a tree by their path: "params/head/kernel"."""
  return {
    jax.tree_util.keystr(path, simple=True, separator="/"): leaf
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
  }


def model_digest(prints: Mapping[str, int], tokenizer: str) -> str:
  """Return the sha256 (hex) over all parameters' fingerprints and the tokenizer's."""
  prints = {k: v for k, v in prints.items() if k.startswith("params/")}
  content = json.dumps([prints, tokenizer], sort_keys=True)
  return hashlib.sha256(content.encode()).hexdigest()
