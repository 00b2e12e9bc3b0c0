"""One update and one evaluation, compiled.

B sequences, T tokens, A accumulation steps.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from phi1_jax.kernels.cross_entropy import cross_entropy
from phi1_jax.model.decoder import Decoder
from phi1_jax.training.config import TrainConfig
from phi1_jax.training.setup import Setup
from phi1_jax.training.state import TrainState

Metrics = dict[str, jax.Array]


def loss(
  model: Decoder,
  params: Any,
  tokens: jax.Array,
  weights_BT: jax.Array | None = None,
  *,
  head_chunks: int | None,
  document_end: int | None = None,
  dropout_key: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
  """The summed next-token loss of windows, and the sum of its weights.

  Args:
    model: the decoder.
    params: its parameters.
    tokens: int32 [B, T + 1]; inputs are all but the last, targets all but the first:

        tokens    a b c d .
        inputs    a b c d
        targets   b c d .

    weights_BT: weight of each target; None weighs all of them 1.
    head_chunks: see `TrainConfig`.
    document_end: the id that ends a document, to attend only within documents; the
      token after it starts the next one. None attends over the whole window.
    dropout_key: drops out, as in training; None does not.
  """
  inputs_BT, targets_BT = tokens[:, :-1], tokens[:, 1:]
  segment_ids_BT = None
  if document_end is not None:
    ends_BT = (inputs_BT == document_end).astype(jnp.int32)
    segment_ids_BT = jnp.cumsum(ends_BT, axis=1) - ends_BT  # an end belongs before it
  hidden_BTD: Any = model.apply(
    {"params": params},
    inputs_BT,
    segment_ids_BT=segment_ids_BT,
    deterministic=dropout_key is None,
    rngs=None if dropout_key is None else {"dropout": dropout_key},
    method="hidden",
  )
  if weights_BT is None:
    weights_BT = jnp.ones(targets_BT.shape, jnp.float32)
  with jax.named_scope("cross_entropy"):
    return cross_entropy(
      hidden_BTD,
      params["head"]["kernel"],
      params["head"]["bias"],
      targets_BT,
      weights_BT,
      chunks=head_chunks,
      compute_dtype=model.config.dtype,
    )


def make_train_step(
  setup: Setup, document_end: int
) -> Callable[[TrainState, jax.Array], tuple[TrainState, Metrics]]:
  """A jitted (state, tokens [B, T + 1]) -> (state, metrics); the state is donated.

  Dropout follows from the seed and the step alone, so a resumed run drops what the
  undisturbed one would have. If loss or gradient is not finite, the update is left
  out: state and step come back as they were, and the metrics say so.
  """
  config, parts = setup.config.train, setup.accumulation_steps
  mean_loss = functools.partial(
    _mean_loss,
    setup.model,
    head_chunks=config.head_chunks,
    document_end=document_end if config.document_mask else None,
  )

  def step(state: TrainState, tokens: jax.Array) -> tuple[TrainState, Metrics]:
    # The second fold keeps these keys apart from that of the initial parameters.
    key = jax.random.fold_in(jax.random.key(config.seed), 1)
    key = jax.random.fold_in(key, state.step)
    value, gradients = _accumulate(mean_loss, state.params, tokens, key, parts)
    with jax.named_scope("gradient_norm"):
      norm = optax.tree.norm(gradients)
    with jax.named_scope("optimizer"):
      updates, optimizer_state = setup.optimizer.update(
        gradients, state.optimizer, state.params
      )
      params = optax.apply_updates(state.params, updates)
    finite = jnp.isfinite(value) & jnp.isfinite(norm)
    updated = TrainState(step=state.step + 1, params=params, optimizer=optimizer_state)
    metrics = {
      "loss": value,
      "grad_norm": norm,
      "learning_rate": jnp.asarray(setup.schedule(state.step), jnp.float32),
    }
    state = jax.tree.map(lambda new, old: jnp.where(finite, new, old), updated, state)
    return state, metrics

  # Pinned, because the loop feeds each result back to a step compiled for one layout.
  places = jax.tree.map(lambda leaf: leaf.sharding, setup.abstract_state)
  return jax.jit(step, donate_argnums=0, out_shardings=(places, None))


def make_evaluation_step(model: Decoder, config: TrainConfig, document_end: int):
  """A jitted (params, tokens [B, T + 1], weights_BT) -> (summed loss, weights)."""

  def step(params: Any, tokens: jax.Array, weights_BT: jax.Array):
    return loss(
      model,
      params,
      tokens,
      weights_BT,
      head_chunks=config.head_chunks,
      document_end=document_end if config.document_mask else None,
    )

  return jax.jit(step)


def _mean_loss(model, params, tokens, key, **options) -> jax.Array:
  dropout_key = key if _drops(model) else None
  total, weight = loss(model, params, tokens, dropout_key=dropout_key, **options)
  return total / weight


def _drops(model: Decoder) -> bool:
  return model.config.dropout_rate > 0 or model.config.attention_dropout_rate > 0


def _accumulate(mean_loss, params, tokens, key, parts: int):
  """Loss and gradients, averaged over `parts` equal parts of the batch."""
  if parts == 1:
    return jax.value_and_grad(mean_loss)(params, tokens, key)
  # Each part takes every A-th row, so a device's rows stay on the device.
  by_part = tokens.reshape(-1, parts, tokens.shape[-1]).swapaxes(0, 1)

  def add(sums, part):
    number, rows = part
    new = jax.value_and_grad(mean_loss)(params, rows, jax.random.fold_in(key, number))
    return jax.tree.map(jnp.add, sums, new), None

  zeros = (jnp.zeros(()), jax.tree.map(jnp.zeros_like, params))
  sums, _ = jax.lax.scan(add, zeros, (jnp.arange(parts), by_part))
  return jax.tree.map(lambda x: x / parts, sums)
