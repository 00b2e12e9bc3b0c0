"""Curated sets on disk: TFDS datasets in TFRecord format, which the tasks read.

Every example has the string features `FEATURES`: "text" is for training, examples of
one "group" are held out together, "provenance" is JSON.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from etils import epath

from phi1_jax import InputError, storage
from phi1_jax.data.config import CURATED_CONTENT
from phi1_jax.data.documents import Document
from phi1_jax.data.quiet_tensorflow import seqio, tf, tfds
from phi1_jax.text.tokenizer import Tokenizer

FEATURES = ("text", "group", "id", "source", "licence", "provenance")
CARD = "README.md"
# The version that `CuratedSource` reads; the minor parts may grow.
_VERSION = "1.*.*"


@dataclasses.dataclass(frozen=True)
class CuratedSource:
  """The documents of a curated set.

  Attributes:
    name: name of the set, and of the task that reads it.
    directory: TFDS folder that holds the set.
  """

  name: str
  directory: str

  def _loader(self) -> seqio.LazyTfdsLoader:
    directory = os.path.expanduser(self.directory)
    return seqio.LazyTfdsLoader(f"{self.name}:{_VERSION}", directory, read_only=True)

  def describe(self) -> list[dict[str, Any]]:
    """Return name, version, licence, home and content of the set."""
    return [describe(self._loader())]

  def num_shards(self, wanted: int) -> int:
    """Return `wanted`, or the number of the set's files."""
    return max(1, min(wanted, len(self._loader().files("train"))))

  def read(
    self, shard: int, shards: int, tokenizer: Tokenizer | None = None
  ) -> Iterator[Document]:
    """Yield the documents of every n-th file."""
    del tokenizer
    place = seqio.ShardInfo(shard, shards)
    examples: Any = self._loader().load("train", shuffle_files=False, shard_info=place)
    for columns in examples.batch(256).as_numpy_iterator():
      groups = columns.get("group", [None] * len(columns["text"]))
      for text, group in zip(columns["text"], groups, strict=True):
        yield Document(text.decode(), None if group is None else group.decode())


def describe(loader: seqio.LazyTfdsLoader) -> dict[str, Any]:
  """Return a manifest's entry of a TFDS dataset.

  Raises:
    InputError: there is no such dataset, or its files are not TFRecords.
  """
  name, directory = loader.name, loader.data_dir
  content = {}
  try:
    info = loader.info
    noted = Path(f"{directory}/{name}/{info.version}/{CURATED_CONTENT}")
    if noted.exists():  # two sets may have one version, in two folders
      content = {"content": storage.read_json(noted).get("documents")}
  except (tfds.core.DatasetNotFoundError, AssertionError, OSError) as error:
    raise InputError(
      f"Data.curated_directory: {directory} holds no TFDS dataset {name}; name the "
      "data_dir that holds it, or None for the embedded corpora"
    ) from error
  if info.file_format != tfds.core.FileFormat.TFRECORD:
    raise InputError(
      f"curated set {name} in {directory} is {info.file_format.value}, which seqio "
      'cannot read; write it with file_format="tfrecord"'
    )
  files = {
    split: {"examples": split_info.num_examples, "shards": split_info.num_shards}
    for split, split_info in sorted(info.splits.items())
  }
  return {
    "name": info.name,
    "version": str(info.version),
    "licence": info.redistribution_info.license or "see the dataset card",
    "home": info.homepage,
    "splits": files,
    **content,
  }


def shard_name(name: str, number: int, shards: int) -> str:
  """Return the name of a file of a set, as TFDS expects it."""
  return f"{name}-train.tfrecord-{number:05d}-of-{shards:05d}"


def write_records(path: Path, examples: Iterable[Mapping[str, str]]) -> tuple[int, int]:
  """Write examples with the features `FEATURES` to a file of a set.

  Returns:
    The number of examples, and of bytes.
  """
  count = size = 0
  with tf.io.TFRecordWriter(str(path)) as file:
    for example in examples:
      row = {
        name: tf.train.Feature(
          bytes_list=tf.train.BytesList(value=[example[name].encode()])
        )
        for name in FEATURES
      }
      made = tf.train.Example(features=tf.train.Features(feature=row))
      record = made.SerializeToString(deterministic=True)  # equal sets, equal bytes
      file.write(record)
      count, size = count + 1, size + len(record)
  return count, size


def write_info(
  folder: Path,
  name: str,
  lengths: Sequence[int],
  size: int,
  about: Mapping[str, str],
) -> None:
  """Write what TFDS needs to know about the files of a set.

  Args:
    folder: the folder of the version, named after it; gets empty files in place of
      the set's, if they are elsewhere.
    name: name of the dataset and of the task that reads it.
    lengths: examples in each file.
    size: bytes of all records.
    about: "description" and "licence".
  """
  names = [shard_name(name, n, len(lengths)) for n in range(len(lengths))]
  for each in names:
    (folder / each).touch()
  features = tfds.features.FeaturesDict(dict.fromkeys(FEATURES, tfds.features.Text()))
  template = tfds.core.ShardedFileTemplate(
    data_dir=epath.Path(folder),
    dataset_name=name,
    split="train",
    filetype_suffix="tfrecord",
  )
  split = tfds.core.SplitInfo(
    name="train",
    shard_lengths=list(lengths),
    num_bytes=size,
    filename_template=template,
  )
  tfds.folder_dataset.write_metadata(
    data_dir=folder,
    features=features,
    split_infos=[split],
    check_data=False,
    description=about["description"],
    license=about["licence"],
    homepage="see README.md",
    disable_shuffling=True,
  )
