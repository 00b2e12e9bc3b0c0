"""The head and its cross-entropy as one operation that need not store the logits.

With 51200 classes, the logits of a batch are the largest array of a training step. In
chunks, they exist for some of the positions at a time. The loss is a scalar: the
forward pass computes the gradients too, and the backward pass only scales them.

The z-loss of PaLM (Chowdhery et al. 2022, section 5) is a coefficient times log(Z)^2,
where Z is the sum of the exponentials of a position's logits. It keeps log(Z) near 0.

B batch, T length, D embed, V vocabulary, C one chunk of the length.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from phi1_jax import InputError
from phi1_jax.kernels import grid

# On one CPU device, a chunk has at most so many logits if its user names no number:
# 16 MiB, which a cache can hold between the passes over them.
_CPU_LOGITS = 2**22


class Sums(NamedTuple):
  """Sums over positions, float32 scalars.

  Attributes:
    loss: weighted cross-entropy and z-loss, to be minimised.
    weight: weights.
    z_loss: the part of `loss` that is z-loss, without a gradient.
  """

  loss: jax.Array
  weight: jax.Array
  z_loss: jax.Array


def cross_entropy(
  hidden_BTD: jax.Array,
  head_kernel_DV: jax.Array,
  head_bias_V: jax.Array,
  targets_BT: jax.Array,
  weights_BT: jax.Array,
  *,
  chunks: int | None,
  compute_dtype: str,
  z_loss: float = 0.0,
) -> Sums:
  """Return the weighted sum of -log softmax(hidden · kernel + bias)[target].

  Padding rows of the vocabulary are classes like any other, as in the paper's model.

  Args:
    hidden_BTD: the input of the head.
    head_kernel_DV: the head's kernel, in the parameters' dtype.
    head_bias_V: the head's bias.
    targets_BT: class ids, integer.
    weights_BT: weight of each position, 0 to leave it out.
    chunks: number of pieces that the length is cut into; None keeps all logits, except
      on one CPU device, which is faster with pieces.
    compute_dtype: dtype of the factors of the matrix products; their sums, and all
      else, are float32.
    z_loss: coefficient of log(Z)^2; 0 is none.

  Raises:
    InputError: `chunks` does not divide the length.
  """
  weights_BT = weights_BT.astype(jnp.float32)
  operands = (hidden_BTD, head_kernel_DV, head_bias_V, targets_BT, weights_BT)
  weight, length = jnp.sum(weights_BT), hidden_BTD.shape[1]
  if chunks is None:
    chunks = _default_chunks(hidden_BTD.shape, head_bias_V.size)
  if chunks is None:
    losses_BT, log_z_BT = _losses(_logits(*operands[:3], compute_dtype), targets_BT)
    total, z_total = jnp.sum(losses_BT * weights_BT), jnp.zeros(())
    if z_loss:
      z_total = z_loss * jnp.sum(jnp.square(log_z_BT) * weights_BT)
      total += z_total
  elif chunks < 1 or length % chunks:
    raise InputError(
      f"cross_entropy: got chunks={chunks}, expected a divisor of the length {length}."
    )
  else:
    sums: Any = _chunked(chunks, compute_dtype, z_loss, *operands)
    total, z_total = sums
  return Sums(total, weight, jax.lax.stop_gradient(z_total))


def _default_chunks(shape: tuple[int, ...], classes: int) -> int | None:
  """Return a number of chunks that divides the length, or None for no chunks."""
  several = jax.sharding.get_abstract_mesh().size > 1
  batch, length, _ = shape
  fits_whole = batch * length * classes <= _CPU_LOGITS
  if grid.device().platform != "cpu" or several or fits_whole:
    return None
  fits = (n for n in range(1, length + 1) if length % n == 0)
  return next((n for n in fits if batch * length // n * classes <= _CPU_LOGITS), length)


def _logits(hidden_BTD, kernel_DV, bias_V, dtype) -> jax.Array:
  """Return the logits, BTV float32."""
  product_BTV = jnp.einsum(
    "BTD,DV->BTV",
    hidden_BTD.astype(dtype),
    kernel_DV.astype(dtype),
    preferred_element_type=jnp.float32,
  )
  return product_BTV + bias_V.astype(jnp.float32)


def _losses(logits_BTV, targets_BT) -> tuple[jax.Array, jax.Array]:
  """Return -log softmax(logits)[target] and log(Z), BT.

  A comparison picks the target's logit. Unlike a gather, it stays on each device
  where the vocabulary is split over devices.
  """
  at_target_BTV = _one_hot(targets_BT, logits_BTV.shape[-1])
  target_BT = jnp.sum(jnp.where(at_target_BTV, logits_BTV, 0.0), axis=-1)
  log_z_BT = jax.nn.logsumexp(logits_BTV, axis=-1)
  return log_z_BT - target_BT, log_z_BT


def _one_hot(targets_BT, num_classes) -> jax.Array:
  classes_V = jnp.arange(num_classes, dtype=targets_BT.dtype)
  return targets_BT[..., None] == classes_V


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _chunked(chunks, dtype, z_loss, *operands):
  """Return the sums of weighted losses and of z-losses, computed chunk by chunk."""
  # The compiler removes the gradients, which nobody reads here.
  return _chunked_forward(chunks, dtype, z_loss, *operands)[0]


def _chunked_forward(chunks, dtype, z_loss, *operands):
  """Return the sums, and the gradients for a cotangent of one."""
  hidden_BTD, kernel_DV, bias_V, targets_BT, weights_BT = operands

  def step(carry, chunk):
    (total, z_total), d_kernel_DV, d_bias_V = carry
    hidden_BCD, targets_BC, weights_BC = chunk
    logits_BCV = _logits(hidden_BCD, kernel_DV, bias_V, dtype)
    losses_BC, log_z_BC = _losses(logits_BCV, targets_BC)
    d_logits_BCV = jnp.exp(logits_BCV - log_z_BC[..., None])
    if z_loss:
      d_logits_BCV *= 1 + 2 * z_loss * log_z_BC[..., None]
      z_losses_BC = z_loss * jnp.square(log_z_BC)
      z_total += jnp.sum(z_losses_BC * weights_BC)
      losses_BC += z_losses_BC
    d_logits_BCV -= _one_hot(targets_BC, logits_BCV.shape[-1])
    d_logits_BCV *= weights_BC[..., None]
    factor_BCV = d_logits_BCV.astype(dtype)
    d_hidden_BCD = jnp.einsum("BCV,DV->BCD", factor_BCV, kernel_DV.astype(dtype))
    d_kernel_DV += jnp.einsum(
      "BCD,BCV->DV",
      hidden_BCD.astype(dtype),
      factor_BCV,
      preferred_element_type=jnp.float32,
    )
    d_bias_V += jnp.sum(d_logits_BCV, axis=(0, 1))
    total += jnp.sum(losses_BC * weights_BC)
    return ((total, z_total), d_kernel_DV, d_bias_V), (d_hidden_BCD, losses_BC)

  zeros = (
    (jnp.zeros(()), jnp.zeros(())),
    jnp.zeros(kernel_DV.shape, jnp.float32),
    jnp.zeros(bias_V.shape, jnp.float32),
  )
  by_position = _split((hidden_BTD, targets_BT, weights_BT), chunks)
  (sums, d_kernel_DV, d_bias_V), by_position = jax.lax.scan(step, zeros, by_position)
  d_hidden_BTD, losses_BT = _join(by_position)
  return sums, (
    d_hidden_BTD.astype(hidden_BTD.dtype),
    d_kernel_DV.astype(kernel_DV.dtype),
    d_bias_V.astype(bias_V.dtype),
    losses_BT,
  )


def _chunked_backward(chunks, dtype, z_loss, residuals, cotangents):
  d_hidden_BTD, d_kernel_DV, d_bias_V, losses_BT = (
    (x * cotangents[0]).astype(x.dtype)
    for x in residuals  # scaled in float32
  )
  return d_hidden_BTD, d_kernel_DV, d_bias_V, None, losses_BT


_chunked.defvjp(_chunked_forward, _chunked_backward)


def _split(tree, chunks):
  """Reshape [B, T, ...] to [chunks, B, T / chunks, ...]; the batch stays sharded."""

  def split(x):
    batch, length = x.shape[:2]
    return jnp.moveaxis(x.reshape(batch, chunks, length // chunks, *x.shape[2:]), 1, 0)

  return jax.tree.map(split, tree)


def _join(tree):
  """Undo `_split`."""

  def join(x):
    chunks, batch, length = x.shape[:3]
    return jnp.moveaxis(x, 0, 1).reshape(batch, chunks * length, *x.shape[3:])

  return jax.tree.map(join, tree)
