import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from phi1_jax.checkpoint.fingerprint import fingerprints


def one(x):
  return fingerprints({"x": x})["x"]


def test_by_hand():
  """Sum of bits x (2 place + 1), modulo 2**32."""
  x = np.array([[1, 2], [3, 2**31]], np.uint32)
  assert one(jnp.asarray(x)) == (1 * 1 + 2 * 3 + 3 * 5 + 2**31 * 7) % 2**32
  assert one(jnp.asarray(5, jnp.int32)) == 5


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int32", "uint8"])
@pytest.mark.parametrize("shape", [(16, 8), (4, 8, 12)])
def test_the_same_under_every_sharding(dtype, shape):
  """Arrays of three dims go layer by layer; the number is that of the flat array."""
  mesh = jax.make_mesh((4, 2), ("a", "b"))
  x = jnp.asarray(np.random.default_rng(0).integers(0, 200, shape), dtype)
  specs = [(), ("a",), (None, "b"), ("b", "a"), (("a", "b"),) * (len(shape) == 2)]
  specs += [("b", None, "a"), (None, "a", "b")] * (len(shape) == 3)
  places = [NamedSharding(mesh, PartitionSpec(*spec)) for spec in specs]
  assert {one(jax.device_put(x, place)) for place in places} == {one(x.reshape(-1))}


def test_every_flipped_bit_and_a_swap_show():
  x = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
  others = [x[:, [1, 0, 2, 3, 4]], x[[1, 0, 2]], np.roll(x, 1), x.T]
  for place in range(x.size):
    for bit in (0, 13, 31):
      others.append(x.copy())
      others[-1].reshape(-1).view(np.uint32)[place] ^= np.uint32(1 << bit)
  assert one(jnp.asarray(x)) not in [one(jnp.asarray(other)) for other in others]
