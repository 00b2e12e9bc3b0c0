"""Runs that ask the counting server."""

import json
import pathlib
import subprocess
import sys
import time

import pytest

from phi1_jax import InputError
from phi1_jax.llm.asker import Asker
from phi1_jax.llm.budget import BudgetError
from phi1_jax.llm.client import RequestError
from phi1_jax.llm.conversation import Answered, Failed
from phi1_jax.llm.journal import Journal

pytest.importorskip("openai")
pytestmark = pytest.mark.usefixtures("thread_courier")

MOODS = ("429", "500", "stall", "truncated", "broken", "malformed", "length", "bad")


def files(config):
  """All that a journal's folder holds."""
  folder = pathlib.Path(config.journal)
  return {p.name: p.read_bytes() for p in folder.iterdir()} if folder.exists() else {}


def test_answers_in_order_and_only_once(server, configure, requests, ask):
  config = configure(server.url)
  wanted = requests(30)
  found = ask(config, wanted)
  assert [outcome.request for outcome in found] == wanted
  assert {outcome.reply.model for outcome in found} == {"m-0001"}
  assert [outcome.reply.key for outcome in found] == [r.key(config) for r in wanted]
  money = sum(outcome.reply.picodollars for outcome in found)
  assert money == server.money > 0
  # One more row is one more call; the way, the budget and the speed change nothing.
  again = ask(configure(server.url, concurrency=1, budget_usd=2.0), requests(31))
  assert again[:30] == found
  assert server.counts()["billed"] == 31
  assert server.counts()["twice"] == 0


def test_every_mood_is_survived_and_billed_is_journalled(
  serve, configure, requests, ask
):
  with serve({mood: 0.09 for mood in MOODS}, stall=0.1) as server:
    config = configure(server.url)
    found = ask(config, requests(60))
    counts = server.counts()
    assert ask(config, requests(60)) == found
    assert server.counts() == counts
  assert {type(outcome) for outcome in found} == {Answered, Failed}
  journal = Journal(pathlib.Path(config.journal))
  assert len(journal) == counts["billed"]
  assert (counts["twice"], journal.paid_twice) == (0, 0)
  assert journal.account.doubtful == 0
  assert counts["money"] <= journal.account.spent
  assert {"429", "500"} <= set(counts["statuses"])
  # No request was sent twice in the same words, but for those that were not billed.
  assert counts["came"] - counts["billed"] == (
    counts["statuses"]["429"] + counts["statuses"]["500"]
  )


def test_the_same_request_twice_is_one_call(server, configure, requests, ask):
  wanted = requests(2) * 3
  found = ask(configure(server.url), wanted)
  assert len(found) == 6
  assert server.counts()["billed"] == 2


def test_requests_are_taken_as_needed(server, configure, requests, parse):
  taken = []

  def endless():
    for number in range(10**9):
      taken.append(number)
      yield requests(1, first=number)[0]

  with Asker(configure(server.url, concurrency=2)) as asker:
    outcomes = asker.ask(endless(), parse)
    for _ in range(5):
      next(outcomes)
    assert len(taken) <= 5 + 2 * 4
  # What was under way when it was left is in the journal.
  assert len(Journal(pathlib.Path(asker._config.journal))) == server.counts()["billed"]


def test_concurrency_is_bounded(serve, configure, requests, ask):
  with serve(latency=0.05) as server:
    ask(configure(server.url, concurrency=3), requests(12))
    assert server.counts()["most_at_once"] == 3


REPLAY = """
import socket, sys
sys.modules["openai"] = None
def refuse(*arguments):
  raise OSError("no network")
socket.socket.connect = refuse
from phi1_jax.llm.asker import Asker
from phi1_jax.llm.config import LlmConfig
from phi1_jax.llm.request import Message, Request
config = LlmConfig("m", sys.argv[1], 0.0, "http://127.0.0.1:9/v1",
                   input_usd_per_million=1.0, output_usd_per_million=1.0)
wanted = [Request((Message("user", f"exercise {n}"),), 64, "test", "1")
          for n in range(3)]
with Asker(config) as asker:
  print(*(outcome.value for outcome in asker.ask(wanted, str.strip)), sep="|", end="")
  next(asker.ask([Request((Message("user", "new"),), 1, "test", "1")], str.strip))
"""


def test_a_replay_needs_no_key_no_network_and_no_openai(
  server, configure, requests, ask, monkeypatch
):
  config = configure(server.url)
  found = ask(config, requests(3))
  monkeypatch.delenv("OPENAI_API_KEY")
  command = [sys.executable, "-c", REPLAY, config.journal]
  done = subprocess.run(command, capture_output=True, text=True)
  assert done.stdout == "|".join(outcome.value.strip() for outcome in found)
  # The new request does not fit into a budget of nothing, or finds no server.
  assert done.returncode == 1


def test_a_rate_limit_burns_no_attempts(server, configure, requests, ask):
  slow = (429, {"error": {"message": "slow down"}}, {"Retry-After": "0.03"})
  server.script = [slow] * 8
  assert len(ask(configure(server.url, attempts=2), requests(2))) == 2


def test_nothing_is_sent_while_the_account_has_nothing_left(
  server, configure, requests, ask
):
  server.headers["x-ratelimit-remaining-requests"] = "0"
  server.headers["x-ratelimit-reset-requests"] = "300ms"
  started = time.monotonic()
  ask(configure(server.url, concurrency=1), requests(3))
  assert time.monotonic() - started > 2 * 0.3


def test_an_empty_account_is_not_waited_for(server, configure, requests, ask):
  error = {"message": "You exceeded your quota", "code": "insufficient_quota"}
  server.script = [(429, {"error": error}, {})]
  with pytest.raises(RequestError, match=r"no money left; nothing is lost"):
    ask(configure(server.url), requests(5))
  assert server.counts()["came"] == 1


def test_what_never_answers_stops_the_run_and_keeps_the_rest(
  server, configure, requests, ask
):
  error = (500, {"error": {"message": "oops"}}, {})
  config = configure(server.url, attempts=2, concurrency=1)
  ask(config, requests(2))
  server.script = [error] * 4
  with pytest.raises(RequestError, match=r"500.*\(2 attempts\)\nrun the same command"):
    ask(config, requests(4))
  server.script = {"exercise 3": error}
  skipping = configure(server.url, attempts=1, concurrency=1, skip_unanswered=True)
  found = ask(skipping, requests(6))
  assert [type(outcome) for outcome in found].index(Failed) == 3
  assert len(ask(config, requests(6))) == 6  # a failure never satisfies the cache
  assert server.counts()["twice"] == 0


def test_a_lost_call_is_in_doubt_and_counted(serve, configure, requests, parse):
  seen = []
  with serve({"hang": 1.0}) as server:
    config = configure(server.url, timeout_seconds=1.5)
    with Asker(config, seen.append) as asker:
      assert len(list(asker.ask(requests(3), parse))) == 3
  account = Journal(pathlib.Path(config.journal)).account
  assert (seen[-1].doubtful, seen[-1].doubtful_calls) == (account.doubtful, 3)
  assert seen[-1].left == 10**12 - account.spent - account.doubtful
  assert account.doubtful_calls == 3
  assert account.doubtful > 3 * 64 * 600_000  # all of max_tokens, and the prompt


def test_the_cap_holds_and_the_message_goes_on(serve, configure, requests, ask):
  with serve(latency=0.01) as server:
    budget_usd = 0.0009
    config = configure(server.url, budget_usd=budget_usd, concurrency=4)
    with pytest.raises(BudgetError) as caught:
      ask(config, requests(200))
    assert 0 < server.money <= budget_usd * 1e12
    billed = server.counts()["billed"]
    text = str(caught.value)
    assert f"{200 - billed:,} requests are left" in text
    more = float(text.partition("--gin.Llm.budget_usd=")[2].partition(";")[0])
    found = ask(configure(server.url, budget_usd=more), requests(200))
    assert len(found) == 200
    assert server.counts()["twice"] == 0


def test_a_budget_of_nothing_sends_nothing(server, configure, requests, ask):
  with pytest.raises(BudgetError, match=r"spent \$0.000000 of \$0.000000"):
    ask(configure(server.url, budget_usd=0.0), requests(3))
  assert server.counts()["came"] == 0
  free = {"input_usd_per_million": 0.0, "output_usd_per_million": 0.0}
  assert len(ask(configure(server.url, budget_usd=0.0, **free), requests(3))) == 3


def test_a_server_that_bills_above_the_worst_case_is_left(
  server, configure, requests, ask
):
  usage = {"prompt_tokens": 5, "completion_tokens": 65}
  choice = {"message": {"content": "answer"}, "finish_reason": "stop"}
  server.script = [{"choices": [choice], "usage": usage | {"prompt_tokens": 9999}}]
  with pytest.raises(RequestError, match="billed more tokens than a request allows"):
    ask(configure(server.url), requests(9))
  assert server.counts()["came"] == 1


POISON = [
  b"",
  b"\xff\xfe",
  b"[" * 100_000,
  b'{"choices": []}',
  b'{"choices": [{"message": {"content": null}}]}',
  json.dumps({"choices": [{"message": {"content": "x\ud800\0" * 9}}]}).encode(),
  json.dumps({"choices": [{"message": {"content": "y" * 5_000_000}}]}).encode(),
]


def test_a_poisoned_reply_is_kept_paid_for_and_corrected(
  server, configure, requests, ask
):
  count = len(POISON)
  server.script = {f"exercise {n}": poison for n, poison in enumerate(POISON)}
  config = configure(server.url)
  found = ask(config, requests(count))
  assert [outcome.value[:6] for outcome in found] == ["answer"] * count
  assert ask(config, requests(count)) == found
  assert server.counts()["billed"] == 2 * count
  assert server.counts()["twice"] == 0
  assert len(Journal(pathlib.Path(config.journal))) == 2 * count


def test_a_reply_that_trips_the_parser_stops_neither_run(
  server, configure, requests, ask
):
  def parse(text):
    return len(text) // ("word" not in text)  # ZeroDivisionError

  server.write = lambda body: "word" if "exercise 1" in str(body) else "answer"
  config = configure(server.url)
  found = ask(config, requests(3), parse)
  assert [type(outcome) for outcome in found] == [Answered, Failed, Answered]
  assert "ZeroDivisionError" in found[1].reason
  assert ask(config, requests(3), parse) == found
  assert server.counts()["billed"] == 4


def test_a_refused_request_does_not_stop_the_others(server, configure, requests, ask):
  error = {"error": {"message": "too long", "code": "context_length_exceeded"}}
  config = configure(server.url, concurrency=1)
  server.script = [(400, error, {})]
  found = ask(config, requests(3))
  assert [type(outcome) for outcome in found] == [Failed, Answered, Answered]
  assert "400" in found[0].reason
  assert type(ask(config, requests(3))[0]) is Answered  # it was no reply to keep


def test_when_all_are_refused_the_run_stops(server, configure, requests, ask):
  error = {"error": {"message": "Unsupported parameter: max_tokens"}}
  server.script = [(400, error, {})] * 100
  with pytest.raises(InputError, match=r"first 10 requests.*Unsupported parameter"):
    list(filter(None, ask(configure(server.url, concurrency=2), requests(60))))
  assert server.counts()["came"] <= 12


@pytest.mark.parametrize(
  ("changes", "error", "expected"),
  [
    ({"model": "n"}, InputError, r"404, .*no model n.*\ncheck .*Llm.model \(n\)"),
    (
      {"base_url": "URL/v9"},
      InputError,
      r"404, .*\ncheck OPENAI_API_KEY, Llm.base_url",
    ),
    (
      {"base_url": "http://127.0.0.1:9/v1", "attempts": 2},
      RequestError,
      r"ConnectError.*is Llm.base_url right.*\(2 attempts\)",
    ),
    (
      {"base_url": "http://no-such-host.invalid/v1", "attempts": 1},
      RequestError,
      r"ConnectError.*is Llm.base_url right",
    ),
  ],
)
def test_a_wrong_address_or_model_costs_nothing(
  server, configure, requests, ask, changes, error, expected
):
  address = changes.get("base_url", server.url).replace("URL/v1", server.url)
  address = address.replace("URL", server.url.removesuffix("/v1"))
  config = configure(**{"base_url": address} | {**changes, "base_url": address})
  with pytest.raises(error, match=expected):
    ask(config, requests(20))
  assert server.counts()["came"] <= 1
  account = Journal(pathlib.Path(config.journal)).account
  assert (account.spent, account.doubtful) == (0, 0)


def test_a_bad_key_is_refused_once_and_never_written_down(
  serve, configure, requests, ask
):
  with serve(key="another") as server:
    config = configure(server.url)
    with pytest.raises(InputError, match=r"401, .*\ncheck OPENAI_API_KEY") as caught:
      ask(config, requests(20))
    assert server.counts()["statuses"] == {"401": 1}
  assert "sk-secret" not in str(caught.value)
  assert not [name for name, text in files(config).items() if b"sk-secret" in text]


def test_a_page_of_html_is_no_api(server, configure, requests, ask):
  server.script = [(200, b"<html>Welcome", {"Content-Type": "text/html; x"})]
  with pytest.raises(InputError, match="a page of HTML"):
    ask(configure(server.url), requests(20))


@pytest.mark.parametrize(
  ("name", "value", "expected"),
  [
    ("SSL_CERT_FILE", "/nope", r"FileNotFoundError.*\ncheck SSL_CERT_FILE"),
    ("HTTP_PROXY", "http://proxy:port", r"InvalidURL.*the proxies"),
  ],
)
def test_a_client_that_cannot_be_set_up_is_not_a_full_disk(
  server, configure, requests, ask, monkeypatch, name, value, expected
):
  monkeypatch.setenv(name, value)
  with pytest.raises(InputError, match=rf"(?s)the client cannot be set up.*{expected}"):
    ask(configure(server.url), requests(1))
  assert server.counts()["came"] == 0


def test_openais_own_api_wants_a_key(configure, requests, ask, monkeypatch):
  monkeypatch.setenv("OPENAI_API_KEY", "")
  with pytest.raises(InputError, match="OPENAI_API_KEY is not set"):
    ask(configure("https://api.openai.com/v1"), requests(1))


def test_an_unknown_price_refuses_before_the_journal_is_begun(configure):
  config = configure(input_usd_per_million=None, output_usd_per_million=None)
  with pytest.raises(InputError, match="no price is known for 'm'"):
    Asker(config)
  assert not pathlib.Path(config.journal).exists()


def test_a_journal_that_is_only_read_answers_what_it_has(
  server, configure, requests, ask, monkeypatch
):
  config = configure(server.url)
  found = ask(config, requests(2))
  monkeypatch.setattr("phi1_jax.llm.journal._lock", lambda folder, say: None)
  before = files(config)
  assert ask(config, requests(2)) == found
  with pytest.raises(InputError, match="cannot be written to"):
    ask(config, requests(3))
  assert files(config) == before
