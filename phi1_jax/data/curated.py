"""Curated sets on disk: TFDS datasets in TFRecord format, which the tasks read.

Every example has the string features `FEATURES`: "text" is for training, examples of
one "group" are held out together, "provenance" is JSON.
"""

from __future__ import annotations

import contextlib
import errno
import io
import types
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from etils import epath

from phi1_jax import InputError, storage
from phi1_jax.data.config import CURATED_CONTENT
from phi1_jax.data.quiet_tensorflow import tfds

FEATURES = ("text", "group", "id", "source", "licence", "provenance")
CARD = "README.md"


class _Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """Base of the builders, of which each name has a class of its own."""

  VERSION = tfds.core.Version("1.0.0")
  pkg_dir_path = epath.Path(__file__).parent  # TFDS would look for the class's file
  examples: ClassVar[Iterable[Mapping[str, str]]] = ()
  about: ClassVar[Mapping[str, str]] = {}

  def _info(self) -> tfds.core.DatasetInfo:
    text = tfds.features.Text()
    return tfds.core.DatasetInfo(
      builder=self,
      description=self.about.get("description", ""),
      features=tfds.features.FeaturesDict(dict.fromkeys(FEATURES, text)),
      license=self.about.get("licence"),
      homepage="see README.md",
      disable_shuffling=True,
    )

  def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
    del dl_manager
    return {"train": self._generate_examples()}

  def _generate_examples(self) -> Any:
    for number, example in enumerate(self.examples):
      yield number, {name: example[name] for name in FEATURES}


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
  content = {"name": name, "VERSION": tfds.core.Version(version)}
  content |= {"examples": examples, "about": about}
  made = types.new_class(
    name.title().replace("_", ""),
    (_Builder,),
    # Otherwise TFDS registers the name for the whole process, once.
    {"skip_registration": True},
    lambda body: body.update(content),
  )
  tfds.disable_progress_bar()
  with contextlib.redirect_stdout(io.StringIO()):
    builder = made(data_dir=str(directory), file_format="tfrecord")
    builder.download_and_prepare()


def _next(version: str) -> str:
  major, minor, _ = version.split(".")
  return f"{major}.{int(minor) + 1}.0"
