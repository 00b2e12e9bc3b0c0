import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from phi1_jax.checkpoint.fingerprint import fingerprints

SPECS = (
  PartitionSpec(),
  PartitionSpec("a"),
  PartitionSpec(None, "b"),
  PartitionSpec("b", "a"),
  PartitionSpec(("a", "b")),
)


def one(x):
  return fingerprints({"x": x})["x"]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int32", "uint8"])
def test_the_same_under_every_sharding(dtype):
  mesh = jax.make_mesh((4, 2), ("a", "b"))
  x = jnp.asarray(np.random.default_rng(0).integers(0, 200, (16, 8)), dtype)
  values = {one(jax.device_put(x, NamedSharding(mesh, spec))) for spec in SPECS}
  assert len(values) == 1


def test_by_hand():
  """Sum of bits x (2 place + 1), modulo 2**32."""
  x = np.array([[1, 2], [3, 2**31]], np.uint32)
  assert one(jnp.asarray(x)) == (1 * 1 + 2 * 3 + 3 * 5 + 2**31 * 7) % 2**32
  assert one(jnp.asarray(5, jnp.int32)) == 5


@pytest.mark.parametrize("spec", [(), ("a",), ("b", None, "a"), (None, "a", "b")])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_layers_are_summed_as_one_array(spec, dtype):
  """Arrays of three dims go layer by layer; the number is that of the flat array."""
  x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 8, 12)), dtype)
  mesh = jax.make_mesh((4, 2), ("a", "b"))
  placed = jax.device_put(x, NamedSharding(mesh, PartitionSpec(*spec)))
  assert one(placed) == one(x.reshape(-1))


def test_every_flipped_bit_shows():
  x = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
  whole = one(jnp.asarray(x))
  for place in range(x.size):
    for bit in (0, 13, 31):
      damaged = x.copy()
      damaged.reshape(-1).view(np.uint32)[place] ^= np.uint32(1 << bit)
      assert one(jnp.asarray(damaged)) != whole


def test_a_swap_shows():
  x = np.arange(1, 13, dtype=np.float32).reshape(3, 4)
  whole = one(jnp.asarray(x))
  assert one(jnp.asarray(x[:, [1, 0, 2, 3]])) != whole
  assert one(jnp.asarray(x[[1, 0, 2]])) != whole
  assert one(jnp.asarray(np.roll(x, 1))) != whole
  assert one(jnp.asarray(x.T)) != whole
