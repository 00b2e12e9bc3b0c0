"""Every implementation of attention against the reference; which of them is chosen.

The fused kernels are emulated, and compiled where that is possible.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from phi1_jax import InputError
from phi1_jax.kernels import attention as module
from phi1_jax.kernels import dense, dropout, flash_gpu, flash_tpu, grid
from phi1_jax.kernels.attention import attention
from phi1_jax.planning import flops, topology

# More than one block: 384 is 3 blocks of 128. The blocks of "xla" need not be full.
BATCH, LENGTH, HEADS, HEAD_DIM = 2, 384, 2, 16
SPEC = PartitionSpec("data", None, "tensor", None)
FUSED = [flash_tpu, flash_gpu]


def mesh():
  kinds = (AxisType.Auto,) * 2
  return jax.make_mesh((2, 2), ("data", "tensor"), kinds, devices=jax.devices()[:4])


def qkv(dtype="float32", length=LENGTH):
  keys = jax.random.split(jax.random.key(0), 3)
  shape = BATCH, length, HEADS, HEAD_DIM
  return [jax.random.normal(key, shape, dtype) for key in keys]


def segments(length):
  ids = jnp.arange(length)
  # One document ends inside a block, another fills whole blocks.
  return jnp.stack([ids // 29, (ids > 200) * 3])


def run(how, packed, rate, spec=grid.WHOLE):
  """Attention by a fused kernel's module, or by a plain implementation's name."""

  def attend(q, k, v):
    length, key = q.shape[1], jax.random.key(3)
    ids = segments(length) if packed else None
    if isinstance(how, str):
      named = {"dropout_rate": rate, "dropout_key": key, "implementation": how}
      return attention(q, k, v, segment_ids_BT=ids, **named)
    masks = grid.Masks(ids)
    if rate:
      rows_BNT = dropout.row_hashes(key, (BATCH, HEADS, length))
      masks = grid.Masks(ids, rows_BNT, dropout.column_hashes(key, length))
    return how.flash(q, k, v, masks, rate, spec=spec, interpret=True)

  return attend


def value_and_gradients(attend, operands):
  probe = jax.random.normal(jax.random.key(7), operands[0].shape)

  def weigh(q, k, v):
    output = attend(q, k, v)
    return jnp.sum(output * probe), output

  (_, output), gradients = jax.jit(
    jax.value_and_grad(weigh, argnums=(0, 1, 2), has_aux=True)
  )(*operands)
  return output, *gradients


def test_the_reference_by_hand():
  """Equal scores average the values so far; a segment starts afresh."""
  q, k, v = qkv(length=7)
  zeros, reference = jnp.zeros_like(v), functools.partial(attention, v_BSNH=v)
  reference = functools.partial(reference, implementation="reference")
  average = jnp.cumsum(v, axis=1) / jnp.arange(1, 8)[:, None, None]
  np.testing.assert_allclose(reference(zeros, zeros), average, atol=1e-6)
  ids = jnp.asarray([[0] * 7, [4, 4, 4, 9, 9, 9, 9]])
  output = reference(zeros, zeros, segment_ids_BT=ids)
  np.testing.assert_allclose(output[0], average[0], atol=1e-6)
  restarted = jnp.cumsum(v[1, 3:], axis=0) / jnp.arange(1, 5)[:, None, None]
  np.testing.assert_allclose(output[1, 3:], restarted, atol=1e-6)
  expected = jax.nn.dot_product_attention(q, k, v, is_causal=True)
  np.testing.assert_allclose(reference(q, k), expected, atol=2e-6)


@pytest.mark.parametrize(
  ("packed", "rate", "dtype"),
  [
    *((packed, rate, "float32") for packed in (False, True) for rate in (0.0, 0.3)),
    (True, 0.3, "bfloat16"),
  ],
)
@pytest.mark.parametrize("how", ["xla", *FUSED])
def test_equals_the_reference_in_value_and_gradients(how, packed, rate, dtype):
  length = 2 * dense.MIN_BLOCK + 7 if how == "xla" else LENGTH
  operands = qkv(dtype, length)
  found = value_and_gradients(run(how, packed, rate), operands)
  exact = [x.astype("float32") for x in operands]
  expected = value_and_gradients(run("reference", packed, rate), exact)
  atol = {"float32": 5e-6, "bfloat16": 3e-2}[dtype]
  for ours, theirs in zip(found, expected, strict=True):
    assert ours.dtype == dtype
    np.testing.assert_allclose(ours.astype("float32"), theirs, atol=atol)


@pytest.mark.parametrize("how", FUSED)
def test_on_a_mesh_it_is_the_same(how):
  """Dropout follows the position in the whole batch, not in a device's part."""
  alone = value_and_gradients(run(how, True, 0.3), qkv())
  with jax.set_mesh(mesh()):
    spread = value_and_gradients(run(how, True, 0.3, SPEC), qkv())
  for ours, theirs in zip(spread, alone, strict=True):
    np.testing.assert_allclose(ours, theirs, atol=3e-6)


@pytest.mark.parametrize("how", FUSED)
def test_counts_its_products(how):
  def loss(q, k, v):
    return jnp.sum(run(how, False, 0.0)(q, k, v))

  executed = flops.count(jax.make_jaxpr(jax.grad(loss, argnums=(0, 1, 2)))(*qkv()))
  # 6 of 9 blocks are on or below the diagonal; 2, 3 and 4 products in the kernels.
  scores = BATCH * HEADS * LENGTH**2 * 6 / 9
  assert executed == 2 * HEAD_DIM * scores * (2 + 3 + 4)


def gradient(how, shape, sharding=None):
  """The traced gradient of a kernel with segment ids and dropout."""
  batch, length, heads, _ = shape

  def loss(q, k, v, ids, rows, columns):
    masks = grid.Masks(ids, rows, columns)
    return jnp.sum(how.flash(q, k, v, masks, 0.1).astype("float32"))

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


GPUS = [
  *("NVIDIA A100-SXM4-40GB", "NVIDIA A10G", "NVIDIA L4", "NVIDIA H100 80GB HBM3"),
  *("NVIDIA GeForce RTX 4090", "NVIDIA B200", "NVIDIA RTX 2000 Ada Generation"),
]
OLD_GPUS = [
  *("Tesla T4", "Tesla V100-SXM2-16GB", "NVIDIA TITAN RTX", "NVIDIA T1000"),
  *("NVIDIA GeForce RTX 2080 Ti", "NVIDIA GeForce GTX 1660", "Quadro RTX 8000"),
  "AMD Instinct MI300X",
]


def case(**changes):
  """The paper's training on a v5e, with changes."""
  usual = {"platform": "tpu", "chip": "TPU v5 lite", "dtype": "bfloat16"}
  sizes = {"length": 2048, "head_dim": 64, "packed": False, "drops": True}
  return module.Case(**{**usual, **sizes, **changes})


def gpu(chip="NVIDIA H200", **changes):
  return {"platform": "gpu", "chip": chip, **changes}


@pytest.mark.parametrize(
  ("changes", "name", "refused"),
  [
    ({}, "flash", "cudnn"),
    ({"packed": True}, "flash", "cudnn"),
    ({"chip": "TPU v4"}, "flash", "cudnn"),
    ({"chip": "TPU v2"}, "xla", "flash"),
    ({"chip": "TPU v3"}, "xla", "flash"),
    ({"length": 2000}, "xla", "flash"),
    ({"length": 16384}, "xla", "flash"),
    ({"even": False}, "xla", "flash"),
    *((gpu(chip), "flash", "cudnn") for chip in GPUS),
    *((gpu(chip, drops=False), "cudnn", None) for chip in GPUS),
    *((gpu(chip, drops=False), "xla", "flash") for chip in OLD_GPUS),
    (gpu(OLD_GPUS[0], drops=False), "xla", "cudnn"),
    (gpu(drops=False, packed=True), "flash", "cudnn"),
    (gpu(length=2000, drops=False), "cudnn", "flash"),
    (gpu(head_dim=80, drops=False), "cudnn", "flash"),
    (gpu(head_dim=60, drops=False), "xla", "cudnn"),
    (gpu(head_dim=136, drops=False), "xla", "cudnn"),
    (gpu(dtype="float32"), "xla", "flash"),
    (gpu(dtype="float32", drops=False), "xla", "cudnn"),
    (gpu(even=False, drops=False), "xla", "cudnn"),
    ({"platform": "cpu", "chip": "cpu"}, "xla", "flash"),
  ],
)
def test_auto_chooses_by_chip_and_refuses_the_others(changes, name, refused):
  found = case(**changes)
  assert module.choose(found) == name
  assert module.refuse(name, found) is None
  assert refused is None or module.refuse(refused, found)


@pytest.mark.parametrize(
  ("named", "message"),
  [
    ({"implementation": "fast"}, "'fast' is unknown, expected one of auto, cudnn"),
    ({"dropout_rate": 0.1}, "needs a dropout_key"),
    ({"implementation": "cudnn"}, "'cudnn' runs on gpu, not on cpu"),
  ],
)
def test_refuses_by_name(named, message):
  with pytest.raises(InputError, match=message):
    attention(*qkv(length=7), **named)


def test_one_position_attends_to_itself():
  """Initialisation calls this, whatever implementation the model is for."""
  q, k, v = qkv(length=1)
  np.testing.assert_array_equal(attention(q, k, v, implementation="cudnn"), v)
