"""The Batch API over the same journal."""

import sqlite3

import pytest

from phi1_jax.llm import batches
from phi1_jax.llm.client import BudgetError, Client, RequestError
from phi1_jax.llm.journal import Call
from tests.llm.conftest import parse, requests

pytest.importorskip("openai")
pytestmark = pytest.mark.usefixtures("thread_sender")


def uploads(llm):
  """Returns how many requests each batch held."""
  inputs = [batch["body"]["input_file_id"] for batch in llm.server.batches.values()]
  return [len(llm.server.files[name].splitlines()) for name in inputs]


def test_half_the_price_and_the_same_keys_in_several_batches_at_once(llm):
  llm.server.fewest_batches = 3
  found = llm.ask(20, api="batch", batch_requests=8)
  assert sorted(uploads(llm)) == [4, 8, 8]
  spent = llm.budget.spent
  assert spent == llm.server.money == sum(r.reply.picodollars for r in found)
  assert llm.ask(20) == found
  more = llm.ask(22)
  assert more[:20] == found
  assert llm.ask(22, api="batch") == more
  assert llm.server.counts()["came"] == 22


def test_corrections_go_into_later_batches(serve):
  llm = serve({"length": 0.2, "bad": 0.2, "500": 0.2, "think": 0.2})
  found = llm.ask(30, api="batch")
  assert {type(outcome).__name__ for outcome in found} == {"Answered"}
  assert llm.ask(30, api="batch") == found
  assert len(uploads(llm)) > 1
  assert llm.server.counts()["twice"] == 0
  assert (llm.server.money, 0) == (llm.budget.spent, llm.budget.doubtful)


@pytest.mark.parametrize("end", ["expired", "cancelled"])
def test_what_a_batch_cut_short_has_done_is_kept(llm, end):
  llm.server.batch_ends = [end]
  assert len(llm.ask(9, api="batch")) == 9
  assert uploads(llm) == [9, 5]
  assert llm.server.counts()["billed"] == 9
  assert llm.budget.spent == llm.server.money
  assert llm.journal.open_batches() == []


def test_a_refused_batch_costs_nothing_and_says_what_to_do(llm):
  llm.server.batch_ends = ["failed"]
  with pytest.raises(RequestError, match=r"token_limit_exceeded.*Llm.batch_requests"):
    llm.ask(5, api="batch")
  assert llm.budget.left == 10**12
  assert len(llm.ask(5, api="batch")) == 5


def test_the_cap_holds_for_whole_batches(llm):
  budget = 0.00006
  with pytest.raises(BudgetError, match="nothing is paid for twice"):
    llm.ask(16, api="batch", budget_usd=budget)
  assert len(uploads(llm)) > 1  # each settles for less than it reserved
  assert 0 < llm.server.money == llm.budget.spent <= budget * 1e12
  assert len(llm.ask(16, api="batch")) == 16
  assert llm.server.counts()["twice"] == 0


@pytest.mark.parametrize(
  ("response", "lost"), [({"body": {"error": "x"}}, 1), ({}, 1), (None, 3)]
)
def test_lines_without_a_completion_and_lost_files_are_doubtful_and_sent_again(
  llm, monkeypatch, response, lost
):
  handlers = llm.server.RequestHandlerClass
  store = handlers._store

  def spoil(handler, name, rows):
    if name == "batch_0-output":
      if response is None:
        return name  # of a file that is not there
      rows[1]["response"] = {"status_code": 200} | response
    return store(handler, name, rows)

  monkeypatch.setattr(handlers, "_store", spoil)
  found = llm.ask(3, api="batch")
  assert [outcome.value[:6] for outcome in found] == ["answer"] * 3
  assert uploads(llm) == [3, lost]
  budget = llm.budget
  assert budget.doubtful_calls == lost
  assert budget.spent < llm.server.money <= budget.spent + budget.doubtful


class Gone(Exception):
  """Ends a run."""


def leave_a_batch(llm, count):
  """Ends a run when its batch is created, and has not ended."""

  def look(progress):
    if progress.note.startswith("batch "):
      raise Gone

  usual, llm.server.batch_seconds = llm.server.batch_seconds, 600.0
  with pytest.raises(Gone), Client(llm.config(api="batch"), look) as client:
    list(client.ask(requests(count), parse))
  llm.server.batch_seconds = usual


@pytest.mark.parametrize("query", ["create", "retrieve"])
def test_status_429_is_not_an_attempt(llm, query):
  llm.server.slow[query] = 6
  assert len(llm.ask(5, api="batch", attempts=2)) == 5
  assert (uploads(llm), llm.server.slow[query]) == ([5], 0)


@pytest.mark.parametrize("api", ["batch", "online"])
def test_an_open_batch_is_read_by_the_next_run(llm, api):
  llm.server.batch_ends = ["expired"]
  leave_a_batch(llm, 10)
  (batch,) = llm.journal.open_batches()
  assert len(batch.calls) == 10
  assert llm.budget.reserved == sum(c.reserve for c in batch.calls.values()) > 0
  assert llm.budget.doubtful == 0
  assert llm.estimate(11, api="batch").to_send == 1
  assert len(llm.ask(10, api=api)) == 10
  assert llm.server.counts()["billed"] == 10
  assert llm.server.counts()["twice"] == 0


@pytest.mark.parametrize("created", [True, False])
def test_a_batch_whose_id_was_lost_with_the_sender(llm, created):
  leave_a_batch(llm, 6)
  with sqlite3.connect(llm.journal.path) as database:
    database.execute("UPDATE batches SET id = NULL")
  if not created:
    llm.server.batches.clear()
  assert len(llm.ask(6, api="batch")) == 6
  assert uploads(llm) == [6]
  assert llm.server.counts()["billed"] == 6
  assert llm.budget.doubtful_calls == (0 if created else 6)


def test_a_batch_that_may_be_created_late_is_doubtful(llm):
  llm.server.batch_ends = ["dropped"]
  assert len(llm.ask(6, api="batch", attempts=2)) == 6
  assert uploads(llm) == [6]
  assert llm.budget.doubtful_calls == 6
  made = llm.server.batches.values()
  names = [batch["body"]["metadata"]["phi1_jax"] for batch in made]
  with sqlite3.connect(llm.journal.path) as database:
    found = database.execute("SELECT name, id IS NULL FROM batches").fetchall()
  assert [(name in names, lost) for name, lost in found] == [(False, 1), (True, 0)]


@pytest.mark.parametrize("api", ["batch", "online"])
def test_a_batch_that_the_server_does_not_know_is_doubtful(llm, api, caplog):
  leave_a_batch(llm, 6)
  llm.server.batches.clear()
  assert len(llm.ask(8, api=api)) == 8
  assert llm.budget.doubtful_calls == 6
  assert llm.journal.open_batches() == []
  assert "batch batch_0: the server does not know it" in caplog.text


def test_a_batch_of_another_endpoint_is_left_alone(llm, serve):
  leave_a_batch(llm, 2)
  other = serve()
  assert len(other.ask(2)) == 2
  assert len(other.journal.open_batches()) == 1
  money = (other.budget.reserved + 10) / 1e12
  for api in ("online", "batch"):  # nothing to wait for
    with pytest.raises(BudgetError):
      other.ask(requests(1, first=50), api=api, budget_usd=money)


def test_the_longest_beginning_that_fits(monkeypatch):
  def fitting(*reserves, most=9, money):
    calls = [Call(f"{n}", cost, '{"body": 1}') for n, cost in enumerate(reserves)]
    return batches.fitting(calls, most=most, money=money)

  assert fitting(5, 5, 5, money=14) == 2
  assert fitting(5, 5, 5, money=15) == 3
  assert fitting(5, 1, 1, money=4) == 0
  assert fitting(1, 1, 1, most=2, money=99) == 2
  monkeypatch.setattr(batches, "_MOST_BYTES", 200)
  assert fitting(1, 1, 1, money=9) == 2


def test_lines_that_are_not_results_are_left_out():
  content = (
    b'\n{"custom_id": "a", "response": {"status_code": 200}}\n{"custom\nnull\n5\n'
  )
  content += b'{"custom_id": 5}\n{"custom_id": "b", "error": {"code": "batch_expired"}}'
  found = {key: failure for key, _, failure in batches.results(content)}
  assert found.keys() == {"a", "b"}
  assert (found["a"].doubtful, found["b"].doubtful) == (True, False)
  assert "batch_expired" in found["b"].text
