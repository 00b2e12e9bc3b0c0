"""Rotation as a property of complex numbers."""

import jax
import jax.numpy as jnp
import numpy as np

from phi1_jax.model import rotary


def _x(dtype="float32"):
  return jax.random.normal(jax.random.key(0), (2, 7, 3, 11), dtype)


def test_rotates_pairs_as_complex_numbers_and_passes_the_other_dims():
  x = np.asarray(_x())
  rotated = np.asarray(rotary.rotate(_x(), *rotary.tables(7, 6, 100.0)))
  pairs = x[..., :3] + 1j * x[..., 3:6]
  angles = np.arange(7)[:, None] * 100.0 ** (-np.arange(3) / 3)
  turned = pairs * np.exp(1j * angles)[:, None, :]
  np.testing.assert_allclose(rotated[..., :3], turned.real, atol=1e-6)
  np.testing.assert_allclose(rotated[..., 3:6], turned.imag, atol=1e-6)
  np.testing.assert_array_equal(rotated[..., 6:], x[..., 6:])
  # It computes in float32.
  coarse, tables = _x("bfloat16"), rotary.tables(7, 6, 100.0)
  exact = rotary.rotate(coarse.astype(jnp.float32), *tables).astype(jnp.bfloat16)
  np.testing.assert_array_equal(rotary.rotate(coarse, *tables), exact)


def test_products_depend_on_distance_only():
  cos, sin = rotary.tables(9, 10, 100.0)
  q, k = jnp.broadcast_to(_x()[:, :1, :2], (2, 2, 9, 2, 11))
  scores = jnp.einsum(
    "btnh,bsnh->bnts", rotary.rotate(q, cos, sin), rotary.rotate(k, cos, sin)
  )
  np.testing.assert_allclose(scores[..., 1:, 1:], scores[..., :-1, :-1], atol=2e-5)
