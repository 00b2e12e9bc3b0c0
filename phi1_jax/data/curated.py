"""Curated sets on disk: TFDS datasets in TFRecord format, which the tasks read.

Every example has the string features `FEATURES`: "text" is for training, examples of
one "group" are held out together, "provenance" is JSON.
"""

from __future__ import annotations

import contextlib
import errno
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from phi1_jax import InputError, storage
from phi1_jax.data.config import CURATED_CONTENT
from phi1_jax.data.quiet_tensorflow import tfds

FEATURES = ("text", "group", "id", "source", "licence", "provenance")
CARD = "README.md"


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
  begun = directory / name / f".{version}.json"
  if folder.exists():
    noted = folder / CURATED_CONTENT if (folder / CURATED_CONTENT).exists() else begun
    if not noted.exists() or storage.read_json(noted) != content:
      raise InputError(
        f"Publish.version: {folder} holds another set; give a new version, such as "
        f"{_next(version)}"
      )
  else:
    try:
      begun.parent.mkdir(parents=True, exist_ok=True)
      storage.write_json(begun, content)
      _build(directory, name, version, examples, about)
    except OSError as error:
      if error.errno == errno.ENOSPC:
        raise
      raise InputError(
        f"Publish.directory: cannot write to {directory} ({error.strerror or error}); "
        "name another folder"
      ) from None
  storage.write_text(folder / CARD, card)
  storage.write_json(folder / CURATED_CONTENT, content)
  begun.unlink(missing_ok=True)
  return folder


def _build(
  directory: Path,
  name: str,
  version: str,
  examples: Iterable[Mapping[str, str]],
  about: Mapping[str, str],
) -> None:
  """Write the set with TFDS, without its progress bars and messages."""
  rows = ({name: example[name] for name in FEATURES} for example in examples)
  tfds.disable_progress_bar()
  with contextlib.redirect_stdout(io.StringIO()):
    builder = _Builder(
      about.get("licence"),
      name=name,
      version=version,
      features=tfds.features.FeaturesDict(
        dict.fromkeys(FEATURES, tfds.features.Text())
      ),
      split_datasets={"train": enumerate(rows)},
      data_dir=str(directory),
      description=about.get("description"),
      file_format="tfrecord",
    )
    builder.download_and_prepare()


def _next(version: str) -> str:
  major, minor, _ = version.split(".")
  return f"{major}.{int(minor) + 1}.0"
