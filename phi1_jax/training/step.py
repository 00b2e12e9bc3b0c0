"""The compiled training step and evaluation step.

B sequences, T tokens, A accumulation steps.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from phi1_jax.kernels.cross_entropy import Sums, cross_entropy
from phi1_jax.model import layers
from phi1_jax.model.decoder import Decoder
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
  z_loss: float = 0.0,
) -> Sums:
  """Return the summed next-token loss of windows, and the sum of its weights.

  Args:
    model: the decoder.
    params: its parameters.
    tokens: int32 [B, T + 1]; inputs are all but the last, targets all but the first. A
      token that is not a target is its bitwise complement ~id, which is negative:

        tokens    a ~b c d
        inputs    a b c
        targets   b c d
        weights   0 1 1

    weights_BT: factors of the targets' weights; None is 1 for all.
    head_chunks: see `TrainConfig`.
    document_end: the id that ends a document, to attend only within documents; the
      token after it starts the next one. None attends over the whole window.
    dropout_key: for training; None is no dropout.
    z_loss: see `TrainConfig`.
  """
  ids = jnp.where(tokens < 0, ~tokens, tokens)
  inputs_BT, targets_BT = ids[:, :-1], ids[:, 1:]
  segment_ids_BT = None
  if document_end is not None:
    ends_BT = (inputs_BT == document_end).astype(jnp.int32)
    segment_ids_BT = jnp.cumsum(ends_BT, axis=1) - ends_BT  # ends are in their document
  hidden_BTD: Any = model.apply(
    {"params": params},
    inputs_BT,
    segment_ids_BT=segment_ids_BT,
    deterministic=dropout_key is None,
    rngs=None if dropout_key is None else {"dropout": dropout_key},
    method="hidden",
  )
  is_target_BT = (tokens[:, 1:] >= 0).astype(jnp.float32)
  with jax.named_scope("cross_entropy"):
    return cross_entropy(
      hidden_BTD,
      layers.head_kernel(params),
      params["head"]["bias"],
      targets_BT,
      is_target_BT if weights_BT is None else is_target_BT * weights_BT,
      chunks=head_chunks,
      compute_dtype=model.config.dtype,
      z_loss=z_loss,
    )


def make_train_step(
  setup: Setup, document_end: int
) -> Callable[[TrainState, jax.Array], tuple[TrainState, Metrics]]:
  """Return a jitted (state, tokens [B, T + 1]) -> (state, metrics); donates the state.

  Dropout depends on the seed and the step alone, so that a resumed run drops the same
  elements. The loss is the mean over the targets of all parts of the batch.

  If loss or gradient norm is not finite, or the batch has no target, parameters and
  moments stay as they were. A step without target still counts: `state.step` and the
  learning rate schedule advance. So does one that is not finite, with
  `Train.skip_nonfinite_steps`; without it, they stay too.

  Metrics: `loss` (cross-entropy), `grad_norm` (before clipping), `learning_rate`; where
  the settings ask for them `z_loss`, `targets` (number), `skipped` (0 or 1) and
  `vanished_updates`.
  """
  config, parts = setup.config.train, setup.accumulation_steps
  part_loss = functools.partial(
    _part_loss,
    setup.model,
    head_chunks=config.head_chunks,
    document_end=document_end if config.document_mask else None,
    z_loss=config.z_loss,
  )

  def step(state: TrainState, tokens: jax.Array) -> tuple[TrainState, Metrics]:
    # The first fold separates these keys from that of the initial parameters.
    key = jax.random.fold_in(jax.random.key(config.seed), 1)
    key = jax.random.fold_in(key, state.step)
    weight = jnp.sum((tokens[:, 1:] >= 0).astype(jnp.float32))
    divided = functools.partial(part_loss, weight=jnp.maximum(weight, 1.0))
    (value, z_loss), gradients = _accumulate(divided, state.params, tokens, key, parts)
    with jax.named_scope("gradient_norm"):
      norm = optax.tree.norm(gradients)
    with jax.named_scope("optimizer"):
      result = setup.optimizer.update(gradients, state.optimizer, state.params)
      params = optax.apply_updates(state.params, result[0])
    finite = jnp.isfinite(value) & jnp.isfinite(norm)
    metrics = {
      "loss": value - z_loss if config.z_loss else value,
      "grad_norm": norm,
      "learning_rate": jnp.asarray(setup.schedule(state.step), jnp.float32),
    }
    optional = {
      "z_loss": (config.z_loss, z_loss),
      "targets": (setup.config.data.loss_on == "completions", weight),
      "skipped": (config.skip_nonfinite_steps, 1.0 - finite),
    }
    metrics |= {name: value for name, (wanted, value) in optional.items() if wanted}
    if setup.model.config.param_dtype != "float32":
      lost = vanished_updates(state.params, result[0], params)
      metrics["vanished_updates"] = lost
    updated = TrainState(step=state.step + 1, params=params, optimizer=result[1])
    counted = finite | bool(config.skip_nonfinite_steps)
    return _chosen(finite & (weight > 0), counted, updated, state), metrics

  # Pinned, because the compiled step takes its own result in this layout.
  places = jax.tree.map(lambda leaf: leaf.sharding, setup.abstract_state)
  return jax.jit(step, donate_argnums=0, out_shardings=(places, None))


def vanished_updates(old: Any, updates: Any, new: Any) -> jax.Array:
  """Return the share of non-zero updates that left their 16-bit parameter unchanged.

  `old` are the parameters before the step, `new` those after it. The result is a
  scalar in [0, 1]; 0 where all updates are zero.
  """

  def count(old, update, new) -> jax.Array:
    # Bits, because XLA for TPUs would compare the sum before it is rounded.
    same = [jax.lax.bitcast_convert_type(x, jnp.uint16) for x in (old, new)]
    lost = jnp.sum((update != 0) & (same[0] == same[1]), dtype=jnp.float32)
    return jnp.stack([lost, jnp.sum(update != 0, dtype=jnp.float32)])

  counts = jax.tree.leaves(jax.tree.map(count, old, updates, new))
  lost, every = jnp.sum(jnp.stack(counts), axis=0)
  return lost / jnp.maximum(every, 1)


def _chosen(learned, counted, new: TrainState, old: TrainState) -> TrainState:
  """Return `new` where the step is taken, else `old`.

  The boolean `learned` is for the parameters and the moments, `counted` for the step
  and the schedule's count. The count of Adam's moments goes with the moments: its bias
  correction counts their updates.
  """

  def is_schedule(x: Any) -> bool:
    return isinstance(x, optax.ScaleByScheduleState)

  def choose(new, old):
    taken = counted if is_schedule(new) else learned
    return jax.tree.map(functools.partial(jnp.where, taken), new, old)

  chosen = jax.tree.map(choose, new, old, is_leaf=is_schedule)
  return dataclasses.replace(chosen, step=jnp.where(counted, new.step, old.step))


def _part_loss(model, params, tokens, key, *, weight, **options):
  """Return the sums of losses and z-losses over the rows, divided by `weight`."""
  drops = model.config.dropout_rate > 0 or model.config.attention_dropout_rate > 0
  sums = loss(model, params, tokens, dropout_key=key if drops else None, **options)
  return sums.loss / weight, sums.z_loss / weight


def _accumulate(part_loss, params, tokens, key, parts: int):
  """Return ((loss, z-loss), gradients), summed over `parts` parts of the batch."""
  gradient = jax.value_and_grad(part_loss, has_aux=True)
  if parts == 1:
    return gradient(params, tokens, key)
  # Each part takes every A-th row, so a device's rows stay on the device.
  by_part = tokens.reshape(-1, parts, tokens.shape[-1]).swapaxes(0, 1)

  def add(sums, part):
    number, rows = part
    new = gradient(params, rows, jax.random.fold_in(key, number))
    return jax.tree.map(jnp.add, sums, new), None

  zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), params)
  zeros = (jnp.zeros(()), jnp.zeros(())), zeros
  (values, sums), _ = jax.lax.scan(add, zeros, (jnp.arange(parts), by_part))
  return values, jax.tree.map(lambda x, like: x.astype(like.dtype), sums, params)
