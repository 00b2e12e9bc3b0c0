"""The Batch API over the same journal."""

import pathlib
import sqlite3

import pytest

from phi1_jax import InputError
from phi1_jax.llm import batches
from phi1_jax.llm.client import BudgetError, Client, RequestError
from phi1_jax.llm.journal import Journal
from phi1_jax.llm.session import Ask

pytest.importorskip("openai")
pytestmark = pytest.mark.usefixtures("thread_sender")


def journal_of(config):
  return Journal(pathlib.Path(config.journal))


def budget_of(config):
  return journal_of(config).budget(10**12)


def uploads(server):
  """Returns how many requests each batch held."""
  inputs = [batch["body"]["input_file_id"] for batch in server.batches.values()]
  return [len(server.files[name].splitlines()) for name in inputs]


def test_half_the_price_and_the_same_keys(server, configure, requests, ask):
  config = configure(server.url, api="batch")
  found = ask(config, requests(20))
  assert uploads(server) == [20]
  spent = budget_of(config).spent
  assert spent == server.money == sum(r.reply.picodollars for r in found)
  online = configure(server.url)
  assert ask(online, requests(20)) == found
  more = ask(online, requests(22))
  assert more[:20] == found
  assert ask(config, requests(22)) == more
  assert server.counts()["came"] == 22


def test_corrections_go_into_later_batches(serve, configure, requests, ask):
  with serve({"length": 0.2, "bad": 0.2, "500": 0.2, "think": 0.2}) as server:
    config = configure(server.url, api="batch")
    found = ask(config, requests(30))
    assert {type(outcome).__name__ for outcome in found} == {"Answered"}
    assert ask(config, requests(30)) == found
    assert len(uploads(server)) > 1
  assert server.counts()["twice"] == 0
  assert (server.money, 0) == (budget_of(config).spent, budget_of(config).doubtful)


@pytest.mark.parametrize("end", ["expired", "cancelled"])
def test_what_a_batch_cut_short_has_done_is_kept(server, configure, requests, ask, end):
  server.batch_ends = [end]
  config = configure(server.url, api="batch")
  assert len(ask(config, requests(9))) == 9
  assert uploads(server) == [9, 5]
  assert server.counts()["billed"] == 9
  assert budget_of(config).spent == server.money
  assert journal_of(config).open_batches() == []


def test_a_refused_batch_costs_nothing_and_says_what_to_do(
  server, configure, requests, ask
):
  server.batch_ends = ["failed"]
  config = configure(server.url, api="batch")
  with pytest.raises(RequestError, match=r"token_limit_exceeded.*Llm.batch_requests"):
    ask(config, requests(5))
  assert budget_of(config).left == 10**12
  assert len(ask(config, requests(5))) == 5


def test_several_batches_run_at_once(server, configure, requests, ask):
  server.fewest_batches = 3
  config = configure(server.url, api="batch", batch_requests=8)
  assert len(ask(config, requests(20))) == 20
  assert sorted(uploads(server)) == [4, 8, 8]


def test_the_cap_holds_for_whole_batches(server, configure, requests, ask):
  budget = 0.00006
  config = configure(server.url, api="batch", budget_usd=budget)
  with pytest.raises(BudgetError, match="requests are left"):
    ask(config, requests(16))
  assert len(uploads(server)) > 1  # each settles for less than it reserved
  assert 0 < server.money == budget_of(config).spent <= budget * 1e12
  assert len(ask(configure(server.url, api="batch"), requests(16))) == 16
  assert server.counts()["twice"] == 0


@pytest.mark.parametrize(
  ("response", "lost"), [({"body": {"error": "x"}}, 1), ({}, 1), (None, 3)]
)
def test_lines_without_a_completion_and_lost_files_are_doubtful_and_sent_again(
  server, configure, requests, ask, monkeypatch, response, lost
):
  store = server.RequestHandlerClass._store

  def spoil(handler, name, rows):
    if name == "batch_0-output":
      if response is None:
        return name  # of a file that is not there
      rows[1]["response"] = {"status_code": 200} | response
    return store(handler, name, rows)

  monkeypatch.setattr(server.RequestHandlerClass, "_store", spoil)
  config = configure(server.url, api="batch")
  found = ask(config, requests(3))
  assert [outcome.value[:6] for outcome in found] == ["answer"] * 3
  assert uploads(server) == [3, lost]
  budget = budget_of(config)
  assert budget.doubtful_calls == lost
  assert budget.spent < server.money <= budget.spent + budget.doubtful


class Gone(Exception):
  """Ends a run at a chosen moment."""


def leave_when(config, wanted, parse, note):
  """Ends a run at its first message with `note` in it."""

  def look(progress):
    if note in progress.note:
      raise Gone

  with pytest.raises(Gone), Client(config, look) as client:
    list(client.ask(wanted, parse))


@pytest.mark.parametrize("api", ["batch", "online"])
def test_an_open_batch_is_read_by_the_next_run(
  server, configure, requests, ask, parse, api
):
  server.batch_seconds, server.batch_ends = 0.8, ["expired"]
  config = configure(server.url, api="batch")
  leave_when(config, requests(10), parse, "in_progress")
  (batch,) = journal_of(config).open_batches()
  assert len(batch.calls) == 10
  budget = budget_of(config)
  assert budget.reserved == sum(c.reserve for c in batch.calls.values()) > 0
  assert budget.doubtful == 0
  with Client(config) as client:
    assert client.estimate(requests(11)).to_send == 1
  assert len(ask(configure(server.url, api=api), requests(10))) == 10
  assert server.counts()["billed"] == 10
  assert server.counts()["twice"] == 0


@pytest.mark.parametrize("created", [True, False])
def test_a_batch_whose_id_was_lost_with_the_sender(
  server, configure, requests, ask, parse, created
):
  config = configure(server.url, api="batch")
  usual, server.batch_seconds = server.batch_seconds, 600.0
  leave_when(config, requests(6), parse, "begun")
  server.batch_seconds = usual
  with sqlite3.connect(journal_of(config).path) as database:
    database.execute("UPDATE batches SET id = NULL")
  if not created:
    server.batches.clear()
  assert len(ask(config, requests(6))) == 6
  assert uploads(server) == [6]
  assert server.counts()["billed"] == 6
  assert budget_of(config).doubtful_calls == (0 if created else 6)


def test_a_batch_that_may_be_created_late_is_doubtful(server, configure, requests, ask):
  server.batch_ends = ["dropped"]
  config = configure(server.url, api="batch", attempts=2)
  assert len(ask(config, requests(6))) == 6
  assert uploads(server) == [6]
  assert budget_of(config).doubtful_calls == 6
  names = [batch["body"]["metadata"]["phi1_jax"] for batch in server.batches.values()]
  with sqlite3.connect(journal_of(config).path) as database:
    found = database.execute("SELECT name, id IS NULL FROM batches").fetchall()
  assert [(name in names, lost) for name, lost in found] == [(False, 1), (True, 0)]


@pytest.mark.parametrize("api", ["batch", "online"])
def test_a_batch_that_the_server_does_not_know_is_doubtful(
  server, configure, requests, ask, parse, api, caplog
):
  config = configure(server.url, api="batch")
  usual, server.batch_seconds = server.batch_seconds, 600.0
  leave_when(config, requests(6), parse, "in_progress")
  server.batch_seconds = usual
  server.batches.clear()
  assert len(ask(configure(server.url, api=api), requests(8))) == 8
  assert budget_of(config).doubtful_calls == 6
  assert journal_of(config).open_batches() == []
  assert "batch batch_0: the server does not know it" in caplog.text


def test_a_batch_of_another_endpoint_is_left_alone(
  server, serve, configure, requests, ask, parse
):
  config = configure(server.url, api="batch")
  server.batch_seconds = 600.0
  leave_when(config, requests(2), parse, "begun")
  with serve() as other:
    assert len(ask(configure(other.url), requests(2))) == 2
    assert len(journal_of(config).open_batches()) == 1
    reserved = budget_of(config).reserved
    for api in ("online", "batch"):  # nothing to wait for
      poor = configure(other.url, api=api, budget_usd=(reserved + 10) / 1e12)
      with pytest.raises(BudgetError):
        ask(poor, requests(1, first=50))


def test_a_bad_key_stops_a_batch_too(serve, configure, requests, ask):
  with serve(key="another") as server:
    config = configure(server.url, api="batch")
    with pytest.raises(InputError, match="401"):
      ask(config, requests(3))
    assert server.batches == {}
    assert journal_of(config).open_batches() == []
    assert budget_of(config).left == 10**12


def asks(*reserves):
  return [Ask(f"{n}", '{"body": 1}', money, 0) for n, money in enumerate(reserves)]


def test_the_longest_beginning_that_fits(monkeypatch):
  assert batches.fitting(asks(5, 5, 5), most=9, money=14) == 2
  assert batches.fitting(asks(5, 5, 5), most=9, money=15) == 3
  assert batches.fitting(asks(5, 1, 1), most=9, money=4) == 0
  assert batches.fitting(asks(1, 1, 1), most=2, money=99) == 2
  monkeypatch.setattr(batches, "_MOST_BYTES", 200)
  assert batches.fitting(asks(1, 1, 1), most=9, money=9) == 2


def test_lines_that_are_not_results_are_left_out():
  content = (
    b'\n{"custom_id": "a", "response": {"status_code": 200}}\n{"custom\nnull\n5\n'
  )
  content += b'{"custom_id": 5}\n{"custom_id": "b", "error": {"code": "batch_expired"}}'
  found = {key: failure for key, _, failure in batches.results(content)}
  assert found.keys() == {"a", "b"}
  assert (found["a"].doubtful, found["b"].doubtful) == (True, False)
  assert "batch_expired" in found["b"].text
