import dataclasses
import itertools
import multiprocessing
import re
import signal
import threading
import time
import types

import jax
import pytest

from evals import backends, prompts, workdir
from evals.backends import CheckpointBackend, EndpointBackend, Wanted
from evals.config import EvaluationConfig
from phi1_jax import InputError, storage
from phi1_jax.llm.completions import Completion, RefusedError, RequestError
from tests.evals.conftest import save_run

CONFIG = EvaluationConfig("humaneval-164", "as-is", slots=3, max_new_tokens=4)
WANTED = [Wanted(key, f"prompt {key}") for key in "abcde"]


class Endpoint:
  """An endpoint that raises `fails[last letter of the prompt]`."""

  base_url, model, api, left_out = "http://x/v1", "m", "completions", ()

  def __init__(self, **fails):
    self.asked, self._fails = [], fails

  def complete(self, prompt, **options):
    self.asked.append((prompt, options))
    if prompt[-1] in self._fails:
      raise self._fails[prompt[-1]]
    return Completion(f"text {prompt[-1]}", "stop", 2, None, 0.5)


def test_endpoint():
  client = Endpoint()
  sampled = dataclasses.replace(CONFIG, temperature=0.2, top_p=0.9, samples=2)
  backend = EndpointBackend(client, sampled)
  found = {one.key: one.text for one in backend.complete(WANTED)}
  assert found == {key: f"text {key}" for key in "abcde"}
  seeds = {options.pop("seed") for _, options in client.asked}
  assert len(seeds) == 5
  expected = {"temperature": 0.2, "top_p": 0.9, "top_k": None, "max_tokens": 4}
  assert client.asked[0][1] == expected | {"stops": prompts.stops("as-is")}


GOOD = "2 of 5 .* 1 of them for good"


@pytest.mark.parametrize(
  ("refusal", "message"),
  [
    (RequestError("busy"), r"2 of 5 requests failed, the same command.*busy"),
    (
      RefusedError("400 prompt is too long"),
      f"{GOOD}: in .* lower Evaluation.max_new_.*400",
    ),
    (RefusedError("At most 9 tokens"), f"{GOOD}: .*max_new_tokens.*; the last"),
    (
      RefusedError("refused with 400 'temperature' does not support 0, nor its length"),
      f"{GOOD}: in another --workdir give --gin.Evaluation.temperature=1; the last",
    ),
    (RefusedError("model context-9: refused with 400 bad"), f"{GOOD}; the last, .*bad"),
    (RefusedError("stop: array too long"), f"{GOOD}; the last"),
    (RefusedError("'max_tokens' is not supported"), f"{GOOD}; the last"),
  ],
)
def test_failures_are_no_completions(refusal, message):
  client = Endpoint(b=RequestError("busy"), d=refusal)
  answers = EndpointBackend(client, CONFIG).complete(WANTED)
  assert sorted(next(answers).key for _ in range(3)) == ["a", "c", "e"]
  with pytest.raises(RequestError, match=message):
    next(answers)


@pytest.mark.parametrize("error", [InputError, KeyError])  # the second is a mistake
def test_a_refusal_ends_it_and_loses_nothing(error):
  class Slow(Endpoint):
    def complete(self, prompt, **options):
      time.sleep(0.01)
      return super().complete(prompt, **options)

  many = [Wanted(str(n), f"{n}{'x' if n == 4 else 'a'}") for n in range(999)]
  client, found = Slow(x=error("no such key")), []
  with pytest.raises(error, match="no such key"):
    found.extend(EndpointBackend(client, CONFIG).complete(many))
  # Every answer that came was handed on; the rest was not asked for.
  assert len(found) == len(client.asked) - 1 < 998


def test_a_long_wait_is_logged(monkeypatch, caplog):
  class Hanging(Endpoint):
    def complete(self, prompt, **options):
      while prompt[-1] == "e" and not caplog.messages:
        time.sleep(0.01)
      return super().complete(prompt, **options)

  monkeypatch.setattr(backends, "_PATIENCE", 0.5)
  assert len(list(EndpointBackend(Hanging(), CONFIG).complete(WANTED))) == 5
  (line,) = caplog.messages
  assert re.fullmatch(r"waiting for 1 answers of http://x/v1 for \d+ s", line)


def test_waits_are_logged_ever_more_rarely(monkeypatch, caplog):
  now, answers = [0], {100: "a", 400: "b"}  # by the second when they come

  class Results:
    def next(self, timeout):
      now[0] += timeout
      if now[0] in answers:
        return answers.pop(now[0])
      raise multiprocessing.TimeoutError if answers else StopIteration

  clock = types.SimpleNamespace(monotonic=lambda: now[0])
  monkeypatch.setattr(backends, "time", clock)
  assert list(backends._each(Results(), 2, "x")) == ["a", "b"]
  lines = [("2", 60), ("1", 60), ("1", 120), ("1", 240)]
  expected = [f"waiting for {n} answers of x for {waited} s" for n, waited in lines]
  assert caplog.messages == expected


@pytest.fixture
def ctrl_c():
  """Sends Ctrl-C to the main thread, and waits until its handler has run."""
  before = signal.signal(signal.SIGINT, signal.default_int_handler)

  def send():
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
    while signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
      time.sleep(0.005)  # the first Ctrl-C puts this handler back

  yield send
  assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
  signal.signal(signal.SIGINT, before)


def test_requests_in_flight_at_a_ctrl_c_are_on_the_disk(generated, tmp_path, ctrl_c):
  gate, count = threading.Event(), itertools.count(1)

  class Slow(Endpoint):
    def complete(self, prompt, **options):
      reply, number = super().complete(prompt, **options), next(count)
      if number == 4:
        ctrl_c()
        gate.set()
      elif 1 < number < 4:
        gate.wait()
      return reply

  config = dataclasses.replace(CONFIG, temperature=0.2, samples=4)
  client = Slow()
  backend = EndpointBackend(client, config)
  with pytest.raises(KeyboardInterrupt):
    generated(backend, config)
  rows = storage.read_lines(tmp_path / workdir.COMPLETIONS)
  assert len(rows) == len(client.asked) < 20
  generated(backend, config)  # which pays for none of them again
  seeds = {options["seed"] for _, options in client.asked}
  assert len(client.asked) == len(seeds) == 20


def test_a_second_ctrl_c_waits_for_nothing(ctrl_c, capfd):
  gate = threading.Event()

  class Hanging(Endpoint):
    def complete(self, prompt, **options):
      ctrl_c()
      ctrl_c()
      gate.wait(20)  # the main thread may notice a signal late
      raise RequestError("too late")

  with pytest.raises(KeyboardInterrupt):
    list(EndpointBackend(Hanging(), CONFIG).complete(WANTED[:1]))
  gate.set()
  assert "once more to quit at once" in capfd.readouterr().err


def test_checkpoint(tiny, generated, tmp_path):
  save_run(tmp_path / "run", tiny())
  config = dataclasses.replace(CONFIG, slots=8, dtype="float32")
  backend = CheckpointBackend(str(tmp_path / "run"), config)
  half = dataclasses.replace(config, dtype="bfloat16")
  halved = CheckpointBackend(str(tmp_path / "run"), half).identity()
  assert halved == backend.identity() | {"dtype": "bfloat16"}
  assert generated(backend, config) == 5
  rows = storage.read_lines(tmp_path / workdir.COMPLETIONS)
  assert {row["task_id"] for row in rows} == {f"HumanEval/{n}" for n in range(5)}
  assert all(row["log_probs"] < 0 and 0 < row["tokens"] <= 4 for row in rows)
  noted = storage.read_json(tmp_path / workdir.RUN)["generate"]
  assert (noted["step"], noted["tokens_seen"], noted["slots"]) == (7, 123, 8)
  assert noted["devices"] == jax.device_count()
  # Nothing is left to do, and nothing is forgotten.
  again = CheckpointBackend(str(tmp_path / "run"), config)
  assert generated(again, config) == 0
  assert storage.read_json(tmp_path / workdir.RUN)["generate"] == noted
