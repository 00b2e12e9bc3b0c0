"""What programs move, against counting by hand."""

from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from phi1_jax.telemetry import hlo

DEVICES, TURNS = 4, 5


@pytest.fixture(scope="module")
def mesh():
  return jax.make_mesh(
    (DEVICES,), ("data",), (AxisType.Auto,), devices=jax.devices()[:DEVICES]
  )


def compiled(f, mesh, *arguments):
  """The text of `f` for a mesh; arguments are (shape, spec)."""
  abstract = [
    jax.ShapeDtypeStruct(shape, jnp.float32, sharding=NamedSharding(mesh, spec))
    for shape, spec in arguments
  ]
  return jax.jit(f).lower(*abstract).compile().as_text()


def test_gathering_and_reducing(mesh):
  split, whole = PartitionSpec("data"), PartitionSpec()

  def f(x, y):
    gathered = jax.lax.with_sharding_constraint(x, NamedSharding(mesh, whole))
    return jnp.sum(gathered @ y), jnp.sum(y, axis=0)

  text = compiled(f, mesh, ((8, 16), split), ((16, 4), split))
  found = hlo.traffic(text, DEVICES).collectives
  share = (DEVICES - 1) / DEVICES
  # Each device sends its 2 x 16 (and 4 x 4, if y is gathered) to the three others.
  gathered = found["all-gather"][1]
  assert gathered in (4 * 2 * 16 * 3, 4 * (2 * 16 + 4 * 4) * 3)
  # A ring reduces and distributes: twice 3/4 of what is summed.
  reduced = found["all-reduce"][1]
  assert reduced in {2 * share * 4 * count for count in (4, 5, 4 + 8 * 4)}


def test_a_loop_counts_each_turn(mesh):
  split = PartitionSpec("data")

  def f(x):
    def turn(total, _):
      return total + jnp.sum(jnp.sin(x + total)), None

    return jax.lax.scan(turn, jnp.zeros(()), length=TURNS)[0]

  found = hlo.traffic(compiled(f, mesh, ((8, 16), split)), DEVICES)
  assert found.collectives["all-reduce"][0] == TURNS
  once = hlo.traffic(compiled(lambda x: jnp.sum(jnp.sin(x)), mesh, ((8, 16), split)), 4)
  assert found.hbm_bytes > (TURNS - 1) * once.hbm_bytes
  assert found.link_bytes == TURNS * once.link_bytes


def test_memory_of_a_product():
  def f(x, y):
    return x @ y

  shapes = [
    jax.ShapeDtypeStruct((64, 32), "float32"),
    jax.ShapeDtypeStruct((32, 8), "float32"),
  ]
  text = jax.jit(f).lower(*shapes).compile().as_text()
  assert hlo.traffic(text, 1).hbm_bytes == 4 * (64 * 32 + 32 * 8 + 64 * 8)


def test_a_program_for_a_tpu():
  """Written as the TPU's compiler writes: memory spaces, groups named by mesh axes.

  A loop of 24 turns slices its 24 layers out of a stack, in a fusion that keeps its
  result on chip, S(1), gathers it in two fusions under one channel, and reduces it.
  """
  text = (Path(__file__).parent / "tpu_loop.hlo").read_text()
  found = hlo.traffic(text, 8)
  layer = 2 * 8 * 128
  # A turn reads one layer, not the stack, its counter, and compares that once more.
  assert found.hbm_bytes == 24 * (layer + 4 + (4 + 4 + 1))
  assert found.collectives == {
    # One gather, though it stands in two fusions, among groups of 4 of the 8 devices.
    "all-gather": (24, 24 * layer * 3),
    # Reduced and then cut: each device sends three quarters of what is summed.
    "reduce-scatter": (24, 24 * 4 * layer * 3 / 4),
  }
