"""Append-only files of JSON lines that survive a killed process.

A line is written whole before the next one begins. So a kill tears at most the last
line, and the next process that opens the file removes it. Files are local: a folder
on cloud storage has a `Mirror`.
"""

import errno
import json
import logging
import os
import time
from pathlib import Path
from typing import Any, Self

from phi1_jax import InputError
from phi1_jax.storage import files
from phi1_jax.storage.paths import AnyPath

log = logging.getLogger(__name__)


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
    InputError: a line is no JSON object.
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
    while self._unwritten:  # a full disk may take a part of a line
      del self._unwritten[: os.write(self._file.fileno(), self._unwritten)]
    if sync or time.monotonic() - self._synced >= self._every:
      os.fsync(self._file.fileno())
      self._synced = time.monotonic()

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
    InputError: the file cannot be read, or a line is no JSON object.
  """
  try:
    content = files.read_bytes(path)
  except FileNotFoundError:
    return []
  except OSError as error:
    raise InputError(f"{path}: cannot be read ({error.strerror})") from None
  rows = []
  for number, line in enumerate(content.split(b"\n")[:-1], 1):
    if not line.strip():
      continue
    try:
      row = json.loads(line)
    except ValueError:
      row = None
    if not isinstance(row, dict):
      raise InputError(
        f"{path} line {number}: got {line[:60]!r}, expected a JSON object; delete the "
        "line or move the file away"
      )
    rows.append(row)
  return rows
