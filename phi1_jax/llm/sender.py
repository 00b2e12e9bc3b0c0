"""Sends requests, pays for them, writes them down, and tells the run.

The worst case of a call is reserved before it is sent, and its outcome is committed
before the run learns of it.
"""

import asyncio
import collections
import contextlib
import dataclasses
import json
import logging
import math
import random
import sqlite3
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from phi1_jax.llm import prices, reply
from phi1_jax.llm.config import LlmConfig
from phi1_jax.llm.endpoint import Completed, Endpoint, Failure, Verdict
from phi1_jax.llm.journal import Call, Journal
from phi1_jax.llm.request import clean

# Why a sender stops; the run raises InputError, BudgetError or RequestError.
INPUT, BUDGET, FAILED = "input", "budget", "failed"
_KEPT = "all replies so far are kept"
_LATER = "\nnothing is lost: run the same command again later"
_SPARE, _SPARE_PER_REPLY = (
  1 << 20,
  1 << 16,
)  # bytes of disk, see `Journal.begin_writing`
_PATIENCE = 3600.0  # seconds of nothing but status 429 before the run is stopped
_PROBE = 10.0  # seconds that the first request is alone in flight, without a reply
_HOPELESS = 10  # refusals without a single reply before the run is stopped
_SETTLING = 1.0  # seconds between looks at money that calls in flight may release
_PAUSE_OF_ATTEMPT = 4  # for a status 429 without Retry-After
_MINUTE = 60.0
log = logging.getLogger(__name__)


class StoppedError(RuntimeError):
  """Leaves a task after `Sender.stop`."""


class RateLimiter:
  """Keeps requests and tokens below a limit in any 60 seconds; None is no limit.

  Times are in seconds; it looks at no clock.
  """

  def __init__(self, requests: int | None, tokens: int | None):
    self._limits = requests or math.inf, tokens or math.inf
    self._sent: collections.deque[tuple[float, tuple[int, int]]] = collections.deque()
    self._held_until = 0.0

  def take(self, tokens: int, now: float) -> float:
    """Count a request of so many tokens if it may be sent; return 0, or how long not.

    A request above the whole limit is sent alone.
    """
    while self._sent and self._sent[0][0] + _MINUTE <= now:
      self._sent.popleft()
    until = self._held_until
    for kind, (more, limit) in enumerate(zip((1, tokens), self._limits, strict=True)):
      excess = sum(sizes[kind] for _, sizes in self._sent) + more - limit
      for moment, sizes in self._sent:
        if excess <= 0:
          break
        excess -= sizes[kind]
        until = max(until, moment + _MINUTE)
    if until <= now:
      self._sent.append((now, (1, tokens)))
    return max(0.0, until - now)

  def hold(self, seconds: float, now: float) -> None:
    """Allow no request for so long."""
    self._held_until = max(self._held_until, now + seconds)


class Sender:
  """The tasks that send requests, and what they share: budget, journal, limits.

  The first request goes alone, so that a wrong key or model costs one refusal.

  Args:
    journal: the journal, whose folder this process has to itself.
    send: sends a message to the run.
    ended: set when nothing more is to be sent: the run has ended, or the work.

  Attributes:
    budget: the money of the journal.
    open_batches: batches of this endpoint that earlier runs left open.
    unsettled: number of this endpoint's calls that are reserved for, and may cost less.
  """

  def __init__(
    self,
    config: LlmConfig,
    endpoint: Endpoint,
    journal: Journal,
    send: Callable[..., None],
    ended: asyncio.Event,
  ):
    self.config, self.endpoint, self._send, self._ended = config, endpoint, send, ended
    price = prices.find(config)
    self._prices = {False: price, True: price.batch()}
    self.journal, self._next = journal, journal.next_call()
    self.budget = journal.budget(prices.picodollars(config.budget_usd))
    journal.begin_writing(_SPARE + _SPARE_PER_REPLY * config.concurrency)
    self.open_batches = journal.open_batches(config.base_url.rstrip("/"))
    self.unsettled = sum(len(batch.calls) for batch in self.open_batches)
    self._changed = asyncio.Event()  # a task has ended, or money was released
    self._stopped: dict[str, Any] = {}
    self._tasks: set[asyncio.Task[None]] = set()
    self._limiter = RateLimiter(config.requests_per_minute, config.tokens_per_minute)
    self._turn = asyncio.Lock()  # requests are sent in their order
    self._in_flight = self._refusals = 0
    self._attempts: collections.Counter[str] = collections.Counter()
    self._begun: float | None = None  # when the first request went
    self._answered = False  # the endpoint has replied to a request
    self._last_good = time.monotonic()

  @property
  def stopping(self) -> bool:
    """Whether nothing more is to be sent."""
    return self._ended.is_set()

  def tell(self, **message: Any) -> None:
    """Send the run a message, with the money."""
    self._send(**message, budget=dataclasses.asdict(self.budget))

  def stop(self, kind: str, text: str = "", need: int = 0) -> None:
    """End the work for a reason; the first counts. BUDGET needs so many picodollars."""
    self._stopped = self._stopped or {"stop": kind, "text": text, "need": need}
    self._ended.set()
    self._changed.set()

  def stop_for(self, failure: Failure, text: str) -> None:
    """End the work because no request would be answered."""
    if failure.passing:
      self.stop(FAILED, text + _LATER)
    elif failure.verdict is Verdict.NO_MONEY:
      text += "\nthe account has no money left; nothing is lost, run the same command "
      self.stop(FAILED, text + "again when it has")
    else:
      model = self.config.model
      text += f"\ncheck OPENAI_API_KEY, Llm.base_url and Llm.model ({model})"
      self.stop(INPUT, text)

  def spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
    """Start a task; an exception in it ends the work."""
    task = asyncio.create_task(self._guard(work))
    self._tasks.add(task)
    task.add_done_callback(self._tasks.discard)
    return task

  async def _guard(self, work: Coroutine[None, None, None]) -> None:
    try:
      await work
    except StoppedError:
      pass
    except (sqlite3.Error, OSError) as error:
      text = f"{self.config.journal}: cannot be written ({error}); {_KEPT}"
      self.stop(FAILED, text)
    except Exception as error:  # a bug, or an answer that nobody thought of
      log.exception("in a task of the sender")
      text = f"cannot go on ({type(error).__name__}: {str(error)[:200]})"
      self.stop(FAILED, f"{text}\n{_KEPT}")
    self._changed.set()

  async def finish(self) -> None:
    """Wait for all tasks, and tell the run why the work ended."""
    self._changed.set()
    while self._tasks:
      await asyncio.wait(self._tasks)
    self.tell(**self._stopped)

  async def wait(self, seconds: float | None) -> None:
    """Wait for a change, for the end of the work, or so long."""
    self._changed.clear()
    if not self.stopping:
      with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(self._changed.wait(), seconds)

  async def sleep(self, seconds: float) -> None:
    """Wait so long, or until the end of the work."""
    with contextlib.suppress(TimeoutError):
      await asyncio.wait_for(self._ended.wait(), seconds)

  def reserve(self, call: Call, batch: str | None = None) -> Call:
    """Reserve the money of a call that fits; commit it before it is sent."""
    self.budget.reserved += call.reserve
    self.unsettled += 1
    self._next += 1
    return dataclasses.replace(call, number=self._next - 1, batch=batch)

  async def replied(self, call: Call, raw: bytes) -> None:
    """Commit a reply, or for a batch the line of its output file; settle the cost."""
    in_batch = call.batch is not None
    usage, price = reply.usage_of(reply.load(raw, in_batch)), self._prices[in_batch]
    cost = price.cost(*usage) if usage else call.reserve
    prompt, completion = usage or (None, None)
    columns = {"cost": cost, "price": json.dumps(dataclasses.asdict(price))}
    columns |= {"prompt_tokens": prompt, "completion_tokens": completion, "raw": raw}
    await self.journal.note_outcome([call], "reply", **columns)
    self.budget.spent += cost
    self._last_good, self._answered = time.monotonic(), True
    self._settled([call])
    if cost > call.reserve:
      self.stop(
        FAILED,
        "the server billed more tokens than a request allows; it may not honour "
        "Llm.length_field, or Llm's prices and model are another's. Spent: "
        f"{prices.text(self.budget.spent)}",
      )
    self.tell(reply=call.key)

  async def failed(self, calls: Sequence[Call], failure: Failure) -> None:
    """Commit that calls brought no reply."""
    outcome = "doubtful" if failure.doubtful else "released"
    columns = {"status": failure.status, "reason": clean(failure.text)}
    await self.journal.note_outcome(calls, outcome, **columns)
    if failure.doubtful:
      self.budget.doubtful += sum(call.reserve for call in calls)
      self.budget.doubtful_calls += len(calls)
    self._settled(calls)

  def _settled(self, calls: Sequence[Call]) -> None:
    """Release the reserve of calls; end the work if the disk is full."""
    self.budget.reserved -= sum(call.reserve for call in calls)
    self.unsettled -= len(calls)
    if self.journal.full:
      text = f"{self.config.journal}: the disk is full; {_KEPT}: make room"
      self.stop(FAILED, f"{text} and run the same command again")

  async def answer(self, call: Call) -> None:
    """Send a request until there is a reply, or no more use in sending it."""
    while sent := await self._admit(call):
      try:
        await self.journal.note_sent([sent])
        outcome = await self.endpoint.send(sent.body)
        if isinstance(outcome, Completed):
          await self.replied(sent, outcome.raw)
          return self._limiter.hold(min(outcome.pause, _MINUTE), time.monotonic())
        await self.failed([sent], outcome)
        text = f"{self.config.base_url}: {outcome}"
        if not (outcome.status or self._answered):
          text += "; is Llm.base_url right, is the server running?"
        pause = self.handle_failure(call, outcome, text)
      finally:
        self._in_flight -= 1
        self._changed.set()
      if pause is None:
        return
      await self.sleep(pause * random.uniform(1.0, 1.1))

  async def _admit(self, call: Call) -> Call | None:
    """Wait until a request may be sent; return None at the end of the work."""
    async with self._turn:
      while not self.stopping:
        now = time.monotonic()
        probing = not self._answered and now < (self._begun or now) + _PROBE
        if self._in_flight >= (1 if probing else self.config.concurrency):
          pause = _PROBE if probing else None
        elif call.reserve > self.budget.left:
          if not self.unsettled:
            self.stop(BUDGET, need=call.reserve)
          pause = _SETTLING
        elif not (pause := self._limiter.take(call.tokens, now)):
          self._begun = self._begun or now
          self._in_flight += 1
          return self.reserve(call)
        await self.wait(pause)
    return None

  def handle_failure(self, call: Call, failure: Failure, text: str) -> float | None:
    """Return the pause before a request that failed is sent again; or give it up.

    Args:
      call: of the request.
      failure: of the last attempt.
      text: about it, for the run.
    """
    verdict, now = failure.verdict, time.monotonic()
    if verdict is Verdict.SLOW_DOWN:
      pause = failure.pause(_PAUSE_OF_ATTEMPT)
      if pause > _PATIENCE or now - self._last_good > _PATIENCE:
        self.stop_for(failure, text)
      self._limiter.hold(pause, now)  # the limit is the account's
      return pause
    if verdict is Verdict.AGAIN:
      self._attempts[call.key] += 1
      if self._attempts[call.key] < self.config.attempts:
        return min(failure.pause(self._attempts[call.key]), _PATIENCE)
      text += f" ({self._attempts.pop(call.key)} attempts)"
      fatal = not (self.config.skip_unanswered and self._answered)
      self.tell(failed=call.key, text=text, fatal=fatal)
    elif verdict is Verdict.REFUSED:
      self._refusals += 1
      self.tell(failed=call.key, text=text, fatal=False)
      if self._refusals >= _HOPELESS and not self._answered:
        text = f"the first {_HOPELESS} requests were all refused, the last by {text}"
        text += "\nsee Llm.length_field and Llm.extra, where None removes a field"
        self.stop(INPUT, text)
    else:
      self.stop_for(failure, text)
    return None
