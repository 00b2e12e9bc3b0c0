"""A folder that appears under its name when it is whole, or never."""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from phi1_jax import InputError

_MARKER = ".converting"  # tells our leftovers from other people's folders


@contextlib.contextmanager
def staged(out: Path, num_bytes: int) -> Iterator[Path]:
  """Gives a folder beside `out` to fill; it becomes `out` when the block ends.

  If the block fails, the folder is deleted. A process that is interrupted or killed
  leaves `<out>.partial` behind, which the next one that is to make `out` clears.

  Args:
    out: the folder to make; it must not exist, or be empty.
    num_bytes: how much it will hold, at least.

  Raises:
    InputError: `out` holds something, is being made by another process, cannot be
      written, or its disk has too little room.
  """
  out = out.absolute()
  refuse_existing(out)
  folder = out.with_name(f"{out.name}.partial")
  try:
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()) and not (folder / _MARKER).exists():
      raise InputError(
        f"{folder}: holds something that no conversion left there; move it away"
      )
    lock = (folder / _MARKER).open("w")
  except OSError as error:
    raise InputError(f"{out}: cannot be written ({error.strerror})") from None
  with lock:
    try:
      fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      raise InputError(f"{out}: another process is converting into it") from None
    try:
      _clear(folder)
      _check_room(out, folder, num_bytes)
      yield folder
      (folder / _MARKER).unlink()
      folder.rename(out)
    except Exception:
      shutil.rmtree(folder, ignore_errors=True)
      raise
    except BaseException:  # Ctrl-C: threads of Orbax may still write into the folder
      with contextlib.suppress(OSError):
        _clear(folder)
      raise


def refuse_existing(out: Path) -> None:
  """Refuses what a finished folder could not replace.

  Raises:
    InputError: `out` is a file, a folder that holds something, or a mount point.
  """
  if out.is_dir() and not any(out.iterdir()):
    if os.path.ismount(out) or out.is_symlink():
      raise InputError(f"{out}: a mount point or a link; name a new folder inside it")
  elif out.exists() or out.is_symlink():
    raise InputError(f"{out}: exists already; name another folder, or delete this one")


def _clear(folder: Path) -> None:
  """Deletes what a killed process left."""
  for path in folder.iterdir():
    if path.is_dir() and not path.is_symlink():
      shutil.rmtree(path)
    elif path.name != _MARKER:
      path.unlink()


def _check_room(out: Path, folder: Path, num_bytes: int) -> None:
  free = shutil.disk_usage(folder).free
  if free < num_bytes:
    raise InputError(
      f"{out}: got {free / 1e9:.1f} GB of free disk, expected at least "
      f"{num_bytes / 1e9:.1f} GB; make room, or name a folder on another disk"
    )
