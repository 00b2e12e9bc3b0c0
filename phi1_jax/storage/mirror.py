"""A local copy of a folder on cloud storage.

Objects there cannot be appended to. So metrics.jsonl, completions.jsonl, event files
and the like grow in a local folder, and are uploaded at each checkpoint and at the
end. What is in the bucket counts: a new start on any machine begins with it.
"""

import contextlib
import hashlib
import os
import shutil
import socket
from pathlib import Path

from phi1_jax.storage import files, paths, retry
from phi1_jax.storage.lease import HeldError, Lease, is_running
from phi1_jax.storage.paths import AnyPath


def cache_folder() -> Path:
  """Return the folder for local copies: `$PHI1_JAX_CACHE`, or ~/.cache/phi1_jax."""
  return Path(os.environ.get("PHI1_JAX_CACHE", "~/.cache/phi1_jax")).expanduser()


def local_copy(folder: AnyPath) -> Path:
  """Return where this process keeps the files of a folder that grow."""
  if not paths.is_remote(folder):
    return Path(folder)
  digest = hashlib.sha256(str(folder).encode()).hexdigest()[:16]
  name = f"{digest}-{folder.name}-{socket.gethostname()}"
  return cache_folder() / "mirrors" / name / str(os.getpid())


class Mirror:
  """Local copies of a folder's files; a local folder is its own mirror.

  Attributes:
    local: where the files are read and written. Empty at first if the folder is on
      cloud storage.

  Args:
    folder: the folder that the files belong to.
    lease: the lock of the folder; once it is lost, nothing is uploaded.
  """

  def __init__(self, folder: AnyPath, lease: Lease | None = None):
    self._lease = lease
    self._remote = folder if paths.is_remote(folder) else None
    self._uploaded: dict[Path, tuple[int, int]] = {}
    self.local = local_copy(folder)
    if self._remote is None:
      return
    for old in files.names(self.local.parent):
      if old == self.local.name or not is_running(int(old)):
        shutil.rmtree(self.local.parent / old, ignore_errors=True)
    self.local.mkdir(parents=True)

  def fetch(self, *names: str) -> None:
    """Download files of these names, where they exist; without names, all files."""
    if self._remote is None:
      return
    found = [self._remote / name for name in names] or _walk(self._remote)
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
      HeldError: another process has taken the folder over.
    """
    if self._remote is None:
      return
    if self._lease and self._lease.lost:
      raise HeldError(f"{self._remote}: another process goes on here")
    found = [path for path in self.local.rglob("[!.]*") if path.is_file()]
    for source in sorted(found, key=lambda path: (path.name == "COMPLETED", path)):
      try:
        version = _version(source)
        if self._uploaded.get(source) != version:
          target = self._remote / source.relative_to(self.local).as_posix()
          _copy(source, target, "uploading")
          self._uploaded[source] = version
      except FileNotFoundError:  # a process that works in the folder removed it
        if source.exists():
          raise
    for gone in self._uploaded.keys() - set(found):
      target = self._remote / gone.relative_to(self.local).as_posix()
      retry.retrying(lambda t=target: t.unlink(missing_ok=True), f"removing {target}")
      del self._uploaded[gone]


def download(source: AnyPath, target: Path) -> None:
  """Copy one file from cloud storage, atomically.

  Raises:
    FileNotFoundError: no such object.
  """
  target.parent.mkdir(parents=True, exist_ok=True)
  partial = files.partial_of(target)
  _copy(source, partial, "downloading")
  with partial.open("rb+") as file:
    os.fsync(file.fileno())
  os.replace(partial, target)


def _copy(source: AnyPath, target: AnyPath, doing: str) -> None:
  from etils import epath

  def copy() -> None:
    epath.Path(source).copy(target, overwrite=True)
    sizes: list[int] = [epath.Path(path).stat().length for path in (source, target)]
    if sizes[0] != sizes[1]:
      raise ConnectionError(f"{sizes[1]} of {sizes[0]} bytes arrived")

  retry.retrying(copy, f"{doing} {source}")


def _walk(folder: AnyPath) -> list[AnyPath]:
  """Return all files under a folder on cloud storage, but for hidden ones."""
  system, _, _ = paths.object_of(folder)

  def find() -> list[str]:
    try:
      return system.find(os.fspath(folder))
    except FileNotFoundError:
      return []

  names = retry.retrying(find, f"listing {folder}")
  shown = [name for name in names if not name.rpartition("/")[2].startswith(".")]
  return [paths.parse(f"gs://{name}") for name in shown]


def _version(path: Path) -> tuple[int, int]:
  found = path.stat()
  return found.st_size, found.st_mtime_ns
