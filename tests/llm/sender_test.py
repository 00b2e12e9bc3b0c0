"""The sender as a process: it outlives the run, and nothing else does."""

import dataclasses
import multiprocessing
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest

from phi1_jax import InputError, storage
from phi1_jax.llm.client import Client, RequestError
from phi1_jax.llm.journal import Journal

pytest.importorskip("openai")


def run(config, wanted):
  with Client(config) as client:
    list(client.ask(wanted, str.strip))


def wait(condition, seconds=300.0):
  deadline = time.monotonic() + seconds
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


def totals(config):
  """Returns replies and calls in doubt, once the sender has ended."""
  folder = pathlib.Path(config.journal)
  wait(lambda: not storage.is_held(folder))
  journal = Journal(folder)
  return len(journal.replies()), journal.budget(0).doubtful_calls


def start(target, *arguments):
  context = multiprocessing.get_context("fork")
  process = context.Process(target=target, args=arguments)
  process.start()
  return process


def test_requests_in_flight_when_the_run_dies_are_journalled(
  serve, configure, requests
):
  with serve() as server:
    hold_all_but_the_first(server)
    config = configure(server.url, concurrency=8)
    process = start(run, config, requests(500))
    wait(lambda: server.now == 8)
    process.kill()
    process.join()
    release(server)
    replies, doubtful = totals(config)
    wait(lambda: server.now == 0)
    assert replies == server.counts()["billed"] == server.counts()["came"] < 100
  assert doubtful == 0


def test_a_next_run_waits_for_the_sender_and_says_so_once(
  serve, configure, requests, caplog
):
  def release():
    wait(lambda: "waiting for another process" in caplog.text)
    server.gate.set()

  with serve() as server:
    server.gate.clear()
    config = configure(server.url)
    process = start(run, config, requests(1))
    wait(lambda: server.now == 1)
    process.kill()
    process.join()
    threading.Thread(target=release).start()
    run(config, requests(1))
    assert server.counts()["billed"] == 1
  assert len(re.findall("waiting for another process", caplog.text)) == 1


def test_a_run_that_gives_up_waiting_ends_at_once(serve, configure, requests):
  with serve() as server:
    server.gate.clear()  # the first run is in progress until the second has ended
    config = configure(server.url)
    process = start(run, config, requests(1))
    wait(lambda: server.now == 1)

    def interrupt(progress):
      raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), Client(config, interrupt) as client:
      next(client.ask(requests(1, first=7), str.strip))
    assert server.counts()["billed"] == 0
    server.gate.set()
    process.join()
    assert server.counts()["came"] == 1


def test_sigterm_ends_it_the_same_way(serve, configure, requests):
  with serve(latency=0.2) as server:
    config = configure(server.url, concurrency=4)
    with Client(config) as client:
      outcomes = client.ask(requests(500), str.strip)
      next(outcomes)
      client._sender.process.send_signal(signal.SIGTERM)
      with pytest.raises(RequestError, match="nothing is lost"):
        list(outcomes)
    assert totals(config) == (server.counts()["billed"], 0)


def test_a_killed_sender_leaves_known_doubts(serve, configure, requests):
  with serve() as server:
    hold_all_but_the_first(server)
    config = configure(server.url, concurrency=4)
    with Client(config) as client:
      outcomes = client.ask(requests(12), str.strip)
      next(outcomes)
      wait(lambda: server.now == 4)
      client._sender.process.kill()
      with pytest.raises(RequestError, match="ended with -9"):
        list(outcomes)
    release(server)
    replies, doubtful = totals(config)
    assert doubtful == 4
    wait(lambda: server.now == 0)
    assert replies <= server.counts()["billed"] <= replies + doubtful
    run(config, requests(12))
    assert totals(config) == (12, doubtful)


def run_with_child(config, wanted, pipe):
  with Client(config) as client:
    outcomes = client.ask(wanted, str.strip)
    next(outcomes)
    pipe.send(start(pipe.recv).pid)  # a child that inherits all descriptors
    list(outcomes)


def test_a_child_of_the_dead_run_does_not_keep_the_sender(serve, configure, requests):
  with serve(latency=0.05) as server:
    config = configure(server.url, concurrency=2)
    ours, theirs = multiprocessing.Pipe()
    process = start(run_with_child, config, requests(500), theirs)
    child = ours.recv()
    process.kill()
    process.join()
    try:
      assert totals(config)[0] == server.counts()["came"] < 100
    finally:
      os.kill(child, signal.SIGKILL)


@pytest.fixture
def small_disk(tmp_path):
  """A file system of 4 MiB."""
  place = tmp_path / "small"
  place.mkdir()
  command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place)]
  if shutil.which("mount") is None or subprocess.run(command).returncode:
    pytest.skip("a file system of its own cannot be mounted here")
  yield place
  subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_full_disk_stops_the_run_and_loses_no_reply(
  serve, configure, requests, small_disk
):
  with serve(latency=0.02) as server:
    config = configure(server.url, journal=str(small_disk / "journal"), concurrency=16)
    config = dataclasses.replace(config, budget_usd=100.0)
    pad = "x" * 40_000  # so that a few dozen calls fill the disk
    wanted = [
      dataclasses.replace(
        one, messages=(dataclasses.replace(one.messages[0], content=f"{n} {pad}"),)
      )
      for n, one in enumerate(requests(90))
    ]
    with pytest.raises(RequestError, match="the disk is full; all replies so far are"):
      run(config, wanted)
    billed = server.counts()["billed"]
    assert 10 < billed < 90
    assert totals(config) == (billed, 0)
    with pytest.raises((RequestError, InputError), match=r"No space|is full"):
      run(config, wanted)
    billed = server.counts()["billed"]
    assert totals(config) == (billed, 0)
    with Client(config) as client:  # the replies can still be read
      assert client.estimate(wanted).to_send == 90 - billed
    room = dataclasses.replace(config, journal=str(small_disk.parent / "roomier"))
    shutil.copytree(config.journal, room.journal)
    run(room, wanted)
    assert server.counts()["billed"] == 90
    assert server.counts()["twice"] == 0


def test_kills_cost_nothing_and_change_nothing(tmp_path):
  benchmark = pathlib.Path(__file__).parents[2] / "benchmarks/interruptions.py"
  command = [sys.executable, str(benchmark), f"--folder={tmp_path}/runs", "--kills=5"]
  command += ["--requests=24", "--latency=0.02", "--seed=1"]
  done = subprocess.run(command, capture_output=True, text=True)
  assert done.returncode == 0, done.stdout + done.stderr
  assert "output identical: True" in done.stdout
  found = re.findall(
    r"delivered (\d+) replies, journalled (\d+), paid twice 0", done.stdout
  )
  assert len(found) >= 4
  assert all(delivered == journalled for delivered, journalled in found)
