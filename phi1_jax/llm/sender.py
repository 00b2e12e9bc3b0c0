"""The process that sends, pays and writes: `python -m phi1_jax.llm.sender`.

A run starts it as a child in a session of its own and talks to it over a pipe. It holds
the lease on the journal. When the run dies, by whatever signal, the pipe ends: the
sender drops what was not sent, waits for the requests in flight, commits their replies,
and only then gives the lease back. If the sender dies, the lease ends with it, and its
calls in flight are doubtful.

The run sends a `Start`, then each `Ask`, FLUSH when it waits for requests that a batch
would hold back, and None. The sender sends {"reply": key} when a reply is committed,
{"refused": key}, {"unanswered": key}, {"note": text}, and at last {"stop": kind} or
{"ended": True}, most of them with the budget.
"""

import asyncio
import contextlib
import dataclasses
import os
import queue
import random
import signal
import sqlite3
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from phi1_jax import InputError, storage
from phi1_jax.llm import limits, prices, session
from phi1_jax.llm.batches import Batches
from phi1_jax.llm.config import LlmConfig
from phi1_jax.llm.endpoint import Endpoint, Failure, Verdict
from phi1_jax.llm.journal import Journal, Writer
from phi1_jax.llm.prices import Price
from phi1_jax.llm.session import Ask, Call, Session

_SPARE, _SPARE_PER_REPLY = 1 << 20, 1 << 16  # bytes of disk, see Writer
_LOOK_SECONDS = 0.5  # between two looks at the parent, and at the lease
_PATIENCE = 3600.0  # seconds of nothing but status 429 before the run is stopped
_PROBE = 10.0  # seconds that the first request is alone in flight, without a reply
_HOPELESS = 10  # refusals without a single reply before the run is stopped
_SETTLING = 1.0  # seconds between looks at money that calls in flight may release
_PAUSE_OF_ATTEMPT = 4  # for a status 429 without Retry-After

FLUSH = "flush"
Write = Callable[[dict[str, Any]], None]


@dataclasses.dataclass(frozen=True)
class Start:
  """The first message."""

  pid: int  # the run's process
  config: LlmConfig
  price: Price  # of calls outside of batches


class Inbox(asyncio.Queue[Any]):
  """Messages of the run; None is the last, and sets `ended`."""

  ended = False

  def put_nowait(self, item: Any) -> None:
    """Add a message."""
    self.ended = self.ended or item is None
    super().put_nowait(item)


class Online:
  """Sends requests one by one, within limits and budget.

  The first request goes alone, so that a wrong key or model costs one refusal.
  """

  def __init__(self, session: Session, endpoint: Endpoint):
    config = self._config = session.config
    self._session, self._endpoint, self._chance = session, endpoint, random.Random()
    self._limiter = limits.RateLimiter(
      config.requests_per_minute, config.tokens_per_minute
    )
    self._turn = asyncio.Lock()  # requests are sent in their order
    self._in_flight = 0
    self._begun: float | None = None  # when the first request went
    self._opened = False  # the endpoint has replied to a request
    self._refusals = 0
    self._last_good = time.monotonic()

  def take(self, ask: Ask) -> None:
    """Take a request."""
    self._session.spawn(self._answer(ask))

  async def _answer(self, ask: Ask) -> None:
    """Send a request until there is a reply, or no more use in sending it."""
    attempts = 0
    while call := await self._admit(ask):
      try:
        await self._session.note((call, ask))
        outcome = await self._endpoint.send(ask.body)
        self._limiter.learn(outcome.headers, time.monotonic())
        if not isinstance(outcome, Failure):
          await self._session.replied(call, outcome.raw)
          self._last_good, self._opened = time.monotonic(), True
          self._session.tell(reply=ask.key)
          return
        await self._session.failed([call], outcome)
        attempts += outcome.verdict is Verdict.AGAIN
        pause = self._failed(ask, outcome, attempts)
      finally:
        self._in_flight -= 1
        self._session.changed.set()
      if pause is None:
        return
      await self._session.sleep(pause * self._chance.uniform(1.0, 1.1))

  async def _admit(self, ask: Ask) -> Call | None:
    """Wait until a request may be sent; return None at the end of the work."""
    async with self._turn:
      while not self._session.stopping:
        now = time.monotonic()
        pause = self._pause(ask, now)
        if pause == 0.0:
          self._limiter.sent(ask.tokens, now)
          self._begun = self._begun or now
          self._in_flight += 1
          return self._session.reserve(ask)
        await self._session.wait(pause)
    return None

  def _pause(self, ask: Ask, now: float) -> float | None:
    """Return how long to wait; None if only a change can help."""
    probing = not self._opened and now < (self._begun or now) + _PROBE
    if self._in_flight >= (1 if probing else self._config.concurrency):
      return _PROBE if probing else None
    if pause := self._limiter.delay(ask.tokens, now):
      return pause
    if not self._session.budget.fits(ask.reserve):
      if self._session.settling:
        return _SETTLING
      self._session.stop(session.BUDGET, "", need=ask.reserve)
    return 0.0 if not self._session.stopping else None

  def _failed(self, ask: Ask, failure: Failure, attempts: int) -> float | None:
    """Return the pause before the next attempt; None if there is none."""
    verdict, text = failure.verdict, self._endpoint.describe(failure)
    asked, now = limits.retry_after(failure.headers), time.monotonic()
    if verdict is Verdict.SLOW_DOWN:
      if asked > _PATIENCE or now - self._last_good > _PATIENCE:
        text += "\nnothing is lost: run the same command again later"
        self._session.stop(session.FAILED, text)
      pause = asked or limits.backoff(_PAUSE_OF_ATTEMPT, self._chance)
      self._limiter.hold(pause, now)  # the limit is the account's
      return pause
    if verdict is Verdict.AGAIN:
      if attempts < self._config.attempts:
        return min(asked, _PATIENCE) or limits.backoff(attempts, self._chance)
      if not (failure.status or failure.headers or self._opened):
        text += "; is Llm.base_url right, is the server running?"
      text += f" ({attempts} attempts)"
      self._session.tell(unanswered=ask.key, text=text, opened=self._opened)
    elif verdict is Verdict.REFUSED:
      self._refusals += 1
      self._session.tell(refused=ask.key, text=text)
      if self._refusals >= _HOPELESS and not self._opened:
        text = f"the first {_HOPELESS} requests were all refused, the last by {text}"
        text += "\nsee Llm.length_field and Llm.extra, where None removes a field"
        self._session.stop(session.INPUT, text)
    else:
      self._session.stop_for(verdict, text)
    return None


async def serve(start: Start, inbox: Inbox, write: Write) -> None:
  """Serve one run until it ends; `write` sends it a message."""
  folder = Path(start.config.journal)
  try:
    endpoint = Endpoint(start.config)
    if not await _is_free(folder, inbox, write):
      return
    with storage.Lease(folder, "asking a model", flag="Llm.journal", wait=True):
      if not inbox.ended:
        await _serve(start, endpoint, inbox, write)
    await endpoint.api.close()
    return
  except InputError as error:
    write({"stop": session.INPUT, "text": str(error)})
  except (OSError, sqlite3.Error) as error:
    text = f"{folder}: cannot be written ({error}); all replies so far are kept"
    write({"stop": session.FAILED, "text": text})
  while await inbox.get() is not None:  # until the run has read that
    pass


async def _is_free(folder: Path, inbox: Inbox, write: Write) -> bool:
  """Wait until no process has the lease; return False if the run ends first."""
  told = False
  while not inbox.ended:
    # A look at the lease of another machine takes a minute.
    looking = asyncio.create_task(asyncio.to_thread(storage.is_held, folder))
    await asyncio.wait([looking], timeout=_SETTLING)
    if not told and (not looking.done() or looking.result()):
      text = "waiting for another process that asks a model or ends its requests"
      write({"note": f"{folder}: {text}", "wait": True})
      told = True
    if not await looking:
      return True
    await asyncio.sleep(_LOOK_SECONDS)
  return False


async def _serve(start: Start, endpoint: Endpoint, inbox: Inbox, write: Write) -> None:
  config = start.config
  journal = Journal(Path(config.journal))
  budget = journal.budget(prices.picodollars(config.budget_usd))
  writer = Writer(journal.path, _SPARE + _SPARE_PER_REPLY * config.concurrency)
  opened = journal.open_batches(config.base_url.rstrip("/"))
  here = sum(money for batch in opened for _, money in batch.calls.values())
  number, elsewhere = journal.next_call(), budget.reserved - here
  shared = Session(config, start.price, budget, writer, number, elsewhere, write)
  batches = Batches(shared, endpoint, opened, Online(shared, endpoint).take)

  async def listen() -> None:
    while (message := await inbox.get()) is not None:
      if message == FLUSH:
        batches.flush()
      # An earlier sender may have finished after the run looked.
      elif journal.has(message.key):
        shared.tell(reply=message.key)
      else:
        batches.take(message)

  shared.tell(begun=True)
  await shared.finish(listen())
  journal.close()
  writer.close()


async def main(connection: Connection) -> None:
  """Serve the run at the other end of a pipe."""
  loop, inbox, outbox = asyncio.get_running_loop(), Inbox(), queue.SimpleQueue()

  def put(message: Any) -> None:
    with contextlib.suppress(RuntimeError):  # the loop has ended
      loop.call_soon_threadsafe(inbox.put_nowait, message)

  def read() -> None:
    with contextlib.suppress(EOFError, OSError):  # the run has ended
      while (message := connection.recv()) is not None:
        put(message)
    put(None)

  def write() -> None:  # the run may be busy
    with contextlib.suppress(OSError):
      while (message := outbox.get()) is not None:
        connection.send(message)

  def watch() -> None:  # a child of the dead run may hold the pipe open
    while os.getppid() == start.pid:
      time.sleep(_LOOK_SECONDS)
    put(None)

  loop.add_signal_handler(signal.SIGTERM, put, None)  # ends as if the run had died
  start = connection.recv()
  writing = threading.Thread(target=write, daemon=True)
  for thread in (
    writing,
    *(threading.Thread(target=t, daemon=True) for t in (read, watch)),
  ):
    thread.start()
  await serve(start, inbox, outbox.put)
  outbox.put(None)
  writing.join()


if __name__ == "__main__":
  asyncio.run(main(Connection(int(sys.argv[1]))))
