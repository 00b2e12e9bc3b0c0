"""CodeGen's tokenizer, rebuilt exactly, and small ones of the same kind.

CodeGen (and so phi-1) uses GPT-2's byte-level BPE plus 38 tokens for runs of
whitespace, 50,295 ids in all:

    0 .. 50255      GPT-2: bytes and merges
    50256           <|endoftext|>, the only special token
    50257 .. 50286  31 spaces, 30 spaces, .. 2 spaces
    50287 .. 50294  9 tabs, 8 tabs, .. 2 tabs

The runs are matched first and longest first, before GPT-2's own splitting, so the
indentation of a line is one token and the word after it has no leading space.

`train` makes a small tokenizer of the same shape. It splits at every newline, so a
prompt that ends in a newline is encoded into a prefix of the ids of the whole text.
(Plain byte-level BPE fuses the newline with the indentation behind it.)

`tokie` encodes tokenizers of this kind about 18 times faster than Hugging Face's
`tokenizers`, with the same ids. The latter does the rest, and is loaded when needed.
"""

from __future__ import annotations

import codecs
import collections
import functools
import hashlib
import json
import logging
import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from phi1_jax import InputError, storage
from phi1_jax.storage import AnyPath

if TYPE_CHECKING:
  import tokenizers

log = logging.getLogger(__name__)

END_OF_TEXT = "<|endoftext|>"
FILE_NAME = "tokenizer.json"
# In the order of their ids: CodeGen adds the longest run first.
WHITESPACE_RUNS = tuple(" " * n for n in range(31, 1, -1)) + tuple(
  "\t" * n for n in range(9, 1, -1)
)
# Ids of a trained tokenizer that are not merges.
MINIMUM_VOCABULARY_SIZE = 256 + 1 + len(WHITESPACE_RUNS)

_BYTE_LEVEL = {
  "type": "ByteLevel",
  "add_prefix_space": False,
  "trim_offsets": True,
  "use_regex": True,
}
_SPACE = "\u0120"  # a space, in GPT-2's alphabet of bytes
_SPACED_SHARE = 0.2  # of the merges of a trained tokenizer: a space and a common word
# Words and signs of ASCII behind one space, as GPT-2's pattern divides them.
_SPACED = re.compile(r"(?<! ) ([A-Za-z]+|[0-9]+|[!-/:-@\[-`{-~]+)")
_LINES = {"type": "Split", "pattern": {"String": "\n"}, "behavior": "Isolated"}
_SPLITTERS = (
  _BYTE_LEVEL,
  {"type": "Sequence", "pretokenizers": [_LINES | {"invert": False}, _BYTE_LEVEL]},
)
# A byte-level BPE as Hugging Face's `tokenizers` writes it; `_content` fills the rest.
_SETTINGS = {
  "version": "1.0",
  "truncation": None,
  "padding": None,
  "added_tokens": [],
  "normalizer": None,
  "pre_tokenizer": None,
  "post_processor": None,
  "decoder": {**_BYTE_LEVEL, "add_prefix_space": True},
  "model": {},
}
_MODEL = {
  "type": "BPE",
  "dropout": None,
  "unk_token": None,
  "continuing_subword_prefix": None,
  "end_of_word_suffix": None,
  "fuse_unk": False,
  "byte_fallback": False,
  "ignore_merges": False,
}
# Characters around which tokie 0.1.4 splits words differently, found by comparing all
# code points and random strings: a contraction after a tab, two control characters, and
# letters and digits of other versions of Unicode.
_NOT_FOR_TOKIE = re.compile(
  "\t'|[\x0b\x0c\u088f\u0897\u0c5c\u0cdc\u24b6-\u24e9\ua7c0-\ua7ff"
  "\U00010000-\U0001f1ff\U0002a000-\U0010ffff]"
)


class Tokenizer:
  """Text to ids and back, without loss: `decode(encode(text)) == text`.

  Made by `codegen`, `load` or `train`.

  Args:
    content: a tokenizer.json in Hugging Face's format.

  Attributes:
    eos_id: id of <|endoftext|>, which text itself never encodes into.
    vocabulary_size: number of ids in use.

  Raises:
    InputError: the tokenizer has no <|endoftext|>.
  """

  def __init__(self, content: str):
    settings = json.loads(content)
    if not _is_canonical(settings):
      import tokenizers

      content = tokenizers.Tokenizer.from_str(content).to_str()
      settings = json.loads(content)
    self._content = content
    # The ids of a byte-level BPE; others are left to `tokenizers`.
    self._ids = _byte_level_ids(settings)
    ids = self._ids or self._reference.get_vocab(with_added_tokens=True)
    if END_OF_TEXT not in ids:
      raise InputError(
        f"the tokenizer has no token {END_OF_TEXT}, which ends documents"
      )
    self.eos_id: int = ids[END_OF_TEXT]
    self.vocabulary_size: int = len(ids)

  @functools.cached_property
  def digest(self) -> str:
    """sha256 (hex) of the tokenizer's content, the same on every host."""
    content = json.dumps(json.loads(self._content), sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()

  @functools.cached_property
  def byte_lengths(self) -> np.ndarray | None:
    """Length in bytes of every id, int64 [ids]; None if ids are not byte strings."""
    if self._ids is None:
      return None
    ids = range(max(self._bytes) + 1)
    return np.array([len(self._bytes.get(i, b"")) for i in ids], np.int64)

  def encode(self, text: str) -> list[int]:
    """Return the ids of a text, with nothing added at either end.

    Raises:
      InputError: the text holds a lone surrogate, so it has no UTF-8 form.
    """
    return self.encode_batch([text])[0]

  def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
    """Return the ids of each text; see `encode`."""
    return [ids.tolist() for ids in self.encode_arrays(texts)]

  def encode_arrays(self, texts: Sequence[str]) -> list[np.ndarray]:
    """Return the ids of each text, uint32 [T]; see `encode`.

    Uses all cores unless RAYON_NUM_THREADS and TOKENIZERS_PARALLELISM say otherwise.
    """
    texts = list(texts)
    if self._fast is None:
      return self.encode_by_reference(texts)
    _check_texts(texts)
    ids, lengths = self._fast.encode_batch_flat(texts, add_special_tokens=False)
    found = np.split(ids, np.cumsum(lengths, dtype=np.int64)[:-1]) if texts else []
    others = [i for i, text in enumerate(texts) if _needs_reference(text)]
    again = self.encode_by_reference([texts[i] for i in others]) if others else []
    for i, ids in zip(others, again, strict=True):
      found[i] = ids
    return found

  def encode_by_reference(self, texts: Sequence[str]) -> list[np.ndarray]:
    """Return the same as `encode_arrays`, by Hugging Face's `tokenizers`."""
    texts = list(texts)
    _check_texts(texts)
    encodings = self._reference.encode_batch_fast(texts, add_special_tokens=False)
    return [np.array(encoding.ids, np.uint32) for encoding in encodings]

  def decode(self, ids: Iterable[int]) -> str:
    """Return the text of ids; incomplete UTF-8 sequences become U+FFFD."""
    ids = [int(i) for i in ids]
    if ids and (min(ids) < 0 or max(ids) >= self.vocabulary_size):
      raise InputError(
        f"token ids {min(ids)}..{max(ids)} are not in this tokenizer's vocabulary, "
        f"[0, {self.vocabulary_size}); is it the tokenizer the ids were made with?"
      )
    if self._ids is None:
      return self._reference.decode(ids, skip_special_tokens=False)
    return b"".join(self._bytes.get(i, b"") for i in ids).decode(errors="replace")

  def offsets(self, ids: Sequence[int]) -> list[int]:
    """Return where in the text each token begins: the length of what is before it.

    What is before it is decoded alone, so a character that the token ends counts.
    """
    if self._ids is None:
      return [len(self.decode(ids[:place])) for place in range(len(ids))]
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    found, length = [], 0
    for number in ids:
      pending = decoder.getstate()[0]  # of a character that is not complete
      found.append(length + len(pending.decode("utf-8", "replace")))
      length += len(decoder.decode(self._bytes.get(number, b"")))
    return found

  def save(self, path: str | AnyPath) -> None:
    """Write tokenizer.json (Hugging Face's format) atomically."""
    content = json.dumps(json.loads(self._content), indent=2, ensure_ascii=False)
    storage.write_text(storage.parse(path), content)

  def __reduce__(self):
    return Tokenizer, (self._content,)

  @functools.cached_property
  def _bytes(self) -> dict[int, bytes]:
    """Bytes of every id of a byte-level BPE."""
    values = {character: byte for byte, character in _byte_alphabet().items()}
    return {
      number: bytes(map(values.__getitem__, token))
      if values.keys() >= set(token)
      else token.encode()
      for token, number in (self._ids or {}).items()
    }

  @functools.cached_property
  def _reference(self) -> tokenizers.Tokenizer:
    """The tokenizer in Hugging Face's library."""
    import tokenizers

    made = tokenizers.Tokenizer.from_str(self._content)
    # A document that spells "<|endoftext|>" must not forge the end of a document.
    made.encode_special_tokens = True
    return made

  @functools.cached_property
  def _fast(self) -> Any:
    """The tokenizer in tokie, or None where `encode_by_reference` takes its place."""
    settings = _settings_for_tokie(json.loads(self._content))
    if settings is None:
      return None
    try:
      import tokie
    except ImportError:  # no wheel for this platform
      log.info("tokie is not installed: Hugging Face's tokenizers encode, more slowly")
      return None
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".json") as file:
      file.write(json.dumps(settings, ensure_ascii=False))
      file.flush()
      return tokie.Tokenizer.from_json(file.name)


def _needs_reference(text: str) -> bool:
  if text.isascii():  # the regular expression takes as long as the encoding
    return any(part in text for part in ("\t'", "\x0b", "\x0c"))
  return _NOT_FOR_TOKIE.search(text) is not None


def _check_texts(texts: Sequence[str]) -> None:
  for index, text in enumerate(texts):
    try:
      text.encode()
    except UnicodeEncodeError as error:
      raise InputError(
        f"text {index} has no UTF-8 form: lone surrogate "
        f"U+{ord(text[error.start]):04X} at character {error.start}; drop or replace it"
      ) from None


@functools.cache
def codegen() -> Tokenizer:
  """Return CodeGen's tokenizer, which phi-1 uses: 50,295 ids, <|endoftext|> 50,256."""
  vocabulary, merges = gpt2()
  return Tokenizer(_content(vocabulary, merges, _BYTE_LEVEL))


def gpt2() -> tuple[dict[str, int], list[list[str]]]:
  """Return GPT-2's vocabulary, without <|endoftext|>, and its merges."""
  text = Path(__file__).with_name("gpt2_merges.txt").read_text(encoding="utf-8")
  _, _, lines = text.partition("#version: 0.2\n")
  merges = [line.split(" ") for line in lines.splitlines()]
  tokens = sorted(_byte_alphabet().values()) + [a + b for a, b in merges]
  return {token: number for number, token in enumerate(tokens)}, merges


@functools.cache
def _byte_alphabet() -> dict[int, str]:
  """Return the printable character that stands for each byte in GPT-2's vocabulary."""
  shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
  hidden = [byte for byte in range(256) if byte not in shown]
  return {b: chr(b) for b in shown} | {b: chr(256 + n) for n, b in enumerate(hidden)}


def load(name_or_path: str | AnyPath) -> Tokenizer:
  """Open a tokenizer by name or file.

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
    return Tokenizer(storage.read_text(path))
  except OSError as error:
    raise InputError(
      f'tokenizer {path}: {error.strerror}; expected "codegen", a {FILE_NAME}, or a '
      "folder with one"
    ) from error
  except InputError as error:
    raise InputError(f"tokenizer {path}: {error}") from error
  except Exception as error:  # `tokenizers` raises bare Exceptions
    raise InputError(
      f"tokenizer {path} is not a {FILE_NAME} of Hugging Face's tokenizers: {error}"
    ) from error


def train(texts: Iterable[str], vocabulary_size: int) -> Tokenizer:
  """Learn byte-level merges from texts; the same texts give the same tokenizer.

  The merges of a space and a word come last, and only common words have one. So other
  words, such as rare names, are the same tokens with and without a space before them,
  and a small model learns sooner to copy them.

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
  import tokenizers
  from tokenizers import models, pre_tokenizers, trainers

  texts = list(texts)
  lines = pre_tokenizers.Split("\n", "isolated")
  words = pre_tokenizers.ByteLevel(add_prefix_space=False)
  # What the added tokens will match is taken out, so that no merge is spent on it.
  runs = pre_tokenizers.Split(tokenizers.Regex(r" {2,31}|\t{2,9}"), "removed")
  spaces = pre_tokenizers.Split(_SPACE, "isolated")
  backend = tokenizers.Tokenizer(models.BPE())
  backend.pre_tokenizer = pre_tokenizers.Sequence([lines, runs, words, spaces])
  size = vocabulary_size - 1 - len(WHITESPACE_RUNS)
  alphabet = pre_tokenizers.ByteLevel.alphabet()
  trainer = trainers.BpeTrainer(
    vocab_size=size, initial_alphabet=alphabet, show_progress=False
  )
  backend.train_from_iterator(texts, trainer)
  merges = json.loads(backend.to_str())["model"]["merges"]
  vocabulary, kept = _spaced_last(merges, texts, sorted(alphabet), size)
  tokenizer = Tokenizer(_content(vocabulary, kept, _SPLITTERS[1]))
  if tokenizer.vocabulary_size < vocabulary_size:
    raise InputError(
      f"Data.trained_vocabulary_size: the texts give a vocabulary of only "
      f"{tokenizer.vocabulary_size} ids, got {vocabulary_size}; set it to "
      f"{tokenizer.vocabulary_size} or lower, or give more text"
    )
  return tokenizer


def _spaced_last(
  merges: Sequence[Sequence[str]], texts: Sequence[str], alphabet: list[str], size: int
) -> tuple[dict[str, int], list[Sequence[str]]]:
  """Return a vocabulary and its merges; those of a space and a common word come last.

  Args:
    merges: learnt from words without the space before them.
    texts: to count the words in.
    alphabet: the tokens of single bytes.
    size: tokens in all.
  """
  room = size - len(alphabet)
  spaced = max(int(_SPACED_SHARE * room), room - len(merges))
  whole = {*alphabet, *(first + second for first, second in merges[: room - spaced])}
  counts: collections.Counter[str] = collections.Counter()
  for text in texts:
    counts.update(word for word in _SPACED.findall(text) if word in whole)
  common = sorted(counts, key=lambda word: (-counts[word], word))[:spaced]
  last = [[_SPACE, word] for word in common]
  vocabulary, kept = {token: number for number, token in enumerate(alphabet)}, []
  for limit, some in ((size - len(last), merges), (size, last)):
    for merge in some:
      if len(vocabulary) == limit:
        break
      vocabulary.setdefault("".join(merge), len(vocabulary))
      kept.append(merge)
  return vocabulary, kept


def _content(
  vocabulary: Mapping[str, int], merges: Sequence[Sequence[str]], splitter: Any
) -> str:
  """Return a tokenizer.json: a byte-level BPE, <|endoftext|>, the whitespace runs."""
  plain = {"single_word": False, "lstrip": False, "rstrip": False}
  added = [
    {"id": number, "content": token, **plain, "normalized": True, "special": False}
    for number, token in enumerate((END_OF_TEXT, *WHITESPACE_RUNS), len(vocabulary))
  ]
  added[0] |= {"normalized": False, "special": True}
  model = {**_MODEL, "vocab": vocabulary, "merges": merges}
  filled = {"added_tokens": added, "pre_tokenizer": splitter, "model": model}
  return json.dumps(_SETTINGS | filled, ensure_ascii=False)


def _is_canonical(settings: Any) -> bool:
  """Return whether settings have the form that `tokenizers` and `_content` write."""
  try:
    model = settings["model"]
    known = settings.keys() == _SETTINGS.keys() and model.keys() == {
      *_MODEL,
      "vocab",
      "merges",
    }
    return known and all(isinstance(pair, list) for pair in model["merges"])
  except (KeyError, TypeError, AttributeError):
    return False


def _byte_level_ids(settings: dict[str, Any]) -> dict[str, int] | None:
  """Return the ids of all tokens of a byte-level BPE; None for another tokenizer."""
  model = settings["model"]
  byte_level = (settings["decoder"] or {}).get("type") == "ByteLevel"
  if not (byte_level and model.items() >= _MODEL.items()) or settings["normalizer"]:
    return None
  return model["vocab"] | {t["content"]: t["id"] for t in settings["added_tokens"]}


def _settings_for_tokie(settings: dict[str, Any]) -> dict[str, Any] | None:
  """Return settings that tokie encodes with the same ids, or None.

  tokie takes special tokens in a text for themselves, and numbers added tokens by their
  order. So the special ones become entries of the vocabulary that no merge leads to.
  """
  ids, added = _byte_level_ids(settings), settings["added_tokens"]
  splitter = settings["pre_tokenizer"]
  plain = not any(t["single_word"] or t["lstrip"] or t["rstrip"] for t in added)
  if ids is None or not plain or settings["truncation"] or settings["padding"]:
    return None
  if splitter not in _SPLITTERS:
    return None
  special = {t["content"]: t["id"] for t in added if t["special"]}
  vocabulary = settings["model"]["vocab"] | special
  kept = [t for t in added if not t["special"]]
  numbers = [t["id"] for t in kept if t["content"] not in vocabulary]
  expected = list(range(len(vocabulary), len(vocabulary) + len(kept)))
  if numbers != expected or len(ids) != max(ids.values()) + 1:
    return None
  model = settings["model"] | {"vocab": vocabulary}
  return settings | {"model": model, "added_tokens": kept}
