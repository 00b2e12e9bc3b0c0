"""The process that sends, pays and writes; `client.SenderProcess` starts it.

It runs in a session of its own and talks to the run over a socket, in lines of JSON. It
holds the lease on the journal. When the run dies, by whatever signal, the socket ends:
the sender drops what was not sent, waits for the requests in flight, commits their
replies, and only then gives the lease back. If the sender dies, the lease ends with it,
and its calls in flight are doubtful.

The run sends the settings, then each `Call`, FLUSH when it waits for an outcome and
sends no more requests before, and closes its side. The sender sends {"reply": key} when
a reply is committed, {"failed": key}, {"note": text}, and {"stop": kind}, with the
budget.
"""

import asyncio
import collections
import contextlib
import json
import math
import os
import random
import signal
import socket
import sqlite3
import time
from pathlib import Path
from typing import Any

from phi1_jax import InputError, storage
from phi1_jax.llm import session
from phi1_jax.llm.batches import Batches
from phi1_jax.llm.config import LlmConfig
from phi1_jax.llm.endpoint import Endpoint, Failure, Verdict
from phi1_jax.llm.journal import Call, Journal
from phi1_jax.llm.session import Session

_LOOK_SECONDS = 0.5  # between two looks at the parent, and at the lease
_PATIENCE = 3600.0  # seconds of nothing but status 429 before the run is stopped
_PROBE = 10.0  # seconds that the first request is alone in flight, without a reply
HOPELESS = 10  # requests refused or given up, without a single reply
_QUIET = 10.0  # seconds of nothing but status 429 before the run says so
_SETTLING = 1.0  # seconds between looks at money that calls in flight may release
_PAUSE_OF_ATTEMPT = 4  # for a status 429 without Retry-After
_LONGEST_LINE = 1 << 30  # bytes of a message
_MINUTE = 60.0

FLUSH = "flush"


class RateLimiter:
  """Keeps requests and tokens below a limit in any 60 seconds; None is no limit.

  Times are in seconds; it looks at no clock.
  """

  def __init__(self, requests: int | None, tokens: int | None):
    self._limits = requests or math.inf, tokens or math.inf
    self._sent: collections.deque[tuple[float, tuple[int, int]]] = collections.deque()
    self._held_until = 0.0

  def delay(self, tokens: int, now: float) -> float:
    """Return the seconds until a request of so many tokens may be sent.

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
    return max(0.0, until - now)

  def sent(self, tokens: int, now: float) -> None:
    """Count a request."""
    self._sent.append((now, (1, tokens)))

  def hold(self, seconds: float, now: float) -> None:
    """Allow no request for so long."""
    self._held_until = max(self._held_until, now + seconds)


class Online:
  """Sends requests one by one, within limits and budget.

  The first request goes alone, so that a wrong key or model costs one refusal, and a
  server that answers all with errors the attempts of one request. The others wait while
  it pauses between attempts, and for `_PROBE` seconds of each attempt.

  With `Llm.skip_unanswered`, requests without a reply are held back until another has a
  reply in this run or no other is left. If that may be more than `HOPELESS` requests,
  or the server cannot be reached, the run is stopped.
  """

  def __init__(self, session: Session, endpoint: Endpoint):
    config = self._config = session.config
    self._session, self._endpoint = session, endpoint
    self._limiter = RateLimiter(config.requests_per_minute, config.tokens_per_minute)
    self._turn = asyncio.Lock()  # requests are sent in their order
    self._left = self._in_flight = self._refusals = self._unanswered = 0
    self._first: str | None = None  # key of the request that goes alone
    self._alone_until = math.inf
    self._opened = False  # the endpoint has replied to a request
    self._held: dict[str, str] = {}  # why requests have no reply, by key
    self._run_waits = False
    self._last_good, self._told = time.monotonic(), False

  def take(self, call: Call) -> None:
    """Take a request."""
    self._left += 1
    self._session.spawn(self._finish(call))

  def run_waits(self, waits: bool) -> None:
    """Note whether the run sends no more requests before it gets an outcome."""
    self._run_waits = waits
    self._release()

  async def _finish(self, call: Call) -> None:
    try:
      await self._answer(call)
    finally:
      self._left -= 1
      if call.key == self._first:
        self._first = None  # another one goes alone
      self._release()

  def _release(self) -> None:
    """Give up what is held back, if a reply came or no other request is left."""
    last = self._run_waits and not self._left
    if (self._opened or last) and not self._session.stopping:
      for key, text in self._held.items():
        self._session.give_up(key, text)
      self._held.clear()

  async def _answer(self, call: Call) -> None:
    """Send a request until there is a reply, or no more use in sending it."""
    attempts = 0
    while sent := await self._admit(call):
      try:
        await self._session.note(sent)
        outcome = await self._endpoint.send(sent.body)
        if not isinstance(outcome, Failure):
          await self._session.replied(sent, outcome)
          self._last_good, self._opened = time.monotonic(), True
          if self._told:
            self._session.tell(note=f"{self._config.base_url}: it replies again")
            self._told = False
          return
        await self._session.failed([sent], outcome)
        attempts += outcome.verdict is Verdict.AGAIN
        pause = self._failed(call, outcome, attempts)
      finally:
        self._in_flight -= 1
        self._session.changed.set()
      if pause is None:
        return
      await self._session.sleep(pause * random.uniform(1.0, 1.1))

  async def _admit(self, call: Call) -> Call | None:
    """Wait until a request may be sent; return None at the end of the work."""
    # The first request is sent again before those that wait for its reply.
    async with contextlib.nullcontext() if call.key == self._first else self._turn:
      while not self._session.stopping:
        now = time.monotonic()
        others_wait = not self._opened and now < self._alone_until
        if others_wait and self._first not in (None, call.key):
          pause = min(self._alone_until - now, _PROBE)
        elif self._in_flight >= self._config.concurrency:
          pause = None
        elif not (pause := self._limiter.delay(call.tokens, now)):
          if self._session.budget.fits(call.reserve):
            self._limiter.sent(call.tokens, now)
            self._first = self._first or call.key
            if call.key == self._first:
              self._alone_until = now + _PROBE
            self._in_flight += 1
            return self._session.reserve(call)
          if not self._session.settling:
            self._session.stop(session.BUDGET, need=call.reserve)
          pause = _SETTLING
        await self._session.wait(pause)
    return None

  def _failed(self, call: Call, failure: Failure, attempts: int) -> float | None:
    """Return the pause before the next attempt; None if there is none."""
    verdict, text = failure.verdict, f"{self._config.base_url}: {failure}"
    now = time.monotonic()
    if call.key == self._first:
      self._alone_until = math.inf  # until it is sent again
    if verdict is Verdict.SLOW_DOWN:
      pause = failure.pause(_PAUSE_OF_ATTEMPT)
      if pause > _PATIENCE or now - self._last_good > _PATIENCE:
        text += "\nnothing is lost: run the same command again later"
        self._session.stop(session.FAILED, text)
      elif now - self._last_good > _QUIET and not self._told:
        self._told, left = True, self._last_good + _PATIENCE - now
        end = time.strftime("%H:%M", time.localtime(time.time() + left))
        text = f"{' '.join(text.split())}; no reply for {now - self._last_good:.0f} s"
        text += f", asking on until {end}, the next time in {pause:.0f} s"
        self._session.tell(note=text, wait=True)
      self._limiter.hold(pause, now)  # the limit is the account's
      return pause
    if verdict is Verdict.AGAIN:
      if attempts < self._config.attempts:
        return min(failure.pause(attempts), _PATIENCE)
      if not (failure.status or failure.headers or self._opened):
        text += "; is Llm.base_url right, is the server running?"
      text += f" ({attempts} attempts)"
      reached = failure.doubtful or failure.status is not None
      self._give_up(call.key, text, reached)
    elif verdict is Verdict.REFUSED:
      self._refusals += 1
      self._session.give_up(call.key, text)
      if self._refusals >= HOPELESS and not self._opened:
        text = f"the first {HOPELESS} requests were all refused, the last by {text}"
        text += "\nsee Llm.length_field and Llm.extra, where None removes a field"
        self._session.stop(session.INPUT, text)
    else:
      self._session.stop_for(failure, text)
    return None

  def _give_up(self, key: str, text: str, reached: bool) -> None:
    """Give up a request without a reply after all attempts, or stop the run."""
    skip = self._config.skip_unanswered
    if self._opened or not skip:
      self._session.give_up(key, text, fatal=not skip)
    if self._opened:
      return
    self._held[key] = text
    self._unanswered += 1
    others = self._left - 1
    if not (skip and reached and self._unanswered + others <= HOPELESS):
      text += "\nno request of this run got a reply; run the same command again later"
      self._session.stop(session.FAILED, text)


async def serve(connection: socket.socket, ended: asyncio.Event) -> None:
  """Serve the run at the other end of a socket until one of them has ended.

  Args:
    connection: the socket.
    ended: may be set to end the work early; is set at the end of the run.
  """
  reader, writer = await asyncio.open_connection(sock=connection, limit=_LONGEST_LINE)
  config = LlmConfig(**json.loads(await reader.readline()))
  folder, inbox = Path(config.journal), asyncio.Queue[Any]()

  async def read() -> None:
    with contextlib.suppress(OSError):
      while (line := await reader.readline()).endswith(b"\n"):
        inbox.put_nowait(json.loads(line))
    ended.set()

  def send(**message: Any) -> None:
    writer.write(json.dumps(message).encode() + b"\n")

  reading = asyncio.create_task(read())
  try:
    endpoint = Endpoint(config)
    if await _is_free(folder, ended, send):
      with storage.Lease(folder, "asking a model", flag="Llm.journal", wait=True):
        await _work(config, endpoint, inbox, send, ended)
    await endpoint.api.close()
  except InputError as error:
    send(stop=session.INPUT, text=str(error))
  except (OSError, sqlite3.Error) as error:
    text = f"{folder}: cannot be written ({error}); all replies so far are kept"
    send(stop=session.FAILED, text=text)
  reading.cancel()
  writer.close()
  with contextlib.suppress(OSError):  # the run is dead
    await writer.wait_closed()


async def _is_free(folder: Path, ended: asyncio.Event, send: Any) -> bool:
  """Wait until no process has the lease; return False if the run ends first."""
  told = False
  while not ended.is_set() and await asyncio.to_thread(storage.is_held, folder):
    if not told:
      text = "waiting for another process that asks a model or ends its requests"
      send(note=f"{folder}: {text}", wait=True)
      told = True
    await asyncio.sleep(_LOOK_SECONDS)
  return not ended.is_set()


async def _work(
  config: LlmConfig,
  endpoint: Endpoint,
  inbox: asyncio.Queue[Any],
  send: Any,
  ended: asyncio.Event,
) -> None:
  journal = Journal(Path(config.journal))
  shared = Session(config, journal, send, ended)
  online = Online(shared, endpoint)
  batches = Batches(shared, endpoint, online.take)

  async def listen() -> None:
    while (message := await inbox.get()) is not None:
      online.run_waits(message == FLUSH)
      if message == FLUSH:
        batches.flush()
      # An earlier sender may have finished after the run looked.
      elif journal.has(message["key"]):
        shared.tell(reply=message["key"])
      else:
        batches.take(Call(**message))

  shared.spawn(listen())
  await ended.wait()
  inbox.put_nowait(None)
  shared.changed.set()
  await shared.finish()
  journal.close()


async def _main(descriptor: int, run: int) -> None:
  ended = asyncio.Event()

  async def watch() -> None:  # a child of the dead run may hold the socket open
    while os.getppid() == run:
      await asyncio.sleep(_LOOK_SECONDS)
    ended.set()

  # SIGTERM ends it as if the run had died.
  asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
  watching = asyncio.create_task(watch())
  await serve(socket.socket(fileno=descriptor), ended)
  watching.cancel()


def main(descriptor: int, run: int) -> None:
  """Serve the process `run` at the other end of a socket, given by its descriptor."""
  asyncio.run(_main(descriptor, run))
