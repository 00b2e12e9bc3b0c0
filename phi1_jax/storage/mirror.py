"""A local copy of a folder on cloud storage.

Objects there cannot be appended to. So metrics.jsonl, completions.jsonl, event files
and the like grow in a local folder, and are uploaded at each checkpoint and at the
end. What is in the bucket counts: a new start on any machine begins with it.
"""

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from phi1_jax.storage import paths, retry
from phi1_jax.storage.paths import AnyPath


def cache_folder() -> Path:
  """Return the folder for local copies: `$PHI1_JAX_CACHE`, or ~/.cache/phi1_jax."""
  return Path(os.environ.get("PHI1_JAX_CACHE", "~/.cache/phi1_jax")).expanduser()


def local_copy(folder: AnyPath) -> Path:
  """Return where this machine keeps the files of a folder that grow."""
  if not paths.is_remote(folder):
    return Path(folder)
  name = f"{hashlib.sha256(str(folder).encode()).hexdigest()[:16]}-{folder.name}"
  return cache_folder() / "mirrors" / name


class Mirror:
  """Local copies of a folder's files; a local folder is its own mirror.

  Attributes:
    local: where the files are read and written. Empty at first if the folder is on
      cloud storage.

  Args:
    folder: the folder that the files belong to.
  """

  def __init__(self, folder: AnyPath):
    self._remote = folder if paths.is_remote(folder) else None
    self._uploaded: dict[Path, tuple[int, int]] = {}
    self.local = local_copy(folder)
    if self._remote is None:
      return
    shutil.rmtree(self.local, ignore_errors=True)  # the bucket counts
    self.local.mkdir(parents=True)

  def fetch(self, *names: str) -> None:
    """Download files of these names, where they exist; without names, all files."""
    if self._remote is None:
      return
    found = [self._remote / name for name in names] or list(_walk(self._remote))
    for source in found:
      target = self.local / os.path.relpath(os.fspath(source), os.fspath(self._remote))
      with contextlib.suppress(FileNotFoundError):
        download(source, target)
        self._uploaded[target] = _version(target)

  def upload(self) -> None:
    """Upload what has changed since the last upload or fetch; COMPLETED comes last.

    What was uploaded or fetched and is gone here is removed there. Files whose name
    begins with a dot are locks and unfinished files: they stay.

    Raises:
      StorageError: the bucket cannot be written for a passing reason that did not
        pass.
    """
    if self._remote is None:
      return
    found = [
      path
      for path in self.local.rglob("*")
      if path.is_file() and not path.name.startswith(".")
    ]
    for source in sorted(found, key=lambda path: (path.name == "COMPLETED", path)):
      try:
        version = _version(source)
        if self._uploaded.get(source) != version:
          _copy(source, self._target(source), "uploading")
          self._uploaded[source] = version
      except FileNotFoundError:  # a process that works in the folder removed it
        if source.exists():
          raise
    for gone in self._uploaded.keys() - set(found):
      target = self._target(gone)
      retry.retrying(lambda t=target: t.unlink(missing_ok=True), f"removing {target}")
      del self._uploaded[gone]

  def _target(self, source: Path) -> AnyPath:
    assert self._remote is not None
    return self._remote / source.relative_to(self.local).as_posix()


@contextlib.contextmanager
def mirrored(folder: AnyPath) -> Iterator[Path]:
  """Give a local folder with all files of `folder`; upload changes at the end.

  Changes are uploaded after an exception, too, and after a Ctrl-C.
  """
  mirror = Mirror(folder)
  mirror.fetch()
  try:
    yield mirror.local
  finally:
    mirror.upload()


def download(source: AnyPath, target: Path) -> None:
  """Copy one file from cloud storage, atomically.

  Raises:
    FileNotFoundError: no such object.
  """
  target.parent.mkdir(parents=True, exist_ok=True)
  partial = target.with_name(f".{target.name}.partial")
  _copy(source, partial, "downloading")
  os.replace(partial, target)


def _copy(source: AnyPath, target: AnyPath, doing: str) -> None:
  from etils import epath

  def copy() -> None:
    epath.Path(source).copy(target, overwrite=True)
    sizes: list[int] = [epath.Path(path).stat().length for path in (source, target)]
    if sizes[0] != sizes[1]:
      raise ConnectionError(f"{sizes[1]} of {sizes[0]} bytes arrived")

  retry.retrying(copy, f"{doing} {source}")


def _walk(folder: AnyPath) -> Iterator[AnyPath]:
  from etils import epath

  for place, _, names in retry.retrying(
    lambda: list(epath.Path(folder).walk()), f"listing {folder}"
  ):
    for name in names:
      if not name.startswith("."):
        yield paths.parse(_absolute(place)) / name


def _absolute(place: object) -> str:
  """Return a folder's full name; gcsfs leaves the scheme out."""
  text = str(place)
  return text if paths.is_remote(text) else f"gs://{text}"


def _version(path: Path) -> tuple[int, int]:
  found = path.stat()
  return found.st_size, found.st_mtime_ns
