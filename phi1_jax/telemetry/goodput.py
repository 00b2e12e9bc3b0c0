"""Goodput: the share of a run's wall-clock time in which its result was made.

starts.jsonl in the work directory is append-only. Each line says what the run does from
that moment on:

    {"time": 1795398100.0, "state": "starting"}                 imports, compiles
    {"time": 1795398160.0, "state": "training", "step": 0}
    {"time": 1795398460.0, "state": "paused", "step": 1000}     evaluates, saves
    {"time": 1795398470.0, "state": "training", "step": 1000}
    {"time": 1795398500.0, "state": "ended"}                    no such line if killed
    {"time": 1795398500.0, "state": "refused"}                  ended by wrong input

`time` is in Unix seconds, `step` counts the updates done. Each logged row adds a
"training" line, so the time of a kill is known to within one row. The time from the
last line of a killed start to the next start counts as away. The first of it, up to one
row, was work after the last save and is lost, so goodput does not change.
"""

import contextlib
import dataclasses
import itertools
import math
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from phi1_jax import InputError, storage

FILE_NAME = "starts.jsonl"

_STATES = ("starting", "training", "paused", "ended", "refused")


@dataclasses.dataclass(frozen=True)
class Event:
  """A line of starts.jsonl."""

  time: float  # Unix seconds
  state: str  # what the run does from then on, one of `_STATES`
  step: int | None = None  # updates done, if known


class StartLog:
  """Appends lines to a work directory's starts.jsonl and syncs each to disk.

  Args:
    workdir: folder of the run.
    process_index: `jax.process_index()`; only process 0 writes.
  """

  def __init__(self, workdir: str | Path, *, process_index: int = 0):
    self._path = Path(workdir) / FILE_NAME
    self._writes = process_index == 0
    self._lines: storage.JsonLines | None = None

  def write(
    self, state: str, step: int | None = None, *, at: float | None = None
  ) -> None:
    """Append a line: the run does this from now on, or from Unix second `at` on."""
    if not self._writes:
      return
    if self._lines is None:
      self._lines = storage.JsonLines(self._path, patient=True)
    row = {"time": time.time() if at is None else at, "state": state, "step": step}
    self._lines.append({name: x for name, x in row.items() if x is not None})

  @contextlib.contextmanager
  def start(self, waited: float = 0.0) -> Iterator[None]:
    """Write the lines of one start; it began when this process started.

    Args:
      waited: seconds of another run's work since then, which do not count.

    Raises:
      InputError: the file holds something else.
    """
    if self._writes:
      before = [event.time for event in read_events(self._path)]
      self._lines = None  # opening the file again removes a torn last line
      # One process may start a run twice.
      started = _process_started() + waited
      self.write("starting", at=max([started, *before[-1:]]))
    state = "ended"
    try:
      yield
    except InputError:
      state = "refused"
      raise
    finally:
      self.write(state)


def read_events(path: str | Path) -> list[Event]:
  """Return the lines of a starts.jsonl without a torn last one; none if it is missing.

  Raises:
    InputError: a line holds something else.
  """
  events = []
  for number, row in enumerate(storage.read_lines(Path(path)), 1):
    try:
      event = Event(**row)
      known = math.isfinite(event.time) and event.state in _STATES
      known = known and isinstance(event.step, int | None)
    except (ValueError, TypeError):
      known = False
    if not known:
      raise InputError(
        f"{path}, line {number}: got {str(row)[:60]}, expected what a start of a run "
        'did ({"time": ..., "state": "starting"}); move the file away'
      )
    events.append(event)
  return events


def measure(events: Sequence[Event], now: float) -> dict[str, float] | None:
  """Return where the time went, from the first start until `now`.

  A start's steps count as training up to the step from which the next start continued,
  and as lost after it. In the last start, all steps count up to its last line.

  Args:
    events: from `read_events`.
    now: Unix seconds; the state of the last line lasts until then.

  Returns:
    None without any start. Otherwise `goodput`, training / total; `starts`, how often
    the run was started, without starts that were refused; `total_seconds` since the
    first start, and their parts:
      training_seconds: steps that the result comes from, waiting for input included.
      lost_seconds: steps that a later start repeated, or that came to nothing.
      starting_seconds: from a start to its first step: store, compiling, restoring.
      paused_seconds: hooks and saves.
      away_seconds: between the end of a start and the next one.
  """
  parts = ("training", "lost", "starting", "paused", "away")
  seconds: dict[str, float] = dict.fromkeys(parts, 0.0)
  kept_until = math.inf
  # Backwards, because a later start decides whether a step was kept.
  pairs = list(itertools.pairwise([*events, Event(now, "now")]))
  for event, after in reversed(pairs):
    spent_on = event.state
    if event.state in ("ended", "refused") or after.state == "starting":
      spent_on = "away"
    elif event.state == "training":
      kept = after.step is not None and after.step <= kept_until
      spent_on = "training" if kept else "lost"
    # max: the clock may have been set back meanwhile.
    seconds[spent_on] += max(0.0, after.time - event.time)
    if event.state == "starting" and after.step is not None:
      kept_until = min(kept_until, after.step)
  starts = sum(
    event.state == "starting" and after.state != "refused" for event, after in pairs
  )
  total = sum(seconds.values())
  if not starts or not total:
    return None
  return {
    "goodput": seconds["training"] / total,
    "starts": starts,
    "total_seconds": total,
    **{f"{name}_seconds": value for name, value in seconds.items()},
  }


def _process_started() -> float:
  """Return when this process started, in Unix seconds; now if there is no /proc."""
  try:
    after_name = Path("/proc/self/stat").read_text().rpartition(")")[2]
  except OSError:
    return time.time()
  ticks = int(after_name.split()[19])  # since boot: field 22 of proc(5)
  since_boot = time.clock_gettime(time.CLOCK_BOOTTIME)
  return time.time() - (since_boot - ticks / os.sysconf("SC_CLK_TCK"))
