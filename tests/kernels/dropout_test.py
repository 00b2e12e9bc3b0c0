"""Statistics of the mask; a part's mask is that part of the mask."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phi1_jax.kernels import dropout as module
from phi1_jax.kernels.dropout import dropout


def mask(rate, seed=0, shape=(211, 1009)):
  return np.asarray(dropout(jnp.ones(shape), rate, jax.random.key(seed)) != 0)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_keeps_the_right_share_of_all_rows_and_columns(rate):
  kept = mask(rate)
  for axis in (None, 0, 1):
    count = kept.size if axis is None else kept.shape[axis]
    error = (kept.mean(axis) - (1 - rate)) / np.sqrt(rate * (1 - rate) / count)
    assert np.abs(error).max() < 4.5  # in standard deviations, of at most 1009
    if axis is not None:
      assert 0.85 < error.std() < 1.15


def test_neighbours_rectangles_and_keys_are_independent():
  """Row and column hashes meet in an exclusive or: parity must not survive it."""
  signs = 2.0 * mask(0.5) - 1
  limit = 4 / np.sqrt(signs.size)
  for shift in [(0, 1), (1, 0), (1, 1), (0, 64), (64, 0), (7, 128)]:
    assert abs((signs * np.roll(signs, shift, (0, 1))).mean()) < limit
  for rows, columns in [(1, 1), (2, 4), (16, 1), (32, 256)]:
    parity = signs * np.roll(signs, rows, 0) * np.roll(signs, columns, 1)
    assert abs((parity * np.roll(signs, (rows, columns), (0, 1))).mean()) < limit
  masks = np.stack([2.0 * mask(0.5, seed) - 1 for seed in range(6)])
  correlations = np.einsum("kij,lij->kl", masks, masks) / masks[0].size
  np.testing.assert_allclose(correlations, np.eye(6), atol=4.5 / masks[0].size ** 0.5)


def test_values_and_gradient():
  x = jax.random.normal(jax.random.key(1), (5, 7, 11))
  output, pullback = jax.vjp(lambda x: dropout(x, 0.25, jax.random.key(2)), x)
  kept = np.asarray(output != 0)
  assert 0 < kept.mean() < 1
  np.testing.assert_allclose(output, np.where(kept, x / 0.75, 0), rtol=1e-6)
  (gradient,) = pullback(jnp.ones_like(x))
  np.testing.assert_allclose(gradient, np.where(kept, 1 / 0.75, 0), rtol=1e-6)


def test_a_part_of_the_mask_is_the_mask_of_the_part():
  rows = module.row_hashes(jax.random.key(0), (5, 7))[2:4, :, None]
  columns = module.column_hashes(jax.random.key(0), 31)[:13]
  whole = mask(0.5, shape=(5, 7, 31))
  np.testing.assert_array_equal(module.keep(rows, columns, 0.5), whole[2:4, :, :13])


def test_the_backward_pass_stores_no_mask():
  x = jax.ShapeDtypeStruct((64, 32, 128), jnp.float32)
  residuals = jax.eval_shape(
    lambda x: jax.vjp(lambda x: dropout(x, 0.1, jax.random.key(0)), x)[1], x
  )
  assert sum(leaf.size for leaf in jax.tree.leaves(residuals)) < 64 * 32 * 2
