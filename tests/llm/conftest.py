"""A counting server, and runs against it."""

import asyncio
import os
import threading
from multiprocessing.connection import Connection

import pytest

from phi1_jax.llm import sender
from phi1_jax.llm.client import Client, SenderProcess
from phi1_jax.llm.config import LlmConfig
from phi1_jax.llm.conversation import Malformed
from phi1_jax.llm.request import Message, Request
from tests.llm.counting_server import CountingServer


@pytest.fixture
def serve(monkeypatch):
  """Returns the class of counting servers."""
  monkeypatch.setenv("NO_PROXY", "127.0.0.1")
  monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
  return CountingServer


@pytest.fixture
def server(serve):
  with serve() as running:
    yield running


@pytest.fixture
def configure(tmp_path):
  """Returns a function from an address to a configuration."""

  def make(url="http://127.0.0.1:9/v1", **changes):
    settings = {
      "model": "m",
      "journal": str(tmp_path / "journal"),
      "budget_usd": 1.0,
      "base_url": url,
      "input_usd_per_million": 0.15,
      "output_usd_per_million": 0.60,
      "timeout_seconds": 60.0,
      "poll_seconds": 0.05,
    }
    return LlmConfig(**settings | changes)

  return make


@pytest.fixture
def parse():
  """Returns a parser that takes the counting server's good replies."""

  def take(text):
    if not text.startswith("answer"):
      raise Malformed("it does not begin with answer")
    return text

  return take


@pytest.fixture
def requests():
  """Returns a function that makes so many requests."""

  def make(count, first=0, **changes):
    settings = {"max_tokens": 64, "prompt_id": "test", "prompt_version": "1"}
    return [
      Request((Message("user", f"exercise {number}"),), **settings | changes)
      for number in range(first, first + count)
    ]

  return make


@pytest.fixture
def ask(parse):
  """Returns a function that asks all requests in one run and returns the outcomes."""

  def run(config, wanted, parser=parse):
    with Client(config) as client:
      return list(client.ask(wanted, parser))

  return run


class ThreadSender(SenderProcess):
  """A sender in a thread, which starts a second sooner than a process."""

  def _start(self, pipe):
    connection = Connection(os.dup(pipe.fileno()))
    self._log.touch()

    async def work():
      run = sender.Run(connection)
      await sender.serve(run)
      run.close()
      connection.close()

    self._thread = threading.Thread(target=asyncio.run, args=(work(),))
    self._thread.start()

  def _ended(self):
    return self._thread.join()


@pytest.fixture
def thread_sender(monkeypatch):
  """Makes senders threads."""
  monkeypatch.setattr("phi1_jax.llm.client.SenderProcess", ThreadSender)
