"""Paths as a user writes them: local, or `gs://bucket/folder`."""

import functools
import glob
import importlib.util
import logging
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phi1_jax import InputError, how_to_install

if TYPE_CHECKING:
  from etils import epath

  AnyPath = Path | epath.Path
else:
  AnyPath = os.PathLike


def parse(name: str | os.PathLike) -> "AnyPath":
  """Return a path object for a path that a user wrote.

  Args:
    name: a local path, or `gs://bucket/...`. A `~` at the start is the home folder.

  Returns:
    A `pathlib.Path`, or an `etils.epath.Path` that has the same methods. Do not give
    the latter to `pathlib.Path`, which would turn it into a local path `gs:/bucket`.

  Raises:
    InputError: another scheme (`s3://`, `hf://`), no bucket, or no gcsfs installed.
  """
  text = os.fspath(name)
  if re.fullmatch(r"gs://[\w.-]+(/.*)?", text):
    _prepare()
    from etils import epath

    return epath.Path(text.rstrip("/"))
  if found := re.match(r"([A-Za-z][\w+.-]*:/|gs//)/?", text):
    raise InputError(
      f"{text}: got {found[0]}, expected a local path or gs://bucket/folder; mount "
      "other storage, or copy the files"
    )
  return Path(text).expanduser()


def full(path: "AnyPath") -> "AnyPath":
  """Return the path from the root of the file system, or from the bucket."""
  return path if is_remote(path) else Path(path).absolute()


def is_remote(path: str | os.PathLike) -> bool:
  """Return whether a path is on cloud storage."""
  return os.fspath(path).startswith("gs://")


def object_of(path: "AnyPath") -> tuple[Any, str, str]:
  """Return gcsfs's file system for a gs:// path, and names of bucket and object."""
  import fsspec

  bucket, _, name = os.fspath(path).removeprefix("gs://").partition("/")
  return fsspec.filesystem("gcs"), bucket, name


def matching(pattern: str, folder: str | os.PathLike = ".") -> list[str]:
  """Return the sorted local paths that match a pattern, as `glob.glob` does.

  `**` follows a link to a folder, unless that was seen or has the search inside.

  Args:
    pattern: absolute, or relative to the folder.
    folder: where a relative pattern begins.
  """
  cut = re.search(r"(?:^|/)\*\*(?:/|$)", pattern)
  if cut is None:
    return sorted(glob.glob(pattern, root_dir=folder))
  head, tail = pattern[: cut.start()], pattern[cut.end() :] or "*"
  if pattern.startswith("/"):
    head = head or "/"
  found = set[str]()
  for top in glob.glob(head, root_dir=folder) if head else [""]:
    start = os.path.join(folder, top)
    root, seen = os.path.realpath(start), set[str]()
    for place, inner, _ in os.walk(start, followlinks=True):
      here = os.path.realpath(place)
      around = here != root and root.startswith(here.rstrip("/") + "/")
      if around or here in seen:
        inner.clear()
        continue
      seen.add(here)
      inner[:] = sorted(name for name in inner if not name.startswith("."))
      below = os.path.relpath(place, start)
      inside = top if below == "." else os.path.join(top, below)
      found.update(os.path.join(inside, name) for name in matching(tail, place))
  return sorted(found)


def real(path: str | os.PathLike) -> str:
  """Return the path of a file without links, the same for every way to it."""
  return os.fspath(path) if is_remote(path) else os.path.realpath(path)


@functools.cache
def _prepare() -> None:
  """Set up etils and gcsfs before their first use."""
  if importlib.util.find_spec("gcsfs") is None:
    raise InputError(f"gs:// paths need gcsfs: {how_to_install('gcs')}")
  from etils.epath import gpath
  from fsspec import config

  # Without this, etils would import TensorFlow wherever it is installed. It may have
  # decided so already: Orbax uses it for local paths too.
  os.environ["EPATH_USE_TF"] = "false"
  gpath._is_tf_installed.cache_clear()
  # Its errors are raised as well, without pages of traceback in the log.
  logging.getLogger("gcsfs").setLevel(logging.CRITICAL)
  # Another host may have changed a folder since this process last listed it.
  config.conf.setdefault("gcs", {})["use_listings_cache"] = False
