import json
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


DIVERGED = events((0, "starting"), (1, "training", 0), (4, "training", 3), (6, "ended"))


@pytest.mark.parametrize(
  ("lines", "now", "expected", "starts"),
  [
    pytest.param(UNDISTURBED, 200, (50, 0, 30, 20, 0), 1, id="one start"),
    pytest.param(
      # Saved at 25, killed after 45, and the save at 50 was incomplete. Nobody knows
      # what the first start did between 190 and 300.
      [
        *UNDISTURBED,
        *events((300, "starting"), (310, "training", 25), (320, "training", 35)),
        Event(335, "paused", 50),
      ],
      *(337, (50, 25, 40, 12, 110), 2),
      id="steps that a later start repeats are lost",
    ),
    pytest.param(
      [
        *UNDISTURBED[:5],
        *events((157, "ended"), (257, "starting"), (260, "training", 25)),
        Event(285, "paused", 50),
      ],
      *(285, (50, 0, 33, 2, 100), 2),
      id="a start that saved and ended lost nothing",
    ),
    pytest.param(
      events(
        *[(0, "starting"), (5, "refused"), (8, "starting")],
        *[(9, "training", 0), (12, "training", 3)],
      ),
      *(18, (3, 6, 6, 0, 3), 1),
      id="refused, then started",
    ),
    pytest.param(
      events(
        *[(0, "starting")],
        *[(10, "starting"), (15, "training", 0), (18, "training", 10)],
        *[(20, "starting"), (24, "training", 0), (84, "paused", 100)],
      ),
      *(90, (60, 3, 9, 6, 12), 3),
      id="killed while compiling, killed before the first save",
    ),
    pytest.param(
      events(
        *[(0, "starting"), (1, "training", 0), (5, "paused", 4), (5, "training", 4)],
        *[(9, "paused", 8), (9, "ended")],
        *[(9, "starting"), (9, "paused", 8), (10, "training", 8), (14, "paused", 12)],
        *[(14, "ended"), (14, "starting")],
        *[(15, "paused", 4), (16, "training", 4), (24, "paused", 12)],
      ),
      *(24, (4 + 8, 8, 2, 2, 0), 3),
      id="a third start goes back behind two others",
    ),
    pytest.param(DIVERGED, 6, (3, 2, 1, 0, 0), 1, id="diverged steps are lost"),
    pytest.param(DIVERGED, 16, (3, 2, 1, 0, 10), 1, id="away after the end"),
    pytest.param(
      events((100, "starting"), (90, "training", 0), (110, "paused", 5)),
      *(110, (20, 0, 0, 0, 0), 1),
      id="a clock that was set back",
    ),
  ],
)
def test_measure(lines, now, expected, starts):
  """`expected`: seconds of training, lost, starting, paused and away."""
  spent = measure(lines, now)
  names = ("training", "lost", "starting", "paused", "away")
  assert tuple(spent[f"{name}_seconds"] for name in names) == expected
  assert spent["total_seconds"] == sum(expected)
  assert spent["goodput"] == pytest.approx(expected[0] / sum(expected))
  assert spent["starts"] == starts


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
    result = subprocess.run([sys.executable, "-c", KILLED, tmp_path], timeout=300)
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
  refused = pytest.raises(InputError, match=r"starts.jsonl, line 1: got .*, expected")
  with refused, StartLog(tmp_path).start():
    raise AssertionError("what is refused would start here")
  assert path.read_text() == line + "\n"


def test_work_of_another_run_does_not_count(tmp_path):
  """A start begins after it; the process is older than that."""
  with StartLog(tmp_path).start():
    pass
  first = read_events(tmp_path / FILE_NAME)[0].time
  (tmp_path / FILE_NAME).unlink()
  with StartLog(tmp_path).start(waited=0.25):
    pass
  assert read_events(tmp_path / FILE_NAME)[0].time == pytest.approx(
    first + 0.25, abs=0.05
  )
