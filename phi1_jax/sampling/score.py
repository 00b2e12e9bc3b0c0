"""Log-probabilities of the tokens of a text."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from phi1_jax import InputError
from phi1_jax.model.decoder import Decoder
from phi1_jax.parallel import sharding
from phi1_jax.sampling.checkpoint import Loaded, check_log_probs


def score(loaded: Loaded, text: str) -> list[dict[str, Any]]:
  """Return the log-probability of each token of a text given those before it.

  Returns:
    A row per token: `id`, `text`, and `log_prob` (natural logarithm; None for the
    first token).

  Raises:
    InputError: the text is empty or longer than the model's longest sequence.
  """
  ids = loaded.tokenizer.encode(text)
  limit = loaded.config.max_length
  if not 1 <= len(ids) <= limit:
    raise InputError(
      f"the text has {len(ids)} tokens, expected 1 to {limit} (Model.max_length); "
      "give a part of it"
    )
  log_probs = [None, *log_probs_of(loaded, ids).tolist()]
  return [
    {"id": token, "text": loaded.tokenizer.decode([token]), "log_prob": log_prob}
    for token, log_prob in zip(ids, log_probs, strict=True)
  ]


def log_probs_of(loaded: Loaded, ids: list[int]) -> np.ndarray:
  """Return the log-probability of each id but the first, given those before it."""
  return with_most_probable(loaded, ids)[0]


def with_most_probable(
  loaded: Loaded, ids: list[int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Return log-probabilities of the ids but the first, and the most probable ids there.

  Returns:
    (log-probabilities, most probable ids, their log-probabilities), each [T - 1].
  """
  # One row per batch shard, and a round length: few programs to compile.
  rows = sharding.batch_shards(loaded.mesh)
  length = min(loaded.config.max_length, -(-len(ids) // 64) * 64)
  tokens_BT = np.zeros((rows, length), np.int32)
  tokens_BT[:, : len(ids)] = ids
  with sharding.layout(loaded.mesh):
    found = _forward(loaded.config, loaded.params, tokens_BT)
  log_probs_T, top_T, best_T = (np.asarray(x[0, : len(ids) - 1]) for x in found)
  check_log_probs(loaded, log_probs_T)
  return log_probs_T, top_T, best_T


@functools.partial(jax.jit, static_argnums=0)
def _forward(config, params, tokens_BT):
  logits: Any = Decoder(config).apply({"params": params}, tokens_BT)
  log_probs_BTV = jax.nn.log_softmax(logits[:, :-1], axis=-1)
  chosen_BT1 = jnp.take_along_axis(log_probs_BTV, tokens_BT[:, 1:, None], axis=-1)
  top_BT = jnp.argmax(log_probs_BTV, axis=-1)
  return chosen_BT1[..., 0], top_BT, jnp.max(log_probs_BTV, axis=-1)
