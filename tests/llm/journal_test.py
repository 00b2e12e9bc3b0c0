"""The journal's file, and the import of an earlier version's."""

import asyncio
import json
import multiprocessing
import pathlib
import sqlite3
import time
import zlib

import pytest

from phi1_jax import InputError
from phi1_jax.llm import journal
from phi1_jax.llm.client import Client
from phi1_jax.llm.journal import Journal, Writer
from phi1_jax.llm.request import old_digest

pytestmark = pytest.mark.usefixtures("thread_sender")


def write_old(folder, kind, rows, tail=b""):
  """Writes a file of a journal of an earlier version."""
  folder.mkdir(exist_ok=True)
  lines = [json.dumps({"journal": f"phi1_jax.llm {kind}", "version": 1}).encode()]
  for row in rows:
    rest = json.dumps({"time": 1.0, **row}).encode()[1:]
    lines.append(b'{"crc32": "%08x", ' % zlib.crc32(rest) + rest)
  (folder / f"{kind}.jsonl").write_bytes(b"\n".join(lines) + b"\n" + tail)


def old_reply(config, request, call, raw, cost=10):
  content = request.content(config)
  return {
    **{"key": old_digest(content), "call": call, "picodollars": cost, "batch": None},
    **{"completion_tokens": 2, "usage": {"prompt": 3, "completion": 2}, "price": {}},
    **{"whole": True, "prompt_id": "test", "prompt_version": "1", "sample": 0},
    **{"request": content["body"], "raw": raw},
  }


@pytest.fixture
def old(configure, requests):
  """A journal with a reply, a broken one, a lost call, a failure and an open batch."""

  def make(config):
    folder, wanted = pathlib.Path(config.journal), requests(5)
    message = {"message": {"content": "answer old"}, "finish_reason": "stop"}
    good = json.dumps({"choices": [message]})
    keys = [old_digest(request.content(config)) for request in wanted]
    sent = [
      {"call": n, "key": k, "reserve": 100, "batch": None} for n, k in enumerate(keys)
    ]
    sent[4]["batch"] = "b"
    write_old(folder, "sent", sent, b'{"crc32": "torn')
    replies = [old_reply(config, wanted[0], 0, good)]
    replies.append(old_reply(config, wanted[1], 1, '{"broken', 70))
    write_old(folder, "replies", replies)
    failure = {"call": 2, "key": keys[2], "released": True, "status": 500}
    write_old(folder, "failures", [failure | {"reason": "x"}])
    write_old(folder, "batches", [{"batch": "b", "state": "created", "id": "batch_9"}])
    return wanted

  return make


def test_an_old_journal_is_imported_once_and_answers(server, configure, ask, old):
  config = configure(server.url)
  wanted = old(config)
  folder = pathlib.Path(config.journal)
  before = {path.name: path.read_bytes() for path in folder.iterdir()}
  budget = Journal(folder).budget(1000)
  assert (budget.spent, budget.doubtful, budget.doubtful_calls) == (10, 170, 2)
  assert (budget.reserved, budget.left) == (100, 720)
  (batch,) = Journal(folder).open_batches("any")
  assert (batch.id, len(batch.calls)) == ("batch_9", 1)
  with Client(config) as client:
    assert client.estimate(wanted).to_send == 3  # neither the reply nor the batch
  (outcome,) = ask(config, wanted[:1])
  assert outcome.value == "answer old"
  assert server.counts()["came"] == 0
  assert {n: (folder / n).read_bytes() for n in before} == before


def test_a_batch_of_an_old_journal_is_read(server, configure, ask, old):
  config = configure(server.url)
  wanted = old(config)
  content = wanted[4].content(config)
  line = {"custom_id": old_digest(content), "body": content["body"]}
  server.files["in"] = json.dumps(line).encode()
  body = {"input_file_id": "in", "metadata": {"phi1_jax": "b"}}
  batch = {"body": body, "begun": time.monotonic(), "end": "completed"}
  server.batches["batch_9"] = batch
  (outcome,) = ask(config, wanted[4:])
  assert outcome.value.startswith("answer")
  assert server.counts()["billed"] == 1
  assert Journal(pathlib.Path(config.journal)).open_batches() == []


def test_a_damaged_line_of_an_old_journal_is_refused(configure, old):
  config = configure()
  old(config)
  path = pathlib.Path(config.journal) / "replies.jsonl"
  path.write_bytes(path.read_bytes().replace(b"answer", b"anSwer"))
  with pytest.raises(InputError, match=r"replies.jsonl, line 2: damaged"):
    Journal(pathlib.Path(config.journal))
  path.write_bytes(path.read_bytes().replace(b"anSwer", b"answer"))
  assert len(Journal(pathlib.Path(config.journal)).replies()) == 1


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
