import jax
import numpy as np
import pytest

from phi1_jax.parallel import sharding
from phi1_jax.training import state


@pytest.fixture(scope="module")
def setup(tiny):
  return tiny(mesh=(1, 8, 1))


@pytest.fixture(scope="module")
def initial(setup):
  with sharding.layout(setup.mesh):
    return state.initialise(setup.model, setup.optimizer, setup.mesh, 0)


def test_a_device_holds_an_eighth_of_everything_split(setup, initial):
  split = 0
  for leaf, shape in zip(
    jax.tree.leaves(initial), jax.tree.leaves(setup.abstract_state), strict=True
  ):
    assert leaf.sharding == shape.sharding
    parts = 8 if "fsdp" in jax.tree.leaves(tuple(leaf.sharding.spec)) else 1
    split += parts == 8
    assert {s.data.size for s in leaf.addressable_shards} == {leaf.size // parts}
  held = [leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(initial)]
  assert state.bytes_per_device(setup.abstract_state) == sum(held)
  # Embedding, q k v, out and its bias, up, down and its bias, head; and two moments.
  assert split >= 3 * 6


def test_making_it_takes_no_more_than_an_eighth(setup):
  """Neither the outputs nor what the compiler keeps is as large as the tree."""
  places = jax.tree.map(lambda leaf: leaf.sharding, setup.abstract_state)
  with sharding.layout(setup.mesh):
    make = jax.jit(
      lambda key: sharding.unbox(state._init(setup.model, setup.optimizer, key)),
      out_shardings=places,
    )
    memory = make.lower(jax.random.key(0)).compile().memory_analysis()
  whole = sum(
    leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(setup.abstract_state)
  )
  assert memory.output_size_in_bytes < whole / 4
  assert memory.temp_size_in_bytes < whole / 4


def test_the_seed_decides_and_the_mesh_does_not(tiny, initial):
  other = tiny(mesh=(2, 2, 2))
  with sharding.layout(other.mesh):
    same = state.initialise(other.model, other.optimizer, other.mesh, 0)
    different = state.initialise(other.model, other.optimizer, other.mesh, 1)
  embedding = np.asarray(initial.params["embedding"]["embedding"])
  np.testing.assert_array_equal(same.params["embedding"]["embedding"], embedding)
  assert not np.array_equal(different.params["embedding"]["embedding"], embedding)
  assert embedding.std() == pytest.approx(0.02, rel=0.1)
