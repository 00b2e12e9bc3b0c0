"""The courier as a process: it outlives the run, and nothing else does."""

import dataclasses
import multiprocessing
import os
import pathlib
import shutil
import signal
import subprocess
import time

import pytest

from phi1_jax.llm import prices
from phi1_jax.llm.asker import Asker
from phi1_jax.llm.client import RequestError
from phi1_jax.llm.journal import Journal

pytest.importorskip("openai")


def run(config, wanted):
  """The run that is killed."""
  with Asker(config) as asker:
    list(asker.ask(wanted, str.strip))


def wait(condition, seconds=30.0):
  deadline = time.monotonic() + seconds
  while not condition():
    assert time.monotonic() < deadline
    time.sleep(0.005)


def totals(config):
  """Replies and calls in doubt, once the courier has ended."""
  journal = Journal(pathlib.Path(config.journal))
  try:
    return len(journal), journal.account.doubtful_calls
  finally:
    journal.close()


def start(config, wanted):
  process = multiprocessing.get_context("fork").Process(
    target=run, args=(config, wanted)
  )
  process.start()
  return process


def test_what_is_under_way_when_the_run_dies_is_journalled(serve, configure, requests):
  with serve(latency=0.2) as server:
    config = configure(server.url, concurrency=8)
    process = start(config, requests(500))
    wait(lambda: server.now == 8)
    process.kill()
    process.join()
    replies, doubtful = totals(config)
    time.sleep(0.3)
    assert replies == server.counts()["billed"] == server.counts()["came"] < 100
  assert doubtful == 0


def test_told_to_end_it_ends_the_same_way(serve, configure, requests):
  with serve(latency=0.2) as server:
    config = configure(server.url, concurrency=4)
    with Asker(config) as asker:
      outcomes = asker.ask(requests(500), str.strip)
      next(outcomes)
      assert asker._link is not None
      asker._link._process.send_signal(signal.SIGTERM)
      with pytest.raises(RequestError, match="nothing is lost"):
        list(outcomes)
    assert totals(config) == (server.counts()["billed"], 0)


def test_a_courier_that_is_killed_leaves_known_doubts(serve, configure, requests):
  with serve(latency=0.2) as server:
    config = configure(server.url, concurrency=4)
    with Asker(config) as asker:
      outcomes = asker.ask(requests(12), str.strip)
      next(outcomes)
      assert asker._link is not None
      wait(lambda: server.now == 4)
      asker._link._process.kill()
      with pytest.raises(RequestError, match="ended with -9"):
        list(outcomes)
    replies, doubtful = totals(config)
    assert 0 < doubtful <= 4
    wait(lambda: server.now == 0)
    assert replies <= server.counts()["billed"] <= replies + doubtful
    run(config, requests(12))
    assert totals(config) == (12, doubtful)


def holder(pipe):
  """A child of the run that outlives it, and holds all it has inherited."""
  pipe.recv()


def run_with_child(config, wanted, pipe):
  with Asker(config) as asker:
    outcomes = asker.ask(wanted, str.strip)
    next(outcomes)
    child = multiprocessing.get_context("fork").Process(target=holder, args=(pipe,))
    child.start()
    pipe.send(child.pid)
    list(outcomes)


def test_a_child_of_the_dead_run_does_not_keep_the_courier(serve, configure, requests):
  with serve(latency=0.05) as server:
    config = configure(server.url, concurrency=2)
    ours, theirs = multiprocessing.Pipe()
    context = multiprocessing.get_context("fork")
    arguments = (config, requests(500), theirs)
    process = context.Process(target=run_with_child, args=arguments)
    process.start()
    child = ours.recv()
    process.kill()
    process.join()
    ballast = pathlib.Path(config.journal, "ballast")
    try:
      assert ballast.exists()
      wait(lambda: not ballast.exists())  # the last thing that a courier does
    finally:
      os.kill(child, signal.SIGKILL)
    assert totals(config)[0] == server.counts()["came"] < 100


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
    wanted = requests(90)
    pad = "x" * 40_000  # so that a few dozen replies fill the disk
    wanted = [
      dataclasses.replace(
        one, messages=(dataclasses.replace(one.messages[0], content=f"{n} {pad}"),)
      )
      for n, one in enumerate(wanted)
    ]
    with pytest.raises(RequestError, match="the disk is full; all replies so far are"):
      run(config, wanted)
    billed = server.counts()["billed"]
    assert 20 < billed < 90
    assert totals(config) == (billed, 0)
    with pytest.raises(RequestError, match="no room for more replies"):
      run(config, wanted)
    assert server.counts()["billed"] == billed
    with Asker(config) as asker:  # what was paid for can still be read
      assert asker.estimate(wanted).already_paid == billed
    room = dataclasses.replace(config, journal=str(small_disk.parent / "roomier"))
    shutil.copytree(config.journal, room.journal)
    run(room, wanted)
    assert server.counts()["billed"] == 90
    assert prices.text(server.money) == prices.text(spent(room))
    assert server.counts()["twice"] == 0


def spent(config):
  return Journal(pathlib.Path(config.journal)).account.spent
