"""Conversion of Hugging Face's tokenizer files to tokenizer.json and back."""

import json
from typing import Any

import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from phi1_jax import InputError, storage
from phi1_jax.storage import AnyPath
from phi1_jax.text import tokenizer as text_tokenizer
from phi1_jax.text.tokenizer import END_OF_TEXT, FILE_NAME, Tokenizer

_CONFIG_NAME = "tokenizer_config.json"
_ADDED_NAME = "added_tokens.json"
_OLD_NAMES = ("vocab.json", "merges.txt")
_CODEGEN_SIZE = 50295
_NONE = "CodeGen's, as the folder has none"


def take_over(
  folder: AnyPath, out: AnyPath, vocabulary_size: int
) -> tuple[Tokenizer, str]:
  """Write `out`/tokenizer.json from the files of a model's folder.

  A tokenizer that encodes like CodeGen's is replaced by CodeGen's, byte for byte, so
  that token stores have the same digest.

  Args:
    folder: a model's folder, with tokenizer.json, or vocab.json and merges.txt; if it
      has neither, CodeGen's tokenizer is used.
    out: the folder for tokenizer.json.
    vocabulary_size: number of the model's ids.

  Returns:
    The tokenizer, and a description of its origin.

  Raises:
    InputError: a tokenizer that cannot be read, or has more ids than the model.
  """
  tokenizer, origin = _find(folder)
  if tokenizer.vocabulary_size > vocabulary_size:
    raise InputError(
      f"{folder}: its tokenizer ({origin}) has {tokenizer.vocabulary_size} ids, "
      f"expected at most the model's {vocabulary_size}; put the model's own "
      f"{FILE_NAME} there"
    )
  path = out / FILE_NAME
  tokenizer.save(path)
  if tokenizer.vocabulary_size == _CODEGEN_SIZE and origin != _NONE:
    theirs = _facts(path)
    codegen = text_tokenizer.codegen()
    codegen.save(path)
    if _facts(path) == theirs:
      return codegen, f"{origin}, encodes as CodeGen's"
    tokenizer.save(path)
  return tokenizer, origin


def write(folder: AnyPath, tokenizer: Tokenizer, max_length: int) -> None:
  """Write the files that transformers' AutoTokenizer loads."""
  tokenizer.save(folder / FILE_NAME)
  content = {
    # The class that takes tokenizer.json as it is; GPT2Tokenizer would rebuild it.
    "tokenizer_class": "PreTrainedTokenizerFast",
    "model_max_length": max_length,
    "bos_token": END_OF_TEXT,
    "eos_token": END_OF_TEXT,
    "unk_token": END_OF_TEXT,
    "clean_up_tokenization_spaces": False,
  }
  storage.write_json(folder / _CONFIG_NAME, content)


def _find(folder: AnyPath) -> tuple[Tokenizer, str]:
  if (folder / FILE_NAME).exists():
    return text_tokenizer.load(folder / FILE_NAME), FILE_NAME
  if all((folder / name).exists() for name in _OLD_NAMES):
    return _from_old_files(folder), " and ".join(_OLD_NAMES)
  return text_tokenizer.codegen(), _NONE


def _from_old_files(folder: AnyPath) -> Tokenizer:
  """Return the byte-level BPE of vocab.json, merges.txt and added_tokens.json."""
  vocabulary, merges = (storage.read_text(folder / name) for name in _OLD_NAMES)
  path = folder / _ADDED_NAME
  try:
    lines = [x for x in merges.split("\n") if x and not x.startswith("#version")]
    pairs = [(left, right) for left, right in map(str.split, lines)]
    model = models.BPE(json.loads(vocabulary), pairs)
    backend = tokenizers.Tokenizer(model)
    added = storage.read_json(path) if path.exists() else {}
    in_order = sorted(added, key=added.__getitem__)
  except Exception as error:  # what `tokenizers` raises is a bare Exception
    raise InputError(
      f"{folder}: {', '.join(_OLD_NAMES)} or {_ADDED_NAME} cannot be read: {error}"
    ) from None
  backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  backend.decoder = decoders.ByteLevel()
  backend.add_special_tokens([END_OF_TEXT])
  backend.add_tokens([tokenizers.AddedToken(token) for token in in_order])
  for token, number in added.items():
    if backend.token_to_id(token) != number:
      raise InputError(
        f"{path}: {token!r} has id {number}, expected {backend.token_to_id(token)}: "
        "ids go on where the vocabulary ends, without holes"
      )
  return Tokenizer(backend.to_str())


def _facts(path: AnyPath) -> dict[str, Any]:
  """Return the settings that decide how a byte-level BPE encodes.

  Left out: trim_offsets and the post-processor, which change offsets only; the unknown
  token, which bytes never need; `normalized`, which has no effect without a normalizer.
  """
  content = storage.read_json(path)
  model, splitter = content["model"], content["pre_tokenizer"] or {}
  flags = ("content", "special", "single_word", "lstrip", "rstrip")
  added = content["added_tokens"]
  return {
    "type": model["type"],
    "ids": model["vocab"] | {token["content"]: token["id"] for token in added},
    "merges": model["merges"],
    "dropout": model.get("dropout"),
    "ignore_merges": model.get("ignore_merges") or False,
    "affixes": [
      model.get(name) or ""
      for name in ("continuing_subword_prefix", "end_of_word_suffix")
    ],
    "normalizer": content["normalizer"],
    "splitter": [
      splitter.get(name) for name in ("type", "add_prefix_space", "use_regex")
    ],
    "decoder": (content["decoder"] or {}).get("type"),
    "added": sorted([token[flag] for flag in flags] for token in added),
  }
