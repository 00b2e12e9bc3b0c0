"""The process that sends, pays and writes; `client.SenderProcess` starts it.

It runs in a session of its own and talks to the run over a pipe. It holds the lease on
the journal. When the run dies, by whatever signal, the pipe ends: the sender drops what
was not sent, waits for the requests in flight, commits their replies, and only then
gives the lease back. If the sender dies, the lease ends with it, and its calls in
flight are doubtful.

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
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from phi1_jax import InputError, storage
from phi1_jax.llm import limits, session
from phi1_jax.llm.batches import Batches
from phi1_jax.llm.config import LlmConfig
from phi1_jax.llm.endpoint import Endpoint, Failure, Verdict
from phi1_jax.llm.journal import Call, Journal
from phi1_jax.llm.prices import Price
from phi1_jax.llm.session import Ask, Session

_LOOK_SECONDS = 0.5  # between two looks at the parent, and at the lease
_PATIENCE = 3600.0  # seconds of nothing but status 429 before the run is stopped
_PROBE = 10.0  # seconds that the first request is alone in flight, without a reply
_HOPELESS = 10  # refusals without a single reply before the run is stopped
_SETTLING = 1.0  # seconds between looks at money that calls in flight may release
_PAUSE_OF_ATTEMPT = 4  # for a status 429 without Retry-After

FLUSH = "flush"


@dataclasses.dataclass(frozen=True)
class Start:
  """The first message."""

  pid: int  # the run's process
  config: LlmConfig
  price: Price  # of calls outside of batches


class Online:
  """Sends requests one by one, within limits and budget.

  The first request goes alone, so that a wrong key or model costs one refusal.
  """

  def __init__(self, session: Session, endpoint: Endpoint):
    config = self._config = session.config
    self._session, self._endpoint = session, endpoint
    self._limiter = limits.RateLimiter(
      config.requests_per_minute, config.tokens_per_minute
    )
    self._turn = asyncio.Lock()  # requests are sent in their order
    self._in_flight = self._refusals = 0
    self._begun: float | None = None  # when the first request went
    self._opened = False  # the endpoint has replied to a request
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
          return
        await self._session.failed([call], outcome)
        attempts += outcome.verdict is Verdict.AGAIN
        pause = self._failed(ask, outcome, attempts)
      finally:
        self._in_flight -= 1
        self._session.changed.set()
      if pause is None:
        return
      await self._session.sleep(pause * random.uniform(1.0, 1.1))

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
    if self._session.budget.fits(ask.reserve):
      return 0.0
    if not self._session.settling:
      self._session.stop(session.BUDGET, "", need=ask.reserve)
    return _SETTLING

  def _failed(self, ask: Ask, failure: Failure, attempts: int) -> float | None:
    """Return the pause before the next attempt; None if there is none."""
    verdict, text = failure.verdict, f"{self._config.base_url}: {failure}"
    now = time.monotonic()
    if verdict is Verdict.SLOW_DOWN:
      pause = failure.pause(_PAUSE_OF_ATTEMPT)
      if pause > _PATIENCE or now - self._last_good > _PATIENCE:
        text += "\nnothing is lost: run the same command again later"
        self._session.stop(session.FAILED, text)
      self._limiter.hold(pause, now)  # the limit is the account's
      return pause
    if verdict is Verdict.AGAIN:
      if attempts < self._config.attempts:
        return min(failure.pause(attempts), _PATIENCE)
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
      self._session.stop_for(failure, text)
    return None


class Run:
  """The run at the other end of a pipe: its messages, None last, and whether it ended.

  Threads read and write the pipe, since the run may be busy, suspended or dead.
  """

  def __init__(self, connection: Connection):
    self._connection, self._loop = connection, asyncio.get_running_loop()
    self.start: Start = connection.recv()
    self._inbox: asyncio.Queue[Any] = asyncio.Queue()
    self._outbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
    self.ended = False
    self._writing = threading.Thread(target=self._write, daemon=True)
    self._writing.start()
    threading.Thread(target=self._read, daemon=True).start()

  def _read(self) -> None:
    with contextlib.suppress(EOFError, OSError):  # the run has ended
      while (message := self._connection.recv()) is not None:
        self._loop.call_soon_threadsafe(self._inbox.put_nowait, message)
    with contextlib.suppress(RuntimeError):  # the loop has ended
      self._loop.call_soon_threadsafe(self.end)

  def _write(self) -> None:
    with contextlib.suppress(OSError):
      while (message := self._outbox.get()) is not None:
        self._connection.send(message)

  def end(self) -> None:
    """Receive nothing more."""
    self.ended = True
    self._inbox.put_nowait(None)

  async def receive(self) -> Any:
    """Return the next message."""
    return await self._inbox.get()

  def tell(self, message: dict[str, Any]) -> None:
    """Send a message."""
    self._outbox.put(message)

  def close(self) -> None:
    """Wait until the messages are sent."""
    self._outbox.put(None)
    self._writing.join()


async def serve(run: Run) -> None:
  """Serve a run until it ends."""
  folder = Path(run.start.config.journal)
  try:
    endpoint = Endpoint(run.start.config)
    if await _is_free(folder, run):
      with storage.Lease(folder, "asking a model", flag="Llm.journal", wait=True):
        if not run.ended:
          await _serve(run, endpoint)
      await endpoint.api.close()
    return
  except InputError as error:
    run.tell({"stop": session.INPUT, "text": str(error)})
  except (OSError, sqlite3.Error) as error:
    text = f"{folder}: cannot be written ({error}); all replies so far are kept"
    run.tell({"stop": session.FAILED, "text": text})
  while await run.receive() is not None:  # until the run has read that
    pass


async def _is_free(folder: Path, run: Run) -> bool:
  """Wait until no process has the lease; return False if the run ends first."""
  told = False
  while not run.ended:
    # A look at the lease of another machine takes a minute.
    looking = asyncio.create_task(asyncio.to_thread(storage.is_held, folder))
    await asyncio.wait([looking], timeout=_SETTLING)
    if not told and (not looking.done() or looking.result()):
      text = "waiting for another process that asks a model or ends its requests"
      run.tell({"note": f"{folder}: {text}", "wait": True})
      told = True
    if not await looking:
      return True
    await asyncio.sleep(_LOOK_SECONDS)
  return False


async def _serve(run: Run, endpoint: Endpoint) -> None:
  journal = Journal(Path(run.start.config.journal))
  shared = Session(run.start.config, run.start.price, journal, run.tell)
  batches = Batches(shared, endpoint, Online(shared, endpoint).take)

  async def listen() -> None:
    while (message := await run.receive()) is not None:
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


async def _main(descriptor: int) -> None:
  run = Run(Connection(descriptor))

  async def watch() -> None:  # a child of the dead run may hold the pipe open
    while os.getppid() == run.start.pid:
      await asyncio.sleep(_LOOK_SECONDS)
    run.end()

  # SIGTERM ends it as if the run had died.
  asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, run.end)
  watching = asyncio.create_task(watch())
  await serve(run)
  watching.cancel()
  run.close()


def main(descriptor: int) -> None:
  """Serve the run at the other end of a pipe, given by its file descriptor."""
  asyncio.run(_main(descriptor))
