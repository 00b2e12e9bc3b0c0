import asyncio
import errno
import os

import pytest

from phi1_jax.llm import lines, scribe
from phi1_jax.llm.journal import KINDS, REPLIES
from phi1_jax.llm.scribe import Books


@pytest.fixture
def folder(tmp_path):
  for kind in KINDS:
    lines.prepare(tmp_path / f"{kind}.jsonl", kind)
  return tmp_path


def rows(folder):
  found = lines.scan(folder / "replies.jsonl", REPLIES)
  return {offset: lines.row(rest) for _, offset, rest in found}


class Disk:
  """Stands in for os.write and os.fsync: a disk that fills up, and counts."""

  def __init__(self, monkeypatch, folder, room):
    self.room, self.syncs, self.folder = room, 0, folder
    self._write, self._fsync = os.write, os.fsync
    monkeypatch.setattr(scribe.os, "write", self.write)
    monkeypatch.setattr(scribe.os, "fsync", self.fsync)

  def write(self, file, content):
    if self.room is not None and (self.folder / "ballast").exists():
      if self.room == 0:
        raise OSError(errno.ENOSPC, "No space left on device")
      content = content[: self.room]  # as a full disk does: a part of it
      self.room -= len(content)
    return self._write(file, content)

  def fsync(self, file):
    self.syncs += 1
    self._fsync(file)


def test_rows_are_on_the_disk_when_awaited_and_share_the_wait(folder, monkeypatch):
  async def write():
    books = Books(folder, 1 << 20)
    disk = Disk(monkeypatch, folder, None)
    offsets = await asyncio.gather(
      *(books.replies.append({"n": number}) for number in range(100))
    )
    assert rows(folder) == {at: {"n": n} for n, at in enumerate(offsets)}
    later = await books.replies.append({"n": 100})
    assert rows(folder)[later] == {"n": 100}
    books.close()
    return disk.syncs

  assert asyncio.run(write()) <= 4


def test_a_full_disk_loses_nothing_that_is_under_way(folder, monkeypatch):
  async def write():
    books = Books(folder, 1 << 20)
    assert (folder / "ballast").stat().st_size == 1 << 20
    Disk(monkeypatch, folder, room=300)
    appended = [books.replies.append({"n": n, "pad": "x" * 40}) for n in range(20)]
    await asyncio.gather(*appended)
    assert books.full
    books.close()

  asyncio.run(write())
  assert [row["n"] for row in rows(folder).values()] == list(range(20))


def test_what_does_not_fit_even_so_is_not_there_at_all(folder, monkeypatch):
  write = os.write

  def fails(file, content):
    if len(content) > 500:
      raise OSError(errno.EFBIG, "File too large")
    return write(file, content)

  async def append():
    books = Books(folder, 1 << 20)
    monkeypatch.setattr(scribe.os, "write", fails)
    texts = ["a", "b" * 1000, "c"]
    appended = [books.replies.append({"text": text}) for text in texts]
    found = await asyncio.gather(*appended, return_exceptions=True)
    books.close()
    return [type(one) for one in found]

  assert asyncio.run(append()) == [int, OSError, int]
  assert [row["text"] for row in rows(folder).values()] == ["a", "c"]


def test_no_room_at_all_is_found_before_anything_is_sent(folder, monkeypatch):
  def full(self, path, size):
    raise OSError(errno.ENOSPC, "No space left on device")

  monkeypatch.setattr(scribe.Ballast, "__init__", full)
  with pytest.raises(OSError, match="No space"):
    Books(folder, 1)
