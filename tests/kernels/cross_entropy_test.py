"""The loss by its formula, the chunked loss against the plain one, and its memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phi1_jax import InputError
from phi1_jax.kernels.cross_entropy import cross_entropy


def operands(batch=2, length=12, embed=5, vocabulary=31, dtype="float32"):
  keys = jax.random.split(jax.random.key(0), 5)
  return (
    jax.random.normal(keys[0], (batch, length, embed), dtype),
    jax.random.normal(keys[1], (embed, vocabulary)),
    jax.random.normal(keys[2], (vocabulary,)),
    jax.random.randint(keys[3], (batch, length), 0, vocabulary),
    jax.random.uniform(keys[4], (batch, length)) * (jnp.arange(length) != 4),
  )


def mean_and_gradients(chunks, dtype="float32", z_loss=0.0):
  hidden, kernel, bias, targets, weights = operands(dtype=dtype)

  def mean(hidden, kernel, bias, weights):
    arguments = hidden, kernel, bias, targets, weights
    named = {"chunks": chunks, "compute_dtype": dtype, "z_loss": z_loss}
    sums = cross_entropy(*arguments, **named)
    return 3 * sums.loss / sums.weight

  return jax.jit(jax.value_and_grad(mean, argnums=(0, 1, 2, 3)))(
    hidden, kernel, bias, weights
  )


@pytest.mark.parametrize("chunks", [None, 4])
def test_loss_and_z_loss_by_their_formulas(chunks):
  """Also: z-loss adds 2·coefficient·log(Z)·softmax to the gradient of the logits."""
  hidden, kernel, bias, targets, weights = operands()

  def sums(bias, z_loss):
    arguments = hidden, kernel, bias, targets, weights
    named = {"chunks": chunks, "compute_dtype": "float32", "z_loss": z_loss}
    return cross_entropy(*arguments, **named)

  logits = np.asarray(hidden @ kernel + bias, np.float64)
  log_z = np.log(np.exp(logits).sum(-1))
  picked = np.take_along_axis(logits, np.asarray(targets)[..., None], -1)[..., 0]
  with_z, without = sums(bias, 0.3), sums(bias, 0.0)
  np.testing.assert_allclose(
    without.loss, ((log_z - picked) * weights).sum(), rtol=1e-6
  )
  np.testing.assert_allclose(without.weight, weights.sum(), rtol=1e-6)
  assert without.z_loss == 0
  z_loss = 0.3 * (log_z**2 * weights).sum()
  np.testing.assert_allclose(with_z.z_loss, z_loss, rtol=1e-6)
  np.testing.assert_allclose(with_z.loss, without.loss + z_loss, rtol=1e-6)
  softmax = np.exp(logits - log_z[..., None])
  added = (softmax * (0.6 * log_z * weights)[..., None]).sum((0, 1))
  gradients = [jax.grad(lambda b, z=z: sums(b, z).loss)(bias) for z in (0.3, 0.0)]
  np.testing.assert_allclose(gradients[0] - gradients[1], added, atol=2e-5)


@pytest.mark.parametrize("z_loss", [0.0, 0.2])
@pytest.mark.parametrize("chunks", [1, 3, 12])
def test_chunked_equals_plain_in_value_and_gradients(chunks, z_loss):
  loss, gradients = mean_and_gradients(chunks, z_loss=z_loss)
  expected_loss, expected = mean_and_gradients(None, z_loss=z_loss)
  atol, rtol = (1e-6, 1e-6) if z_loss else (3e-7, 1e-7)
  np.testing.assert_allclose(loss, expected_loss, rtol=1e-6)
  for ours, plain in zip(gradients, expected, strict=True):
    assert ours.dtype == plain.dtype
    np.testing.assert_allclose(ours, plain, atol=atol, rtol=rtol)


def test_bfloat16_factors_sum_in_float32():
  loss, gradients = mean_and_gradients(3, "bfloat16")
  expected_loss, expected = mean_and_gradients(None, "bfloat16")
  np.testing.assert_allclose(loss, expected_loss, rtol=1e-6)
  assert [x.dtype for x in gradients] == [jnp.bfloat16, *[jnp.float32] * 3]
  for ours, plain in zip(gradients, expected, strict=True):
    ours, plain = (np.asarray(x, np.float32) for x in (ours, plain))
    np.testing.assert_allclose(ours, plain, atol=1e-2 * np.abs(plain).max())


def test_chunked_never_holds_the_logits():
  arguments, logits_bytes = operands(4, 64, 8, 4096), 4 * 64 * 4096 * 4

  def temporaries(chunks):
    def loss(*operands):
      return cross_entropy(*operands, chunks=chunks, compute_dtype="float32").loss

    compiled = jax.jit(jax.grad(loss, argnums=(0, 1, 2))).lower(*arguments).compile()
    return compiled.memory_analysis().temp_size_in_bytes

  assert temporaries(None) > logits_bytes
  assert temporaries(16) < logits_bytes / 4


@pytest.mark.parametrize("chunks", [0, 5, 24])
def test_refuses_chunks_that_do_not_divide(chunks):
  with pytest.raises(InputError, match=f"got chunks={chunks}, expected a divisor"):
    cross_entropy(*operands(), chunks=chunks, compute_dtype="float32")
