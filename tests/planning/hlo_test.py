"""What programs compute and move, against counting by hand."""

from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from phi1_jax.planning import flops, hlo


def test_a_loop_counts_each_turn_and_a_product_its_memory():
  kinds = (AxisType.Auto,)
  mesh = jax.make_mesh((4,), ("data",), kinds, devices=jax.devices()[:4])

  def traffic(f, *arguments):
    """Of a program for the mesh; arguments are (shape, spec)."""
    abstract = [
      jax.ShapeDtypeStruct(shape, "float32", sharding=NamedSharding(mesh, spec))
      for shape, spec in arguments
    ]
    return hlo.traffic(jax.jit(f).lower(*abstract).compile().as_text(), [0] * 4)

  def loop(x):
    def turn(total, _):
      return total + jnp.sum(jnp.sin(x + total)), None

    return jax.lax.scan(turn, jnp.zeros(()), length=5)[0]

  operand = ((8, 16), PartitionSpec("data"))
  found = traffic(loop, operand)
  once = traffic(lambda x: jnp.sum(jnp.sin(x)), operand)
  assert found.hbm_bytes > 4 * once.hbm_bytes
  # A ring reduces and distributes: twice 3/4 of a float.
  assert once.inside["all-reduce"] == {"count": 1, "bytes": 2 * 4 * 3 / 4}
  assert found.inside["all-reduce"] == {"count": 5, "bytes": 5 * 2 * 4 * 3 / 4}
  whole = PartitionSpec()
  found = traffic(lambda x, y: x @ y, ((64, 32), whole), ((32, 8), whole))
  assert found.hbm_bytes == 4 * (64 * 32 + 32 * 8 + 64 * 8)


def test_a_program_for_a_tpu():
  """Written as the TPU's compiler writes: memory spaces, groups named by mesh axes.

  A loop of 24 turns slices its 24 layers out of a stack, in a fusion that keeps its
  result on chip, S(1), gathers it in two fusions under one channel, and reduces it.
  """
  text = (Path(__file__).parent / "tpu_loop.hlo").read_text()
  found = hlo.traffic(text, [0] * 8)
  layer = 2 * 8 * 128
  # A turn reads one layer, not the stack, its counter, and compares that once more.
  assert found.hbm_bytes == 24 * (layer + 4 + (4 + 4 + 1))
  assert found.inside == {
    # One gather, though it stands in two fusions, among groups of 4 of the 8 devices.
    "all-gather": {"count": 24, "bytes": 24 * layer * 3},
    # Reduced and then cut: each device sends three quarters of what is summed.
    "reduce-scatter": {"count": 24, "bytes": 24 * 4 * layer * 3 / 4},
  }


PROGRAM = """
ENTRY %main (x: f32[64]) -> f32[64] {{
  %x = f32[64]{{0}} parameter(0)
  ROOT %y = f32[64]{{0}} {collective}
}}
"""
ALL_REDUCE = "all-reduce(%x), channel_id=1, replica_groups={}, to_apply=%add"
PERMUTE = "collective-permute(%x), channel_id=1, source_target_pairs={}"


@pytest.mark.parametrize(
  ("collective", "inside", "across"),
  [
    # Rings of 4 on one node; each device sends 2 x 3/4 of its 256 bytes.
    (ALL_REDUCE.format("{{0,1,2,3},{4,5,6,7}}"), 384, 0),
    (ALL_REDUCE.format("[2,4]<=[8]"), 384, 0),
    # Pairs with a device on each node send 2 x 1/2.
    (ALL_REDUCE.format("{{0,4},{1,5},{2,6},{3,7}}"), 0, 256),
    (ALL_REDUCE.format("mesh['a'=2,'b'=4] {'a'}"), 0, 256),
    (ALL_REDUCE.format("mesh['a'=4,'b'=2], device_ids=([2,4]T(1,0)) {'a'}"), 384, 0),
    (ALL_REDUCE.format("mesh['a'=2,'b'=2], device_ids=(0,4,1,5) {'b'}"), 0, 256),
    (ALL_REDUCE.format("mesh['a'=8] {'a':(2)4}"), 384, 0),
    (ALL_REDUCE.format("mesh['a'=8] {'a':(1)2}"), 0, 256),
    # A ring of all 8 crosses twice; so does every eighth of its messages, twice.
    (ALL_REDUCE.format("{{0,1,2,3,4,5,6,7}}"), 336, 112),
    (ALL_REDUCE.format("mesh['a'=2,'b'=4] {'a','b'}"), 336, 112),
    (PERMUTE.format("{{0,4},{4,0}}"), 0, 256),
    # Two of the eight messages around a ring of all cross.
    (PERMUTE.format("{{0,1},{1,2},{2,3},{3,4},{4,5},{5,6},{6,7},{7,0}}"), 192, 64),
  ],
)
def test_what_crosses_nodes(collective, inside, across):
  """Two nodes of four devices."""
  text = PROGRAM.format(collective=collective)
  found = hlo.traffic(text, [0] * 4 + [1] * 4)
  kind = collective.partition("(")[0]
  none = {"count": 0, "bytes": 0}
  near, far = (part.get(kind, none) for part in (found.inside, found.across))
  assert (near["bytes"], far["bytes"]) == (inside, across)
  # A ring that crosses counts once, as one across.
  assert (near["count"], far["count"]) == (across == 0, across > 0)


def test_a_program_for_two_tpu_slices():
  """Inside a slice groups name its own devices; the host sends what leaves it.

  A channel's number is used once by each kind of transfer.
  """
  text = """
ENTRY %main (x: f32[64]) -> f32[64] {
  %x = f32[64]{0} parameter(0)
  %sum = f32[64]{0} all-reduce(%x), channel_id=2, replica_groups={{0,1,2,3}}, to_apply=%a
  %token = token[] after-all()
  %send = (f32[64]{0}, u32[], token[]) send(%sum, %token), channel_id=2, is_host_transfer=true, frontend_attributes={_xla_host_transfer_handler_name="xla_megascale_runtime",_xla_megascale_transfer_type="ALL_REDUCE"}
  %recv = (f32[64]{0}, u32[], token[]) recv(%token), channel_id=3, is_host_transfer=true, frontend_attributes={_xla_host_transfer_handler_name="xla_megascale_runtime",_xla_megascale_transfer_type="ALL_REDUCE"}
  %done = (f32[64]{0}, token[]) recv-done(%recv), channel_id=3
  ROOT %y = f32[64]{0} get-tuple-element(%done), index=0
}
"""  # noqa: E501
  found = hlo.traffic(text, [0, 1] * 4)  # as with Mesh.dcn_data=1
  assert found.inside == {"all-reduce": {"count": 1, "bytes": 384}}
  assert found.across == {"all-reduce": {"count": 1, "bytes": 256}}
  # The sum is read and written, then read by the host, which writes its answer.
  assert found.hbm_bytes == 2 * 256 + 256 + 256


X = jnp.ones((2, 3, 5))
Y = jnp.ones((2, 5, 7))
PRODUCT = 2 * 2 * 3 * 7 * 5  # X · Y


def product(x, y):
  return jnp.einsum("bij,bjk->bik", x, y)


def counted(f, *arguments):
  return flops.count(jax.jit(f).trace(*arguments).jaxpr)


def test_gradients_and_recomputation():
  """Two products backward for the one forward, and a third where it is done again."""

  def f(x, y):
    return jnp.sum(jnp.sin(product(x, y)))

  gradient = jax.grad(f, argnums=(0, 1))
  assert counted(gradient, X, Y) == 3 * PRODUCT
  again = jax.checkpoint(f, policy=jax.checkpoint_policies.nothing_saveable)
  assert counted(jax.grad(again, argnums=(0, 1)), X, Y) == 4 * PRODUCT


def loop(x, y):
  return jax.lax.scan(lambda c, _: (c + jnp.sum(product(x, y)), None), 0.0, length=11)


def branch(x, y):
  return jax.lax.cond(x[0, 0, 0] > 0, lambda: jnp.sum(product(x, y)), lambda: 0.0)


def spread(x, y):
  mesh = jax.make_mesh((2,), ("data",), (AxisType.Auto,), devices=jax.devices()[:2])
  spec = PartitionSpec("data")
  return jax.shard_map(product, mesh=mesh, in_specs=(spec, spec), out_specs=spec)(x, y)


@pytest.mark.parametrize(
  ("f", "products"),
  [
    (product, 1),
    (lambda x, y: jnp.sum(jnp.exp(x) * x), 0),
    (loop, 11),
    (branch, 1),  # the costliest
    (spread, 1),
  ],
)
def test_counts_products_alone_on_all_devices(f, products):
  assert counted(f, X, Y) == products * PRODUCT
