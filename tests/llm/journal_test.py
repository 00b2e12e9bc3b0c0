import json
import os
import subprocess
import sys
import time
import tracemalloc

import pytest

from phi1_jax import InputError
from phi1_jax.llm import lines
from phi1_jax.llm.journal import BATCHES, FAILURES, REPLIES, SENT, Journal, OpenBatch
from phi1_jax.llm.reply import UnreadableError

KEYS = [f"{number:064x}" for number in range(9)]


def completion(text):
  choice = {"message": {"content": text}, "finish_reason": "stop"}
  return {"choices": [choice]}


def reply_row(number, raw=None, **changes):
  row = {
    "key": KEYS[number],
    "call": number,
    "picodollars": 100 + number,
    "completion_tokens": 10 * number or None,
    "batch": None,
    "raw": raw or json.dumps(completion(f"text {number}")),
  }
  return row | changes


def sent_row(number, batch=None):
  return {"call": number, "key": KEYS[number], "reserve": 1000, "batch": batch}


def write(folder, kind, *rows):
  folder.mkdir(exist_ok=True)
  content = lines.header(kind) + b"".join(map(lines.seal, rows))
  (folder / f"{kind}.jsonl").write_bytes(content)


@pytest.fixture
def folder(tmp_path):
  return tmp_path / "journal"


def test_a_new_folder_is_an_empty_journal(folder):
  journal = Journal(folder)
  assert len(journal) == 0
  assert journal.mean_completion() is None
  journal.close()
  Journal(folder).close()  # what the first one wrote is a journal


def test_replies_are_indexed_and_read(folder):
  write(folder, REPLIES, *map(reply_row, range(4)))
  journal = Journal(folder)
  assert [key in journal for key in KEYS[:5]] == [True] * 4 + [False]
  assert journal.read(KEYS[2]).text == "text 2"
  assert journal.read(KEYS[0]).picodollars == 100
  assert journal.account.spent == 100 + 101 + 102 + 103
  assert journal.mean_completion() == 20
  assert journal.account.next_call == 4


def test_every_raw_byte_is_kept(folder):
  rows = [reply_row(0, raw="not json"), reply_row(1)]
  del rows[1]["raw"]
  write(folder, REPLIES, *[rows[0], rows[1] | {"raw_base64": "/wA="}])
  journal = Journal(folder)
  for key in KEYS[:2]:
    with pytest.raises(UnreadableError, match="not the JSON"):
      journal.read(key)


def test_a_batch_line_is_unwrapped(folder):
  line = {"custom_id": "x", "response": {"body": completion("from a batch")}}
  write(folder, REPLIES, reply_row(0, raw=json.dumps(line), batch="b"))
  assert Journal(folder).read(KEYS[0]).text == "from a batch"


@pytest.mark.parametrize(
  "line", ["null", "[]", "{}", '{"response": null}', '{"response": {"body": null}}']
)
def test_a_batch_line_without_a_completion_is_unreadable(folder, line):
  write(folder, REPLIES, reply_row(0, raw=line, batch="b"))
  with pytest.raises(UnreadableError, match="not the JSON"):
    Journal(folder).read(KEYS[0])


def test_what_became_of_calls(folder):
  write(folder, REPLIES, reply_row(0))
  write(
    folder, SENT, *map(sent_row, range(4)), sent_row(4, "open"), sent_row(5, "done")
  )
  failures = [{"call": 1, "released": True}, {"call": 2, "released": False}]
  write(folder, FAILURES, *failures)
  states = [
    ("open", "planned", None),
    ("done", "planned", None),
    ("open", "created", "b"),
  ]
  states.append(("done", "closed", "c"))
  rows = [{"batch": name, "state": state, "id": i} for name, state, i in states]
  write(folder, BATCHES, *rows)
  account = Journal(folder).account
  # 0 replied, 1 released, 2 lost, 3 never heard of, 4 in a batch, 5 lost by one.
  assert (account.spent, account.doubtful, account.doubtful_calls) == (100, 3000, 3)
  assert account.batches == [OpenBatch("open", "b", {KEYS[4]: (4, 1000)})]
  assert account.next_call == 6


def test_calls_that_were_settled_take_no_memory(folder):
  count = 3000
  keys = [f"{number:064x}" for number in range(count)]
  sent = [sent_row(0) | {"call": n, "key": key} for n, key in enumerate(keys)]
  write(folder, SENT, *sent)
  write(folder, FAILURES, *[{"call": n, "released": True} for n in range(count - 1)])
  tracemalloc.start()
  account = Journal(folder).account
  peak = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  assert (account.doubtful_calls, account.next_call) == (1, count)
  assert peak < 150 * count + 200_000  # a number each, not a row


def test_a_number_is_never_given_twice(folder):
  write(folder, FAILURES, {"call": 7, "released": True})  # its call deleted by hand
  assert Journal(folder).account.next_call == 8


def test_a_reply_deleted_by_hand_is_counted_and_asked_for_again(folder):
  write(folder, REPLIES, reply_row(0))
  write(folder, SENT, sent_row(0), sent_row(1))
  journal = Journal(folder)
  assert KEYS[1] not in journal
  assert journal.account.doubtful == 1000


def test_a_request_paid_twice_is_counted_and_answered_by_the_first(folder):
  write(folder, REPLIES, reply_row(0), reply_row(1), reply_row(1, call=7, raw="{}"))
  journal = Journal(folder)
  assert journal.paid_twice == 1
  assert journal.read(KEYS[1]).text == "text 1"
  assert journal.account.spent == 302


def test_a_half_written_journal_goes_on(folder):
  write(folder, REPLIES, *map(reply_row, range(2)))
  path = folder / "replies.jsonl"
  whole = path.read_bytes()
  path.write_bytes(whole + lines.seal(reply_row(2))[:-30])
  (folder / "sent.jsonl").write_bytes(lines.header(SENT)[:10])
  journal = Journal(folder)
  assert len(journal) == 2
  assert path.read_bytes() == whole
  assert (folder / "sent.jsonl").read_bytes() == lines.header(SENT)


ROWS = {
  REPLIES: reply_row(0),
  SENT: sent_row(0),
  FAILURES: {"call": 0, "released": True},
  BATCHES: {"batch": "b", "state": "closed", "id": "i"},
}


@pytest.mark.parametrize("kind", ROWS)
def test_damage_is_named_and_nothing_is_changed(folder, kind):
  write(folder, kind, ROWS[kind], {**ROWS[kind], "last": 2}, ROWS[kind])
  path = folder / f"{kind}.jsonl"
  damaged = path.read_bytes().replace(b'"last": 2', b'"last": 3') + b"torn"
  path.write_bytes(damaged)
  with pytest.raises(InputError, match=rf"{kind}.jsonl, line 3: damaged"):
    Journal(folder)
  assert path.read_bytes() == damaged
  path.write_bytes(lines.header(kind))
  Journal(folder).close()  # the lock was let go


def test_damage_while_it_is_open_is_found(folder):
  write(folder, REPLIES, *map(reply_row, range(2)))
  journal = Journal(folder)
  path = folder / "replies.jsonl"
  path.write_bytes(path.read_bytes().replace(b"text 1", b"text X"))
  assert journal.read(KEYS[0]).text == "text 0"
  with pytest.raises(InputError, match="line 3: damaged"):
    journal.read(KEYS[1])


@pytest.mark.parametrize("where", ["journal", "journal/deeper"])
def test_a_file_in_its_place_is_refused(tmp_path, where):
  (tmp_path / "journal").write_text("x")
  with pytest.raises(InputError, match=r"Llm.journal: .* is no folder"):
    Journal(tmp_path / where)


HOLDER = """
import sys, time
from pathlib import Path
from phi1_jax.llm.journal import Journal
journal = Journal(Path(sys.argv[1]))
print("locked", flush=True)
time.sleep(60)
"""


def test_waits_for_another_process_and_says_so(folder):
  command = [sys.executable, "-c", HOLDER, str(folder)]
  with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"locked\n"
    said = []

    def say(text):
      said.append((text, time.monotonic()))
      holder.kill()

    Journal(folder, say).close()
  assert f"waiting for process {holder.pid}" in said[0][0]
  assert len(said) == 1


def test_a_dead_run_whose_courier_lives_is_told_apart(folder):
  journal = Journal(folder)
  assert journal.lock is not None
  os.pwrite(journal.lock, b"999999999", 0)  # no such process
  said = []

  def say(text):
    said.append(text)
    journal.close()

  Journal(folder, say).close()
  assert "an earlier run left under way" in said[0]
