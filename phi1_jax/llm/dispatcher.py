"""Sends asks one by one, as fast as limits and budget allow."""

import asyncio
import collections
import heapq
import itertools
import random
import time

from phi1_jax.llm import limits, office
from phi1_jax.llm.config import LlmConfig
from phi1_jax.llm.ledger import Ask, Call, DiskError, Ledger
from phi1_jax.llm.office import Office
from phi1_jax.llm.sender import Lost, Outcome, Rejected, Replied, Sender, Verdict, judge

_PATIENCE = 3600.0  # seconds of nothing but "slow down" before the run is stopped
_PROBE = 10.0  # seconds after which the first request need not have been answered
_HOPELESS = 10  # refusals without a single reply before the run is stopped
_SETTLING = 1.0  # seconds between looks at money that a batch may set free
_HELD = 4  # a "slow down" that names no time is taken as the pause of this attempt


class Dispatcher:
  """A queue of asks, and the calls that are under way.

  The first request goes alone, so that a wrong key or model costs one refusal.

  Args:
    config: concurrency, limits and attempts.
    ledger: budget and journal.
    sender: the endpoint.
    desk: whom to tell.
    chance: for the jitter.
  """

  def __init__(
    self,
    config: LlmConfig,
    ledger: Ledger,
    sender: Sender,
    desk: Office,
    chance: random.Random,
  ):
    self._config, self._ledger, self._sender = config, ledger, sender
    self._office, self._chance = desk, chance
    self._limiter = limits.Limiter(config.requests_per_minute, config.tokens_per_minute)
    self._new: collections.deque[Ask] = collections.deque()
    self._again: list[tuple[float, int, Ask]] = []  # a heap, by the time it is due
    self._number = itertools.count()
    self._attempts: collections.Counter[str] = collections.Counter()
    self._calls: set[asyncio.Task[None]] = set()
    self._changed = asyncio.Event()
    self._begun: float | None = None  # when the first request went
    self._opened = False  # the endpoint has replied to one
    self._refusals = 0
    self._last_good = time.monotonic()

  def take(self, ask: Ask) -> None:
    """Queues an ask."""
    self._new.append(ask)
    self._changed.set()

  async def work(self) -> None:
    """Sends until told to stop; then waits for what is under way."""
    while not self._office.stopping:
      self._changed.clear()
      pause = self._start_what_may(time.monotonic())
      await self._office.wait(pause, self._changed)
    while self._calls:
      await asyncio.wait(self._calls)

  def _start_what_may(self, now: float) -> float | None:
    """Starts calls; returns the seconds until another may start by itself."""
    while not self._office.stopping:
      due = bool(self._again) and self._again[0][0] <= now
      if not due and not self._new:
        return self._again[0][0] - now if self._again else None
      ask = self._again[0][2] if due else self._new[0]
      probing = not self._opened and now < (self._begun or now) + _PROBE
      if len(self._calls) >= (1 if probing else self._config.concurrency):
        return _PROBE if probing else None
      if pause := self._limiter.delay(ask.tokens, now):
        return pause
      if not self._ledger.budget.fits(ask.reserve):
        if self._ledger.budget.reserved:  # what is under way may cost less
          return _SETTLING
        self._office.stop(office.BUDGET, "", need=ask.reserve)
        return None
      if due:
        heapq.heappop(self._again)
      else:
        self._new.popleft()
      self._start(ask, now)
    return None

  def _start(self, ask: Ask, now: float) -> None:
    self._limiter.sent(ask.tokens, now)
    self._begun = self._begun or now
    task = asyncio.create_task(self._call(ask, self._ledger.reserve(ask)))
    self._calls.add(task)
    task.add_done_callback(self._done)

  def _done(self, task: asyncio.Task[None]) -> None:
    self._calls.discard(task)
    self._changed.set()
    error = None if task.cancelled() else task.exception()
    complaint = str(error) if error else self._ledger.complaint()
    if complaint:
      self._office.stop(office.FAILED, complaint)
    if error and not isinstance(error, DiskError):
      raise error  # a mistake of ours: the event loop logs it

  async def _call(self, ask: Ask, call: Call) -> None:
    await self._ledger.note(call)
    await self._book(ask, call, await self._sender.send(ask.body))

  async def _book(self, ask: Ask, call: Call, outcome: Outcome) -> None:
    ledger = self._ledger
    if isinstance(outcome, Lost):
      await ledger.failed(call, outcome.reason, released=not outcome.doubtful)
      said = f"{self._config.base_url}: {outcome.reason}"
      hint = "" if self._opened else "; is Llm.base_url right, is the server running?"
      self._later(ask, said + hint, None)
      return
    self._limiter.learn(outcome.headers, time.monotonic())
    if isinstance(outcome, Replied):
      kept = await ledger.replied(call, ask, outcome.raw, outcome.whole)
      self._last_good, self._opened = time.monotonic(), True
      self._attempts.pop(ask.key, None)
      self._office.tell(
        reply=ask.key, offset=kept.offset, tokens=kept.completion_tokens
      )
    else:
      released, status = not outcome.doubtful, outcome.status
      await ledger.failed(call, outcome.text, released=released, status=status)
      self._rejected(ask, outcome)

  def _rejected(self, ask: Ask, outcome: Rejected) -> None:
    verdict = judge(outcome.status, outcome.text)
    said = f"{self._config.base_url}: {outcome.status}, {outcome.text[:300]}"
    asked = limits.retry_after(outcome.headers)
    if verdict is Verdict.SLOW_DOWN:
      self._slow_down(ask, said, asked)
    elif verdict is Verdict.AGAIN:
      self._later(ask, said, min(asked, _PATIENCE) or None)
    elif verdict is Verdict.REFUSED:
      self._refusals += 1
      self._office.tell(refused=ask.key, text=said)
      if self._refusals >= _HOPELESS and not self._opened:
        text = f"the first {_HOPELESS} requests were all refused, the last by {said}"
        self._office.stop(office.INPUT, text)
    else:
      self._office.stop(*explain(verdict, said, self._config.model))

  def _slow_down(self, ask: Ask, said: str, asked: float) -> None:
    """Holds everything, for the limit is the account's; it is no attempt."""
    now = time.monotonic()
    if asked > _PATIENCE or now - self._last_good > _PATIENCE:
      text = f"{said}\nnothing is lost: run the same command again later"
      self._office.stop(office.FAILED, text)
      return
    pause = asked or limits.backoff(_HELD, self._chance)
    self._limiter.hold(pause, now)
    self._queue_again(ask, pause)

  def _later(self, ask: Ask, reason: str, asked: float | None) -> None:
    """Lets an ask wait for its next attempt, or gives it up after the last."""
    self._attempts[ask.key] += 1
    attempts = self._attempts[ask.key]
    if attempts >= self._config.attempts:
      del self._attempts[ask.key]
      self._office.tell(
        unanswered=ask.key,
        text=f"{reason} ({attempts} attempts)",
        opened=self._opened,
      )
    else:
      self._queue_again(ask, asked or limits.backoff(attempts, self._chance))

  def _queue_again(self, ask: Ask, pause: float) -> None:
    due = time.monotonic() + pause * self._chance.uniform(1.0, 1.1)
    heapq.heappush(self._again, (due, next(self._number), ask))
    self._changed.set()


def explain(verdict: Verdict, said: str, model: str) -> tuple[str, str]:
  """The kind and the text of a stop: what no other request would survive."""
  if verdict is Verdict.BROKE:
    text = f"{said}\nthe account has no money left; nothing is lost, run the same "
    return office.FAILED, text + "command again when it has"
  text = f"{said}\ncheck OPENAI_API_KEY, Llm.base_url and Llm.model ({model})"
  return office.INPUT, text
