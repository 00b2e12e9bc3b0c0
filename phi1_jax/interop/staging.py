"""Output folders that appear under their names only when they are complete."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from phi1_jax import InputError, storage
from phi1_jax.storage import AnyPath
from phi1_jax.storage.lease import FILE_NAME as LOCK

_MADE = "made"
_MARK = ".converting"  # in a folder on cloud storage until it is complete


@contextlib.contextmanager
def staged(out: AnyPath, num_bytes: int) -> Iterator[AnyPath]:
  """Give a folder to fill; it is `out` when the block ends.

  A local folder is filled as `<out>.partial/made` and renamed. A folder on cloud
  storage is filled in place, with a mark in it until it is complete. If the block
  fails, all of it is deleted; after a kill, the next process that makes `out` does so.

  Args:
    out: the folder to make; it must not exist, or be empty.
    num_bytes: the least that it will hold.

  Raises:
    InputError: `out` holds something, is being made by another process, cannot be
      written, or its disk is too full.
  """
  refuse_existing(out)
  if storage.is_remote(out):
    with storage.Lease(out, "converting", flag="out"):
      refuse_existing(out)  # another process may have made it since
      storage.write_text(out / _MARK, "unfinished\n")
      with _cleared(out):
        yield out
      _unmark(out)
    return
  out = Path(out).absolute()
  room = out.with_name(f"{out.name}.partial")
  folder = room / _MADE
  if set(storage.names(room)) - {LOCK, _MADE}:
    raise InputError(
      f"{room}: holds something that no conversion left there; move it away"
    )
  try:
    with storage.Lease(room, "converting", flag="out"), _cleared(folder):
      folder.mkdir()
      free = shutil.disk_usage(folder).free
      if free < num_bytes:
        raise InputError(
          f"{out}: got {free / 1e9:.1f} GB of free disk, expected at least "
          f"{num_bytes / 1e9:.1f} GB; make room, or name a folder on another disk"
        )
      yield folder
      folder.rename(out)
  finally:
    with contextlib.suppress(OSError):  # something was left in it
      room.rmdir()


def refuse_existing(out: AnyPath) -> None:
  """Refuse a folder that cannot be replaced by a finished one.

  Raises:
    InputError: `out` is a file, a folder that holds something, or a mount point.
  """
  names = storage.names(out)
  if storage.is_remote(out):
    exists = _MARK not in names and set(names) - {LOCK}
  else:
    out = Path(out)
    if out.is_dir() and not names:
      if os.path.ismount(out) or out.is_symlink():
        raise InputError(f"{out}: a mount point or a link; name a new folder inside it")
      return
    exists = out.exists() or out.is_symlink()
  if exists:
    raise InputError(f"{out}: exists already; name another folder, or delete this one")


@contextlib.contextmanager
def _cleared(folder: AnyPath) -> Iterator[None]:
  """Empty a folder at the start, and after an exception."""
  _clear(folder)
  try:
    yield
  except BaseException:
    # Threads of Orbax may still write into it.
    with contextlib.suppress(OSError, storage.StorageError):
      _clear(folder)
      _unmark(folder)
    raise


def _clear(folder: AnyPath) -> None:
  """Delete a local folder, or what a conversion made in one on cloud storage."""
  if not storage.is_remote(folder):
    shutil.rmtree(folder, ignore_errors=True)
    return
  from etils import epath

  names = {*storage.names(folder)}
  for name in names - {LOCK, _MARK} if _MARK in names else ():
    place = epath.Path(folder / name)
    storage.retrying(place.rmtree, f"deleting {place}")


def _unmark(folder: AnyPath) -> None:
  mark = folder / _MARK
  storage.retrying(lambda: mark.unlink(missing_ok=True), f"deleting {mark}")
