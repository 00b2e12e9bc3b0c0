"""Whole files: read, write atomically, copy, move. Files of JSON lines: append.

A JSON line is written whole before the next one begins. So a kill tears at most the
last line, and the next process that opens the file removes it. Files of lines are
local: a folder on cloud storage has a `Mirror`.
"""

import contextlib
import errno
import io
import json
import logging
import os
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Self

from phi1_jax import InputError
from phi1_jax.storage import paths
from phi1_jax.storage.paths import AnyPath
from phi1_jax.storage.retry import retrying

log = logging.getLogger(__name__)


def read_bytes(path: AnyPath) -> bytes:
  """Return the content of a file.

  Raises:
    FileNotFoundError: no such file.
    StorageError: it cannot be read for a passing reason that did not pass.
  """
  return retrying(path.read_bytes, f"reading {path}")


def read_text(path: AnyPath) -> str:
  """Return the content of a UTF-8 file; see `read_bytes`."""
  return read_bytes(path).decode("utf-8")


def read_json(path: AnyPath) -> dict[str, Any]:
  """Return the JSON object of a file that an earlier command wrote.

  Raises:
    InputError: the file is missing, or is not a JSON object.
  """
  try:
    content = json.loads(read_bytes(path))
    if not isinstance(content, dict):
      raise ValueError(f"got {type(content).__name__}, expected an object")
    return content
  except FileNotFoundError:
    wanted = "no such file; expected the folder of a run that wrote it"
    raise InputError(f"{path}: {wanted}") from None
  except (OSError, ValueError) as error:
    raise InputError(f"{path}: not readable as JSON ({error})") from None


def names(folder: AnyPath) -> list[str]:
  """Return the sorted names of a folder's entries; none if there is no such folder."""

  def listed() -> list[str]:
    try:
      return sorted(entry.name for entry in folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
      return []

  return retrying(listed, f"listing {folder}")


def exists(path: AnyPath) -> bool:
  """Return whether there is a file or folder; asks again if that fails transiently."""
  return retrying(path.exists, f"looking for {path}")


def stat(path: AnyPath) -> tuple[int, float]:
  """Return the bytes of a file, and when it was changed in Unix seconds."""
  found: Any = retrying(path.stat, f"looking at {path}")
  if paths.is_remote(path):
    return found.length, found.mtime
  return found.st_size, found.st_mtime


def write_bytes(path: AnyPath, content: bytes) -> None:
  """Write a file atomically: readers see the old content or all of the new one.

  It is on the disk, or in the bucket, when this returns.
  """
  with writing(path) as file:
    file.write(content)


def write_text(path: AnyPath, text: str) -> None:
  """Write a UTF-8 file atomically."""
  write_bytes(path, text.encode("utf-8"))


def write_json(path: AnyPath, content: Mapping[str, Any]) -> None:
  """Write a JSON object atomically.

  Raises:
    ValueError: a number is NaN or infinite, which JSON does not have.
  """
  write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


@contextlib.contextmanager
def writing(path: AnyPath) -> Iterator[IO[bytes]]:
  """Open a file that appears under its name when the block ends without exception.

  A local file grows beside `path` as `.<name>.<random>.partial`; one on cloud storage
  is held in memory and stored as one object, which is atomic there.
  """
  if paths.is_remote(path):
    memory = io.BytesIO()
    yield memory
    retrying(lambda: path.write_bytes(memory.getvalue()), f"writing {path}")
    return
  partial = Path(path).with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
  try:
    with partial.open("wb") as file:
      yield file
      file.flush()
      os.fsync(file.fileno())
    os.replace(partial, path)
  except OSError as error:
    error.filename = error.filename or str(path)  # as of a full disk
    raise
  finally:
    with contextlib.suppress(OSError):
      os.unlink(partial)
  folder = os.open(path.parent, os.O_RDONLY)
  with contextlib.suppress(OSError):  # some file systems cannot sync a folder
    os.fsync(folder)
  os.close(folder)


def download(source: AnyPath, target: Path) -> None:
  """Copy one file from cloud storage, atomically.

  Raises:
    FileNotFoundError: no such object.
  """
  target.parent.mkdir(parents=True, exist_ok=True)
  with writing(target) as file:
    copy(source, Path(file.name))


def copy(source: AnyPath, target: AnyPath) -> None:
  """Copy one file to, from or inside cloud storage; it may appear unfinished."""
  from etils import epath  # only where the cloud is used

  def copied() -> None:
    here, there = epath.Path(source), epath.Path(target)
    here.copy(there, overwrite=True)
    sizes: list[int] = [path.stat().length for path in (here, there)]
    if sizes[0] != sizes[1]:
      raise ConnectionError(f"{sizes[1]} of {sizes[0]} bytes arrived")

  retrying(copied, f"copying {source}")


def move(source: AnyPath, target: AnyPath) -> None:
  """Move a folder; on cloud storage, object by object inside the bucket."""
  if paths.is_remote(source):
    system, _, _ = paths.object_of(source)
    # With the slashes, a repetition moves what is left to the same place.
    here, there = f"{source}/", f"{target}/"
    retrying(lambda: system.mv(here, there, recursive=True), f"moving {source}")
  else:
    target.parent.mkdir(parents=True, exist_ok=True)
    os.rename(source, target)


class JsonLines:
  """An open file of JSON lines.

  Attributes:
    rows: the rows of the file, those appended included.

  Args:
    path: a local file; created if missing.
    every: seconds between two syncs to the disk; 0 syncs each line. A killed process
      loses no line either way; a machine that loses power loses those of that time.
    patient: keep rows in memory while the disk is full, and write them later; `close`
      raises if it still is.

  Raises:
    InputError: a line is not a JSON object.
  """

  def __init__(self, path: Path, every: float = 0.0, *, patient: bool = False):
    self.rows = read_lines(path)
    self._every, self._synced = every, time.monotonic()
    self._path, self._patient = path, patient
    self._unwritten = bytearray()
    self._file = path.open("ab", buffering=0)
    self._file.truncate(path.read_bytes().rfind(b"\n") + 1)  # a torn last line

  def append(self, row: dict[str, Any]) -> None:
    """Append one row.

    Raises:
      ValueError: a number is NaN or infinite.
    """
    self._unwritten += json.dumps(row, allow_nan=False).encode() + b"\n"
    self.rows.append(row)
    try:
      self._flush()
    except OSError as error:
      if not self._patient or error.errno not in (errno.ENOSPC, errno.EDQUOT):
        raise
      log.warning("%s: %s; keeping the row in memory", self._path, error.strerror)

  def _flush(self, *, sync: bool = False) -> None:
    try:
      while self._unwritten:  # a full disk may take a part of a line
        del self._unwritten[: os.write(self._file.fileno(), self._unwritten)]
      if sync or time.monotonic() - self._synced >= self._every:
        os.fsync(self._file.fileno())
        self._synced = time.monotonic()
    except OSError as error:
      error.filename = str(self._path)
      raise

  def close(self) -> None:
    """Sync and close the file."""
    try:
      self._flush(sync=True)
    finally:
      self._file.close()

  def __enter__(self) -> Self:
    return self

  def __exit__(self, *exception: object) -> None:
    self.close()


def read_lines(path: AnyPath) -> list[dict[str, Any]]:
  """Return the rows of a file of JSON lines; none if it is missing.

  A last line without a line end is torn, and left out.

  Raises:
    InputError: the file cannot be read, or a line is not a JSON object.
  """
  try:
    content = read_bytes(path)
  except FileNotFoundError:
    return []
  except OSError as error:
    raise InputError(f"{path}: cannot be read ({error.strerror})") from None
  return [row for _, row in json_objects(content.split(b"\n")[:-1], path)]


def json_objects(
  lines: Iterable[str | bytes], place: AnyPath
) -> Iterator[tuple[int, dict[str, Any]]]:
  """Yield the objects of JSON lines, each with the number of its line, from 1.

  Args:
    lines: empty ones are left out.
    place: the file, for messages.

  Raises:
    InputError: a line is not a JSON object.
  """
  for number, line in enumerate(lines, 1):
    if not line.strip():
      continue
    try:
      row = json.loads(line)
    except ValueError:
      row = None
    if not isinstance(row, dict):
      raise InputError(
        f"{place}, line {number}: got {line[:60]!r}, expected a JSON object; change or "
        "delete the line"
      )
    yield number, row
