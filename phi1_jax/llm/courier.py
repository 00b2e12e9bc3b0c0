"""The process that sends, pays and writes: `python -m phi1_jax.llm.courier`.

A run starts it as a child in a session of its own, and talks to it in lines of JSON
over its standard input and output. When the run dies, by whatever signal, the input
ends: what was not sent is dropped, the replies under way are waited for and journalled,
and only then does the journal's lock open for the next run. So a call that was billed
is a call in the journal, and none is paid for twice.

The run sends one `Order`, then one `Ask` a line, and {"flush": true} when it waits for
what a batch would hold back. It is told {"reply": key, ...} when a reply is on the
disk, {"refused": key, ...}, {"unanswered": key, ...}, {"note": text}, and at last
{"stop": kind, ...} or {"ended": true}: nothing more is sent, nothing is under way.
Each has the money.
"""

import asyncio
import json
import os
import random
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from phi1_jax import InputError
from phi1_jax.llm import office
from phi1_jax.llm.batches import Batches
from phi1_jax.llm.budget import Budget
from phi1_jax.llm.config import LlmConfig
from phi1_jax.llm.dispatcher import Dispatcher
from phi1_jax.llm.journal import OpenBatch
from phi1_jax.llm.ledger import Ask, Ledger
from phi1_jax.llm.office import Office, Order
from phi1_jax.llm.prices import Price
from phi1_jax.llm.scribe import Books
from phi1_jax.llm.sender import Sender

# Bytes of disk held back for the replies under way when the disk is full.
_BALLAST, _BALLAST_PER_REPLY = 1 << 20, 1 << 16
_LONGEST_LINE = 1 << 30  # bytes
_ORPHAN_SECONDS = 0.5  # between two looks at who the parent is

Messages = AsyncIterator[dict[str, Any]]
Write = Callable[[dict[str, Any]], None]


async def serve(order: Order, messages: Messages, write: Write) -> None:
  """Serves one run until it ends, in whatever way.

  Args:
    order: what it said first.
    messages: what it says then; at their end nothing more is sent.
    write: tells it something.
  """
  account, config = order.account, LlmConfig(**order.config)
  opened = [OpenBatch(**batch) for batch in account["batches"]]
  budget = Budget(
    order.cap, account["spent"], account["doubtful"], account["doubtful_calls"]
  )
  budget.reserved = sum(money for b in opened for _, money in b.calls.values())
  shared = Office(budget, write)
  sender = _sender(config, shared)
  books = _books(order.folder, config, shared) if sender else None
  if sender and books:
    ledger = Ledger(books, budget, Price(**order.price), account["next_call"])
    dispatcher = Dispatcher(config, ledger, sender, shared, random.Random())
    batches = Batches(config, ledger, sender, shared, opened, dispatcher.take)
    listening = asyncio.create_task(_listen(messages, shared, batches))
    await asyncio.gather(dispatcher.work(), batches.work())
    await sender.close()
    books.close()
    # Also when nothing stopped it: the last calls may have ended in doubt.
    shared.tell(**(shared.stopped or {"ended": True}))
    await listening
    return
  shared.tell(**(shared.stopped or {}))
  async for _ in messages:
    pass


def _sender(config: LlmConfig, shared: Office) -> Sender | None:
  """The endpoint, or None after a stop."""
  try:
    return Sender(config.base_url, config.timeout_seconds)
  except InputError as error:
    shared.stop(office.INPUT, str(error))
  except Exception as error:  # of the client, over what the environment tells it
    shared.stop(
      office.INPUT,
      f"{config.base_url}: the client cannot be set up ({type(error).__name__}: "
      f"{error})\ncheck SSL_CERT_FILE, SSL_CERT_DIR and the proxies in the environment",
    )
  return None


def _books(folder: str, config: LlmConfig, shared: Office) -> Books | None:
  """The journal's files, or None after a stop."""
  ballast = _BALLAST + _BALLAST_PER_REPLY * config.concurrency
  try:
    return Books(Path(folder), ballast)
  except OSError as error:
    text = f"{folder}: no room for more replies ({error.strerror})"
    shared.stop(office.FAILED, text)
  return None


async def _listen(messages: Messages, shared: Office, batches: Batches) -> None:
  async for message in messages:
    if "flush" in message:
      batches.flush()
    else:
      batches.take(Ask(**message))
  shared.close()


async def _messages(reader: asyncio.StreamReader, ended: asyncio.Event) -> Messages:
  """What the run says, until it is gone; a last line that it died in is nothing."""
  end = asyncio.create_task(ended.wait())
  while True:
    reading = asyncio.create_task(reader.readline())
    await asyncio.wait((reading, end), return_when=asyncio.FIRST_COMPLETED)
    if not reading.done() or not reading.result().endswith(b"\n"):
      break
    yield json.loads(reading.result())


async def _watch(parent: int, ended: asyncio.Event) -> None:
  """Sees that the run is gone, should a child of its hold the pipe open."""
  while os.getppid() == parent:
    await asyncio.sleep(_ORPHAN_SECONDS)
  ended.set()


async def main() -> None:
  """Reads an order from standard input and serves it."""
  loop, ended = asyncio.get_running_loop(), asyncio.Event()
  reader = asyncio.StreamReader(limit=_LONGEST_LINE)
  await loop.connect_read_pipe(
    lambda: asyncio.StreamReaderProtocol(reader), sys.stdin.buffer
  )
  pipe, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, sys.stdout.buffer)
  # Told to end, it ends as it does when the run has died.
  loop.add_signal_handler(signal.SIGTERM, ended.set)
  messages = _messages(reader, ended)
  async for first in messages:
    order = Order(**first)
    watching = asyncio.create_task(_watch(order.pid, ended))
    await serve(
      order, messages, lambda row: pipe.write(json.dumps(row).encode() + b"\n")
    )
    watching.cancel()
  while pipe.get_write_buffer_size():
    await asyncio.sleep(0.01)
  pipe.close()


if __name__ == "__main__":
  asyncio.run(main())
