"""The journal's file."""

import asyncio
import json
import multiprocessing
import pathlib
import sqlite3
import zlib

import pytest

from phi1_jax import InputError
from phi1_jax.llm import import_jsonl, journal
from phi1_jax.llm.journal import Journal, Writer

pytestmark = pytest.mark.usefixtures("thread_sender")


def write_old(folder, kind, rows, tail=b""):
  """Write a file of a journal of version 0.1."""
  folder.mkdir(exist_ok=True)
  lines = [json.dumps({"journal": f"phi1_jax.llm {kind}", "version": 1}).encode()]
  for row in rows:
    rest = json.dumps({"time": 1.0, **row}).encode()[1:]
    lines.append(b'{"crc32": "%08x", ' % zlib.crc32(rest) + rest)
  (folder / f"{kind}.jsonl").write_bytes(b"\n".join(lines) + b"\n" + tail)


@pytest.fixture
def old(configure, requests, server):
  """A journal of version 0.1: a reply, a broken one, a failure and a lost call."""
  config = configure(server.url)
  folder, wanted = pathlib.Path(config.journal), requests(4)
  sent = [{"call": n, "key": f"k{n}", "reserve": 100, "batch": None} for n in range(4)]
  write_old(folder, "sent", sent, b'{"crc32": "torn')
  message = {"message": {"content": "answer old"}, "finish_reason": "stop"}
  good = json.dumps({"choices": [message]})
  replies = [
    {
      **{"key": f"k{n}", "call": n, "picodollars": cost, "batch": None, "raw": raw},
      **{"usage": {"prompt": 3, "completion": 2}, "price": {}, "sample": 0},
      **{"prompt_id": "test", "prompt_version": "1"},
      "request": wanted[n].content(config)["body"],
    }
    for n, (raw, cost) in enumerate([(good, 10), ('{"broken', 70)])
  ]
  write_old(folder, "replies", replies)
  failure = {"call": 2, "key": "k2", "released": True, "status": 500, "reason": "x"}
  write_old(folder, "failures", [failure])
  return config, folder, wanted


def test_the_journal_of_version_0_1_is_converted(server, ask, old, capsys):
  config, folder, wanted = old
  with pytest.raises(InputError, match=f"import_jsonl {folder} --base_url"):
    Journal(folder)
  before = {path.name: path.read_bytes() for path in folder.iterdir()}
  words = [str(folder), f"--base_url={config.base_url}/"]
  assert import_jsonl.main(words) == 0
  assert capsys.readouterr().out == f"{folder}/journal.sqlite: 4 calls\n"
  budget = Journal(folder).budget(1000)
  assert (budget.spent, budget.doubtful, budget.doubtful_calls) == (10, 170, 2)
  (outcome,) = ask(config, wanted[:1])
  assert outcome.value == "answer old"
  assert server.counts()["came"] == 0
  assert {n: (folder / n).read_bytes() for n in before} == before
  assert import_jsonl.main(words) == 2


def test_what_cannot_be_converted_is_named(old):
  _, folder, _ = old
  path = folder / "replies.jsonl"
  path.write_bytes(path.read_bytes().replace(b"answer", b"anSwer"))
  with pytest.raises(InputError, match=r"replies.jsonl, line 2: damaged"):
    import_jsonl.convert(folder, "u")
  path.write_bytes(path.read_bytes().replace(b"anSwer", b"answer"))
  write_old(folder, "batches", [{"batch": "b", "state": "created", "id": "batch_9"}])
  with pytest.raises(InputError, match="batch_9 is not finished"):
    import_jsonl.convert(folder, "u")
  assert not (folder / "journal.sqlite").exists()


def test_the_request_is_kept_with_its_reply(server, configure, requests, ask):
  pytest.importorskip("openai")
  config = configure(server.url)
  (wanted,) = requests(1)
  ask(config, [wanted])
  with sqlite3.connect(pathlib.Path(config.journal) / "journal.sqlite") as database:
    ((request, outcome),) = database.execute("SELECT request, outcome FROM calls")
    assert json.loads(request) == wanted.content(config)
    assert outcome == "reply"
    database.execute("UPDATE calls SET raw = CAST('{}' AS BLOB)")
  with pytest.raises(InputError, match="the reply of call 0 is damaged"):
    ask(config, [wanted])


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
    Journal(folder).close()
    if make == "garbage":
      (folder / "journal.sqlite").write_bytes(b"no database at all" * 100)
    else:
      with sqlite3.connect(folder / "journal.sqlite") as database:
        database.execute("PRAGMA user_version = 9")
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
  mounts.write_text(f"/dev/a / nfs rw 0 0\nauto {place} autofs rw 0 0\n")
  with mounts.open("a") as file:
    file.write(f"host:/x {place} {kind} rw 0 0\n/dev/a {tmp_path}/other nfs rw 0 0\n")
  monkeypatch.setattr(journal, "_MOUNTS", mounts)
  if not refused:
    return Journal(shared).close()
  with pytest.raises(InputError, match=rf"got .*disk on {kind}") as caught:
    Journal(shared)
  assert "\n" not in str(caught.value)
  assert list(shared.iterdir()) == []


def call(number, **columns):
  return journal.insert("calls", number=number, key=f"k{number}", reserve=1, **columns)


def commit(writer, *groups):
  """Writes groups of statements at once, and returns their errors."""

  async def run():
    writes = [writer.write(group) for group in groups]
    return await asyncio.wait_for(asyncio.gather(*writes, return_exceptions=True), 20)

  return asyncio.run(run())


@pytest.fixture
def writer(tmp_path):
  Journal(tmp_path).close()
  writer = Writer(tmp_path / "journal.sqlite", 1000)
  yield writer
  writer.close()


@pytest.mark.parametrize(
  ("bad", "error"),
  [
    (call(0, cost=2**64), OverflowError),
    (call(0, reason="\ud83d"), UnicodeEncodeError),
    (call(1), sqlite3.IntegrityError),
  ],
)
def test_a_bad_statement_fails_alone(tmp_path, writer, bad, error):
  found = commit(writer, [call(1)], [call(2), bad], (call(n) for n in [3]))
  assert [type(each) for each in found] == [type(None), error, type(None)]
  numbers = writer._database.execute("SELECT number FROM calls").fetchall()
  assert numbers == [(1,), (3,)]
  assert not writer.full
  assert (tmp_path / "spare").exists()
