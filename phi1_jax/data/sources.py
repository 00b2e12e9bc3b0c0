"""Sources for seqio: the embedded corpora, the grammar teacher, curated sets."""

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

# The version of a curated set that this code reads; the minor parts may grow.
CURATED_VERSION = "1.*.*"


class _PythonDataSource(seqio.DataSource):
  """Base of sources that Python makes; examples have the strings "text" and "group".

  Subclasses list units, which are dealt out to shards, and make documents of each.
  """

  def __init__(self):
    super().__init__(splits=("train",))

  @property
  def supports_arbitrary_sharding(self) -> bool:
    """Return False: a unit is not cut."""
    return False

  def units(self) -> Sequence[Any]:
    """Return the units, in order."""
    raise NotImplementedError

  def documents(self, unit: Any) -> Iterator[Document]:
    """Yield the documents of a unit."""
    raise NotImplementedError

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
    """Return the documents of every n-th unit; `shuffle` shuffles the units."""
    del sequence_length, use_cached, num_epochs  # part of seqio's signature
    self._check(split)
    shard = shard_info or seqio.ShardInfo(0, 1)
    units = list(self.units()[shard.index :: shard.num_shards])
    if shuffle:
      random.Random(None if seed is None else int(seed)).shuffle(units)
    string = tf.TensorSpec((), tf.string)
    return tf.data.Dataset.from_generator(
      functools.partial(self._examples, units),
      output_signature={"text": string, "group": string},
    )

  def _examples(self, units: Sequence[Any]) -> Iterator[dict[str, bytes]]:
    for unit in units:
      for document in self.documents(unit):
        yield {"text": document.text.encode(), "group": document.group.encode()}

  def _check(self, split: str) -> None:
    if split not in self.splits:
      raise ValueError(f'{type(self).__name__} has the split "train" only, not {split}')


class CorpusDataSource(_PythonDataSource):
  """The embedded corpora; a unit is a file, and "group" is its hash.

  Args:
    extract: maps a file of a corpus to its documents, or to the reason of a drop.
    embedded: lists the corpora; called late, because some may not be installed.

  Attributes:
    dropped: reason -> number of files, of the datasets read so far in this process.
  """

  def __init__(
    self,
    extract: Callable[[Corpus, str], list[Document] | Drop],
    embedded: Callable[[], Sequence[Corpus]] = corpora.embedded,
  ):
    super().__init__()
    self._extract = extract
    self._embedded = embedded
    self.dropped: collections.Counter[str] = collections.Counter()

  def list_shards(self, split: str) -> Sequence[str]:
    """Return every file, as "networkx/networkx/lazy_imports.py"."""
    self._check(split)
    return [f"{corpus.name}/{path}" for corpus, path in self.units()]

  def num_input_examples(self, split: str) -> int:
    """Return the number of documents; reads every file the first time."""
    self._check(split)
    if self._num_input_examples is None:
      results = [self._extract(corpus, path) for corpus, path in self.units()]
      count = sum(len(found) for found in results if not isinstance(found, Drop))
      self._num_input_examples = {split: count}
    return self._num_input_examples[split]

  def describe(self) -> list[dict[str, Any]]:
    """Return name, version, licence, home and hash of each corpus."""
    return [corpus.describe() for corpus in self._embedded()]

  def units(self) -> list[tuple[Corpus, str]]:
    """Return the files."""
    return [(corpus, path) for corpus in self._embedded() for path in corpus.paths]

  def documents(self, unit: tuple[Corpus, str]) -> Iterator[Document]:
    """Yield the documents of a file, or count why it was dropped."""
    found = self._extract(*unit)
    if isinstance(found, Drop):
      self.dropped[found.reason] += 1
    else:
      yield from found


class GrammarDataSource(_PythonDataSource):
  """Texts of the grammar teacher, which needs no LLM; a unit is a text's number.

  Args:
    kind: "exercises" or "sections" (of textbooks).
    seed: decides the texts.
    number: how many there are.
    menu: of exercises: "all", or a menu of shorter tasks, which a model learns sooner.
    shards: the most shards that a store reads them in.
  """

  def __init__(
    self, kind: str, seed: int, number: int, menu: str = "all", shards: int = 8
  ):
    super().__init__()
    self._kind, self._menu = kind, menu
    self._seed, self._number, self._shards = seed, number, shards

  def list_shards(self, split: str) -> Sequence[str]:
    """Return names for the shards."""
    return [f"{split}-{part}" for part in range(self._shards)]

  def describe(self) -> list[dict[str, Any]]:
    """Return the teacher and the settings of its texts."""
    facts = {"name": NAME, "version": str(grammar.VERSION), "licence": "MIT"}
    facts |= {"seed": self._seed, self._kind: self._number, "menu": self._menu}
    return [facts]

  def units(self) -> Sequence[int]:
    """Return the numbers of the texts."""
    return range(self._number)

  def documents(self, unit: int) -> Iterator[Document]:
    """Yield a text; exercises of one composition are a group."""
    if self._kind == "sections":
      text = grammar.section(self._seed, unit).text
      yield Document(text, text)
    else:
      exercise = grammar.exercise(self._seed, unit, menu=self._menu)
      yield Document(exercise.text, repr(exercise.composition))


def curated(name: str, directory: str) -> seqio.TfdsDataSource:
  """Return the source of a curated set: a TFDS dataset in TFRecord format.

  Args:
    name: name of the dataset and of the task that reads it.
    directory: TFDS folder that holds <name>/<version>/.
  """
  return seqio.TfdsDataSource(
    f"{name}:{CURATED_VERSION}",
    tfds_data_dir=os.path.expanduser(directory),
    splits=("train",),
    read_only=True,
  )


def describe(source: seqio.DataSource) -> list[dict[str, Any]]:
  """Return a manifest's entries for a source: names, versions, licences; no paths.

  Raises:
    InputError: the source's files are missing.
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
