"""Work of the processes that build a token store.

A unit is one shard of one task. `build` writes its tokens, `sample` picks texts to
train a tokenizer on. Their results do not depend on the process or the order.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import hashlib
import multiprocessing
import multiprocessing.connection
import os
import sys
import threading
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from phi1_jax import InputError
from phi1_jax.data import exercises, mixtures
from phi1_jax.data.documents import Document, Source, held_out
from phi1_jax.data.token_store import Encoded, write_shard
from phi1_jax.text import tokenizer as tokenizers
from phi1_jax.text.tokenizer import Tokenizer

HELD_OUT = "held out by Data.held_out_fraction"  # a reason, for messages
_BATCH_CHARACTERS = 1 << 20
# Of the documents that tokie encodes, every n-th is compared with the reference.
_COMPARED_EVERY = 100


@dataclasses.dataclass(frozen=True)
class Unit:
  """One shard of one task.

  Attributes:
    task: name of the task.
    source: origin of the task's documents.
    shard: number of the shard in the task.
    shards: number of the task's shards.
    position: number of the shard in the store.
    positions: number of the store's shards.
    held_out_fraction: share of the documents that are held out.
    marked: write which tokens are completions.
  """

  task: str
  source: Source
  shard: int
  shards: int
  position: int
  positions: int
  held_out_fraction: float
  marked: bool

  def documents(
    self,
    tokenizer: Tokenizer | None,
    dropped: collections.Counter[str],
    first: dict[str, str],
  ) -> Iterator[Document]:
    """Yield the documents; count what is dropped by reason, note the first places."""
    for found in self.source.read(self.shard, self.shards, tokenizer):
      if isinstance(found, Document):
        yield found
        continue
      dropped[found.reason] += 1
      if found.place:
        first.setdefault(found.reason, found.place)


def start_worker() -> None:
  """Set up a new process: it uses one core, and ends with its parent."""
  sys.stdout = sys.stderr  # standard output is for the digest
  os.environ["TOKENIZERS_PARALLELISM"] = "false"
  os.environ["RAYON_NUM_THREADS"] = "1"
  parent = multiprocessing.parent_process()
  assert parent is not None

  def exit_with_parent() -> None:
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)  # so that it writes no more to the store

  threading.Thread(target=exit_with_parent, daemon=True).start()


def build(unit: Unit, store: str, tokenizer_digest: str) -> dict[str, Any]:
  """Tokenize one unit into the store; return its entry of the manifest."""
  tokenizer = _tokenizer(store, tokenizer_digest)
  dropped, first = collections.Counter[str](), dict[str, str]()
  return write_shard(
    store,
    unit.position,
    unit.positions,
    unit.task,
    _encoded(unit, tokenizer, dropped, first),
    marked=unit.marked,
    dropped=dropped,
    first=first,
  )


def _encoded(
  unit: Unit,
  tokenizer: Tokenizer,
  dropped: collections.Counter[str],
  first: dict[str, str],
) -> Iterator[Encoded]:
  """Yield the documents of a unit as tokens; count what is dropped."""
  number = 0
  for batch in _batches(unit.documents(tokenizer, dropped, first)):
    for document, (prompt, text) in zip(batch, _encode(batch, tokenizer), strict=True):
      if not len(text):
        dropped["empty"] += 1
        continue
      if number % _COMPARED_EVERY == 0:
        _compare(document, (prompt, text), unit, tokenizer)
      number += 1
      marks = _marks(document, prompt, text, unit, tokenizer) if unit.marked else None
      if unit.marked and marks is None:
        dropped["no body of a documented function"] += 1
        continue
      yield Encoded(
        np.concatenate([prompt, text, [tokenizer.eos_id]]),
        _num_bytes(document, tokenizer),
        held_out(document, unit.held_out_fraction),
        marks,
      )


def _batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
  """Yield documents in batches of about a million characters."""
  batch, size = [], 0
  for document in documents:
    batch.append(document)
    size += len(document.text) + len(document.prompt) + 100
    if size > _BATCH_CHARACTERS:
      yield batch
      batch, size = [], 0
  if batch:
    yield batch


def _encode(
  batch: list[Document], tokenizer: Tokenizer
) -> Iterable[tuple[np.ndarray, np.ndarray]]:
  """Return the ids of prompt and text of each document."""
  known = [document.ids for document in batch if document.ids is not None]
  if known:  # a source gives the ids of all its documents, or of none
    return known
  prompts = tokenizer.encode_arrays([document.prompt for document in batch])
  return zip(prompts, tokenizer.encode_arrays([x.text for x in batch]), strict=True)


def _compare(
  document: Document,
  ids: tuple[np.ndarray, np.ndarray],
  unit: Unit,
  tokenizer: Tokenizer,
) -> None:
  """Refuse ids that differ from those of Hugging Face's tokenizers."""
  if document.ids is not None:
    return  # the source compares them
  texts = (document.prompt, document.text)
  expected = tokenizer.encode_by_reference(texts)
  for text, ours, theirs in zip(texts, ids, expected, strict=True):
    if not np.array_equal(ours, theirs):
      raise InputError(
        f"task {unit.task}, shard {unit.shard} of {unit.shards}: tokie encodes "
        f"{text[:40]!r} .. otherwise than Hugging Face's tokenizers; uninstall tokie "
        "to go on without it, and report the text"
      )


def _num_bytes(document: Document, tokenizer: Tokenizer) -> int:
  """Return the length of a document in UTF-8."""
  lengths = tokenizer.byte_lengths
  if document.ids is not None and lengths is not None:  # a part may cut characters
    return sum(int(lengths[ids].sum()) for ids in document.ids)
  return len(document.text.encode()) + len(document.prompt.encode())


def _marks(
  document: Document,
  prompt: np.ndarray,
  text: np.ndarray,
  unit: Unit,
  tokenizer: Tokenizer,
) -> np.ndarray | None:
  """Return 1 for every token that is a completion, uint8 [prompt + text + 1].

  The end-of-text token counts. So does all of a document that has no prompt.

  Returns:
    The marks; None for an exercise in which no body is found.
  """
  marks = np.ones(len(prompt) + len(text) + 1, np.uint8)
  marks[: len(prompt)] = 0
  if unit.task not in mixtures.EXERCISES or len(prompt):
    return marks
  lengths = tokenizer.byte_lengths
  if lengths is None:
    raise InputError(
      f'Data.loss_on = "completions": task {unit.task} needs a byte-level tokenizer, '
      "such as codegen"
    )
  spans = exercises.bodies(document.text)
  if not spans:
    return None
  starts = np.cumsum(lengths[text]) - lengths[text]
  inside = [(starts >= first) & (starts < last) for first, last in spans]
  marks[:-1] = np.any(inside, axis=0)
  return marks


def sample(
  unit: Unit, num_bytes: int
) -> tuple[list[tuple[bytes, bytes]], collections.Counter[str]]:
  """Return the (hash, text) pairs of a unit that `smallest` keeps, and what is dropped.

  Held-out documents are not among them.
  """
  dropped = collections.Counter[str]()

  def pairs() -> Iterator[tuple[bytes, bytes]]:
    for document in unit.documents(None, dropped, {}):
      if held_out(document, unit.held_out_fraction):
        dropped[HELD_OUT] += 1
        continue
      text = (document.prompt + document.text).encode()
      yield hashlib.sha256(text).digest(), text

  return smallest(pairs(), num_bytes), dropped


def smallest(
  pairs: Iterable[tuple[bytes, bytes]], num_bytes: int
) -> list[tuple[bytes, bytes]]:
  """Return the (hash, text) pairs of the smallest hashes that fill `num_bytes`, sorted.

  This is a uniform sample, independent of the order of the pairs and of how they are
  divided: the smallest of the parts' smallest are the smallest of all. The last text
  may not fit whole.
  """
  kept, size = [], 0
  for pair in pairs:
    kept.append(pair)
    size += len(pair[1])
    if size > 3 * num_bytes:
      kept = _cut(kept, num_bytes)
      size = sum(len(text) for _, text in kept)
  return _cut(kept, num_bytes)


def _cut(pairs: list[tuple[bytes, bytes]], num_bytes: int) -> list[tuple[bytes, bytes]]:
  kept = sorted(pairs)
  ends = np.cumsum([len(text) for _, text in kept])
  return kept[: np.searchsorted(ends, num_bytes) + 1]


@functools.lru_cache(maxsize=1)
def _tokenizer(store: str, digest: str) -> Tokenizer:
  """Return the store's tokenizer, read once per process."""
  del digest  # another tokenizer in the same folder is another entry of the cache
  return tokenizers.load(store)
