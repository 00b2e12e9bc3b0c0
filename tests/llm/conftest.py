"""A server that counts, and what asks it."""

import asyncio
import importlib.util
import json
import pathlib
import queue
import threading

import pytest

from phi1_jax.llm import courier
from phi1_jax.llm.asker import Asker
from phi1_jax.llm.config import LlmConfig
from phi1_jax.llm.conversation import Malformed
from phi1_jax.llm.office import Order
from phi1_jax.llm.request import Message, Request


def load(name):
  """A module of this folder, which is no package."""
  path = pathlib.Path(__file__).with_name(f"{name}.py")
  spec = importlib.util.spec_from_file_location(name, path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


counting_server = load("counting_server")


@pytest.fixture
def serve(monkeypatch):
  """Makes a counting server: a context manager."""
  monkeypatch.setenv("NO_PROXY", "127.0.0.1")
  monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
  return counting_server.CountingServer


@pytest.fixture
def server(serve):
  with serve() as running:
    yield running


@pytest.fixture
def configure(tmp_path):
  """Makes a configuration for an address."""

  def make(url="http://127.0.0.1:9/v1", **changes):
    settings = {
      "model": "m",
      "journal": str(tmp_path / "journal"),
      "budget_usd": 1.0,
      "base_url": url,
      "input_usd_per_million": 0.15,
      "output_usd_per_million": 0.60,
      "timeout_seconds": 5.0,
      "poll_seconds": 0.05,
    }
    return LlmConfig(**settings | changes)

  return make


@pytest.fixture
def parse():
  """Takes what the counting server calls an answer."""

  def take(text):
    if not text.startswith("answer"):
      raise Malformed("it does not begin with answer")
    return text

  return take


@pytest.fixture
def requests():
  """Makes so many requests."""

  def make(count, first=0, **changes):
    numbers = range(first, first + count)
    return [request(f"exercise {number}", **changes) for number in numbers]

  return make


def request(text="say something", **changes):
  settings = {"max_tokens": 64, "prompt_id": "test", "prompt_version": "1"}
  return Request((Message("user", text),), **settings | changes)


@pytest.fixture
def ask(parse):
  """Asks for all of it in one run; returns the outcomes."""

  def run(config, wanted, parser=parse):
    with Asker(config) as asker:
      return list(asker.ask(wanted, parser))

  return run


class ThreadLink:
  """A link to a courier that is a thread, which starts a second sooner."""

  def __init__(self, folder, lock, order):
    self._said, self._told = queue.SimpleQueue(), queue.SimpleQueue()
    self._thread = threading.Thread(target=self._work, args=(Order(**order),))
    self._thread.start()

  def _work(self, order):
    write = self._told.put
    asyncio.run(courier.serve(order, self._messages(), write))
    self._told.put(None)

  async def _messages(self):
    while (line := await asyncio.to_thread(self._said.get)) is not None:
      yield json.loads(line)

  def send(self, message):
    self._said.put(json.dumps(message))

  def receive(self, seconds):
    try:
      yield self._told.get(seconds > 0, seconds or None)
      while True:
        yield self._told.get_nowait()
    except queue.Empty:
      pass

  def close(self, seconds):
    self._said.put(None)
    while (message := self._told.get()) is not None:
      yield message
    self._thread.join()


@pytest.fixture
def thread_courier(monkeypatch):
  """Lets couriers be threads."""
  monkeypatch.setattr("phi1_jax.llm.asker.Link", ThreadLink)
