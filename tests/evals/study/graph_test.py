"""The steps of a study: order, what is run again, and how a failure is told."""

import contextlib
import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from evals.study import graph
from evals.study.graph import FailedError, Step
from phi1_jax import storage


@pytest.fixture(name="module")
def fixture_module(tmp_path, monkeypatch):
  """A module that notes its first argument and does what the second says."""
  (tmp_path / "noted.py").write_text(
    textwrap.dedent(
      f"""
      import sys, time
      from phi1_jax.cli import command
      command._end_with_parent()
      name, what = sys.argv[1:3]
      with open({str(tmp_path / "ran")!r}, "a") as file:
        file.write(name + "\\n")
      if what == "cache":
        import os
        print(os.environ["JAX_COMPILATION_CACHE_DIR"])
      if what == "fail":
        print("the reason")
        sys.exit(3)
      if what == "wait":
        time.sleep(600)
      """
    )
  )
  monkeypatch.setenv("PYTHONPATH", str(tmp_path))

  def step(name, what="end", needs=()):
    return Step(name, tuple(needs), ("noted", name, what))

  return step


@pytest.fixture(name="ran")
def fixture_ran(tmp_path):
  """Gives the names of the steps that began, in order."""
  (tmp_path / "ran").write_text("")
  return lambda: (tmp_path / "ran").read_text().split()


def test_a_log_begins_with_the_command_and_steps_share_what_is_compiled(
  tmp_path, module, monkeypatch
):
  monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
  assert graph.run([module("a", "cache")], tmp_path, 1)
  log = (tmp_path / graph.LOGS / "a.log").read_text().splitlines()
  assert (log[0], log[-1]) == ("$ python -m noted a cache", str(tmp_path / "compiled"))


def test_a_step_waits_for_what_it_needs_and_is_never_run_again(tmp_path, module, ran):
  called = []
  steps = [
    module("a"),
    Step("b", ("a",), function=lambda: called.append(ran())),
    module("c", needs=["b"]),
  ]
  assert graph.run(steps, tmp_path, 2)
  assert (called, ran()) == ([["a"]], ["a", "c"])
  assert graph.run(steps, tmp_path, 2)
  assert (len(called), ran()) == (1, ["a", "c"])


def test_a_step_with_other_words_is_run_again(tmp_path, module, ran):
  assert graph.run([module("a")], tmp_path, 1)
  changed = Step("a", (), ("noted", "a", "otherwise"))
  assert graph.run([changed], tmp_path, 1)
  assert ran() == ["a", "a"]


def test_a_step_is_the_same_in_another_local_copy():
  here, there = (
    Step("a", (), ("noted", f"--workdir={root}/train"), root=root)
    for root in ("/here", "/there")
  )
  assert here.digest == there.digest
  assert here.digest != dataclasses.replace(here, root="").digest


def test_a_failure_shows_the_log_and_the_rest_goes_on_later(tmp_path, module, ran):
  steps = [module("a"), module("b", "fail", ["a"]), module("c", needs=["b"])]
  with pytest.raises(FailedError, match=r"step b ended with 3(.|\n)*the reason"):
    graph.run(steps, tmp_path, 1)
  assert ran() == ["a", "b"]
  mended = [steps[0], module("b", "end", ["a"]), steps[2]]
  assert graph.run(mended, tmp_path, 1)
  assert ran() == ["a", "b", "b", "c"]


def test_a_signal_stops_the_children_and_nothing_is_lost(tmp_path, module, ran):
  steps = [module("a"), module("b", "wait", ["a"])]

  def stop():
    deadline = time.monotonic() + 300
    while ran()[-1:] != ["b"] and time.monotonic() < deadline:
      time.sleep(0.05)
    os.kill(os.getpid(), signal.SIGTERM)

  thread = threading.Thread(target=stop)
  thread.start()
  started = time.monotonic()
  assert not graph.run(steps, tmp_path, 1)
  thread.join()
  assert time.monotonic() - started < 300
  done = [json.loads(line)["step"] for line in (tmp_path / graph.STEPS).open()]
  assert done == ["a"]


def test_a_killed_study_takes_its_steps_with_it(tmp_path, module, ran):
  code = f"""
from pathlib import Path
from evals.study import graph
step = graph.Step("a", (), {module("a", "wait").words!r})
graph.run([step], Path({str(tmp_path)!r}), 1)
"""
  study = subprocess.Popen([sys.executable, "-c", code])
  marks = [b"noted", b"wait"]

  def waiting():
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
      with contextlib.suppress(OSError):  # a process may end meanwhile
        words = path.read_bytes().split(b"\0")
        if all(mark in words for mark in marks):
          return True
    return False

  deadline = time.monotonic() + 300
  while not (ran() and waiting()) and time.monotonic() < deadline:
    time.sleep(0.1)
  study.kill()
  study.wait()
  while waiting() and time.monotonic() < deadline:
    time.sleep(0.1)
  assert ran() == ["a"]
  assert not waiting()


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="Linux alone has it")
def test_every_job_has_its_own_cores():
  cores = sorted(os.sched_getaffinity(0))
  shares = graph.shares_of_cores(len(cores))
  assert sorted(core for share in shares for core in share) == cores


def test_what_was_running_when_a_step_broke_is_noted(tmp_path, module, ran):
  def broken():
    raise KeyError("a bug")

  steps = [module("a"), Step("b", function=broken), module("c", needs=["b"])]
  with pytest.raises(KeyError, match="a bug"):
    graph.run(steps, tmp_path, 2)
  done = [json.loads(line) for line in (tmp_path / graph.STEPS).open()]
  assert [row["step"] for row in done] == ["a"]
  assert {"digest", "seconds", "commit", "machine"} < set(done[0])
  assert graph.seconds_of_done(steps, tmp_path) == {"a": done[0]["seconds"]}


def test_time_left_is_told_by_expected_seconds(tmp_path, capsys):
  steps = [
    Step("a", function=lambda: None, seconds=90),
    Step("b", ("a",), function=lambda: None, seconds=10),
  ]
  assert graph.run(steps[:1], tmp_path, 1)
  assert "90 core-seconds of 90 (100%)" in capsys.readouterr().err
  assert graph.run(steps, tmp_path, 1)
  assert "100 core-seconds of 100 (100%)" in capsys.readouterr().err


def test_a_step_waits_for_the_process_that_a_killed_study_left(tmp_path):
  place = tmp_path / "work"
  step = Step("a", words=("noted", f"--workdir={place}"))
  waiting = threading.Thread(target=graph.wait_for_orphans, args=([step],))
  with storage.Lease(place, "saving"):
    assert storage.is_held(place)
    waiting.start()
    waiting.join(0.5)
    assert waiting.is_alive()
  waiting.join(10)
  assert not waiting.is_alive()
  assert not storage.is_held(place)
  assert not storage.is_held(tmp_path / "never")
