"""The Batch API over the same journal."""

import asyncio
import json
import pathlib
import time

import pytest

from phi1_jax import InputError
from phi1_jax.llm import batch_files
from phi1_jax.llm.asker import Asker
from phi1_jax.llm.batches import Batches
from phi1_jax.llm.budget import BudgetError
from phi1_jax.llm.client import RequestError
from phi1_jax.llm.conversation import Failed
from phi1_jax.llm.journal import Journal, OpenBatch
from phi1_jax.llm.ledger import Ask, DiskError, Ledger

pytest.importorskip("openai")
pytestmark = pytest.mark.usefixtures("thread_courier")


def account(config):
  journal = Journal(pathlib.Path(config.journal))
  try:
    return journal.account
  finally:
    journal.close()


def uploads(server):
  """How many requests each batch held."""
  inputs = [batch["body"]["input_file_id"] for batch in server.batches.values()]
  return [len(server.files[name].splitlines()) for name in inputs]


def test_half_the_price_and_the_same_keys(server, configure, requests, ask):
  config = configure(server.url, api="batch")
  found = ask(config, requests(20))
  assert uploads(server) == [20]
  assert (
    account(config).spent == server.money == sum(r.reply.picodollars for r in found)
  )
  online = configure(server.url)
  assert ask(online, requests(20)) == found
  more = ask(online, requests(22))
  assert more[:20] == found
  assert ask(config, requests(22)) == more
  assert server.counts()["came"] == 22
  assert more[-1].reply.picodollars > 0


def test_corrections_go_into_later_batches(serve, configure, requests, ask):
  with serve({"length": 0.2, "bad": 0.2, "500": 0.2}) as server:
    config = configure(server.url, api="batch")
    found = ask(config, requests(30))
    assert {type(outcome).__name__ for outcome in found} == {"Answered"}
    assert ask(config, requests(30)) == found
    counts = server.counts()
    assert len(uploads(server)) > 1
  assert counts["twice"] == 0
  assert counts["money"] == account(config).spent
  assert account(config).doubtful == 0


@pytest.mark.parametrize("end", ["expired", "cancelled"])
def test_what_a_batch_cut_short_has_done_is_kept(server, configure, requests, ask, end):
  server.batch_ends = [end]
  config = configure(server.url, api="batch")
  assert len(ask(config, requests(9))) == 9
  assert uploads(server) == [9, 5]
  assert server.counts()["billed"] == 9
  assert account(config).spent == server.money
  assert account(config).batches == []


def test_a_refused_batch_costs_nothing_and_says_what_to_do(
  server, configure, requests, ask
):
  server.batch_ends = ["failed"]
  config = configure(server.url, api="batch")
  with pytest.raises(RequestError, match=r"token_limit_exceeded.*Llm.batch_requests"):
    ask(config, requests(5))
  assert account(config).spent == account(config).doubtful == 0
  assert len(ask(config, requests(5))) == 5


def test_batches_are_split_by_count(server, configure, requests, ask):
  config = configure(server.url, api="batch", batch_requests=8)
  assert len(ask(config, requests(20))) == 20
  assert sum(uploads(server)) == 20
  assert max(uploads(server)) == 8


def test_the_cap_holds_for_whole_batches(server, configure, requests, ask):
  budget = 0.00006
  config = configure(server.url, api="batch", budget_usd=budget)
  with pytest.raises(BudgetError, match="requests are left"):
    ask(config, requests(16))
  assert len(uploads(server)) > 1  # each settles for less than it reserved
  assert 0 < server.money == account(config).spent <= budget * 1e12
  assert len(ask(configure(server.url, api="batch"), requests(16))) == 16
  assert server.counts()["twice"] == 0


def hurry(config, wanted, parse, seconds=20.0):
  """Outcomes of a run that must not wait for ever."""
  deadline = time.monotonic() + seconds
  with Asker(config, lambda snapshot: hurried(deadline)) as asker:
    return list(asker.ask(wanted, parse))


def hurried(deadline):
  assert time.monotonic() < deadline, "it waits for ever"


@pytest.mark.parametrize("response", [{"status_code": 200}, {"body": 5}, {"body": {}}])
def test_a_reply_without_a_completion_is_paid_for_and_corrected(
  server, configure, requests, parse, monkeypatch, response
):
  store = server.RequestHandlerClass._store

  def spoil(handler, name, rows):
    if name == "batch_0-output":
      rows[1]["response"] = {"status_code": 200} | response
    return store(handler, name, rows)

  monkeypatch.setattr(server.RequestHandlerClass, "_store", spoil)
  config = configure(server.url, api="batch")
  found = hurry(config, requests(3), parse)
  assert [outcome.value[:6] for outcome in found] == ["answer"] * 3
  assert hurry(config, requests(3), parse) == found
  assert uploads(server) == [3, 1]
  journal = Journal(pathlib.Path(config.journal))
  assert len(journal) == server.counts()["billed"] == 4
  assert journal.account.doubtful == 0
  assert journal.account.spent > server.money  # one of them at its worst case


def test_a_mistake_of_ours_stops_the_run_and_the_next_takes_it_up(
  server, configure, requests, parse, monkeypatch
):
  replied, wanted = Ledger.replied, requests(5)
  config = configure(server.url, api="batch")
  booked = []

  async def stumble(ledger, call, ask, raw, whole):
    if call.key == wanted[2].key(config):
      raise KeyError("usage")
    await asyncio.sleep(0.1)
    booked.append(call.key)
    return await replied(ledger, call, ask, raw, whole)

  monkeypatch.setattr(Ledger, "replied", stumble)
  with pytest.raises(RequestError, match=r"\(KeyError: 'usage'\)\nall replies so far"):
    hurry(config, wanted, parse)
  journal = Journal(pathlib.Path(config.journal))
  assert len(booked) == len(journal) == 4  # its neighbours are finished before the end
  assert [*journal.account.batches[0].calls] == [wanted[2].key(config)]
  journal.close()
  monkeypatch.setattr(Ledger, "replied", replied)
  assert len(hurry(config, wanted, parse)) == 5
  assert server.counts()["billed"] == 5
  assert account(config).spent == server.money


class Torn:
  """A ledger that can write nothing down."""

  async def replied(self, *call, whole):
    raise DiskError("torn")

  async def failed(self, *call, released, status):
    raise DiskError("torn")


@pytest.mark.parametrize("status", [200, 500])
def test_a_call_is_open_until_it_is_booked(configure, status):
  batches = Batches(configure(), Torn(), None, None, [], print)
  batch = OpenBatch("name", "id", {"k": (0, 5)})
  with pytest.raises(DiskError):
    asyncio.run(batches._book(batch, {}, batch_files.Line("k", b"{}", status, "")))
  assert batch.calls == {"k": (0, 5)}


class Gone(Exception):
  """Ends a run at a chosen moment."""


def leave_when(config, wanted, parse, note):
  """A run that ends when it is told something with `note` in it."""

  def look(snapshot):
    if note in snapshot.note:
      raise Gone

  with pytest.raises(Gone), Asker(config, look) as asker:
    list(asker.ask(wanted, parse))


@pytest.mark.parametrize("api", ["batch", "online"])
def test_an_open_batch_is_harvested_by_the_next_run(
  server, configure, requests, ask, parse, api
):
  server.batch_seconds, server.batch_ends = 0.8, ["expired"]
  config = configure(server.url, api="batch")
  leave_when(config, requests(10), parse, "in_progress")
  left = account(config)
  assert len(left.batches[0].calls) == 10
  assert left.doubtful == 0
  with Asker(config) as asker:
    assert asker.estimate(requests(11)).to_send == 1
  # Whichever way the next run asks, what the batch may answer is not sent again.
  assert len(ask(configure(server.url, api=api), requests(10))) == 10
  assert server.counts()["billed"] == 10
  assert server.counts()["twice"] == 0


@pytest.mark.parametrize("api", ["batch", "online"])
def test_a_refusal_is_told_also_to_those_who_ask_after_it(
  server, configure, requests, parse, api
):
  """The batch of an earlier run may have ended before this run comes to a request."""
  server.batch_seconds = 0.8
  server.script = {"exercise 6": (400, {"error": {"message": "too long"}}, {})}
  wanted = [*requests(9), *requests(9)[6:7]]
  config = configure(server.url, api="batch")
  leave_when(config, wanted, parse, "in_progress")
  # Either way, it asks for four before it waits for the first outcome.
  config = configure(server.url, api=api, concurrency=1, batch_requests=4)
  deadline = time.monotonic() + 20.0
  with Asker(config, lambda snapshot: hurried(deadline)) as asker:
    outcomes = asker.ask(wanted, parse)
    found = [next(outcomes)]
    while '"closed"' not in pathlib.Path(config.journal, "batches.jsonl").read_text():
      hurried(deadline)
      time.sleep(0.01)
    found += outcomes
  assert [n for n, outcome in enumerate(found) if isinstance(outcome, Failed)] == [6, 9]
  assert "400" in found[6].reason
  assert "too long" in found[6].reason
  assert server.counts()["came"] == 9  # what was refused is not asked again
  assert server.counts()["billed"] == 8
  assert account(config).spent == server.money
  assert account(config).doubtful == 0


def test_replies_nobody_asks_for_any_more_are_kept_all_the_same(
  server, configure, requests, ask, parse
):
  config = configure(server.url, api="batch")
  leave_when(config, requests(4), parse, "begun")
  ask(config, requests(1, first=99))
  ask(config, requests(1))  # waits for the first batch
  row = next(iter(Journal(pathlib.Path(config.journal))._places))
  assert row in {request.key(config) for request in requests(100)}
  assert server.counts()["billed"] == 5
  kept = pathlib.Path(config.journal, "replies.jsonl").read_text().splitlines()[1:]
  assert all(json.loads(line)["request"]["messages"] for line in kept)
  assert all(json.loads(line)["prompt_id"] == "test" for line in kept)


def test_a_batch_whose_answer_was_lost_is_found_by_its_name(
  server, configure, requests, ask
):
  server.batch_ends = ["lost"]
  assert len(ask(configure(server.url, api="batch"), requests(6))) == 6
  assert uploads(server) == [6]


@pytest.mark.parametrize("created", [True, False])
def test_a_batch_whose_id_was_lost_with_the_run(
  server, configure, requests, ask, parse, created
):
  config = configure(server.url, api="batch")
  usual, server.batch_seconds = server.batch_seconds, 600.0  # no reply comes meanwhile
  leave_when(config, requests(6), parse, "begun")
  server.batch_seconds = usual
  path = pathlib.Path(config.journal, "batches.jsonl")
  path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:2]))
  assert account(config).batches[0].id is None
  if not created:  # the run died before the server heard of it
    server.batches.clear()
  assert len(ask(config, requests(6))) == 6
  assert uploads(server) == [6]
  assert server.counts()["billed"] == 6
  assert account(config).doubtful == 0


def test_a_bad_key_stops_a_batch_too(serve, configure, requests, ask):
  with serve(key="another") as server:
    with pytest.raises(InputError, match="401"):
      ask(configure(server.url, api="batch"), requests(3))
    assert server.batches == {}


def asks(*reserves):
  return [Ask(f"{n}", {"x": "y"}, {}, money, 0) for n, money in enumerate(reserves)]


def test_the_longest_beginning_that_fits(monkeypatch):
  assert batch_files.fitting(asks(5, 5, 5), most=9, money=14) == 2
  assert batch_files.fitting(asks(5, 5, 5), most=9, money=15) == 3
  assert batch_files.fitting(asks(5, 1, 1), most=9, money=4) == 0
  assert batch_files.fitting(asks(1, 1, 1), most=2, money=99) == 2
  assert batch_files._MOST_BYTES == 200 * 10**6
  monkeypatch.setattr(batch_files, "_MOST_BYTES", 2000)
  large = [Ask("k", {"x": "y" * 1000}, {}, 0, 0)] * 3
  assert batch_files.fitting(large, most=9, money=9) == 1


def test_lines_that_are_none_are_left_out():
  content = (
    b'\n{"custom_id": "a", "response": {"status_code": 200}}\n{"custom\nnull\n5\n'
  )
  content += b'{"custom_id": 5}\n{"custom_id": "b", "error": {"code": "batch_expired"}}'
  found = list(batch_files.read_lines(content))
  assert [(line.key, line.status) for line in found] == [("a", 200), ("b", None)]
  assert "batch_expired" in found[1].text
