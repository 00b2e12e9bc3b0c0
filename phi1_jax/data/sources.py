"""Where documents come from, as seqio data sources: embedded corpora, curated sets."""

from __future__ import annotations

import collections
import functools
import os
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from phi1_jax import InputError, storage
from phi1_jax.data import corpora
from phi1_jax.data.config import CURATED_CONTENT
from phi1_jax.data.corpora import Corpus, Document, Drop
from phi1_jax.data.quiet_tensorflow import seqio, tf, tfds
from phi1_jax.grammar import NAME
from phi1_jax.grammar import teacher as grammar

# The version of a curated set that this code understands; the minor parts may grow.
CURATED_VERSION = "1.*.*"


class CorpusDataSource(seqio.DataSource):
  """The embedded corpora, one source shard per file.

  Examples have two string features: "text", and "group", the hash of the file.

  Args:
    extract: maps a file of a corpus to its documents, or to why it has none.
    embedded: lists the corpora; called late, because some may not be installed.

  Attributes:
    dropped: reason -> number of files, of the datasets read so far in this process.
  """

  def __init__(
    self,
    extract: Callable[[Corpus, str], list[Document] | Drop],
    embedded: Callable[[], Sequence[Corpus]] = corpora.embedded,
  ):
    super().__init__(splits=("train",))
    self._extract = extract
    self._embedded = embedded
    self.dropped: collections.Counter[str] = collections.Counter()

  @property
  def supports_arbitrary_sharding(self) -> bool:
    """Files are not cut."""
    return False

  def list_shards(self, split: str) -> Sequence[str]:
    """Every file, as "networkx/networkx/lazy_imports.py"."""
    self._check(split)
    return [f"{corpus.name}/{path}" for corpus, path in self._files()]

  def get_dataset(
    self,
    split: str = "train",
    shuffle: bool = True,
    seed: int | None = None,
    shard_info: seqio.ShardInfo | None = None,
    *,
    sequence_length: Mapping[str, int] | None = None,
    use_cached: bool = False,
    num_epochs: int | None = 1,
  ) -> tf.data.Dataset:
    """Documents of every n-th file; `shuffle` shuffles the files."""
    del sequence_length, use_cached, num_epochs  # part of seqio's signature
    self._check(split)
    files = self._files()
    if shard_info is not None:
      files = files[shard_info.index :: shard_info.num_shards]
    if shuffle:
      random.Random(None if seed is None else int(seed)).shuffle(files)
    string = tf.TensorSpec((), tf.string)
    return tf.data.Dataset.from_generator(
      functools.partial(self._examples, files),
      output_signature={"text": string, "group": string},
    )

  def num_input_examples(self, split: str) -> int:
    """Number of documents; reads every file the first time."""
    self._check(split)
    if self._num_input_examples is None:
      results = (self._extract(corpus, path) for corpus, path in self._files())
      count = sum(len(found) for found in results if not isinstance(found, Drop))
      self._num_input_examples = {split: count}
    return self._num_input_examples[split]

  def describe(self) -> list[dict[str, Any]]:
    """Name, version, licence, home and hash of each corpus."""
    return [corpus.describe() for corpus in self._embedded()]

  def _files(self) -> list[tuple[Corpus, str]]:
    return [(corpus, path) for corpus in self._embedded() for path in corpus.paths]

  def _examples(self, files: list[tuple[Corpus, str]]) -> Iterator[dict[str, bytes]]:
    for corpus, path in files:
      found = self._extract(corpus, path)
      if isinstance(found, Drop):
        self.dropped[found.reason] += 1
        continue
      for document in found:
        yield {"text": document.text.encode(), "group": document.group.encode()}

  def _check(self, split: str) -> None:
    if split not in self.splits:
      raise ValueError(f'the embedded corpora have the split "train" only, not {split}')


class GrammarDataSource(seqio.DataSource):
  """What the grammar teacher composes, for a machine that has nothing else.

  Args:
    kind: "exercises" or "sections" (of textbooks).
    seed: of all of them.
    number: how many are composed.
    menu: of the exercises: "all", or shorter tasks, which are sooner learnt.
    shards: parts that can be read apart from each other.
  """

  def __init__(
    self, kind: str, seed: int, number: int, menu: str = "all", shards: int = 8
  ):
    super().__init__(splits=("train",))
    self._kind, self._menu = kind, menu
    self._seed, self._number, self._shards = seed, number, shards

  @property
  def supports_arbitrary_sharding(self) -> bool:
    """Only as many as there are."""
    return False

  def list_shards(self, split: str) -> Sequence[str]:
    """Names of the parts."""
    return [f"{split}-{part}" for part in range(self._shards)]

  def get_dataset(
    self,
    split: str = "train",
    shuffle: bool = True,
    seed: int | None = None,
    shard_info: seqio.ShardInfo | None = None,
    *,
    sequence_length: Mapping[str, int] | None = None,
    use_cached: bool = False,
    num_epochs: int | None = 1,
  ) -> tf.data.Dataset:
    """Every n-th of them, in their order, which is random already."""
    del split, shuffle, seed, sequence_length, use_cached, num_epochs
    shard = shard_info or seqio.ShardInfo(0, 1)
    string = tf.TensorSpec((), tf.string)
    return tf.data.Dataset.from_generator(
      functools.partial(self._examples, shard.index, shard.num_shards),
      output_signature={"text": string, "group": string},
    )

  def describe(self) -> list[dict[str, Any]]:
    """Who composed them, and which they are."""
    return [
      {
        "name": NAME,
        "version": str(grammar.VERSION),
        "licence": "MIT",
        "seed": self._seed,
        self._kind: self._number,
        "menu": self._menu,
      }
    ]

  def _examples(self, index: int, count: int) -> Iterator[dict[str, bytes]]:
    for number in range(index, self._number, count):
      if self._kind == "sections":
        text = grammar.section(self._seed, number).text
        group = text
      else:
        exercise = grammar.exercise(self._seed, number, menu=self._menu)
        text, group = exercise.text, repr(exercise.composition)
      yield {"text": text.encode(), "group": group.encode()}


def curated(name: str, directory: str) -> seqio.TfdsDataSource:
  """A curated set: a TFDS dataset with a string feature "text", in TFRecord format.

  Args:
    name: name of the dataset, that of the task which reads it.
    directory: TFDS folder that holds <name>/<version>/.
  """
  return seqio.TfdsDataSource(
    f"{name}:{CURATED_VERSION}",
    tfds_data_dir=os.path.expanduser(directory),
    splits=("train",),
    read_only=True,
  )


def describe(source: seqio.DataSource) -> list[dict[str, Any]]:
  """What a manifest records about a source: names, versions, licences; no paths.

  Raises:
    InputError: the source's files are not there.
  """
  if isinstance(source, CorpusDataSource | GrammarDataSource):
    return source.describe()
  if isinstance(source, seqio.TfdsDataSource):
    return [_describe_tfds(source)]
  if isinstance(source, seqio.FileDataSource):
    files = sorted(source.list_shards("train"))
    if not files:
      raise InputError(f"{source}: no file matches its patterns")
    sizes = {Path(file).name: tf.io.gfile.stat(file).length for file in files}
    return [{"name": type(source).__name__, "files": sizes}]
  return [{"name": type(source).__name__}]


def _describe_tfds(source: seqio.TfdsDataSource) -> dict[str, Any]:
  name, directory = source.tfds_dataset.name, source.tfds_dataset.data_dir
  content = {}
  try:
    info = source.tfds_dataset.info
    if info.file_format != tfds.core.FileFormat.TFRECORD:
      raise InputError(
        f"curated set {name} in {directory} is {info.file_format.value}, which seqio "
        'cannot read; write it with file_format="tfrecord"'
      )
    files = {
      split: {"examples": split_info.num_examples, "shards": split_info.num_shards}
      for split, split_info in sorted(info.splits.items())
    }
    noted = Path(f"{directory}/{name}/{info.version}/{CURATED_CONTENT}")
    if noted.exists():  # two sets may have one version, in two folders
      content = {"content": storage.read_json(noted).get("documents")}
  except (tfds.core.DatasetNotFoundError, AssertionError, OSError) as error:
    raise InputError(
      f"Data.curated_directory: {directory} holds no TFDS dataset {name}; name the "
      "data_dir that holds it, or None for the embedded corpora"
    ) from error
  return {
    "name": info.name,
    "version": str(info.version),
    "licence": info.redistribution_info.license or "see the dataset card",
    "home": info.homepage,
    "splits": files,
    **content,
  }
