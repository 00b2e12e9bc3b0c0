import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn
from jax.sharding import PartitionSpec

from phi1_jax import InputError
from phi1_jax.parallel import sharding
from phi1_jax.parallel.mesh import MeshConfig, make_mesh


def boxed(shape, names):
  return nn.Partitioned(jax.ShapeDtypeStruct(shape, jnp.float32), names)


@pytest.mark.parametrize(
  ("names", "spec"),
  [
    (("vocab", "embed"), PartitionSpec("tensor", "fsdp")),
    (("embed", "mlp"), PartitionSpec("fsdp", "tensor")),
    (("layers", "embed", "qkv", "heads", "head_dim"), (None, "fsdp", None, "tensor")),
    (("norm",), PartitionSpec(None)),
    # The batch is split over fsdp already, so the activation's width stays whole.
    (("batch", "length", "embed"), (("data", "fsdp"),)),
  ],
)
def test_words_to_axes(names, spec):
  mesh = make_mesh(MeshConfig(2, 2, 2))
  tree = {"x": boxed((8,) * len(names), names)}
  found = sharding.shardings(tree, mesh)["x"].spec
  pad = (None,) * len(names)
  assert (*found, *pad)[: len(names)] == (*spec, *pad)[: len(names)]


def test_what_does_not_divide_is_named():
  mesh = make_mesh(MeshConfig(1, 1, 8))
  tree = {"mlp": {"up": boxed((16, 12), ("embed", "mlp"))}}
  message = "tensor=8 does not divide 12 in parameter mlp/up"
  with pytest.raises(InputError, match=message):
    sharding.shardings(tree, mesh)


class _Elsewhere:
  """A sharding of which this host has the devices of some rows only."""

  def __init__(self, rows):
    self.rows = rows

  def addressable_devices_indices_map(self, shape):
    return {i: (rows,) for i, rows in enumerate(self.rows)}


def test_rows_of_a_host_whose_devices_lie_apart(monkeypatch):
  """The first host of a v5e 4x4: its devices are 0, 1, 6 and 15 of the mesh."""
  rows = [slice(2 * place, 2 * place + 2) for place in (15, 0, 6, 1)]
  monkeypatch.setattr(sharding, "batch_sharding", lambda mesh: _Elsewhere(rows))
  found = sharding.host_rows(None, 32)
  assert found.tolist() == [0, 1, 2, 3, 12, 13, 30, 31]
