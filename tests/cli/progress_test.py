import io

import pytest

from phi1_jax.cli import progress
from phi1_jax.cli.progress import Progress


@pytest.fixture
def clock(monkeypatch):
  """Seconds that a test sets; what plain lines are timed by."""
  now = [0.0]
  monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
  return now


@pytest.mark.parametrize(
  ("total", "initial", "updates", "lines"),
  [
    # 750 of 2000 after 10 s: 75/s, so 1250 more take 16.7 s.
    (
      *(2000, 0, [(4, 250), (9.9, 250), (10, 250), (15, 250), (20, 0)]),
      ["750 units of 2,000 (38%), 75.0/s, 00:16", "1,000 units of 2,000 (50%), 50.0/s"],
    ),
    # Work of an earlier run is no part of the rate.
    (100, 50, [(10, 10)], ["60 units of 100 (60%), 1.00/s, 00:40 left, loss 1.5"]),
    (None, 0, [(10, 3)], ["3 units, 0.300/s, loss 1.5"]),
    # The first units tell no time left.
    (16, 0, [(60, 1)], ["1 units of 16 (6%), 0.0167/s, loss 1.5"]),
  ],
)
def test_plain_lines(clock, total, initial, updates, lines):
  stream = io.StringIO()
  with Progress(total, "units", "work", initial=initial, stream=stream) as bar:
    for second, number in updates:
      clock[0] = second
      bar.update(number, loss="1.5")
  found = stream.getvalue().splitlines()[: len(lines)]
  for text, line in zip(found, lines, strict=True):
    assert text.startswith(f"work: {line}")


def test_no_lines(clock):
  silent = io.StringIO()
  with Progress(5, "files", "reading", interval=None, stream=silent) as bar:
    clock[0] = 100
    bar.update(3)
    bar.write("a row")
  assert silent.getvalue() == "a row\n"


def test_a_bar_on_a_terminal(monkeypatch):
  monkeypatch.setenv("COLUMNS", "100")
  stream = io.StringIO()
  monkeypatch.setattr(stream, "isatty", lambda: True, raising=False)
  with Progress(10, "steps", "training", initial=2, stream=stream) as bar:
    bar.update(8, loss="1.5")
    bar.write("a row")
    bar.update(0, running="b")  # the figures change without progress
  for text in ("\r", "a row\n", "10.0/10.0", "loss=1.5", "running=b"):
    assert text in stream.getvalue()
