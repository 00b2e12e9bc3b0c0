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

from phi1_jax.storage import files, paths
from phi1_jax.storage.lease import HeldError, Lease, is_running
from phi1_jax.storage.paths import AnyPath
from phi1_jax.storage.retry import retrying


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
    self._uploaded: dict[str, tuple[int, float]] = {}  # name -> bytes, time of change
    self.local = local_copy(folder)
    if self._remote is None:
      return
    for old in files.names(self.local.parent):
      if old == self.local.name or not is_running(int(old)):
        shutil.rmtree(self.local.parent / old, ignore_errors=True)
    self.local.mkdir(parents=True)

  def fetch(self, *names: str) -> None:
    """Download files of these names, where they exist; without names, all files.

    Files whose name begins with a dot are locks and unfinished files: they stay.
    """
    if self._remote is None:
      return
    if not names:
      system, bucket, folder = paths.object_of(self._remote)
      place = f"{bucket}/{folder}".rstrip("/") + "/"
      found = retrying(lambda: system.find(place), f"listing {self._remote}")
      found = (path.removeprefix(place) for path in found)
      names = tuple(x for x in found if not x.rpartition("/")[2].startswith("."))
    for name in names:
      with contextlib.suppress(FileNotFoundError):
        files.download(self._remote / name, self.local / name)
        self._uploaded[name] = files.stat(self.local / name)

  def upload(self) -> None:
    """Upload what has changed since the last upload or fetch; COMPLETED comes last.

    What was uploaded or fetched and is gone here is removed there. Files whose name
    begins with a dot stay.

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
    names = {path.relative_to(self.local).as_posix() for path in found}
    for name in sorted(names, key=lambda name: (name.endswith("COMPLETED"), name)):
      try:
        version = files.stat(self.local / name)
        if self._uploaded.get(name) != version:
          files.copy(self.local / name, self._remote / name)
          self._uploaded[name] = version
      except FileNotFoundError:  # a process that works in the folder removed it
        if (self.local / name).exists():
          raise
    for gone in self._uploaded.keys() - names:
      path = self._remote / gone
      retrying(lambda path=path: path.unlink(missing_ok=True), f"removing {path}")
      del self._uploaded[gone]
