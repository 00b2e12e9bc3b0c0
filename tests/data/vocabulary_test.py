"""The shifted vocabulary, alone and inside seqio."""

import pickle

import pytest

from phi1_jax.data.quiet_tensorflow import seqio, tf
from phi1_jax.data.vocabulary import TokenizerVocabulary
from phi1_jax.text import tokenizer as tokenizers

TEXTS = ["!", "", "a ! b\r\n\tc\n", "<|endoftext|>", "é😀" + " " * 40]


@pytest.fixture(scope="module")
def vocabulary():
  return TokenizerVocabulary(tokenizers.codegen())


def test_every_id_is_one_higher_and_none_is_padding(vocabulary):
  assert vocabulary.encode("!") == [1]
  assert vocabulary.tokenizer.encode("!") == [0]
  assert (vocabulary.eos_id, vocabulary.pad_id) == (50257, 0)
  assert vocabulary.vocab_size == 50296


@pytest.mark.parametrize("text", TEXTS)
def test_graph_and_python_agree_and_give_the_text_back(vocabulary, text):
  ids = vocabulary.encode(text)
  in_graph = tf.data.Dataset.from_tensors(text).map(vocabulary.encode_tf)
  assert next(in_graph.as_numpy_iterator()).tolist() == ids
  padded = [*ids, vocabulary.eos_id, 0, 0]
  assert vocabulary.decode(padded) == text
  if text:
    assert vocabulary.decode_tf(tf.constant(padded)).numpy().decode() == text


def test_it_pickles_and_compares_by_content(vocabulary):
  again = pickle.loads(pickle.dumps(vocabulary))
  assert again == vocabulary
  assert hash(again) == hash(vocabulary)
  assert again.encode("def f():") == vocabulary.encode("def f():")
  other = TokenizerVocabulary(tokenizers.train(["x"], 295))
  assert other != vocabulary
  assert vocabulary != seqio.ByteVocabulary()


def pack(vocabulary, texts, length):
  rows = [[*vocabulary.encode(text), vocabulary.eos_id] for text in texts]
  dataset = tf.data.Dataset.from_generator(
    lambda: ({"targets": row} for row in rows),
    output_signature={"targets": tf.TensorSpec([None], tf.int32)},
  )
  converter = seqio.DecoderFeatureConverter(pack=True)
  packed = list(converter(dataset, {"targets": length}).as_numpy_iterator())
  assert len(packed) == 1
  return packed[0], [token for row in rows for token in row]


def test_exclamation_marks_survive_seqio_packing(vocabulary):
  packed, ids = pack(vocabulary, ["!", "a!b!", "!!!"], 32)
  targets = packed["decoder_target_tokens"]
  assert targets[targets != 0].tolist() == ids
  assert packed["decoder_segment_ids"].max() == 3


def test_without_the_shift_seqio_would_lose_them(vocabulary):
  # The reason for the shift; if this fails one day, seqio has been mended.
  class Plain(TokenizerVocabulary):
    eos_id = property(lambda self: self.tokenizer.eos_id)

    def _encode(self, s):
      return self.tokenizer.encode(s)

  packed, ids = pack(Plain(vocabulary.tokenizer), ["a!b"], 32)
  assert len(ids) == 4
  kept = packed["decoder_target_tokens"]
  assert kept[: len(ids)].tolist() != ids or packed["decoder_loss_weights"].sum() < 4
