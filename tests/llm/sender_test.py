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

import pytest

from phi1_jax import InputError, storage
from phi1_jax.llm.client import Client, RequestError
from phi1_jax.llm.request import Message
from tests.llm.conftest import Llm, hold_all_but_the_first, release, requests, wait

pytest.importorskip("openai")


def run(llm, wanted, **changes):
  return llm.ask(wanted, parse=str.strip, **changes)


def totals(llm):
  """Returns replies and calls in doubt, once the sender has ended."""
  wait(lambda: not storage.is_held(llm.folder))
  return len(llm.journal.replies()), llm.budget.doubtful_calls


def start(target, *arguments, **changes):
  context = multiprocessing.get_context("fork")
  process = context.Process(target=target, args=arguments, kwargs=changes)
  process.start()
  return process


def start_and_kill(llm, count, in_flight, **changes):
  """Kills a run when so many of its requests are in flight."""
  process = start(run, llm, count, **changes)
  wait(lambda: llm.server.now == in_flight)
  process.kill()
  process.join()


def test_requests_in_flight_when_the_run_dies_are_journalled(llm):
  hold_all_but_the_first(llm.server)
  start_and_kill(llm, 500, 8, concurrency=8)
  release(llm.server)
  replies, doubtful = totals(llm)
  wait(lambda: llm.server.now == 0)
  counts = llm.server.counts()
  assert replies == counts["billed"] == counts["came"] < 100
  assert doubtful == 0


def test_a_next_run_waits_for_the_sender_and_says_so_once(llm, caplog):
  def release():
    wait(lambda: "waiting for another process" in caplog.text)
    llm.server.gate.set()

  llm.server.gate.clear()
  start_and_kill(llm, 1, 1)
  threading.Thread(target=release).start()
  run(llm, 1)
  assert llm.server.counts()["billed"] == 1
  assert len(re.findall("waiting for another process", caplog.text)) == 1


def test_a_run_that_gives_up_waiting_ends_at_once(llm):
  llm.server.gate.clear()  # the first run is in progress until the second has ended
  process = start(run, llm, 1)
  wait(lambda: llm.server.now == 1)

  def interrupt(progress):
    raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt), Client(llm.config(), interrupt) as client:
    next(client.ask(requests(1, first=7), str.strip))
  assert llm.server.counts()["billed"] == 0
  llm.server.gate.set()
  process.join()
  assert llm.server.counts()["came"] == 1


def test_sigterm_ends_it_the_same_way(serve):
  llm = serve(latency=0.2)
  with Client(llm.config(concurrency=4)) as client:
    outcomes = client.ask(requests(500), str.strip)
    next(outcomes)
    client._sender.process.send_signal(signal.SIGTERM)
    with pytest.raises(RequestError, match="nothing is lost"):
      list(outcomes)
  assert totals(llm) == (llm.server.counts()["billed"], 0)


def test_a_killed_sender_leaves_known_doubts(llm):
  hold_all_but_the_first(llm.server)
  with Client(llm.config(concurrency=4)) as client:
    outcomes = client.ask(requests(12), str.strip)
    next(outcomes)
    wait(lambda: llm.server.now == 4)
    client._sender.process.kill()
    with pytest.raises(RequestError, match="ended with -9"):
      list(outcomes)
  release(llm.server)
  replies, doubtful = totals(llm)
  assert doubtful == 4
  wait(lambda: llm.server.now == 0)
  assert replies <= llm.server.counts()["billed"] <= replies + doubtful
  run(llm, 12)
  assert totals(llm) == (12, doubtful)


def run_with_child(llm, pipe):
  with Client(llm.config(concurrency=2)) as client:
    outcomes = client.ask(requests(500), str.strip)
    next(outcomes)
    pipe.send(start(pipe.recv).pid)  # a child that inherits all descriptors
    list(outcomes)


def test_a_child_of_the_dead_run_does_not_keep_the_sender(serve):
  llm = serve(latency=0.05)
  ours, theirs = multiprocessing.Pipe()
  process = start(run_with_child, llm, theirs)
  child = ours.recv()
  process.kill()
  process.join()
  try:
    assert totals(llm)[0] == llm.server.counts()["came"] < 100
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


def test_a_full_disk_stops_the_run_and_loses_no_reply(serve, small_disk):
  full = Llm(serve(latency=0.02).server, small_disk / "journal")
  pad = Message("user", "x" * 40_000)  # so that a few dozen calls fill the disk
  wanted = [
    dataclasses.replace(one, messages=(*one.messages, pad)) for one in requests(90)
  ]
  settings = {"concurrency": 16, "budget_usd": 100.0}
  errors = (RequestError, InputError)
  for expected in ("the disk is full; all replies so far are", r"No space|is full"):
    with pytest.raises(errors, match=expected):
      run(full, wanted, **settings)
    billed = full.server.counts()["billed"]
    assert 10 < billed < 90
    assert totals(full) == (billed, 0)
  with Client(full.config(**settings)) as client:  # the replies can still be read
    assert client.estimate(wanted).to_send == 90 - billed
  roomier = Llm(full.server, small_disk.parent / "roomier")
  shutil.copytree(full.folder, roomier.folder)
  run(roomier, wanted, **settings)
  assert full.server.counts()["billed"] == 90
  assert full.server.counts()["twice"] == 0


def test_kills_cost_nothing_and_change_nothing(tmp_path):
  benchmark = pathlib.Path(__file__).parents[2] / "benchmarks/interruptions.py"
  command = [sys.executable, str(benchmark), f"--folder={tmp_path}/runs", "--kills=2"]
  command += ["--requests=8", "--latency=0.02", "--seed=1"]
  done = subprocess.run(command, capture_output=True, text=True)
  assert done.returncode == 0, done.stdout + done.stderr
  assert "output identical: True" in done.stdout
  found = re.findall(
    r"delivered (\d+) replies, journalled (\d+), paid twice 0", done.stdout
  )
  assert len(found) >= 2
  assert all(delivered == journalled for delivered, journalled in found)
