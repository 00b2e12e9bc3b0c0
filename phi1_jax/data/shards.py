"""Work of the processes that build a token store.

A unit is one shard of one task. `build` writes its tokens, `sample` picks texts to
train a tokenizer on. Their results do not depend on the process or the order.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import hashlib
import importlib
import multiprocessing
import multiprocessing.connection
import os
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from phi1_jax import InputError, storage
from phi1_jax.data import tasks
from phi1_jax.data.quiet_tensorflow import seqio, tf
from phi1_jax.data.token_store import ShardWriter
from phi1_jax.data.vocabulary import SHIFT, TokenizerVocabulary
from phi1_jax.text import tokenizer as tokenizers
from phi1_jax.text.tokenizer import Tokenizer

_BYTES = seqio.ByteVocabulary()
_FIRST_BYTE = 3  # seqio's ByteVocabulary: padding, end, unknown, then the 256 bytes


@dataclasses.dataclass(frozen=True)
class Unit:
  """One shard of one task.

  Attributes:
    task: name of the task.
    shard: number of the shard in the task.
    shards: number of the task's shards.
    position: number of the shard in the store.
    positions: number of the store's shards.
    held_out_fraction: share of the documents that are held out.
  """

  task: str
  shard: int
  shards: int
  position: int
  positions: int
  held_out_fraction: float


def start_worker(modules: Iterable[str], curated_directory: str | None) -> None:
  """Set up a new process: register the tasks, and end with the parent."""
  os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one core per process
  threading.Thread(target=_exit_with_parent, daemon=True).start()
  register(modules, curated_directory)


def _exit_with_parent() -> None:
  """End this process when its parent ends, so that it writes no more to the store."""
  parent = multiprocessing.parent_process()
  if parent is not None:
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)


def register(modules: Iterable[str], curated_directory: str | None) -> None:
  """Register this project's tasks, then import the user's modules with theirs.

  Raises:
    InputError: a module is missing or fails.
  """
  tasks.register(tokenizers.codegen(), curated_directory)
  for name in modules:
    try:
      importlib.import_module(name)
    except InputError:
      raise
    except Exception as error:
      raise InputError(
        f"Data.modules: importing {name} failed with {type(error).__name__}: {error}"
      ) from error


def build(unit: Unit, store: str, tokenizer_digest: str) -> dict[str, Any]:
  """Tokenize one unit into the store; return its entry of the manifest."""
  tokenizer = _tokenizer(store, tokenizer_digest)
  task = tasks.task(unit.task)
  writer = ShardWriter(store, unit.position, unit.positions, unit.task)
  dropped = collections.Counter[str]()
  if isinstance(counts := getattr(task.source, "dropped", None), collections.Counter):
    counts.clear()
    dropped = counts
  for document in _documents(unit, task, TokenizerVocabulary(tokenizer)):
    ids = document.ids - SHIFT
    if not len(ids):
      dropped["empty"] += 1
      continue
    _check_ids(ids, unit.task, tokenizer)
    text = document.text
    if text is None:
      text = tokenizer.decode(ids.tolist()).encode()
    writer.add(
      np.append(ids, tokenizer.eos_id),
      num_bytes=len(text),
      held_out=tasks.held_out(text, document.group, unit.held_out_fraction),
    )
  # Before `close`, after which the shard is done.
  storage.write_json(dropped_file(store, unit), dict(sorted(dropped.items())))
  return writer.close()


def sample(unit: Unit, num_bytes: int) -> list[tuple[bytes, bytes]]:
  """Return the training texts of one unit that `smallest` keeps, with their hashes."""

  def texts() -> Iterator[bytes]:
    for document in _documents(unit, tasks.task(unit.task), _BYTES):
      text = (document.ids - _FIRST_BYTE).astype(np.uint8).tobytes()
      if not tasks.held_out(text, document.group, unit.held_out_fraction):
        yield text

  return smallest(((hashlib.sha256(t).digest(), t) for t in texts()), num_bytes)


def smallest(
  pairs: Iterable[tuple[bytes, bytes]], num_bytes: int
) -> list[tuple[bytes, bytes]]:
  """Return the (hash, text) pairs of the smallest hashes that fit into `num_bytes`.

  This is a uniform sample, independent of the order of the pairs and of how they are
  divided: the smallest of the parts' smallest are the smallest of all.
  """
  kept: list[tuple[bytes, bytes]] = []
  size = 0
  for pair in pairs:
    kept.append(pair)
    size += len(pair[1])
    if size > 2 * num_bytes:
      kept = _cut(kept, num_bytes)
      size = sum(len(text) for _, text in kept)
  return _cut(kept, num_bytes)


def _cut(pairs: list[tuple[bytes, bytes]], num_bytes: int) -> list[tuple[bytes, bytes]]:
  kept = []
  for digest, text in sorted(pairs):
    num_bytes -= len(text)
    if num_bytes < 0:
      break
    kept.append((digest, text))
  return kept


def dropped_file(store: str | Path, unit: Unit) -> Path:
  """Return the file of a unit's drop counts, which the manifest takes over."""
  return Path(store) / f"dropped-{unit.position:05d}.json"


def _documents(
  unit: Unit, task: seqio.Task, vocabulary: seqio.Vocabulary
) -> Iterator[tasks.Encoded]:
  try:
    yield from tasks.documents(task, vocabulary, unit.shard, unit.shards)
  except tf.errors.OpError as error:
    # An exception in a Python step arrives as text, its last line first or last.
    lines = [line.strip() for line in error.message.splitlines() if line.strip()]
    raise InputError(
      f"task {unit.task}, shard {unit.shard} of {unit.shards}: reading failed: "
      f"{lines[0] if lines else type(error).__name__}"
    ) from error


def _check_ids(ids: np.ndarray, task: str, tokenizer: Tokenizer) -> None:
  if ids.min() < 0 or ids.max() >= tokenizer.vocabulary_size:
    raise InputError(
      f"task {task}: got token ids {ids.min()}..{ids.max()}, the tokenizer has "
      f"[0, {tokenizer.vocabulary_size}); its preprocessors must take ids from "
      'output_features["targets"].vocabulary'
    )


@functools.lru_cache(maxsize=1)
def _tokenizer(store: str, digest: str) -> Tokenizer:
  """Return the store's tokenizer, read once per process."""
  del digest  # another tokenizer in the same folder is another entry of the cache
  return tokenizers.load(store)
