import json
import os
import subprocess
import sys
import time

import pytest

from phi1_jax import InputError
from phi1_jax.telemetry.goodput import FILE_NAME, Event, StartLog, measure, read_events


def events(*lines):
  return [Event(*line) for line in lines]


UNDISTURBED = events(
  *[(100, "starting"), (130, "training", 0), (140, "training", 10)],
  *[(150, "training", 20), (155, "paused", 25), (165, "training", 25)],
  *[(185, "training", 45), (190, "paused", 50)],
)


def parts(spent):
  """Seconds by part, and a check that nothing is counted twice or not at all."""
  found = {
    name: getattr(spent, f"{name}_seconds")
    for name in ("training", "lost", "starting", "paused", "away")
  }
  assert sum(found.values()) == pytest.approx(spent.total_seconds)
  assert spent.goodput == pytest.approx(found["training"] / spent.total_seconds)
  return found


def test_a_run_of_one_start():
  spent = measure(UNDISTURBED, now=200)
  expected = {"training": 50, "lost": 0, "starting": 30, "paused": 20, "away": 0}
  assert parts(spent) == expected
  assert (spent.starts, spent.total_seconds, spent.goodput) == (1, 100, 0.5)


def test_what_a_later_start_does_again_was_lost():
  """Saved at 25, killed after 45, and the save at 50 was not whole."""
  again = events(
    *[(300, "starting"), (310, "training", 25), (320, "training", 35)],
    *[(335, "paused", 50)],
  )
  spent = measure([*UNDISTURBED, *again], now=337)
  # From 190, where it was last seen, to 300 it may have been anywhere.
  expected = {"training": 50, "lost": 25, "starting": 40, "paused": 12, "away": 110}
  assert parts(spent) == expected
  assert (spent.starts, spent.total_seconds) == (2, 237)


def test_a_start_that_saved_and_ended_lost_nothing():
  stopped = [*UNDISTURBED[:5], Event(157, "ended")]
  again = events((257, "starting"), (260, "training", 25), (285, "paused", 50))
  spent = measure([*stopped, *again], now=285)
  expected = {"training": 50, "lost": 0, "starting": 33, "paused": 2, "away": 100}
  assert parts(spent) == expected


def test_starts_killed_while_they_compiled_or_before_their_first_save():
  killed = events(
    *[(0, "starting")],
    *[(10, "starting"), (15, "training", 0), (18, "training", 10)],
  )
  again = events((20, "starting"), (24, "training", 0), (84, "paused", 100))
  spent = measure([*killed, *again], now=90)
  expected = {"training": 60, "lost": 3, "starting": 9, "paused": 6, "away": 12}
  assert parts(spent) == expected


def test_two_starts_are_lost_when_a_third_goes_back_behind_both():
  spent = measure(
    events(
      *[(0, "starting"), (1, "training", 0), (5, "paused", 4), (5, "training", 4)],
      *[(9, "paused", 8), (9, "ended")],
      *[(9, "starting"), (9, "paused", 8), (10, "training", 8), (14, "paused", 12)],
      *[(14, "ended")],
      *[(14, "starting"), (15, "paused", 4), (16, "training", 4), (24, "paused", 12)],
    ),
    now=24,
  )
  expected = {"training": 4 + 8, "lost": 8, "starting": 2, "paused": 2, "away": 0}
  assert parts(spent) == expected


def test_steps_that_came_to_nothing_were_lost():
  diverged = events(
    (0, "starting"), (1, "training", 0), (4, "training", 3), (6, "ended")
  )
  assert parts(measure(diverged, now=6))["lost"] == 2
  assert parts(measure(diverged, now=16))["away"] == 10


def test_a_clock_that_was_set_back_makes_no_time_negative():
  back = events((100, "starting"), (90, "training", 0), (110, "paused", 5))
  assert parts(measure(back, now=110))["starting"] == 0


def test_without_a_start_nothing_is_known(tmp_path):
  assert read_events(tmp_path / FILE_NAME) == []
  assert measure([], now=1.0) is None
  assert measure(events((1, "training", 0), (2, "paused", 3)), now=4) is None


def test_a_start_leaves_its_lines_whatever_happens(tmp_path):
  log = StartLog(tmp_path)

  def start():
    with log.start():
      log.write("training", 7)
      raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    start()
  first, second, third = read_events(tmp_path / FILE_NAME)
  assert (first.state, first.step) == ("starting", None)
  assert (second.state, second.step) == ("training", 7)
  assert (third.state, third.step) == ("ended", None)
  assert 1.7e9 < first.time <= second.time <= third.time
  assert json.loads((tmp_path / FILE_NAME).read_text().splitlines()[1]) == {
    "time": second.time,
    "state": "training",
    "step": 7,
  }


def test_other_processes_write_nothing(tmp_path):
  with StartLog(tmp_path, process_index=1).start():
    pass
  assert list(tmp_path.iterdir()) == []


KILLED = """
import os, signal, sys
from phi1_jax.telemetry.goodput import StartLog
log = StartLog(sys.argv[1])
with log.start():
  log.write("training", 0)
  os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_start_leaves_no_end(tmp_path):
  called = []
  for _ in range(2):
    called.append(time.time())
    result = subprocess.run([sys.executable, "-c", KILLED, tmp_path], timeout=60)
    assert result.returncode == -9
  found = read_events(tmp_path / FILE_NAME)
  assert [event.state for event in found] == ["starting", "training"] * 2
  for before, starting, training in zip(called, found[::2], found[1::2], strict=True):
    # The start is that of the process, to the tick, so its imports are part of it.
    assert before - 0.1 < starting.time < training.time


def test_a_process_that_starts_a_run_twice_was_not_there_all_the_time(tmp_path):
  for _ in range(2):
    with StartLog(tmp_path).start():
      pass
  first, ended, second, _ = read_events(tmp_path / FILE_NAME)
  assert first.time < ended.time == second.time


@pytest.mark.parametrize(
  "torn", ['{"time": 17', '{"time": 1.0, "state": "ended"}', "\0"]
)
def test_a_torn_last_line_is_no_line(tmp_path, torn):
  log, path = StartLog(tmp_path), tmp_path / FILE_NAME
  log.write("starting")
  with path.open("a") as file:
    file.write(torn)
  assert [event.state for event in read_events(path)] == ["starting"]
  with log.start():
    pass
  states = [event.state for event in read_events(path)]
  assert states == ["starting", "starting", "ended"]


@pytest.mark.parametrize(
  "line",
  [
    *["compiled", "[1]", '{"time": 1.0}', '{"time": "1", "state": "starting"}'],
    *['{"time": NaN, "state": "ended"}', '{"time": 1.0, "state": "sleeping"}'],
    '{"time": 1.0, "state": "paused", "step": "a"}',
  ],
)
def test_a_file_of_something_else_is_refused_when_a_run_starts(tmp_path, line):
  path = tmp_path / FILE_NAME
  path.write_text(line + "\n")
  refused = pytest.raises(InputError, match=r"starts.jsonl line 1: got .*, expected")
  with refused, StartLog(tmp_path).start():
    raise AssertionError("what is refused would start here")
  assert path.read_text() == line + "\n"


def test_lines_are_only_added_and_on_the_disk_at_once(tmp_path, monkeypatch):
  synced = []

  def fsync(descriptor):
    synced.append(os.fstat(descriptor).st_ino)

  monkeypatch.setattr(os, "fsync", fsync)
  log, path = StartLog(tmp_path), tmp_path / FILE_NAME
  before = b""
  for step in range(4):
    log.write("training", step)
    after = path.read_bytes()
    assert after.startswith(before)
    assert after.endswith(b"\n")
    assert synced == [path.stat().st_ino] * (step + 1)
    before = after
