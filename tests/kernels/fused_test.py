"""The TPU kernels, emulated, against the reference."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from phi1_jax.kernels import dense, dropout, flash, splash
from phi1_jax.telemetry import flops

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


def extras(packed, rate):
  key = jax.random.key(3)
  hashes = (None, None)
  if rate:
    rows_BNT = dropout.row_hashes(key, (BATCH, HEADS, LENGTH))
    hashes = rows_BNT, dropout.column_hashes(key, LENGTH)
  return flash.Extras(segments() if packed else None, *hashes)


def run_reference(packed, rate):
  ids = segments() if packed else None
  return lambda q, k, v: dense.reference(q, k, v, ids, rate, jax.random.key(3))


def run_flash(packed, rate, spec=flash.WHOLE):
  more = extras(packed, rate)
  return lambda q, k, v: flash.flash(q, k, v, more, rate, spec=spec, interpret=True)


def run_splash(packed, rate):
  assert not rate
  ids = segments() if packed else None
  return lambda q, k, v: splash.splash(q, k, v, ids, interpret=True)


def value_and_gradients(attend, operands):
  probe = jax.random.normal(jax.random.key(7), operands[0].shape)

  def weigh(q, k, v):
    output = attend(q, k, v)
    return jnp.sum(output * probe), output

  (_, output), gradients = jax.jit(
    jax.value_and_grad(weigh, argnums=(0, 1, 2), has_aux=True)
  )(*operands)
  return output, *gradients


@pytest.mark.parametrize(
  ("run", "packed", "rate"),
  [
    (run_splash, False, 0.0),
    (run_splash, True, 0.0),
    (run_flash, False, 0.0),
    (run_flash, True, 0.0),
    (run_flash, False, 0.3),
    (run_flash, True, 0.3),
  ],
)
def test_equals_the_reference_in_value_and_gradients(run, packed, rate):
  found = value_and_gradients(run(packed, rate), qkv())
  expected = value_and_gradients(run_reference(packed, rate), qkv())
  for ours, theirs in zip(found, expected, strict=True):
    np.testing.assert_allclose(ours, theirs, atol=5e-6)


@pytest.mark.parametrize("run", [run_splash, run_flash])
def test_bfloat16_keeps_its_dtype_and_is_close(run):
  output = run(False, 0.0)(*qkv("bfloat16"))
  exact = run_reference(False, 0.0)(*(x.astype("float32") for x in qkv("bfloat16")))
  assert output.dtype == jnp.bfloat16
  np.testing.assert_allclose(output.astype("float32"), exact, atol=2e-2)


def test_on_a_mesh_it_is_the_same():
  """Dropout follows the position in the whole batch, not in a device's part."""
  alone = value_and_gradients(run_flash(True, 0.3), qkv())
  with jax.set_mesh(mesh()):
    spread = value_and_gradients(run_flash(True, 0.3, SPEC), qkv())
  for ours, theirs in zip(spread, alone, strict=True):
    np.testing.assert_allclose(ours, theirs, atol=2e-6)


def test_the_forward_kernel_runs_once():
  """A policy that saves the context saves all that the backward kernels need."""
  policy = jax.checkpoint_policies.save_only_these_names("context")
  attend = run_flash(False, 0.0, SPEC)

  def loss(q, k, v):
    saved = jax.checkpoint(lambda *x: jnp.sin(attend(*x)), policy=policy)
    return jnp.sum(saved(q, k, v))

  with jax.set_mesh(mesh()):
    executed = flops.count(jax.make_jaxpr(jax.grad(loss, argnums=(0, 1, 2)))(*qkv()))
  # 6 of 9 blocks are on or below the diagonal; 2, 3 and 4 products in the kernels.
  scores = BATCH * HEADS * LENGTH**2 * 6 / 9
  assert executed == 2 * HEAD_DIM * scores * (2 + 3 + 4)
