"""The journal's file."""

import asyncio
import json
import multiprocessing
import sqlite3

import pytest

from phi1_jax import InputError
from phi1_jax.llm import journal
from phi1_jax.llm.journal import Journal, Writer
from tests.llm.conftest import requests

pytestmark = pytest.mark.usefixtures("thread_sender")


def test_the_request_is_kept_with_its_reply(llm):
  pytest.importorskip("openai")
  llm.ask(1)
  with sqlite3.connect(llm.folder / "journal.sqlite") as database:
    ((request, outcome),) = database.execute("SELECT request, outcome FROM calls")
    assert json.loads(request) == requests(1)[0].content(llm.config())
    assert outcome == "reply"
    database.execute("UPDATE calls SET raw = CAST('{}' AS BLOB)")
  with pytest.raises(InputError, match="the reply of call 0 is damaged"):
    llm.ask(1)


def create(folder):
  Journal(folder).close()


def test_processes_may_create_a_journal_at_the_same_time(tmp_path):
  with multiprocessing.get_context("fork").Pool(6) as pool:
    for number in range(3):
      pool.map(create, [tmp_path / str(number)] * 6, chunksize=1)


@pytest.mark.parametrize("make", ["file", "garbage", "version"])
def test_what_is_not_a_journal_is_refused_in_two_lines(tmp_path, make):
  folder = tmp_path / "journal"
  if make == "file":
    folder.write_text("x")
  else:
    create(folder)
    with sqlite3.connect(folder / "journal.sqlite") as database:
      database.execute("PRAGMA user_version = 9")
  if make == "garbage":
    (folder / "journal.sqlite").write_bytes(b"no database at all" * 100)
  with pytest.raises(InputError, match=r"Llm\.journal") as caught:
    Journal(folder)
  assert str(caught.value).count("\n") <= 1


@pytest.mark.parametrize(
  ("kind", "refused"),
  [
    *[(kind, True) for kind in ("nfs4", "lustre", "cifs", "fuse.sshfs", "fuse")],
    *[(kind, False) for kind in ("ext4", "tmpfs", "fuse.fuse-overlayfs", "fuseblk")],
  ],
)
def test_only_a_network_file_system_is_refused(tmp_path, monkeypatch, kind, refused):
  shared = tmp_path / "a shared" / "disk"
  place = str(shared.parent).replace(" ", r"\040")
  mounts = tmp_path / "mounts"
  mounts.write_text(
    f"/dev/a / nfs rw 0 0\nauto {place} autofs rw 0 0\n"
    f"host:/x {place} {kind} rw 0 0\n/dev/a {tmp_path}/other nfs rw 0 0\n"
  )
  monkeypatch.setattr(journal, "_MOUNTS", mounts)
  if not refused:
    return create(shared)
  with pytest.raises(InputError, match=rf"got .*disk on {kind}") as caught:
    Journal(shared)
  assert "\n" not in str(caught.value)
  assert list(shared.iterdir()) == []


def call(number, **columns):
  return journal.insert("calls", number=number, key=f"k{number}", reserve=1, **columns)


def test_what_tasks_write_together_is_committed_and_after_an_error_nothing_more(
  tmp_path,
):
  create(tmp_path)
  writer = Writer(tmp_path / "journal.sqlite", 1000)

  async def commit(*groups):
    """Writes groups of statements at once, and returns their errors."""
    writes = (writer.write(*group) for group in groups)
    return await asyncio.wait_for(asyncio.gather(*writes, return_exceptions=True), 300)

  async def work():
    found = await commit([call(1)], [call(3)])
    return found, await commit([call(2), call(1)], [call(4)], [call(5)])

  good, bad = asyncio.run(work())
  assert good == [None, None]
  assert {type(each) for each in bad} == {sqlite3.IntegrityError}
  numbers = writer._database.execute("SELECT number FROM calls").fetchall()
  assert numbers == [(1,), (3,)]
  assert not writer.full
  assert (tmp_path / "spare").exists()
  writer.close()
