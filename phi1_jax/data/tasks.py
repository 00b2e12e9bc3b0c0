"""seqio tasks as sources of documents, and this package's tasks in seqio's registry.

seqio reserves id 0 for padding: its packer takes a 0 for the end of a document and
drops the rest. In GPT-2's and CodeGen's vocabulary 0 is "!". So inside seqio every id
is one higher, and the token store holds the tokenizer's own ids.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from phi1_jax import InputError
from phi1_jax.data import mixtures
from phi1_jax.data.config import DataConfig
from phi1_jax.data.curated import describe
from phi1_jax.data.documents import Document, Drop, Source
from phi1_jax.data.mixtures import Rated
from phi1_jax.data.quiet_tensorflow import seqio, tf
from phi1_jax.text import tokenizer as tokenizers
from phi1_jax.text.tokenizer import Tokenizer

SHIFT = 1
_FIRST_BYTE = 3  # seqio's ByteVocabulary: padding, end, unknown, then the 256 bytes
# seqio's rate for plain concatenation.
by_size = seqio.mixing_rate_num_examples


class TokenizerVocabulary(seqio.PassThroughVocabulary):
  """A tokenizer for seqio: id 0 pads, all others are the tokenizer's plus one."""

  def __init__(self, tokenizer: Tokenizer):
    super().__init__(tokenizer.vocabulary_size + SHIFT, tokenizer.eos_id + SHIFT)
    self.tokenizer = tokenizer

  @property
  def bos_id(self) -> int:
    """The id of <|endoftext|>: CodeGen begins and ends text with the same token."""
    return self.tokenizer.eos_id + SHIFT

  def _encode(self, s: str | bytes) -> np.ndarray:
    text = s.decode() if isinstance(s, bytes) else s
    return self.tokenizer.encode_arrays([text])[0].astype(np.int32) + np.int32(SHIFT)

  def encode(self, s: str) -> Sequence[int]:
    """Return the ids of a text."""
    return self._encode(s).tolist()

  def _decode(self, ids: Iterable[int]) -> str:
    shown = (int(i) - SHIFT for i in ids if i not in (self.pad_id, self.eos_id))
    return self.tokenizer.decode(shown)

  def _encode_tf(self, s: tf.Tensor) -> tf.Tensor:
    ids = tf.numpy_function(self._encode, [s], tf.int32, stateful=False)
    ids.set_shape([None])
    return ids

  def _decode_tf(self, ids: tf.Tensor) -> tf.Tensor:
    text = tf.numpy_function(self._decode, [ids], tf.string, stateful=False)
    text.set_shape([])
    return text

  def __eq__(self, other: object) -> bool:
    same = isinstance(other, TokenizerVocabulary)
    return same and other.tokenizer.digest == self.tokenizer.digest

  def __hash__(self) -> int:
    return hash(self.tokenizer.digest)


class _BuiltInSource(seqio.FunctionDataSource):
  """A source of this package, for mixtures in which seqio names it."""

  def __init__(self, source: Source):
    self.source = source
    super().__init__(self._dataset, splits=("train",))

  def _dataset(
    self, split: str, shuffle_files: bool = False, seed: int | None = None
  ) -> tf.data.Dataset:
    del split, shuffle_files, seed  # part of seqio's signature
    string = tf.TensorSpec((), tf.string)
    return tf.data.Dataset.from_generator(
      lambda: (
        {"text": document.text, "group": document.group or ""}
        for document in self.source.read(0, 1)
        if isinstance(document, Document)
      ),
      output_signature={"text": string, "group": string},
    )


# The config of the last `register`, for other processes.
_registered: DataConfig | None = None


def register(config: DataConfig) -> None:
  """Register this package's tasks and mixtures, then import `config.modules`.

  Raises:
    InputError: a module is missing or fails.
  """
  global _registered
  _registered = dataclasses.replace(config, rates=None)  # a dict has no hash
  for name in mixtures.MIXTURES:
    if name in seqio.MixtureRegistry.names():
      seqio.MixtureRegistry.remove(name)
  vocabulary = TokenizerVocabulary(tokenizers.codegen())
  for name, source in mixtures.sources(config).items():
    if name in seqio.TaskRegistry.names():
      seqio.TaskRegistry.remove(name)
    task = seqio.Task(
      name,
      source=_BuiltInSource(source),
      preprocessors=[
        text_to_targets,
        seqio.preprocessors.tokenize,
        seqio.CacheDatasetPlaceholder(),
        seqio.preprocessors.append_eos,
      ],
      output_features={"targets": seqio.Feature(vocabulary, add_eos=True)},
      metric_fns=[],
    )
    seqio.TaskRegistry.add_provider(name, task)
  for name, tasks in mixtures.MIXTURES.items():
    seqio.MixtureRegistry.add(name, [(task, by_size) for task in tasks])
  for name in config.modules:
    try:
      importlib.import_module(name)
    except InputError:
      raise
    except Exception as error:
      raise InputError(
        f"Data.modules: importing {name} failed with {type(error).__name__}: {error}"
      ) from error


def text_to_targets(dataset: tf.data.Dataset) -> tf.data.Dataset:
  """Rename "text" to "targets", keep "group" if there is one, and drop the rest."""

  def rename(example):
    kept = {"group": example["group"]} if "group" in example else {}
    return {"targets": example["text"], **kept}

  return dataset.map(rename, num_parallel_calls=tf.data.AUTOTUNE)


def resolve(name: str) -> dict[str, Rated]:
  """Return the tasks of a mixture, or the task of that name, with rates, sorted.

  Raises:
    InputError: no such mixture or task, or a task that a token store cannot hold.
  """
  known = [*seqio.MixtureRegistry.names(), *seqio.TaskRegistry.names()]
  if name not in known:
    raise InputError(
      f'Data.mixture: no mixture or task "{name}"; registered: '
      f"{', '.join(sorted(known))} (Data.modules registers more)"
    )
  found = seqio.get_mixture_or_task(name)
  rated = {
    task.name: Rated(_source(task), _rate(found, task))
    for task in seqio.get_subtasks(found)
  }
  if len({entry.rate == "by_size" for entry in rated.values()}) == 2:
    raise InputError(
      f'mixture "{name}" has numeric rates for some tasks and by_size for others; '
      "give all of them numbers, or none"
    )
  return dict(sorted(rated.items()))


def _source(task: seqio.Task) -> Source:
  if isinstance(task.source, _BuiltInSource):
    return task.source.source
  if list(task.output_features) not in (["targets"], ["inputs", "targets"]):
    raise InputError(
      f"task {task.name} has the features {', '.join(task.output_features)}; a token "
      'store takes "targets", or "inputs" and "targets": join others in a preprocessor'
    )
  if "train" not in task.splits:
    raise InputError(
      f'task {task.name} has the splits {", ".join(task.splits)}, expected "train"'
    )
  return SeqioSource(task)


def _rate(found: seqio.Task | seqio.Mixture, task: seqio.Task) -> float | str:
  if isinstance(found, seqio.Task):
    return "by_size"
  if found.rate_per_task_name.get(task.name) is by_size:
    return "by_size"
  try:
    return float(found.get_rate(task))
  except Exception as error:  # a user's function, or seqio's without counts
    raise InputError(
      f'mixture "{found.name}": the rate of task "{task.name}" is a function that '
      f"failed ({type(error).__name__}: {error}), since its examples were never "
      "counted; give all tasks numbers, or seqio.mixing_rate_num_examples as it is "
      "(by size)"
    ) from error


@functools.cache
def _source_in_process(config: DataConfig, name: str) -> Source:
  """Return the source of a task, registered first."""
  if _registered != config:
    register(config)
  return _source(seqio.TaskRegistry.get(name))


class SeqioSource:
  """The documents of a seqio task, encoded with the store's tokenizer."""

  def __init__(self, task: seqio.Task):
    self.task = task

  def __reduce__(self):  # a task holds functions, which other processes import
    return _source_in_process, (_registered, self.task.name)

  def describe(self) -> list[dict[str, Any]]:
    """Return the facts of the task's source.

    Raises:
      InputError: its files are missing.
    """
    source = self.task.source
    if isinstance(source, seqio.TfdsDataSource):
      return [describe(source.tfds_dataset)]
    facts: dict[str, Any] = {"name": type(source).__name__}
    if isinstance(source, seqio.FileDataSource):
      files = sorted(source.list_shards("train"))
      if not files:
        raise InputError(f"{source}: no file matches its patterns")
      facts["files"] = {Path(f).name: tf.io.gfile.stat(f).length for f in files}
    return [facts]

  def num_shards(self, wanted: int) -> int:
    """Return `wanted`, or the number of the task's files."""
    if self.task.source.supports_arbitrary_sharding:
      return wanted
    return max(1, min(wanted, len(self.task.source.list_shards("train"))))

  def read(
    self, shard: int, shards: int, tokenizer: Tokenizer | None = None
  ) -> Iterator[Document | Drop]:
    """Yield the documents of a shard; without a tokenizer, their texts only."""
    # Without a tokenizer the ids are bytes, so the text is there even if the task drops
    # it.
    vocabulary = TokenizerVocabulary(tokenizer) if tokenizer else seqio.ByteVocabulary()
    features = {
      name: dataclasses.replace(feature, vocabulary=vocabulary)
      for name, feature in self.task.output_features.items()
    }
    dataset = self.task.replace(output_features=features).get_dataset(
      sequence_length=None,
      shuffle=False,
      shard_info=seqio.ShardInfo(shard, shards),
      trim_output_features=False,
      try_in_mem_cache=False,
    )
    try:
      for example in dataset.as_numpy_iterator():
        yield self._document(example, tokenizer, vocabulary.eos_id)
    except tf.errors.OpError as error:
      # An exception in a Python step arrives as text, its last line first or last.
      lines = [line.strip() for line in error.message.splitlines() if line.strip()]
      raise InputError(
        f"task {self.task.name}, shard {shard} of {shards}: reading failed: "
        f"{lines[0] if lines else type(error).__name__}"
      ) from error

  def _document(
    self, example: dict[str, Any], tokenizer: Tokenizer | None, eos_id: int | None
  ) -> Document:
    """Return an example as a document: "inputs", if any, are its prompt."""
    kept, whole, found = [], "", []
    for name in ("inputs", "targets"):
      ids = example.get(name, np.zeros(0, np.int32))
      ids = ids[:-1] if len(ids) and ids[-1] == eos_id else ids
      text = example.get(f"{name}_pretokenized") if name in example else b""
      found.append(ids - SHIFT)
      if tokenizer is None:
        kept.append((ids - _FIRST_BYTE).astype(np.uint8).tobytes().decode())
      else:
        kept.append(self._kept(found[-1], text, tokenizer))
      whole += kept[-1] if text is None else text.decode()
    group = example["group"].decode() if "group" in example else None
    if group is None and whole != "".join(kept):  # parts of one text stay together
      group = hashlib.sha256(whole.encode()).hexdigest()
    return Document(kept[1], group, kept[0], (found[0], found[1]))

  def _kept(self, ids: np.ndarray, text: bytes | None, tokenizer: Tokenizer) -> str:
    """Return the text of ids, which may be a part of the whole text's.

    Raises:
      InputError: the ids are not the tokenizer's.
    """
    whole = ids if text is None else tokenizer.encode_arrays([text.decode()])[0]
    known = not len(ids) or (ids.min() >= 0 and ids.max() < tokenizer.vocabulary_size)
    if not (known and _characters(ids) in _characters(whole)):
      raise InputError(
        f"task {self.task.name}: got token ids {ids[:8].tolist()} .., expected ids of "
        f"the store's tokenizer, such as {whole[:8].tolist()} .. for {text!r:.40} ..; "
        'its preprocessors must take ids from output_features["targets"].vocabulary, '
        'and tasks that change ids must not keep "targets_pretokenized" '
        "(seqio.preprocessors.tokenize, copy_pretokenized=False)"
      )
    if text is not None and len(ids) == len(whole):
      return text.decode()
    return tokenizer.decode(ids.tolist())


def _characters(ids: np.ndarray) -> str:
  """Return a text with a character for every id, to look for a part of it."""
  return ids.astype("<u4").tobytes().decode("utf-32-le", "surrogatepass")
