"""Goodput: the share of a run's wall-clock time in which its result was made.

A run that is killed and goes on again loses time in ways that the step time does not
show. starts.jsonl in the work directory, which is only ever added to, says line by line
what the run does from that moment on:

    {"time": 1795398100.0, "state": "starting"}                 imports, compiles
    {"time": 1795398160.0, "state": "training", "step": 0}
    {"time": 1795398460.0, "state": "paused", "step": 1000}     evaluates, saves
    {"time": 1795398470.0, "state": "training", "step": 1000}
    {"time": 1795398500.0, "state": "ended"}                    or killed: no such line

`time` is in Unix seconds, `step` counts the updates done. There is a "training" line
for every logged row too, so a start that was killed is known to have lived until then.

What is approximate: after the last line of a killed start, the time until the next
start counts as away, though the first of it, up to one log row, was still work. That
work was lost, for what is kept ends with a save, and a save leaves a line: goodput does
not change. So it is with a start that was killed before its first line.
"""

from __future__ import annotations

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

_STATES = ("starting", "training", "paused", "ended")


@dataclasses.dataclass(frozen=True)
class Event:
  """A line of starts.jsonl.

  Attributes:
    time: Unix seconds.
    state: what the run does from then on, one of `_STATES`.
    step: updates done; None where that is not known.
  """

  time: float
  state: str
  step: int | None = None


@dataclasses.dataclass(frozen=True)
class Goodput:
  """Where the time since a run's first start went; the parts add up to the total.

  Attributes:
    goodput: training / total, in [0, 1].
    starts: how often the run was started.
    total_seconds: since the first start.
    training_seconds: steps that the result comes from, waiting for input included.
    lost_seconds: steps that a later start did again, or that came to nothing.
    starting_seconds: from a start to its first step: store, compiling, restoring.
    paused_seconds: evaluating, saving, whatever a hook does.
    away_seconds: between the end of a start and the next one.
  """

  goodput: float
  starts: int
  total_seconds: float
  training_seconds: float
  lost_seconds: float
  starting_seconds: float
  paused_seconds: float
  away_seconds: float


class StartLog:
  """Adds lines to a work directory's starts.jsonl; each is on the disk at once.

  Args:
    workdir: folder of the run.
    process_index: `jax.process_index()`; any other than 0 writes nothing.
  """

  def __init__(self, workdir: str | Path, *, process_index: int = 0):
    self._path = Path(workdir) / FILE_NAME
    self._writes = process_index == 0
    self._lines: storage.JsonLines | None = None

  def write(self, state: str, step: int | None = None) -> None:
    """Says what the run does from now on."""
    if self._writes:
      self._append(Event(time.time(), state, step))

  def _append(self, event: Event) -> None:
    fields = dataclasses.asdict(event)
    if self._lines is None:
      self._lines = storage.JsonLines(self._path, patient=True)
    self._lines.append({name: x for name, x in fields.items() if x is not None})

  @contextlib.contextmanager
  def start(self) -> Iterator[None]:
    """Around everything that one start of a run does; it began with its process.

    Raises:
      InputError: the file holds something else than starts.
    """
    if self._writes:
      before = [event.time for event in read_events(self._path)]
      self._lines = None  # a new start removes what a kill left of a last line
      # One process may start a run twice.
      began = max([_process_started(), *before[-1:]])
      self._append(Event(began, "starting"))
    try:
      yield
    finally:
      self.write("ended")


def read_events(path: str | Path) -> list[Event]:
  """The lines of a starts.jsonl, none if it is missing; a torn last one is left out.

  Raises:
    InputError: a line says something else.
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
        f"{path} line {number}: got {str(row)[:60]}, expected what a start of a run "
        'did ({"time": ..., "state": "starting"}); move the file away'
      )
    events.append(event)
  return events


def measure(events: Sequence[Event], now: float) -> Goodput | None:
  """Where the time went, from the first start until `now`.

  The steps of a start are kept up to the step that the next one went on from, and
  those of the last start as far as it came; what it has begun since its last line, and
  perhaps finished, counts as lost.

  Args:
    events: of `read_events`.
    now: Unix seconds, in the state of the last line.

  Returns:
    The parts; None if no start was written down.
  """
  parts = ("training", "lost", "starting", "paused", "away")
  seconds: dict[str, float] = dict.fromkeys(parts, 0.0)
  kept_until = math.inf
  # Backwards, because what comes after decides what a step was worth.
  pairs = list(itertools.pairwise([*events, Event(now, "now")]))
  for event, after in reversed(pairs):
    spent_on = event.state
    if event.state == "ended" or after.state == "starting":
      spent_on = "away"
    elif event.state == "training":
      kept = after.step is not None and after.step <= kept_until
      spent_on = "training" if kept else "lost"
    # A clock that was set back meanwhile must not make time negative.
    seconds[spent_on] += max(0.0, after.time - event.time)
    if event.state == "starting" and after.step is not None:
      kept_until = min(kept_until, after.step)
  starts = sum(event.state == "starting" for event in events)
  total = sum(seconds.values())
  if not starts or not total:
    return None
  return Goodput(
    goodput=seconds["training"] / total,
    starts=starts,
    total_seconds=total,
    **{f"{name}_seconds": value for name, value in seconds.items()},
  )


def _process_started() -> float:
  """Unix seconds at which this process was started; now where no /proc tells."""
  try:
    after_name = Path("/proc/self/stat").read_text().rpartition(")")[2]
  except OSError:
    return time.time()
  ticks = int(after_name.split()[19])  # since boot: field 22 of proc(5)
  since_boot = time.clock_gettime(time.CLOCK_BOOTTIME)
  return time.time() - (since_boot - ticks / os.sysconf("SC_CLK_TCK"))
