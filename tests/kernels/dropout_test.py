"""The mask's statistics, and that it is the same wherever it is asked for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phi1_jax.kernels import dropout as module
from phi1_jax.kernels.dropout import dropout

_SHAPE = (211, 1009)


def _mask(rate, seed=0, shape=_SHAPE):
  return np.asarray(dropout(jnp.ones(shape), rate, jax.random.key(seed)) != 0)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_keeps_the_right_share_of_all_rows_and_columns(rate):
  mask = _mask(rate)
  for axis in (None, 0, 1):
    count = mask.size if axis is None else mask.shape[axis]
    error = (mask.mean(axis) - (1 - rate)) / np.sqrt(rate * (1 - rate) / count)
    assert np.abs(error).max() < 4.5  # in standard deviations, of at most 1009
    if axis is not None:
      assert 0.85 < error.std() < 1.15


@pytest.mark.parametrize("shift", [(0, 1), (1, 0), (1, 1), (0, 64), (64, 0), (7, 128)])
def test_neighbours_are_independent(shift):
  mask = _mask(0.5) - 0.5
  moved = np.roll(mask, shift, (0, 1))
  correlation = 4 * (mask * moved).mean()
  assert abs(correlation) < 4 / np.sqrt(mask.size)


def test_rectangles_are_independent():
  """Row and column hashes meet in an exclusive or: parity must not survive it."""
  mask = _mask(0.5) - 0.5
  for rows, columns in [(1, 1), (2, 4), (16, 1), (32, 256)]:
    parity = mask * np.roll(mask, rows, 0) * np.roll(mask, columns, 1)
    parity *= np.roll(mask, (rows, columns), (0, 1))
    assert abs(16 * parity.mean()) < 4 / np.sqrt(mask.size)


def test_keys_give_independent_masks():
  masks = np.stack([_mask(0.5, seed) for seed in range(6)]) - 0.5
  correlations = 4 * np.einsum("kij,lij->kl", masks, masks) / masks[0].size
  np.testing.assert_allclose(correlations, np.eye(6), atol=4.5 / masks[0].size ** 0.5)


def test_values_and_gradient():
  x = jax.random.normal(jax.random.key(1), (5, 7, 11))
  key = jax.random.key(2)
  output, pullback = jax.vjp(lambda x: dropout(x, 0.25, key), x)
  kept = np.asarray(output != 0)
  assert 0 < kept.mean() < 1
  np.testing.assert_allclose(output, np.where(kept, x / 0.75, 0), rtol=1e-6)
  np.testing.assert_allclose(
    pullback(jnp.ones_like(x))[0], np.where(kept, 1 / 0.75, 0), rtol=1e-6
  )


def test_a_part_of_the_mask_is_the_mask_of_the_part():
  key = jax.random.key(0)
  rows = module.row_hashes(key, (5, 7))[2:4, :, None]
  columns = module.column_hashes(key, 31)[:13]
  whole = np.asarray(dropout(jnp.ones((5, 7, 31)), 0.5, key) != 0)
  np.testing.assert_array_equal(module.keep(rows, columns, 0.5), whole[2:4, :, :13])


def test_backward_pass_stores_no_mask():
  x = jax.ShapeDtypeStruct((64, 32, 128), jnp.float32)
  residuals = jax.eval_shape(
    lambda x: jax.vjp(lambda x: dropout(x, 0.1, jax.random.key(0)), x)[1], x
  )
  assert sum(leaf.size for leaf in jax.tree.leaves(residuals)) < 64 * 32 * 2
