"""The tokenizer against transformers' and tokenizers' own, and its properties."""

import json
import pickle
import sys
import sysconfig
from pathlib import Path

import pytest
import tokenizers as hugging_face
from hypothesis import example, given, settings
from hypothesis import strategies as st

from phi1_jax import InputError
from phi1_jax.text import tokenizer as tokenizers

LIBRARY = Path(sysconfig.get_path("stdlib"))
# Whitespace and the characters around it are where tokenizers differ.
TRICKY = st.text(st.sampled_from(" \t\n\r\x0b\xa0ab'<|>!é\u2028😀"), max_size=60)


@pytest.fixture(scope="module")
def codegen():
  return tokenizers.codegen()


@pytest.fixture(scope="module")
def texts():
  files = sorted((LIBRARY / "json").glob("*.py")) + sorted(LIBRARY.glob("c*.py"))
  return [file.read_text(encoding="utf-8") for file in files]


@pytest.fixture(scope="module")
def small(texts):
  return tokenizers.train(texts, 512)


@pytest.fixture(scope="module")
def twin(tmp_path_factory):
  """transformers' CodeGenTokenizer from the same files, without network."""
  transformers = pytest.importorskip("transformers")
  folder = tmp_path_factory.mktemp("codegen")
  vocabulary, merges = tokenizers.gpt2()
  vocabulary[tokenizers.END_OF_TEXT] = len(vocabulary)
  (folder / "vocab.json").write_text(json.dumps(vocabulary))
  lines = ["#version: 0.2", *map(" ".join, merges)]
  (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
  made = transformers.CodeGenTokenizer.from_pretrained(folder)
  for space, most in ((" ", 31), ("\t", 9)):
    for n in range(most, 1, -1):
      made.add_tokens(transformers.AddedToken(space * n, normalized=True))

  def encode(texts):
    ids = made(texts, add_special_tokens=False, split_special_tokens=True)
    return ids["input_ids"]

  return encode


def test_ids_follow_the_published_table(codegen):
  assert codegen.vocabulary_size == 50295
  assert codegen.eos_id == 50256
  for n in range(2, 32):
    assert codegen.encode(" " * n) == [50288 - n]
  for n in range(2, 10):
    assert codegen.encode("\t" * n) == [50296 - n]
  assert codegen.encode("!") == [0]
  assert codegen.encode("    return") == [50284, 7783]
  assert codegen.encode(" " * 33 + "x") == [50257, 50286, 87]
  # Stores that exist name it.
  assert codegen.digest == (
    "8d2c6a520a9d0d7c3f9c081dbcbdb26fbd2692b768a18a38d75004b3f2d41195"
  )


def test_ids_equal_those_of_transformers(codegen, twin):
  files = [f for f in sorted(LIBRARY.rglob("*.py")) if "site-packages" not in f.parts]
  texts = [file.read_bytes().decode(errors="replace") for file in files[::40]]
  assert len(texts) > 20
  for text, mine, other in zip(
    texts, codegen.encode_batch(texts), twin(texts), strict=True
  ):
    assert mine == other, text[:200]


@settings(max_examples=300)
@given(text=TRICKY)
def test_ids_equal_those_of_transformers_on_tricky_text(codegen, twin, text):
  assert codegen.encode(text) == twin([text])[0]


@given(text=st.text(max_size=200) | TRICKY)
def test_decoding_gives_the_text_back(codegen, small, text):
  assert codegen.decode(codegen.encode(text)) == text
  assert small.decode(small.encode(text)) == text
  assert sum(codegen.byte_lengths[codegen.encode(text)]) == len(text.encode())


def test_a_document_cannot_forge_its_end(codegen, small):
  text = "a<|endoftext|>b"
  for tokenizer in (codegen, small, pickle.loads(pickle.dumps(small))):
    for ids in (tokenizer.encode(text), tokenizer.encode_by_reference([text])[0]):
      assert tokenizer.eos_id not in ids
      assert tokenizer.decode(ids) == text
  assert codegen.decode([codegen.eos_id]) == "<|endoftext|>"


def test_what_has_no_ids_or_no_text_is_refused(codegen):
  with pytest.raises(InputError, match=r"text 1 .* U\+D800 at character 2"):
    codegen.encode_batch(["fine", "ab\ud800"])
  for ids in ([50295], [5, -1]):
    with pytest.raises(InputError, match="not in this tokenizer's vocabulary"):
      codegen.decode(ids)


@settings(max_examples=300)
@given(head=TRICKY, tail=TRICKY)
def test_a_prompt_that_ends_in_a_newline_is_a_prefix(small, head, tail):
  head += "\n"
  assert small.encode(head) + small.encode(tail) == small.encode(head + tail)


def test_training_is_deterministic_and_blind_to_order(texts, small):
  again = tokenizers.train(reversed(texts), 512)
  assert again.digest == small.digest
  assert small.vocabulary_size == 512
  assert small.eos_id == 512 - 39
  assert small.encode("    ") == [512 - 38 + 27]
  assert tokenizers.train(texts, 513).digest != small.digest
  for size, message in ((294, "at least 295"), (500_000, "only")):
    with pytest.raises(InputError, match=message):
      tokenizers.train(["def f(): return 1"], size)


def test_rare_words_are_the_same_tokens_with_and_without_a_space(texts):
  """What a model copies from a signature into a body, such as an argument's name."""
  encode = tokenizers.train(texts, 1024).encode
  (space,) = encode(" ")
  rare = ("rainfall", "unplanned", "discount", "wheels", "calories")
  assert [encode(f" {word}") for word in rare] == [
    [space, *encode(word)] for word in rare
  ]
  common = (" the", " =", " self", " if")  # one token each
  assert [len(encode(word)) for word in common] == [1] * 4


def test_a_saved_tokenizer_is_the_same(codegen, small, texts, tmp_path):
  file = tmp_path / "tokenizer.json"
  for tokenizer, place in ((codegen, tmp_path), (small, tmp_path), (small, file)):
    tokenizer.save(file)
    loaded = tokenizers.load(str(place))
    assert loaded.digest == tokenizer.digest
    assert loaded.encode_batch(texts[:3]) == tokenizer.encode_batch(texts[:3])
    assert [path.name for path in tmp_path.iterdir()] == ["tokenizer.json"]
  assert tokenizers.load("codegen").digest == codegen.digest


@pytest.mark.parametrize(
  ("content", "says"),
  [
    (b"{", r"tokenizer\.json is not a tokenizer\.json"),
    (b"\xff\xfe", "is not a"),
    (hugging_face.Tokenizer(hugging_face.models.BPE()).to_str(), "has no token"),
  ],
)
def test_what_is_no_tokenizer_is_refused(tmp_path, content, says):
  content = content if isinstance(content, bytes) else content.encode()
  (tmp_path / "tokenizer.json").write_bytes(content)
  with pytest.raises(InputError, match=says):
    tokenizers.load(str(tmp_path))


# Where tokie's splitting differs from `tokenizers`' it must not be used.
AWKWARD = st.text(
  st.sampled_from(" \t\n\r\x0b\x0c\x1c\x85\xa0'slt1!_\u2028\u3000\u0301Ⓐ\u088f²é中😀𞥖"),
  max_size=40,
)


@settings(max_examples=300)
@given(texts=st.lists(AWKWARD | TRICKY | st.text(max_size=40), max_size=8))
def test_ids_are_those_of_hugging_faces_tokenizers(codegen, small, texts):
  for tokenizer in (codegen, small):
    assert tokenizer._fast is not None
    ours, theirs = tokenizer.encode_arrays(texts), tokenizer.encode_by_reference(texts)
    assert [ids.tolist() for ids in ours] == [ids.tolist() for ids in theirs]


def test_other_tokenizers_are_encoded_by_tokenizers(tmp_path):
  vocabulary = {"a": 0, "b": 1, "?": 2}
  model = hugging_face.models.WordLevel(vocabulary, unk_token="?")
  words = hugging_face.Tokenizer(model)
  words.pre_tokenizer = hugging_face.pre_tokenizers.Whitespace()
  words.add_special_tokens([tokenizers.END_OF_TEXT])
  words.save(str(tmp_path / "tokenizer.json"))
  loaded = tokenizers.load(str(tmp_path))
  assert loaded._fast is None
  assert loaded.byte_lengths is None
  assert loaded.encode("b a c") == [1, 0, 2]
  assert (loaded.eos_id, loaded.vocabulary_size) == (3, 4)


def test_without_tokie_the_ids_are_the_same(small, texts, monkeypatch):
  again = pickle.loads(pickle.dumps(small))
  monkeypatch.setitem(sys.modules, "tokie", None)
  assert again._fast is None
  assert again.encode_batch(texts[:5]) == small.encode_batch(texts[:5])


@example("", [94, 169, 94, 169])  # bytes that begin a surrogate: two characters
@given(st.text(max_size=40), st.lists(st.integers(0, 511), max_size=20))
def test_offsets_are_lengths_of_what_is_before(small, text, others):
  """Any ids: most of them end within a character, or are no UTF-8 at all."""
  ids = [*others, *small.encode(text), *others]
  expected = [len(small.decode(ids[:place])) for place in range(len(ids))]
  assert small.offsets(ids) == expected
  other = tokenizers.Tokenizer(small._content)
  other._ids = None  # as of a tokenizer whose ids are no byte strings
  assert other.offsets(ids[:5]) == expected[:5]


def test_ids_with_holes_are_not_given_to_tokie(small, tmp_path):
  """It numbers added tokens itself."""
  small.save(tmp_path / "tokenizer.json")
  content = json.loads((tmp_path / "tokenizer.json").read_text())
  content["added_tokens"].append(dict(content["added_tokens"][-1], content="q", id=600))
  (tmp_path / "tokenizer.json").write_text(json.dumps(content))
  assert tokenizers.load(str(tmp_path))._fast is None
