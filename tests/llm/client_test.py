"""Runs against the counting server: outcomes, money, limits, errors."""

import re
import sys
import threading
import time
from unittest.mock import Mock

import pytest

from phi1_jax import InputError
from phi1_jax.llm import sender
from phi1_jax.llm.client import BudgetError, Client, RequestError
from phi1_jax.llm.conversation import Answered, Failed
from tests.llm.conftest import hold_all_but_the_first, parse, release, requests, wait

pytest.importorskip("openai")
pytestmark = pytest.mark.usefixtures("thread_sender")


def types_of(outcomes):
  return [type(outcome) for outcome in outcomes]


def test_answers_in_order_and_only_once(llm):
  wanted = requests(30)
  found = llm.ask(wanted)
  assert [outcome.request for outcome in found] == wanted
  assert {outcome.reply.model for outcome in found} == {"m-0001"}
  keys = [request.key(llm.config()) for request in wanted]
  assert [outcome.reply.key for outcome in found] == keys
  money = sum(outcome.reply.picodollars for outcome in found)
  assert money == llm.server.money > 0
  assert llm.ask(31, concurrency=1, budget_usd=2.0)[:30] == found
  assert llm.server.counts()["billed"] == 31
  assert len(llm.ask(wanted[:2] * 3)) == 6
  assert llm.server.counts()["came"] == 31


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
def test_what_becomes_of_an_answer(llm, case):
  _, answer, expected, calls, paid, doubtful = case
  assert types_of(llm.ask(1)) == [Answered]
  before = llm.budget
  llm.server.script = [answer]
  (outcome,) = llm.ask(requests(1, first=5))
  text = outcome.value if isinstance(outcome, Answered) else outcome.reason
  assert text.startswith(expected) or (isinstance(outcome, Failed) and expected in text)
  assert llm.server.counts()["came"] == 1 + calls
  assert len(llm.journal.replies()) == 1 + paid
  assert llm.budget.doubtful_calls == doubtful
  assert (llm.budget.spent > before.spent) == bool(paid)


def test_a_reply_cut_off_twice_is_not_kept_as_whole(llm):
  llm.server.script = [reply("answer 1", "length"), reply("answer 1, 2", "length")]
  (outcome,) = llm.ask(1)
  assert isinstance(outcome, Failed)
  assert "cut off" in outcome.reason
  assert [body["max_tokens"] for body in llm.server.bodies] == [64, 128]


def test_requests_are_taken_as_needed_and_few_at_once(llm):
  taken = []

  def release_three():
    wait(lambda: llm.server.now == 3)
    release(llm.server)

  def endless():
    for number in range(10**9):
      taken.append(number)
      yield requests(1, first=number)[0]

  hold_all_but_the_first(llm.server)
  threading.Thread(target=release_three).start()
  with Client(llm.config(concurrency=3)) as client:
    outcomes = client.ask(endless(), parse)
    for _ in range(9):
      next(outcomes)
    assert len(taken) <= 9 + 3 * 4
  counts = llm.server.counts()
  assert len(llm.journal.replies()) == counts["billed"]
  assert counts["most_at_once"] == 3


def test_a_replay_needs_no_key_no_network_and_no_openai(llm, monkeypatch):
  found = llm.ask(3)
  monkeypatch.delenv("OPENAI_API_KEY")
  for package in ("openai", "genai_prices"):
    monkeypatch.setitem(sys.modules, package, None)
  refuse = Mock(side_effect=OSError("no network"))
  monkeypatch.setattr("socket.socket.connect", refuse)
  assert llm.ask(3) == found
  assert not refuse.called


def test_what_never_answers_stops_the_run_and_keeps_the_rest(llm):
  error = (500, {"error": {"message": "oops"}}, {})
  llm.ask(2)
  llm.server.script = [error] * 4
  with pytest.raises(RequestError, match=r"500.*\(2 attempts\)"):
    llm.ask(4, attempts=2, concurrency=1)
  llm.server.script = {"exercise 3": error}
  skipping = {"attempts": 1, "concurrency": 1, "skip_unanswered": True}
  assert types_of(llm.ask(6, **skipping)).index(Failed) == 3
  # Also where no other request is left that could show that the endpoint replies.
  llm.server.script = {"exercise 3": error}
  assert types_of(llm.ask(6, **skipping)).index(Failed) == 3
  assert len(llm.ask(6)) == 6  # a failure is no reply to keep
  assert llm.server.counts()["twice"] == 0


def test_a_lost_call_is_in_doubt_and_counted(serve):
  llm, seen = serve({"hang": 1.0}), []
  with Client(llm.config(timeout_seconds=1.5), seen.append) as client:
    assert len(list(client.ask(requests(1), parse))) == 1
  budget = llm.budget
  assert client.budget == seen[-1].budget == budget
  assert (budget.doubtful_calls, budget.reserved) == (1, 0)
  assert budget.doubtful > 64 * 600_000  # all of max_tokens, and the prompt
  assert set(budget.figures()) == {"spent", "left", "in doubt"}
  assert [progress.done for progress in seen] == sorted(p.done for p in seen)
  assert (seen[-1].done, seen[-1].total) == (1, 1)


def test_the_cap_holds_and_the_message_goes_on(serve):
  llm, budget = serve({"error": 0.1, "broken": 0.1}, latency=0.01), 0.0009
  found = []
  while len(found) < 100:
    try:
      found = llm.ask(100, budget_usd=budget, concurrency=4)
    except BudgetError as error:
      assert llm.server.money > 0
      more = float(str(error).partition("--gin.Llm.budget_usd=")[2].partition(";")[0])
      assert budget < more < 1.0
    assert llm.server.money <= llm.budget.spent + llm.budget.doubtful <= budget * 1e12
    budget = more
  assert llm.server.counts()["twice"] == 0


def test_a_budget_of_nothing_sends_nothing(llm):
  with pytest.raises(BudgetError):
    llm.ask(3, budget_usd=0.0)
  assert llm.server.counts()["came"] == 0
  free = {"input_usd_per_million": 0.0, "output_usd_per_million": 0.0}
  assert len(llm.ask(3, budget_usd=0.0, **free)) == 3


def test_an_estimate_sends_nothing_and_covers_every_attempt_and_remedy(llm):
  with Client(llm.config(attempts=2)) as client:
    first = client.estimate(requests(10) + requests(10))
  worst = llm.estimate(1, attempts=2).worst
  assert (first.requests, first.to_send) == (10, 10)
  assert first.expected == 10 * (3 * 150_000 + 32 * 600_000)
  assert llm.server.counts()["came"] == 0
  lost = (504, {"error": {}}, {})
  answers = [reply("sorry " * 100, finish) for finish in ("stop", "length", "stop")]
  for _, body, _ in answers:
    del body["usage"]  # so that each counts at its worst case
  llm.server.script = [answer for each in answers for answer in (lost, each)]
  assert types_of(llm.ask(1, attempts=2)) == [Failed]
  assert llm.server.counts()["came"] == 6
  assert worst / 2 < llm.budget.spent + llm.budget.doubtful <= worst
  assert llm.estimate(3).to_send == 2


def test_a_reply_that_trips_the_parser_stops_neither_run(llm):
  def parse(text):
    return len(text) // ("word" not in text)  # ZeroDivisionError

  llm.server.write = lambda body: "word" if "exercise 1" in str(body) else "answer"
  found = llm.ask(3, parse=parse)
  assert types_of(found) == [Answered, Failed, Answered]
  assert "ZeroDivisionError" in found[1].reason
  assert llm.ask(3, parse=parse) == found
  assert llm.server.counts()["billed"] == 4

  def refuse(text):
    raise InputError("the teacher has no such word")

  with pytest.raises(InputError, match="no such word"):
    llm.ask(1, parse=refuse)


def test_an_empty_reply_is_corrected_without_two_turns_of_one_speaker(llm):
  llm.server.script = [reply("")]
  assert types_of(llm.ask(1)) == [Answered]
  (message,) = llm.server.bodies[1]["messages"]
  assert message["content"].startswith("exercise 0\n\n")


class Always(dict):
  """A script that gives a request the same answer every time."""

  def pop(self, key, default=None):
    return self.get(key, default)


BROKEN = (503, {"error": {"message": "oops"}}, {"Retry-After": "0.01"})


@pytest.mark.parametrize("concurrency", [1, 32])
@pytest.mark.parametrize("answer", [(200, b"<p>", {"Retry-After": "0.01"}), BROKEN])
def test_a_dead_server_gets_the_attempts_of_one_request(llm, answer, concurrency):
  """Also of a run that is resumed, and with skip_unanswered."""
  settings, came = {"attempts": 2, "concurrency": concurrency}, 0
  for done, skip in ((0, False), (2, False), (2, True)):
    llm.server.script = []
    llm.ask(done)
    llm.server.script = [answer] * 500
    with pytest.raises(
      RequestError, match=r"\(2 attempts\)\n.*run the same command"
    ) as caught:
      llm.ask(42, skip_unanswered=skip, **settings)
    assert ("skip_unanswered" in str(caught.value)) is not skip
    came += 2
    assert llm.server.counts()["came"] == len(llm.journal.replies()) + came
  llm.server.script = []
  assert types_of(llm.ask(42)) == [Answered] * 42
  assert llm.server.counts()["came"] == 42 + came


def test_a_server_that_is_not_there_stops_also_the_last_request(llm):
  llm.ask(2)
  dead = {"base_url": "http://127.0.0.1:9/v1", "attempts": 1}
  with pytest.raises(RequestError, match="is the server running"):
    llm.ask(3, skip_unanswered=True, **dead)


@pytest.mark.parametrize(
  ("concurrency", "bad"), [(1, (2, 5)), (32, (2, 3)), (32, (2, 3, 4, 5))]
)
def test_a_run_ends_whose_last_requests_never_get_a_reply(llm, concurrency, bad):
  llm.ask(2)
  llm.server.script = Always({f"exercise {number}": BROKEN for number in bad})
  found = llm.ask(6, skip_unanswered=True, attempts=2, concurrency=concurrency)
  expected = [Failed if number in bad else Answered for number in range(6)]
  assert types_of(found) == expected
  assert llm.server.counts()["came"] == 6 + len(bad)


def test_requests_that_come_late_are_left_too(llm):
  llm.server.script = [BROKEN] * 100

  def late():
    for request in requests(12):
      time.sleep(0.05)
      yield request

  client = Client(llm.config(skip_unanswered=True, attempts=1))
  with client, pytest.raises(RequestError, match="no request of this run"):
    next(client.ask(late(), parse))


def test_errors_of_others_do_not_make_them_wait_for_the_first(llm, monkeypatch):
  monkeypatch.setattr(sender, "_PROBE", 0.2)
  others, in_time = threading.Semaphore(0), []

  def write(body):
    if "exercise 0" in str(body):
      in_time.extend(others.acquire(timeout=3.0) for _ in range(3))
    others.release()
    return "answer"

  llm.server.write = write
  llm.server.script = {f"exercise {number}": BROKEN for number in (1, 2, 3)}
  assert types_of(llm.ask(4)) == [Answered] * 4
  assert in_time == [True] * 3


def test_a_server_that_only_answers_429_is_named(llm, monkeypatch, caplog):
  monkeypatch.setattr(sender, "_QUIET", 0.05)
  llm.server.script, notes = [SLOW] * 9, []
  with Client(llm.config(), lambda progress: notes.append(progress.note)) as client:
    assert len(list(client.ask(requests(3), parse))) == 3
  (warning,) = [r.message for r in caplog.records if r.levelname == "WARNING"]
  assert re.search(r"429, .*slow down.* no reply for \d+ s, asking on until", warning)
  assert warning in notes
  assert notes[-1].endswith("it replies again")


DEAR = reply("answer")
DEAR[1]["usage"]["prompt_tokens"] = 9999
QUOTA = {"message": "You exceeded your quota", "code": "insufficient_quota"}
UNSUPPORTED = {"message": "Unsupported parameter: max_tokens"}


@pytest.mark.parametrize(
  ("answer", "most", "error", "expected"),
  [
    ((429, {"error": QUOTA}, {}), 1, RequestError, "no money left"),
    (DEAR, 1, RequestError, "billed more tokens than a request allows"),
    (
      (400, {"error": UNSUPPORTED}, {}),
      *(12, InputError, r"first 10 requests.*Unsupported parameter"),
    ),
    (
      (200, b"<html>Welcome", {"Content-Type": "text/html; x"}),
      *(2, InputError, "a page of HTML"),
    ),
  ],
)
def test_a_server_that_is_left(llm, answer, most, error, expected):
  llm.server.script = [answer] * 100
  with pytest.raises(error, match=expected):
    llm.ask(60, concurrency=2)
  assert llm.server.counts()["came"] <= most


@pytest.mark.parametrize(
  ("changes", "error", "expected"),
  [
    ({"model": "n"}, InputError, r"404, .*no model n.*\n.*Llm.model \(n\)"),
    ({"base_url": "URL/v9"}, InputError, r"404, .*\n.*Llm.base_url"),
    (
      {"base_url": "http://127.0.0.1:9/v1", "attempts": 2},
      *(RequestError, r"ConnectError.*Llm.base_url.*\(2 attempts\)"),
    ),
  ],
)
def test_a_wrong_address_or_model_costs_nothing(llm, changes, error, expected):
  root = llm.server.url.removesuffix("/v1")
  changes = {
    n: v.replace("URL", root) if n == "base_url" else v for n, v in changes.items()
  }
  with pytest.raises(error, match=expected):
    llm.ask(20, **changes)
  assert llm.server.counts()["came"] <= 1
  assert (llm.budget.spent, llm.budget.doubtful) == (0, 0)


@pytest.mark.parametrize("api", ["online", "batch"])
def test_a_bad_key_is_refused_once_and_never_written_down(serve, api):
  llm = serve(key="another")
  with pytest.raises(InputError, match=r"401, .*\n.*OPENAI_API_KEY") as caught:
    llm.ask(20, api=api)
  assert llm.server.counts()["statuses"] == {"401": 1}
  assert llm.journal.open_batches() == []
  assert llm.budget.left == 10**12
  assert "sk-secret" not in str(caught.value)
  for path in llm.folder.iterdir():
    assert b"sk-secret" not in path.read_bytes()


@pytest.mark.parametrize(
  "changes", [{"base_url": "https://api.openai.com/v1"}, {"api_version": "2024-10-21"}]
)
def test_hosted_models_want_a_key(llm, monkeypatch, changes):
  monkeypatch.setenv("OPENAI_API_KEY", "")
  with pytest.raises(InputError, match="OPENAI_API_KEY is not set"):
    llm.ask(1, **changes)


def test_azure_gets_its_version_path_and_header(llm):
  url = llm.server.url.removesuffix("/v1") + "/openai"
  llm.ask(1, base_url=url, api_version="2024-10-21")
  path = "/openai/deployments/m/chat/completions?api-version=2024-10-21"
  assert llm.server.paths == [path]
  assert llm.server.request_headers["api-key"] == "sk-secret"
