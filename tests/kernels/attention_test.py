"""Every implementation against the reference, and the reference by hand."""

import itertools
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phi1_jax import InputError
from phi1_jax.kernels import attention as module
from phi1_jax.kernels import dense
from phi1_jax.kernels.attention import attention

# More than one block, and a last one that is not full.
_LENGTH = 2 * dense.MIN_BLOCK + 7


def _qkv(length=_LENGTH, dtype="float32"):
  keys = jax.random.split(jax.random.key(0), 3)
  return [jax.random.normal(key, (2, length, 3, 5), dtype) for key in keys]


def _segments(length=_LENGTH):
  ids = jnp.arange(length)
  return jnp.stack([ids // 29, (ids > 70) * 3])


def test_reference_by_hand():
  """Equal scores average the values so far; a segment starts afresh."""
  _, _, v = _qkv(7)
  zeros = jnp.zeros_like(v)
  average = jnp.cumsum(v, axis=1) / jnp.arange(1, 8)[:, None, None]
  output = attention(zeros, zeros, v, implementation="reference")
  np.testing.assert_allclose(output, average, atol=1e-6)
  segments = jnp.asarray([[0] * 7, [4, 4, 4, 9, 9, 9, 9]])
  output = attention(
    zeros, zeros, v, segment_ids_BT=segments, implementation="reference"
  )
  np.testing.assert_allclose(output[0], average[0], atol=1e-6)
  restarted = jnp.cumsum(v[1, 3:], axis=0) / jnp.arange(1, 5)[:, None, None]
  np.testing.assert_allclose(output[1, 3:], restarted, atol=1e-6)


def test_reference_equals_jax():
  q, k, v = _qkv()
  np.testing.assert_allclose(
    attention(q, k, v, implementation="reference"),
    jax.nn.dot_product_attention(q, k, v, is_causal=True),
    atol=2e-6,
  )


@pytest.mark.parametrize(
  ("packed", "rate"), list(itertools.product([False, True], [0.0, 0.3]))
)
def test_xla_equals_the_reference_in_value_and_gradients(packed, rate):
  probe = jax.random.normal(jax.random.key(7), (2, _LENGTH, 3, 5))

  def run(name):
    def weigh(q, k, v):
      output = attention(
        q,
        k,
        v,
        segment_ids_BT=_segments() if packed else None,
        dropout_rate=rate,
        dropout_key=jax.random.key(3),
        implementation=name,
      )
      return jnp.sum(output * probe), output

    (_, output), gradients = jax.jit(
      jax.value_and_grad(weigh, argnums=(0, 1, 2), has_aux=True)
    )(*_qkv())
    return output, *gradients

  for ours, expected in zip(run("xla"), run("reference"), strict=True):
    np.testing.assert_allclose(ours, expected, atol=3e-6)


@pytest.mark.parametrize("implementation", ["reference", "xla"])
def test_bfloat16_keeps_its_dtype_and_is_close(implementation):
  output = attention(*_qkv(dtype="bfloat16"), implementation=implementation)
  exact = attention(
    *(x.astype(jnp.float32) for x in _qkv(dtype="bfloat16")), implementation="reference"
  )
  assert output.dtype == jnp.bfloat16
  np.testing.assert_allclose(output.astype(jnp.float32), exact, atol=2e-2)


_GPUS = [
  *("NVIDIA A100-SXM4-40GB", "NVIDIA A100 80GB PCIe", "NVIDIA A10G", "NVIDIA L4"),
  *("NVIDIA H100 80GB HBM3", "NVIDIA H200", "NVIDIA GeForce RTX 4090", "NVIDIA B200"),
  "NVIDIA RTX 2000 Ada Generation",
]
_OLD_GPUS = [
  *("Tesla T4", "Tesla V100-SXM2-16GB", "Tesla P100-PCIE-16GB", "NVIDIA TITAN RTX"),
  *("NVIDIA GeForce RTX 2080 Ti", "NVIDIA GeForce GTX 1660", "Quadro RTX 8000"),
  *("NVIDIA T1000", "AMD Instinct MI300X"),
]


def _case(**changes):
  """What the paper's training asks of a v5e."""
  usual = {"platform": "tpu", "chip": "TPU v5 lite", "dtype": "bfloat16"}
  sizes = {"length": 2048, "head_dim": 64, "packed": False, "drops": True}
  return module.Case(**{**usual, **sizes, **changes})


def _gpu(chip, **changes):
  return {"platform": "gpu", "chip": chip, **changes}


@pytest.mark.parametrize(
  ("changes", "name"),
  [
    ({}, "flash"),
    ({"drops": False}, "flash"),
    ({"packed": True}, "flash"),
    ({"chip": "TPU v4"}, "flash"),
    ({"chip": "TPU v2"}, "xla"),
    ({"chip": "TPU v3"}, "xla"),
    ({"length": 2000}, "xla"),
    ({"length": 16384}, "xla"),
    ({"even": False}, "xla"),
    *((_gpu(chip), "flash") for chip in _GPUS),
    *((_gpu(chip, drops=False), "cudnn") for chip in _GPUS),
    *((_gpu(chip, drops=False, packed=True), "flash") for chip in _GPUS),
    *((_gpu(chip), "xla") for chip in _OLD_GPUS),
    *((_gpu(chip, drops=False), "xla") for chip in _OLD_GPUS),
    (_gpu("NVIDIA H200", length=2000), "xla"),
    (_gpu("NVIDIA H200", length=2000, drops=False), "cudnn"),
    (_gpu("NVIDIA H200", head_dim=80), "xla"),
    (_gpu("NVIDIA H200", head_dim=80, drops=False), "cudnn"),
    (_gpu("NVIDIA H200", dtype="float32"), "xla"),
    (_gpu("NVIDIA H200", even=False), "xla"),
    ({"platform": "cpu", "chip": "cpu"}, "xla"),
  ],
)
def test_auto_chooses_by_chip(changes, name):
  assert module.choose(_case(**changes)) == name


def test_auto_logs_its_choice_once(caplog):
  module.choose.cache_clear()
  q, k, v = _qkv(7)
  with caplog.at_level(logging.INFO):
    np.testing.assert_array_equal(
      attention(q, k, v), attention(q, k, v, implementation="xla")
    )
    attention(q, k, v)
  assert caplog.messages == [
    "attention: xla (cpu, 7 positions, segment ids False, dropout False)"
  ]


@pytest.mark.parametrize(
  ("name", "changes", "reason"),
  [
    ("flash", {"chip": "TPU v2"}, "does not compile for TPU v2"),
    ("flash", {"length": 100}, "needs a length that 128 divides, not 100"),
    ("flash", {"length": 16384}, "holds at most 4096 positions"),
    ("flash", {"even": False}, "needs a batch and heads that the mesh divides"),
    ("flash", {"platform": "cpu"}, "runs on tpu and gpu, not on cpu"),
    ("flash", _gpu("Tesla T4"), "of compute capability 8.0, not Tesla T4; use 'xla'"),
    ("flash", _gpu("NVIDIA L4", head_dim=80), "a head_dim among 16, 32, 64, 128"),
    ("flash", _gpu("NVIDIA L4", length=100), "needs a length that 128 divides"),
    ("flash", _gpu("NVIDIA L4", dtype="float32"), "not in float32"),
    ("cudnn", {}, "runs on gpu, not on tpu"),
    ("cudnn", {"platform": "gpu", "packed": True}, "does not honour segment ids"),
    ("cudnn", {"platform": "gpu"}, "has no dropout"),
    ("cudnn", _gpu("Tesla V100-SXM2-16GB", drops=False), "not Tesla V100-SXM2-16GB"),
    (
      "cudnn",
      {"platform": "gpu", "drops": False, "dtype": "float32"},
      "computes in bfloat16 or float16, not in float32",
    ),
    (
      "cudnn",
      {"platform": "gpu", "drops": False, "head_dim": 60},
      "needs a head_dim of at most 128",
    ),
  ],
)
def test_says_why_not(name, changes, reason):
  assert reason in module.refuse(name, _case(**changes))


def test_refuses_by_name():
  q, k, v = _qkv(7)
  known = "auto, cudnn, flash, xla, reference"
  with pytest.raises(InputError, match=f"'fast' is unknown, expected one of {known}"):
    attention(q, k, v, implementation="fast")
  with pytest.raises(InputError, match="needs a dropout_key"):
    attention(q, k, v, dropout_rate=0.1)
  with pytest.raises(InputError, match="'cudnn' runs on gpu, not on cpu"):
    attention(q, k, v, implementation="cudnn")


def test_one_position_attends_to_itself():
  """Initialisation asks this, whatever implementation the model is for."""
  q, k, v = _qkv(1)
  np.testing.assert_array_equal(attention(q, k, v, implementation="cudnn"), v)
