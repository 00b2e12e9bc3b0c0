"""Runs against the counting server: outcomes, money, limits, errors."""

import pathlib
import subprocess
import sys

import pytest

from phi1_jax import InputError
from phi1_jax.llm.client import BudgetError, Client, RequestError
from phi1_jax.llm.conversation import Answered, Failed
from phi1_jax.llm.journal import Journal

pytest.importorskip("openai")
pytestmark = pytest.mark.usefixtures("thread_sender")


def journal_of(config):
  return Journal(pathlib.Path(config.journal))


def types_of(outcomes):
  return [type(outcome) for outcome in outcomes]


def test_answers_in_order_and_only_once(server, configure, requests, ask):
  config = configure(server.url)
  wanted = requests(30)
  found = ask(config, wanted)
  assert [outcome.request for outcome in found] == wanted
  assert {outcome.reply.model for outcome in found} == {"m-0001"}
  assert [outcome.reply.key for outcome in found] == [r.key(config) for r in wanted]
  money = sum(outcome.reply.picodollars for outcome in found)
  assert money == server.money > 0
  again = ask(configure(server.url, concurrency=1, budget_usd=2.0), requests(31))
  assert again[:30] == found
  assert server.counts()["billed"] == 31
  assert len(ask(config, wanted[:2] * 3)) == 6
  assert server.counts()["came"] == 31


SLOW = (429, {"error": {"message": "slow down"}}, {"Retry-After": "0.03"})
ERROR = (200, {"error": {"message": "overloaded"}}, {})


def reply(text, finish="stop", **message):
  choice = {"message": {"content": text, **message}, "finish_reason": finish}
  usage = {"prompt_tokens": 3, "completion_tokens": 9}
  return (200, {"choices": [choice], "usage": usage}, {})


# name, first answer of the server, outcome, calls, replies paid, calls in doubt
CASES = [
  ("reasons in tags", reply("<think>no</think>answer yes"), "answer yes", 1, 1, 0),
  ("in a field", reply("answer", reasoning_content="answer no"), "answer", 1, 1, 0),
  ("never ends reasoning", reply("<think>answer no"), "answer", 2, 2, 0),
  ("cuts once", reply("answer and", "length"), "answer", 2, 2, 0),
  ("error under 200", ERROR, "answer", 2, 1, 1),
  ("429 under 200", (200, {"error": {"code": 429}}, {}), "answer", 2, 1, 1),
  ("not JSON", (200, b"<<", {}), "answer", 2, 1, 1),
  ("no message", (200, {"choices": []}, {}), "answer", 2, 1, 1),
  ("429, Retry-After", SLOW, "answer", 2, 1, 0),
  ("500", (500, {"error": {}}, {}), "answer", 2, 1, 0),
  ("504", (504, {"error": {}}, {}), "answer", 2, 1, 1),
  ("refuses in words", reply(None, refusal="no"), "refused: no", 1, 1, 0),
  ("filters", reply("answer", "content_filter"), "content filter", 1, 1, 0),
  ("refuses with 400", (400, {"error": {"message": "long"}}, {}), "long", 1, 0, 0),
]


@pytest.mark.parametrize("case", CASES, ids=[case[0] for case in CASES])
def test_what_becomes_of_an_answer(server, configure, requests, ask, case):
  _, answer, expected, calls, paid, doubtful = case
  config = configure(server.url)
  (good,) = ask(config, requests(1))
  before = journal_of(config).budget(0)
  server.script = [answer]
  (outcome,) = ask(config, requests(1, first=5))
  text = outcome.value if isinstance(outcome, Answered) else outcome.reason
  assert text.startswith(expected) or (isinstance(outcome, Failed) and expected in text)
  journal = journal_of(config)
  after = journal.budget(0)
  assert server.counts()["came"] == 1 + calls
  assert len(journal.replies()) == 1 + paid
  assert after.doubtful_calls == doubtful
  assert (after.spent > before.spent) == bool(paid)
  assert isinstance(good, Answered)


def test_an_empty_account_is_not_waited_for_and_a_rate_limit_is_no_attempt(
  server, configure, requests, ask
):
  error = {"message": "You exceeded your quota", "code": "insufficient_quota"}
  server.script = [(429, {"error": error}, {})]
  with pytest.raises(RequestError, match="no money left"):
    ask(configure(server.url), requests(5))
  assert server.counts()["came"] == 1
  server.script = [SLOW] * 3
  assert len(ask(configure(server.url, attempts=2), requests(1))) == 1


def test_a_reply_cut_off_twice_is_not_kept_as_whole(server, configure, requests, ask):
  server.script = [reply("answer 1", "length"), reply("answer 1, 2", "length")]
  (outcome,) = ask(configure(server.url), requests(1))
  assert isinstance(outcome, Failed)
  assert "cut off" in outcome.reason
  assert [body["max_tokens"] for body in server.bodies] == [64, 128]


def test_requests_are_taken_as_needed(server, configure, requests, parse):
  taken = []

  def endless():
    for number in range(10**9):
      taken.append(number)
      yield requests(1, first=number)[0]

  config = configure(server.url, concurrency=2)
  with Client(config) as client:
    outcomes = client.ask(endless(), parse)
    for _ in range(5):
      next(outcomes)
    assert len(taken) <= 5 + 2 * 4
  assert len(journal_of(config).replies()) == server.counts()["billed"]


def test_concurrency_is_bounded(serve, configure, requests, ask):
  with serve(latency=0.05) as server:
    ask(configure(server.url, concurrency=3), requests(12))
    assert server.counts()["most_at_once"] == 3


REPLAY = """
import socket, sys
sys.modules["openai"] = sys.modules["genai_prices"] = None
def refuse(*arguments):
  raise OSError("no network")
socket.socket.connect = refuse
from phi1_jax.llm.client import Client
from phi1_jax.llm.config import LlmConfig
from phi1_jax.llm.request import Message, Request
config = LlmConfig("m", *sys.argv[1:2], 0.0, sys.argv[2],
                   input_usd_per_million=1.0, output_usd_per_million=1.0)
wanted = [Request((Message("user", f"exercise {n}"),), 64, "test", "1")
          for n in range(3)]
with Client(config) as client:
  print(*(outcome.value for outcome in client.ask(wanted, str.strip)), sep="|", end="")
"""


def test_a_replay_needs_no_key_no_network_and_no_openai(
  server, configure, requests, ask, monkeypatch
):
  config = configure(server.url)
  found = ask(config, requests(3))
  monkeypatch.delenv("OPENAI_API_KEY")
  command = [sys.executable, "-c", REPLAY, config.journal, config.base_url]
  done = subprocess.run(command, capture_output=True, text=True, check=True)
  assert done.stdout == "|".join(outcome.value.strip() for outcome in found)


def test_what_never_answers_stops_the_run_and_keeps_the_rest(
  server, configure, requests, ask
):
  error = (500, {"error": {"message": "oops"}}, {})
  config = configure(server.url, attempts=2, concurrency=1)
  ask(config, requests(2))
  server.script = [error] * 4
  with pytest.raises(RequestError, match=r"500.*\(2 attempts\)"):
    ask(config, requests(4))
  server.script = {"exercise 3": error}
  skipping = configure(server.url, attempts=1, concurrency=1, skip_unanswered=True)
  assert types_of(ask(skipping, requests(6))).index(Failed) == 3
  assert len(ask(config, requests(6))) == 6  # a failure is no reply to keep
  assert server.counts()["twice"] == 0


def test_a_lost_call_is_in_doubt_and_counted(serve, configure, requests, parse):
  seen = []
  with serve({"hang": 1.0}) as server:
    config = configure(server.url, timeout_seconds=1.5)
    with Client(config, seen.append) as client:
      assert len(list(client.ask(requests(1), parse))) == 1
  budget = journal_of(config).budget(10**12)
  assert client.budget == seen[-1].budget == budget
  assert (budget.doubtful_calls, budget.reserved) == (1, 0)
  assert budget.doubtful > 64 * 600_000  # all of max_tokens, and the prompt
  assert set(budget.figures()) == {"spent", "left", "in doubt"}
  assert [progress.done for progress in seen] == sorted(p.done for p in seen)
  assert (seen[-1].done, seen[-1].total) == (1, 1)


def test_the_cap_holds_and_the_message_goes_on(serve, configure, requests, ask):
  with serve({"error": 0.1, "broken": 0.1}, latency=0.01) as server:
    config = configure(server.url, budget_usd=0.0009, concurrency=4)
    with pytest.raises(BudgetError) as caught:
      ask(config, requests(200))
    budget = journal_of(config).budget(0)
    assert 0 < server.money <= budget.spent + budget.doubtful <= 0.0009 * 1e12
    text = str(caught.value)
    more = float(text.partition("--gin.Llm.budget_usd=")[2].partition(";")[0])
    while more < 1.0:
      try:
        assert len(ask(configure(server.url, budget_usd=more), requests(200))) == 200
        break
      except BudgetError as error:
        more = float(str(error).partition("budget_usd=")[2].partition(";")[0])
    assert server.counts()["twice"] == 0
    budget = journal_of(config).budget(0)
    assert server.money <= budget.spent + budget.doubtful <= more * 1e12


def test_a_budget_of_nothing_sends_nothing(server, configure, requests, ask):
  with pytest.raises(BudgetError):
    ask(configure(server.url, budget_usd=0.0), requests(3))
  assert server.counts()["came"] == 0
  free = {"input_usd_per_million": 0.0, "output_usd_per_million": 0.0}
  assert len(ask(configure(server.url, budget_usd=0.0, **free), requests(3))) == 3


def test_a_server_that_bills_above_the_worst_case_is_left(
  server, configure, requests, ask
):
  answer = reply("answer")
  answer[1]["usage"]["prompt_tokens"] = 9999
  server.script = [answer]
  with pytest.raises(RequestError, match="billed more tokens than a request allows"):
    ask(configure(server.url), requests(9))
  assert server.counts()["came"] == 1


def test_an_estimate_sends_nothing_and_covers_every_attempt_and_remedy(
  server, configure, requests, ask
):
  config = configure(server.url, attempts=2)
  with Client(config) as client:
    first = client.estimate(requests(10) + requests(10))
    worst = client.estimate(requests(1)).worst
  assert (first.requests, first.to_send) == (10, 10)
  assert first.expected == 10 * (3 * 150_000 + 32 * 600_000)
  assert server.counts()["came"] == 0
  lost = (504, {"error": {}}, {})
  answers = [reply("sorry " * 100, finish) for finish in ("stop", "length", "stop")]
  for _, body, _ in answers:
    del body["usage"]  # so that each counts at its worst case
  server.script = [answer for each in answers for answer in (lost, each)]
  assert types_of(ask(config, requests(1))) == [Failed]
  budget = journal_of(config).budget(0)
  assert server.counts()["came"] == 6
  assert worst / 2 < budget.spent + budget.doubtful <= worst
  with Client(config) as client:
    second = client.estimate(requests(3))
  assert second.to_send == 2
  assert second.budget.spent == budget.spent


def test_a_reply_that_trips_the_parser_stops_neither_run(
  server, configure, requests, ask
):
  def parse(text):
    return len(text) // ("word" not in text)  # ZeroDivisionError

  server.write = lambda body: "word" if "exercise 1" in str(body) else "answer"
  config = configure(server.url)
  found = ask(config, requests(3), parse)
  assert types_of(found) == [Answered, Failed, Answered]
  assert "ZeroDivisionError" in found[1].reason
  assert ask(config, requests(3), parse) == found
  assert server.counts()["billed"] == 4


def test_when_all_are_refused_the_run_stops(server, configure, requests, ask):
  error = {"error": {"message": "Unsupported parameter: max_tokens"}}
  server.script = [(400, error, {})] * 100
  with pytest.raises(InputError, match=r"first 10 requests.*Unsupported parameter"):
    list(filter(None, ask(configure(server.url, concurrency=2), requests(60))))
  assert server.counts()["came"] <= 12


@pytest.mark.parametrize(
  ("changes", "error", "expected"),
  [
    ({"model": "n"}, InputError, r"404, .*no model n.*\n.*Llm.model \(n\)"),
    ({"base_url": "URL/v9"}, InputError, r"404, .*\n.*Llm.base_url"),
    (
      {"base_url": "http://127.0.0.1:9/v1", "attempts": 2},
      RequestError,
      r"ConnectError.*Llm.base_url.*\(2 attempts\)",
    ),
  ],
)
def test_a_wrong_address_or_model_costs_nothing(
  server, configure, requests, ask, changes, error, expected
):
  changes = {"base_url": server.url, **changes}
  address = changes["base_url"].replace("URL", server.url.removesuffix("/v1"))
  config = configure(**{**changes, "url": address, "base_url": address})
  with pytest.raises(error, match=expected):
    ask(config, requests(20))
  assert server.counts()["came"] <= 1
  budget = journal_of(config).budget(0)
  assert (budget.spent, budget.doubtful) == (0, 0)


def test_a_bad_key_is_refused_once_and_never_written_down(
  serve, configure, requests, ask
):
  with serve(key="another") as server:
    config = configure(server.url)
    with pytest.raises(InputError, match=r"401, .*\n.*OPENAI_API_KEY") as caught:
      ask(config, requests(20))
    assert server.counts()["statuses"] == {"401": 1}
  assert "sk-secret" not in str(caught.value)
  for path in pathlib.Path(config.journal).iterdir():
    assert b"sk-secret" not in path.read_bytes()


def test_a_page_of_html_is_no_api(server, configure, requests, ask):
  server.script = [(200, b"<html>Welcome", {"Content-Type": "text/html; x"})]
  with pytest.raises(InputError, match="a page of HTML"):
    ask(configure(server.url), requests(20))


@pytest.mark.parametrize(
  "changes", [{"url": "https://api.openai.com/v1"}, {"api_version": "2024-10-21"}]
)
def test_hosted_models_want_a_key(configure, requests, ask, monkeypatch, changes):
  monkeypatch.setenv("OPENAI_API_KEY", "")
  with pytest.raises(InputError, match="OPENAI_API_KEY is not set"):
    ask(configure(**changes), requests(1))


def test_azure_gets_its_version_path_and_header(server, configure, requests, ask):
  url = server.url.removesuffix("/v1") + "/openai"
  config = configure(url, api_version="2024-10-21")
  ask(config, requests(1))
  path = "/openai/deployments/m/chat/completions?api-version=2024-10-21"
  assert server.paths == [path]
  assert server.request_headers["api-key"] == "sk-secret"
