"""Every implementation against the reference, and the reference by hand."""

import itertools
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phi1_jax import InputError
from phi1_jax.kernels import attention as module
from phi1_jax.kernels.attention import attention

_FAST = ["xla"]
# More than one block, and a last one that is not full.
_LENGTH = 2 * module.MIN_BLOCK + 7


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


@pytest.mark.parametrize("implementation", _FAST)
@pytest.mark.parametrize(
  ("packed", "rate"), list(itertools.product([False, True], [0.0, 0.3]))
)
def test_equals_the_reference_in_value_and_gradients(implementation, packed, rate):
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

  for ours, expected in zip(run(implementation), run("reference"), strict=True):
    np.testing.assert_allclose(ours, expected, atol=3e-6)


@pytest.mark.parametrize("implementation", ["reference", *_FAST])
def test_bfloat16_keeps_its_dtype_and_is_close(implementation):
  output = attention(*_qkv(dtype="bfloat16"), implementation=implementation)
  exact = attention(
    *(x.astype(jnp.float32) for x in _qkv(dtype="bfloat16")), implementation="reference"
  )
  assert output.dtype == jnp.bfloat16
  np.testing.assert_allclose(output.astype(jnp.float32), exact, atol=2e-2)


@pytest.mark.parametrize("implementation", ["reference", *_FAST])
def test_dropout_is_unbiased(implementation):
  q, k, _ = _qkv(31)
  ones = jnp.ones((2, 31, 3, 5))
  outputs = jax.vmap(
    lambda key: attention(
      q, k, ones, dropout_rate=0.25, dropout_key=key, implementation=implementation
    )
  )(jax.random.split(jax.random.key(0), 200))
  assert float(jnp.std(outputs)) > 0.1
  assert abs(float(jnp.mean(outputs)) - 1) < 0.01


@pytest.mark.parametrize("implementation", ["reference", *_FAST])
def test_rows_without_company_attend_to_themselves(implementation):
  q, k, v = _qkv(7)
  ids = jnp.broadcast_to(jnp.arange(7), (2, 7))
  output = attention(q, k, v, segment_ids_BT=ids, implementation=implementation)
  np.testing.assert_allclose(output, v, atol=1e-6)


def test_auto_logs_its_choice_once(caplog):
  module.choose.cache_clear()
  q, k, v = _qkv(7)
  with caplog.at_level(logging.INFO):
    np.testing.assert_array_equal(
      attention(q, k, v), attention(q, k, v, implementation="xla")
    )
    attention(q, k, v)
  assert caplog.messages == [
    "attention: xla (platform cpu, segment ids False, dropout False)"
  ]


def test_refuses_by_name(monkeypatch):
  q, k, v = _qkv(7)
  with pytest.raises(InputError, match="'flash' is unknown, expected one of auto, xla"):
    attention(q, k, v, implementation="flash")
  with pytest.raises(InputError, match="needs a dropout_key"):
    attention(q, k, v, dropout_rate=0.1)
  narrow = module.Implementation(
    module.reference, platforms=("tpu", "cpu"), segment_ids=False, dropout=False
  )
  monkeypatch.setitem(module.IMPLEMENTATIONS, "xla", narrow)
  with pytest.raises(InputError, match="'xla' does not honour segment ids"):
    attention(q, k, v, segment_ids_BT=_segments(7), implementation="xla")
  with pytest.raises(InputError, match="'xla' has no dropout; set Model"):
    attention(
      q, k, v, dropout_rate=0.1, dropout_key=jax.random.key(0), implementation="xla"
    )
  monkeypatch.setitem(
    module.IMPLEMENTATIONS,
    "xla",
    module.Implementation(module.reference, platforms=("tpu",)),
  )
  with pytest.raises(InputError, match="'xla' runs on tpu, not on cpu"):
    attention(q, k, v, implementation="xla")
