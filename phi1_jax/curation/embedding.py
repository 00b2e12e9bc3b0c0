"""Embeddings of code: the last hidden states of a model.

The paper embeds with "a pretrained codegen model" (section 2.1); which layer, pooling
and length it took is not published. Here: the hidden states after the final LayerNorm,
averaged over the tokens or taken at the last one, of a limited number of tokens. Any
checkpoint will do, CodeGen's 350M-mono (converted) included.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from phi1_jax import InputError
from phi1_jax.checkpoint.checkpoint import Checkpoint
from phi1_jax.model.decoder import Decoder
from phi1_jax.parallel import sharding
from phi1_jax.sampling.checkpoint import Loaded, one_host_mesh, open_checkpoint

_SHORTEST = 64  # tokens; lengths are rounded up to this times a power of two
# Characters that are encoded for each token wanted: enough for the longest tokens seen
# in code, and no megabyte is encoded for its first thousand tokens.
_CHARACTERS = 16


class Embedder:
  """A model that embeds texts in batches on all local devices.

  Args:
    checkpoint: a work directory, a checkpoints folder or one step folder.
    pooling: "mean" over the tokens, or "last".
    max_length: tokens of a text that count; the rest is cut.
    batch_size: texts at once.

  Attributes:
    digest: of the model; equal digests and settings give equal embeddings.

  Raises:
    InputError: no such checkpoint, or a length that it does not have.
  """

  def __init__(
    self, checkpoint: str, pooling: str, max_length: int, batch_size: int = 16
  ):
    mesh = one_host_mesh()
    self._loaded: Loaded = open_checkpoint(Checkpoint.find(checkpoint), mesh)
    longest = self._loaded.config.max_length
    if max_length > longest:
      raise InputError(
        f"got {max_length} tokens, expected at most {longest}, the "
        f"longest sequence of {checkpoint}"
      )
    self._pooling, self._max_length = pooling, max_length
    shards = sharding.batch_shards(mesh)
    self._rows = -(-batch_size // shards) * shards
    self.digest = self._loaded.digest

  def embed(self, texts: Sequence[str]) -> np.ndarray:
    """Return unit vectors, float32 [texts, width]; zeros for an empty text."""
    most = self._max_length
    cut = [text[: most * _CHARACTERS] for text in texts]
    ids = [row[:most] for row in self._loaded.tokenizer.encode_batch(cut)]
    found = np.zeros((len(ids), self._loaded.config.embed_dim), np.float32)
    # Texts of like length together, so that little is computed for padding.
    order = sorted((i for i in range(len(ids)) if ids[i]), key=lambda i: len(ids[i]))
    for start in range(0, len(order), self._rows):
      chosen = order[start : start + self._rows]
      found[chosen] = self._batch([ids[i] for i in chosen])
    return found

  def _batch(self, ids: Sequence[list[int]]) -> np.ndarray:
    length = _SHORTEST
    while length < max(map(len, ids)):
      length *= 2
    length = min(length, self._loaded.config.max_length)
    tokens_BT = np.zeros((self._rows, length), np.int32)
    lengths_B = np.ones(self._rows, np.int32)
    for row, tokens in enumerate(ids):
      tokens_BT[row, : len(tokens)] = tokens
      lengths_B[row] = len(tokens)
    mesh = self._loaded.mesh
    with sharding.layout(mesh):
      batch = (
        sharding.put_batch(each, mesh, self._rows) for each in (tokens_BT, lengths_B)
      )
      model = self._loaded.config, self._pooling, self._loaded.params
      pooled_BD = _pooled(*model, *batch)
    return np.asarray(pooled_BD)[: len(ids)]


opened = functools.lru_cache(maxsize=1)(Embedder)  # stays open in this process


@functools.partial(jax.jit, static_argnums=(0, 1))
def _pooled(config, pooling, params, tokens_BT, lengths_B):
  """Return a unit vector per row; tokens behind a row's length do not count."""
  decoder = Decoder(config)
  hidden_BTD = decoder.apply({"params": params}, tokens_BT, method=decoder.hidden)
  hidden_BTD = jnp.asarray(hidden_BTD, jnp.float32)
  if pooling == "last":
    pooled_BD = jnp.take_along_axis(hidden_BTD, lengths_B[:, None, None] - 1, 1)[:, 0]
  else:
    inside_BT = jnp.arange(tokens_BT.shape[1]) < lengths_B[:, None]
    total_BD = jnp.einsum("btd,bt->bd", hidden_BTD, inside_BT.astype(jnp.float32))
    pooled_BD = total_BD / lengths_B[:, None]
  norm_B1 = jnp.linalg.norm(pooled_BD, axis=-1, keepdims=True)
  return pooled_BD / jnp.maximum(norm_B1, 1e-12)
