"""Curated sets on disk: TFDS datasets in TFRecord format, which the tasks read.

Every example has the string features `FEATURES`: "text" is for training, examples of
one "group" are held out together, "provenance" is JSON.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import io
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from phi1_jax import InputError, storage
from phi1_jax.data.config import CURATED_CONTENT
from phi1_jax.data.documents import Document
from phi1_jax.data.quiet_tensorflow import seqio, tfds
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
    InputError: there is no such dataset, or its files are no TFRecords.
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


class _Builder(tfds.dataset_builders.AdhocBuilder, skip_registration=True):
  """A builder whose dataset info has a licence."""

  def __init__(self, licence: str | None, **arguments: Any):
    self._licence = licence
    super().__init__(**arguments)

  def _info(self) -> tfds.core.DatasetInfo:
    return tfds.core.DatasetInfo(
      builder=self,
      description=self._description,
      features=self._feature_spec,
      license=self._licence,
      homepage="see README.md",
      disable_shuffling=True,
    )


def write(
  directory: Path,
  name: str,
  version: str,
  examples: Iterable[Mapping[str, str]],
  *,
  about: Mapping[str, str],
  content: Mapping[str, Any],
  card: str,
) -> Path:
  """Write one set, complete under its version or not at all.

  Args:
    directory: TFDS folder; the set goes to <name>/<version>/ in it.
    name: name of the dataset and of the task that reads it.
    version: "1.MINOR.PATCH".
    examples: with the features `FEATURES`.
    about: "description" and "licence", for TFDS.
    content: the facts that decide the set; they may not change within a version.
    card: the dataset card, written beside the files.

  Returns:
    The folder of the version.

  Raises:
    InputError: that version exists with other content, or the folder is read-only.
  """
  folder = directory / name / version
  if folder.exists():
    noted = folder / CURATED_CONTENT
    if not noted.exists() or storage.read_json(noted) != content:
      major, minor, _ = version.split(".")
      raise InputError(
        f"Publish.version: {folder} holds another set; give a new version, such as "
        f"{major}.{int(minor) + 1}.0"
      )
    storage.write_text(folder / CARD, card)
    return folder
  try:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".", dir=directory) as scratch:
      _build(scratch, name, version, examples, about)
      built = Path(scratch) / name / version
      storage.write_text(built / CARD, card)
      storage.write_json(built / CURATED_CONTENT, content)
      built.rename(folder)
  except OSError as error:
    if error.errno == errno.ENOSPC:
      raise
    raise InputError(
      f"Publish.directory: cannot write to {directory} ({error.strerror or error}); "
      "name another folder"
    ) from None
  return folder


def _build(
  directory: str,
  name: str,
  version: str,
  examples: Iterable[Mapping[str, str]],
  about: Mapping[str, str],
) -> None:
  """Write the set with TFDS, without its progress bars and messages."""
  rows = ({name: example[name] for name in FEATURES} for example in examples)
  text = tfds.features.Text()
  tfds.disable_progress_bar()
  with contextlib.redirect_stdout(io.StringIO()):
    _Builder(
      about.get("licence"),
      name=name,
      version=version,
      features=tfds.features.FeaturesDict(dict.fromkeys(FEATURES, text)),
      split_datasets={"train": enumerate(rows)},
      data_dir=directory,
      description=about.get("description"),
      file_format="tfrecord",
    ).download_and_prepare()
