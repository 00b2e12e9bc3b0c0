"""Writes the journal: what a caller has awaited is on the disk."""

import asyncio
import errno
import os
from pathlib import Path
from typing import Any

from phi1_jax.llm import lines
from phi1_jax.llm.journal import KINDS

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Ballast:
  """Disk space held back, so that replies under way can be written to a full disk.

  Args:
    path: of the file that takes the space.
    size: bytes.

  Attributes:
    dropped: whether the space was given back.

  Raises:
    OSError: there is no such space.
  """

  def __init__(self, path: Path, size: int):
    self._path, self.dropped = path, False
    with path.open("wb") as file:
      for _ in range(0, size, 1 << 20):
        file.write(os.urandom(1 << 20))  # which no file system stores in less
      os.fsync(file.fileno())

  def drop(self) -> None:
    """Gives the space back."""
    self.dropped = True
    self._path.unlink(missing_ok=True)


class Scribe:
  """Appends rows to one file; those that wait together share one wait for the disk.

  Args:
    path: a file that `lines.prepare` has prepared.
    ballast: dropped when the disk is full.
  """

  def __init__(self, path: Path, ballast: Ballast):
    self._file = os.open(path, os.O_WRONLY | os.O_APPEND)
    self._size = os.fstat(self._file).st_size
    self._ballast = ballast
    self._waiting: list[tuple[bytes, asyncio.Future[int]]] = []
    self._work: asyncio.Task[None] | None = None

  async def append(self, row: dict[str, Any]) -> int:
    """Writes a row; returns its offset once it is on the disk.

    Raises:
      OSError: it is not, and nothing of it is.
    """
    future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    self._waiting.append((lines.seal(row), future))
    if self._work is None or self._work.done():
      self._work = asyncio.create_task(self._write_waiting())
    return await future

  async def _write_waiting(self) -> None:
    while self._waiting:
      batch, self._waiting = self._waiting, []
      offset = self._size
      try:
        await asyncio.to_thread(self._write, b"".join(line for line, _ in batch))
      except OSError:
        for line, future in batch:  # one that does not fit must not cost the others
          await self._write_one(line, future)
      else:
        for line, future in batch:
          future.set_result(offset)
          offset += len(line)

  async def _write_one(self, line: bytes, future: asyncio.Future[int]) -> None:
    offset = self._size
    try:
      await asyncio.to_thread(self._write, line)
    except OSError as error:
      future.set_exception(error)
    else:
      future.set_result(offset)

  def _write(self, content: bytes) -> None:
    try:
      self._write_whole(content)
    except OSError as error:
      if error.errno not in _FULL or self._ballast.dropped:
        raise
      self._ballast.drop()
      self._write_whole(content)

  def _write_whole(self, content: bytes) -> None:
    """Appends all of it or nothing."""
    rest = memoryview(content)
    try:
      while rest:
        rest = rest[os.write(self._file, rest) :]
      os.fsync(self._file)
    except OSError:
      os.ftruncate(self._file, self._size)
      raise
    self._size += len(content)

  def close(self) -> None:
    """Closes the file."""
    os.close(self._file)


class Books:
  """A journal's folder, open for writing by the process that holds its lock.

  Args:
    folder: the journal.
    ballast: bytes of disk held back for replies under way.

  Raises:
    OSError: the disk is full or does not work.
  """

  def __init__(self, folder: Path, ballast: int):
    self.folder = folder
    self._ballast = Ballast(folder / "ballast", ballast)
    scribes = {kind: Scribe(folder / f"{kind}.jsonl", self._ballast) for kind in KINDS}
    self.replies, self.sent, self.failures, self.batches = scribes.values()

  @property
  def full(self) -> bool:
    """Whether the ballast had to go: then nothing more must be sent."""
    return self._ballast.dropped

  def close(self) -> None:
    """Closes the files and gives the ballast back."""
    for scribe in (self.replies, self.sent, self.failures, self.batches):
      scribe.close()
    self._ballast.drop()
