"""A counting server, and runs against it."""

import asyncio
import contextlib
import threading
import time

import pytest

from phi1_jax.llm import sender
from phi1_jax.llm.client import Client, SenderProcess
from phi1_jax.llm.config import LlmConfig
from phi1_jax.llm.conversation import Malformed
from phi1_jax.llm.journal import Journal
from phi1_jax.llm.request import Message, Request
from tests.llm.counting_server import CountingServer


def configure(url="http://127.0.0.1:9/v1", **changes):
  settings = {"model": "m", "journal": "journal", "budget_usd": 1.0, "base_url": url}
  settings |= {"input_usd_per_million": 0.15, "output_usd_per_million": 0.60}
  settings |= {"timeout_seconds": 60.0, "poll_seconds": 0.05}
  return LlmConfig(**settings | changes)


def parse(text):
  """Takes the counting server's good replies."""
  if not text.startswith("answer"):
    raise Malformed("it does not begin with answer")
  return text


def requests(count, first=0):
  return [
    Request((Message("user", f"exercise {number}"),), 64, "test", "1")
    for number in range(first, first + count)
  ]


def wait(condition):
  deadline = time.monotonic() + 300
  while not condition():
    assert time.monotonic() < deadline
    time.sleep(0.005)


def hold_all_but_the_first(server):
  """Lets the server answer one request; the others wait at its gate."""

  def write(body):
    server.gate.clear()
    return "answer"

  server.write = write


def release(server):
  server.write = None
  server.gate.set()


class Llm:
  """A counting server, and clients of it with one journal."""

  def __init__(self, server, folder):
    self.server, self.folder = server, folder

  def config(self, **changes):
    return configure(self.server.url, **{"journal": str(self.folder)} | changes)

  def ask(self, wanted, *, parse=parse, **changes):
    """The outcomes of requests, or of so many of them, in one run."""
    if isinstance(wanted, int):
      wanted = requests(wanted)
    with Client(self.config(**changes)) as client:
      return list(client.ask(wanted, parse))

  def estimate(self, count, **changes):
    with Client(self.config(**changes)) as client:
      return client.estimate(requests(count))

  @property
  def journal(self):
    return Journal(self.folder)

  @property
  def budget(self):
    return self.journal.budget(10**12)


@pytest.fixture
def serve(monkeypatch, tmp_path):
  """`serve(moods)` starts a server, see `CountingServer`."""
  monkeypatch.setenv("NO_PROXY", "127.0.0.1")
  monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
  with contextlib.ExitStack() as stack:

    def start(moods=None, **options):
      server = stack.enter_context(CountingServer(moods, **options))
      return Llm(server, tmp_path / "journal")

    yield start


@pytest.fixture
def llm(serve):
  return serve()


class ThreadSender(SenderProcess):
  """A sender in a thread, which starts a second sooner than a process."""

  def _start(self, theirs):
    self._log.touch()

    async def work():
      await sender.serve(theirs, asyncio.Event())

    self._thread = threading.Thread(target=asyncio.run, args=(work(),))
    self._thread.start()

  def _ended(self):
    return self._thread.join()


@pytest.fixture
def thread_sender(monkeypatch):
  """Makes senders threads, and their pauses short."""
  monkeypatch.setattr("phi1_jax.llm.client.SenderProcess", ThreadSender)
  for pause in ("client._SILENCE", "endpoint._FIRST_PAUSE", "sender._SETTLING"):
    monkeypatch.setattr(f"phi1_jax.llm.{pause}", 0.02)
