"""The fused kernels, emulated, against the reference; and compiled where possible."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from phi1_jax.kernels import dense, dropout, flash_gpu, flash_tpu, grid
from phi1_jax.planning import flops, topology

# More than one block: 384 is 3 blocks of 128.
BATCH, LENGTH, HEADS, HEAD_DIM = 2, 384, 2, 16
SPEC = PartitionSpec("data", None, "tensor", None)


def mesh():
  kinds = (AxisType.Auto,) * 2
  return jax.make_mesh((2, 2), ("data", "tensor"), kinds, devices=jax.devices()[:4])


def qkv(dtype="float32"):
  keys = jax.random.split(jax.random.key(0), 3)
  shape = BATCH, LENGTH, HEADS, HEAD_DIM
  return [jax.random.normal(key, shape, dtype) for key in keys]


def segments():
  ids = jnp.arange(LENGTH)
  # One document ends inside a block, another fills whole blocks.
  return jnp.stack([ids // 29, (ids > 200) * 3])


def masks(packed, rate):
  key = jax.random.key(3)
  hashes = (None, None)
  if rate:
    rows_BNT = dropout.row_hashes(key, (BATCH, HEADS, LENGTH))
    hashes = rows_BNT, dropout.column_hashes(key, LENGTH)
  return grid.Masks(segments() if packed else None, *hashes)


def run_reference(packed, rate):
  ids = segments() if packed else None
  return lambda q, k, v: dense.reference(q, k, v, ids, rate, jax.random.key(3))


def run_flash(module, packed, rate, spec=grid.WHOLE):
  more = masks(packed, rate)
  return lambda q, k, v: module.flash(q, k, v, more, rate, spec=spec, interpret=True)


def run_tpu(packed, rate, *spec):
  return run_flash(flash_tpu, packed, rate, *spec)


def run_gpu(packed, rate, *spec):
  return run_flash(flash_gpu, packed, rate, *spec)


def value_and_gradients(attend, operands):
  probe = jax.random.normal(jax.random.key(7), operands[0].shape)

  def weigh(q, k, v):
    output = attend(q, k, v)
    return jnp.sum(output * probe), output

  (_, output), gradients = jax.jit(
    jax.value_and_grad(weigh, argnums=(0, 1, 2), has_aux=True)
  )(*operands)
  return output, *gradients


CASES = [
  *(
    (run, packed, rate, "float32")
    for run in (run_tpu, run_gpu)
    for packed in (False, True)
    for rate in (0.0, 0.3)
  ),
  *((run, True, 0.3, "bfloat16") for run in (run_tpu, run_gpu)),
]


@pytest.mark.parametrize(("run", "packed", "rate", "dtype"), CASES)
def test_equals_the_reference_in_value_and_gradients(run, packed, rate, dtype):
  found = value_and_gradients(run(packed, rate), qkv(dtype))
  exact = [x.astype("float32") for x in qkv(dtype)]
  expected = value_and_gradients(run_reference(packed, rate), exact)
  atol = {"float32": 5e-6, "bfloat16": 3e-2}[dtype]
  for ours, theirs in zip(found, expected, strict=True):
    assert ours.dtype == dtype
    np.testing.assert_allclose(ours.astype("float32"), theirs, atol=atol)


@pytest.mark.parametrize("run", [run_tpu, run_gpu])
def test_drops_the_same_weights_as_the_reference(run):
  """With equal scores and one-hot values, the output is the weights themselves."""
  zeros = jnp.zeros((BATCH, LENGTH, HEADS, HEAD_DIM))
  for start in range(0, LENGTH, LENGTH // 3):
    one_hot = jax.nn.one_hot(jnp.arange(LENGTH) - start, HEAD_DIM)
    v = jnp.broadcast_to(one_hot[None, :, None], zeros.shape)
    kept = run(False, 0.3)(zeros, zeros, v) > 0
    expected = run_reference(False, 0.3)(zeros, zeros, v) > 0
    assert 0 < expected.sum() < expected.size
    np.testing.assert_array_equal(kept, expected)


@pytest.mark.parametrize("run", [run_tpu, run_gpu])
def test_on_a_mesh_it_is_the_same(run):
  """Dropout follows the position in the whole batch, not in a device's part."""
  alone = value_and_gradients(run(True, 0.3), qkv())
  with jax.set_mesh(mesh()):
    spread = value_and_gradients(run(True, 0.3, SPEC), qkv())
  for ours, theirs in zip(spread, alone, strict=True):
    np.testing.assert_allclose(ours, theirs, atol=3e-6)


@pytest.mark.parametrize("run", [run_tpu, run_gpu])
def test_counts_its_products(run):
  def loss(q, k, v):
    return jnp.sum(run(False, 0.0, SPEC)(q, k, v))

  with jax.set_mesh(mesh()):
    executed = flops.count(jax.make_jaxpr(jax.grad(loss, argnums=(0, 1, 2)))(*qkv()))
  # 6 of 9 blocks are on or below the diagonal; 2, 3 and 4 products in the kernels.
  scores = BATCH * HEADS * LENGTH**2 * 6 / 9
  assert executed == 2 * HEAD_DIM * scores * (2 + 3 + 4)


def gradient(module, shape, sharding=None):
  """The traced gradient of a kernel with segment ids and dropout."""
  batch, length, heads, _ = shape

  def loss(q, k, v, ids, rows, columns):
    more = grid.Masks(ids, rows, columns)
    return jnp.sum(module.flash(q, k, v, more, 0.1).astype("float32"))

  shapes = [
    *[(shape, "bfloat16")] * 3,
    *(((batch, length), "int32"), ((batch, heads, length), "uint32")),
    ((length,), "uint32"),
  ]
  arguments = [jax.ShapeDtypeStruct(*of, sharding=sharding) for of in shapes]
  return jax.jit(jax.grad(loss, argnums=(0, 1, 2))).trace(*arguments)


@pytest.mark.parametrize("machine", ["v4-8", "v5e:2x2"])
def test_compiles_for_tpus(machine):
  pytest.importorskip("libtpu")
  device = topology.devices(topology.parse(machine))[0]
  place = jax.sharding.SingleDeviceSharding(device)
  compiled = gradient(flash_tpu, (2, 512, 2, 64), place).lower().compile()
  assert compiled.as_text().count('custom_call_target="tpu_custom_call"') == 3


@pytest.mark.parametrize("head_dim", flash_gpu.HEAD_DIMS)
def test_lowers_for_gpus(head_dim):
  """Triton accepts the kernels; XLA compiles them only where its CUDA plugin is."""
  traced = gradient(flash_gpu, (2, LENGTH, 2, head_dim))
  text = traced.lower(lowering_platforms=("cuda",)).as_text()
  assert text.count("custom_call @__gpu$xla.gpu.triton") == 3
