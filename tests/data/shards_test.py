"""Marks of completions, the comparison of encoders, and texts chosen by hash."""

import hashlib
import random

import numpy as np
import pytest

from phi1_jax import InputError
from phi1_jax.data import shards
from phi1_jax.data.documents import Document
from phi1_jax.grammar import teacher
from phi1_jax.text import tokenizer as tokenizers
from phi1_jax.text.tokenizer import Tokenizer

SMALL = tokenizers.train(["def f(x):\n  return x\n"] * 9, 300)


def unit(task: str, source=None) -> shards.Unit:
  return shards.Unit(task, source, 0, 1, 0, 1, 0.0, marked=True)


def marked_text(task: str, text: str) -> str | None:
  """The text of the tokens that count, or None if the document is left out."""
  codegen = tokenizers.codegen()
  ids = codegen.encode_arrays([text])[0]
  found = shards._marks(Document(text), ids[:0], ids, unit(task), codegen)
  if found is None:
    return None
  assert found[-1] == 1  # the end of the text
  return codegen.decode(ids[found[:-1] == 1].tolist())


def test_of_exercises_the_bodies_count():
  for exercise in teacher.exercises(0, 0, 50):
    text = marked_text("grammar_exercises", exercise.text)
    assert exercise.body.endswith(text) or text.endswith(exercise.body)
    assert marked_text("files", exercise.text) == exercise.text


def test_two_functions_have_two_bodies():
  text = 'import os\n\n\ndef f(é):\n  """Doc é."""\n  return é\n\n\n'
  text += 'def g():\n    """Doc."""\n    return 1\n'
  # A token counts if it begins in a body: "\n\n" does.
  assert marked_text("exercises", text) == "  return é\n\n    return 1\n"
  text = text.replace("\n\n\ndef", "\ndef")
  assert marked_text("exercises", text) == "  return é\n    return 1\n"
  coroutine = "async " + text[text.index("def f") :]
  assert marked_text("exercises", coroutine).startswith("  return é\n")
  assert marked_text("exercises", "x = 1\n") is None


class Source:
  """A source of one document."""

  def __init__(self, document):
    self.document = document

  def read(self, shard, shards, tokenizer):
    yield self.document


def test_prompts_stay_with_their_texts():
  batch = [Document("a"), Document("b", prompt="c d\n"), Document("e", prompt="f")]
  ids = [[x.tolist() for x in pair] for pair in shards._encode(batch, SMALL)]
  assert ids == [[SMALL.encode(d.prompt), SMALL.encode(d.text)] for d in batch]


def test_ids_that_a_source_gives_are_kept(tmp_path):
  """They may be a part of the text's, which another encoding would divide."""
  SMALL.save(tmp_path / tokenizers.FILE_NAME)
  ids = (np.array([1], np.int32), np.array([2, 3]))
  document = Document("text", prompt="prompt", ids=ids)
  shards.build(unit("mine", Source(document)), str(tmp_path), SMALL.digest)
  (path,) = tmp_path.glob("tokens-*")
  assert np.load(path).tolist() == [1, 2, 3, SMALL.eos_id]


def test_an_encoder_that_differs_stops_the_build_by_the_tasks_name(
  tmp_path, monkeypatch
):
  SMALL.save(tmp_path / tokenizers.FILE_NAME)
  mine = unit("mine", Source(Document("def f(x):\n  return x\n")))
  real = Tokenizer.encode_arrays
  monkeypatch.setattr(
    Tokenizer, "encode_arrays", lambda self, texts: [a[::-1] for a in real(self, texts)]
  )
  with pytest.raises(InputError, match="task mine, shard 0 of 1: tokie encodes 'def f"):
    shards.build(mine, str(tmp_path), SMALL.digest)
  monkeypatch.undo()
  assert shards.build(mine, str(tmp_path), SMALL.digest)["train"]["tokens"]


def test_the_smallest_hashes_up_to_a_size():
  rng = random.Random(0)
  texts = [bytes(rng.randrange(1, 50)) + str(i).encode() for i in range(500)]
  pairs = [(hashlib.sha256(text).digest(), text) for text in texts]
  whole = shards.smallest(pairs, 2000)
  size = sum(len(text) for _, text in whole)
  assert whole == sorted(pairs)[: len(whole)]
  assert size - len(whole[-1][1]) < 2000 <= size
  rng.shuffle(pairs)
  parts = [shards.smallest(pairs[k::3], 2000) for k in range(3)]
  assert shards.smallest([p for part in parts for p in part], 2000) == whole
  assert shards.smallest(pairs, 10**6) == sorted(pairs)
