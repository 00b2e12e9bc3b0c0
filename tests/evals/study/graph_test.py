"""The steps of a study: order, what is run again, and how a failure is told."""

import dataclasses
import json
import os
import signal
import threading
import time

import pytest

from evals.study import graph
from evals.study.graph import FailedError, Step
from phi1_jax import storage

MODULE = """
import os, sys, time
with open(os.environ["RAN"], "a") as file:
  file.write(sys.argv[1] + "\\n")
print("cache", os.environ.get("JAX_COMPILATION_CACHE_DIR"))
print("cores", len(os.sched_getaffinity(0)))
if sys.argv[2] == "fail":
  sys.exit(3)
if sys.argv[2] == "wait":
  time.sleep(600)
"""


@pytest.fixture(autouse=True)
def _module(tmp_path, monkeypatch):
  (tmp_path / "noted.py").write_text(MODULE)
  (tmp_path / "ran").write_text("")
  monkeypatch.setenv("RAN", str(tmp_path / "ran"))
  monkeypatch.setenv("PYTHONPATH", str(tmp_path))
  monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)


@pytest.fixture
def ran(tmp_path):
  """Gives the names of the steps that began, in order."""
  return lambda: (tmp_path / "ran").read_text().split()


def step(name, what="end", needs=()):
  """A step that notes its name and does what the second word says."""
  return Step(name, tuple(needs), ("noted", name, what))


def wait(condition):
  deadline = time.monotonic() + 300
  while not condition():
    assert time.monotonic() < deadline
    time.sleep(0.05)


def test_a_step_waits_for_what_it_needs_and_is_never_run_again(tmp_path, ran, capsys):
  called = []
  function = Step("b", ("a",), function=lambda: called.append(ran()), seconds=10)
  first = dataclasses.replace(step("a"), seconds=90)
  steps = [first, function, step("c", needs=["b"])]
  for _ in range(2):
    assert graph.run(steps, tmp_path, 2)
    assert (called, ran()) == ([["a"]], ["a", "c"])
    assert "110 core-seconds of 110 (100%)" in capsys.readouterr().err
  log = (tmp_path / graph.LOGS / "a.log").read_text().splitlines()
  assert log[:2] == ["$ python -m noted a end", f"cache {tmp_path / 'compiled'}"]
  # Two jobs have half of the cores each.
  cores = len(os.sched_getaffinity(0))
  assert int(log[2].removeprefix("cores ")) in {cores // 2, cores - cores // 2}
  row = json.loads((tmp_path / graph.STEPS).read_text().splitlines()[0])
  assert row.items() > graph.here().items()
  assert graph.seconds_of_done([first], tmp_path) == {"a": row["seconds"]}
  # A step with other words is run again.
  assert graph.run([Step("a", (), ("noted", "a", "otherwise"))], tmp_path, 1)
  assert ran() == ["a", "c", "a"]


def test_a_step_is_the_same_in_another_local_copy():
  here, there = (
    Step("a", (), ("noted", f"--workdir={root}/train"), root=root)
    for root in ("/here", "/there")
  )
  assert here.digest == there.digest
  assert here.digest != dataclasses.replace(here, root="").digest


def test_a_failure_shows_the_log_and_the_rest_goes_on_later(tmp_path, ran):
  def broken():
    raise KeyError("a bug")

  first, last = step("a"), step("c", needs=["b"])
  bug = Step("b", function=broken)
  with pytest.raises(KeyError, match="a bug"):
    graph.run([first, bug, last], tmp_path, 2)
  assert list(graph.seconds_of_done([first, bug, last], tmp_path)) == ["a"]
  with pytest.raises(FailedError, match=r"step b failed: exit 3(.|\n)*cache"):
    graph.run([first, step("b", "fail", ["a"]), last], tmp_path, 1)
  assert ran() == ["a", "b"]
  assert graph.run([first, step("b", "end", ["a"]), last], tmp_path, 1)
  assert ran() == ["a", "b", "b", "c"]


def test_a_signal_stops_the_children_and_nothing_is_lost(tmp_path, ran):
  steps = [step("a"), step("b", "wait", ["a"])]

  def stop():
    wait(lambda: ran()[-1:] == ["b"])
    os.kill(os.getpid(), signal.SIGTERM)

  thread = threading.Thread(target=stop)
  thread.start()
  assert not graph.run(steps, tmp_path, 1)
  thread.join()
  assert list(graph.seconds_of_done(steps, tmp_path)) == ["a"]


def test_a_step_waits_for_the_process_that_a_killed_study_left(tmp_path):
  place = tmp_path / "work"
  left = Step("a", words=("noted", f"--workdir={place}"))
  waiting = threading.Thread(target=graph.wait_for_orphans, args=([left],))
  with storage.Lease(place, "saving"):
    waiting.start()
    waiting.join(0.5)
    assert waiting.is_alive()
  waiting.join(300)
  assert not waiting.is_alive()
