import io

import pytest

from phi1_jax.cli import progress
from phi1_jax.cli.progress import Progress


class Terminal(io.StringIO):
  def isatty(self):
    return True


@pytest.fixture
def clock(monkeypatch):
  """Seconds that a test sets; what plain lines are timed by."""
  now = [0.0]
  monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
  return now


def test_plain_lines(clock):
  stream = io.StringIO()
  with Progress(2000, "tokens", "writing a", stream=stream) as bar:
    for second in (4, 9.9, 10, 15):
      clock[0] = second
      bar.update(250, loss="1.5")
    clock[0] = 20
  assert stream.getvalue().splitlines() == [
    # 750 of 2000 after 10 s: 75/s, so 1250 more take 16.7 s.
    "writing a: 750 tokens of 2,000 (38%), 75.0/s, 00:16 left, loss 1.5",
    "writing a: 1,000 tokens of 2,000 (50%), 50.0/s, 00:20 left",
  ]


def test_work_of_an_earlier_run_is_no_part_of_the_rate(clock):
  stream = io.StringIO()
  with Progress(100, "steps", "training", initial=50, stream=stream) as bar:
    clock[0] = 10
    bar.update(10)
  first = stream.getvalue().splitlines()[0]
  assert first == "training: 60 steps of 100 (60%), 1.00/s, 00:40 left"


@pytest.mark.parametrize(
  ("total", "done", "shown"), [(16, 1, 0), (99, 2, 0), (39, 2, 1)]
)
def test_the_first_units_tell_no_time_left(clock, total, done, shown):
  stream = io.StringIO()
  bar = Progress(total, "shards", "writing a", stream=stream)
  clock[0] = 60
  bar.update(done)
  assert stream.getvalue().count(" left") == shown


def test_no_total_and_no_lines(clock):
  stream = io.StringIO()
  with Progress(None, "files", "reading", stream=stream) as bar:
    bar.update(3)
    clock[0] = 1
  assert stream.getvalue() == "reading: 3 files, 3.00/s\n"
  silent = io.StringIO()
  with Progress(5, "files", "reading", interval=None, stream=silent) as bar:
    clock[0] = 100
    bar.update(3)
    bar.write("a row")
  assert silent.getvalue() == "a row\n"


def test_a_bar_on_a_terminal(monkeypatch):
  monkeypatch.setenv("COLUMNS", "100")
  stream = Terminal()
  with Progress(10, "steps", "training", initial=2, stream=stream) as bar:
    bar.update(8, loss="1.5")
    bar.write("a row")
    bar.update(0, running="b")  # the figures change without progress
  shown = stream.getvalue()
  assert "\r" in shown
  assert "a row\n" in shown
  assert "10.0/10.0" in shown
  assert "loss=1.5" in shown
  assert "running=b" in shown
