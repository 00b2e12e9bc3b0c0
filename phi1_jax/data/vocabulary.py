"""A tokenizer as a seqio Vocabulary, with every id shifted by one.

seqio reserves id 0 for padding: its packer takes a 0 for the end of a document and
drops the rest. In GPT-2's and CodeGen's vocabulary 0 is "!". So inside seqio

    tokenizer id   -    0    1  ..  50256 (<|endoftext|>)  ..
    seqio id       0    1    2  ..  50257 (eos_id)         ..
                  pad  "!"

and the token store holds the tokenizer's own ids.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from phi1_jax.data.quiet_tensorflow import seqio, tf
from phi1_jax.text.tokenizer import Tokenizer

SHIFT = 1


class TokenizerVocabulary(seqio.Vocabulary):
  """A tokenizer for seqio: id 0 pads, all others are the tokenizer's plus one."""

  def __init__(self, tokenizer: Tokenizer):
    super().__init__(extra_ids=0)
    self.tokenizer = tokenizer

  @property
  def eos_id(self) -> int:
    """Shifted id of <|endoftext|>."""
    return self.tokenizer.eos_id + SHIFT

  @property
  def bos_id(self) -> int:
    """CodeGen begins and ends text with the same token."""
    return self.eos_id

  @property
  def unk_id(self) -> None:
    """Every byte has an id."""
    return None

  @property
  def _base_vocab_size(self) -> int:
    return self.tokenizer.vocabulary_size + SHIFT

  def _encode(self, s: str) -> Sequence[int]:
    return [token + SHIFT for token in self.tokenizer.encode(s)]

  def _decode(self, ids: Iterable[int]) -> str:
    shown = (int(i) - SHIFT for i in ids if i not in (self.pad_id, self.eos_id))
    return self.tokenizer.decode(shown)

  def _encode_tf(self, s: tf.Tensor) -> tf.Tensor:
    ids = tf.numpy_function(self._encode_bytes, [s], tf.int32, stateful=False)
    ids.set_shape([None])
    return ids

  def _decode_tf(self, ids: tf.Tensor) -> tf.Tensor:
    text = tf.numpy_function(
      lambda row: self._decode(row).encode(), [ids], tf.string, stateful=False
    )
    text.set_shape([])
    return text

  def _encode_bytes(self, text: bytes) -> np.ndarray:
    ids = np.asarray(self.tokenizer.encode(text.decode("utf-8")), np.int32)
    return ids + np.int32(SHIFT)

  def __eq__(self, other: object) -> bool:
    return (
      isinstance(other, TokenizerVocabulary)
      and other.tokenizer.digest == self.tokenizer.digest
    )

  def __hash__(self) -> int:
    return hash(self.tokenizer.digest)
