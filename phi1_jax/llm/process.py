"""The sender as a process of its own, and the socket between it and the run.

It runs in a session of its own and talks to the run in lines of JSON. It holds the
lease on the journal. When the run dies, by whatever signal, the socket ends: the sender
drops what was not sent, waits for the requests in flight, commits their replies, and
only then gives the lease back. If the sender dies, the lease ends with it, and its
calls in flight are doubtful.

The run sends the settings, then each `Call`, FLUSH when it waits for requests that a
batch would hold back, and closes its side. The sender sends {"reply": key} when a reply
is committed, {"failed": key}, {"note": text}, and {"stop": kind}, with the budget.
"""

import asyncio
import contextlib
import dataclasses
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from phi1_jax import InputError, storage
from phi1_jax.llm.batches import Batches
from phi1_jax.llm.config import LlmConfig
from phi1_jax.llm.endpoint import Endpoint
from phi1_jax.llm.journal import Call, Journal
from phi1_jax.llm.sender import FAILED, INPUT, Sender

FLUSH = "flush"
_LOG = "sender.log"  # in the journal's folder
_LOOK_SECONDS = 0.5  # between two looks at the parent, and at the lease
_LONGEST_LINE = 1 << 30  # bytes of a message


class SenderProcess:
  """The run's end: starts the process.

  Attributes:
    gone: whether it has ended, and all its messages were received.
  """

  def __init__(self, config: LlmConfig):
    self._log, self._rest, self.gone = Path(config.journal) / _LOG, b"", False
    self._socket, theirs = socket.socketpair()
    self._start(theirs)
    self.send(dataclasses.asdict(config))

  def _start(self, theirs: socket.socket) -> None:
    # It imports what this process would: a checkout may shadow an installed package.
    code = f"import sys; sys.path[:] = {sys.path!r}; from phi1_jax.llm import process; "
    code += f"process.main({theirs.fileno()}, {os.getpid()})"
    with theirs, self._log.open("wb") as errors:
      # In a session of its own, neither Ctrl-C nor the end of a terminal reaches it.
      self.process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.DEVNULL,
        stdout=errors,
        stderr=errors,
        pass_fds=(theirs.fileno(),),
        start_new_session=True,
      )

  def send(self, message: Any) -> None:
    """Send a message, unless the sender is gone, as `receive` will say."""
    with contextlib.suppress(OSError):
      self._socket.sendall(json.dumps(message).encode() + b"\n")

  def end(self) -> None:
    """Send nothing more, so that the sender ends."""
    with contextlib.suppress(OSError):
      self._socket.shutdown(socket.SHUT_WR)

  def receive(self, seconds: float | None) -> Iterator[dict[str, Any]]:
    """Yield the messages that are there, or come within so long."""
    while not self.gone and wait([self._socket], seconds):
      received = b""
      with contextlib.suppress(OSError):
        received = self._socket.recv(1 << 20)
      *lines, self._rest = (self._rest + received).split(b"\n")
      yield from map(json.loads, lines)
      seconds = 0.0
      if not received:
        self._socket.close()
        yield {"stop": FAILED, "text": self._end()}

  def _end(self) -> str:
    """Wait until the sender has ended; return the error that this is for a run."""
    code, self.gone = self._ended(), True
    lines = self._log.read_text(errors="replace").strip().splitlines()
    last = f" ({lines[-1]})" if lines else ""
    return (
      f"the process that asks the model ended with {code}{last}; see {self._log}\n"
      "nothing is lost: run the same command again"
    )

  def _ended(self) -> int:
    """Wait until it has ended; return the exit code."""
    return self.process.wait()


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
      with (
        storage.Lease(folder, "asking a model", flag="Llm.journal", wait=True),
        contextlib.closing(Journal(folder)) as journal,
      ):
        sender = Sender(config, endpoint, journal, send, ended)
        listening = sender.spawn(_listen(inbox, journal, sender))
        await ended.wait()
        listening.cancel()
        await sender.finish()
    await endpoint.api.close()
  except InputError as error:
    send(stop=INPUT, text=str(error))
  except (OSError, sqlite3.Error) as error:
    text = f"{folder}: cannot be written ({error}); all replies so far are kept"
    send(stop=FAILED, text=text)
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


async def _listen(inbox: asyncio.Queue[Any], journal: Journal, sender: Sender) -> None:
  """Take the run's messages."""
  batches = Batches(sender)
  while True:
    message = await inbox.get()
    if message == FLUSH:
      batches.flush()
    # An earlier sender may have finished after the run looked.
    elif journal.has(message["key"]):
      sender.tell(reply=message["key"])
    else:
      batches.take(Call(**message))


def main(descriptor: int, run: int) -> None:
  """Serve the process `run` at the other end of a socket, given by its descriptor."""

  async def work() -> None:
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

  asyncio.run(work())
