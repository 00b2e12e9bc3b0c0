"""Progress reporting for long-running commands."""

import contextlib
import sys
import time
from typing import Self, TextIO

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from phi1_jax.telemetry.terminal import human


class Progress:
  """Count of work done, with rate and time left. A context manager.

  A progress bar on a terminal. Elsewhere (a log file, CI) one plain line at
  most every `interval` seconds; with the time left once a twentieth of the work, and
  more than one unit, is done: before that, the rate is that of a start.

  Args:
    total: units to do; None if unknown.
    unit: what is counted, e.g. "tokens".
    description: the work, e.g. "writing stores/quickstart".
    initial: units that an earlier run did.
    interval: seconds between plain lines; None prints none.
    stream: where to print; standard error by default.
  """

  def __init__(
    self,
    total: int | None,
    unit: str,
    description: str,
    *,
    initial: int = 0,
    interval: float | None = 10.0,
    stream: TextIO | None = None,
  ):
    self._redirected = contextlib.ExitStack()
    self._stream, self._interval = stream or sys.stderr, interval
    self._description, self._unit = description, unit
    self._total, self._count, self._initial = total, initial, initial
    self._start = self._shown = time.monotonic()
    self._bar = None
    if not self._stream.isatty():
      return
    self._bar = tqdm(
      total=total,
      initial=initial,
      unit=f" {unit}",
      desc=description,
      unit_scale=True,
      file=self._stream,
      dynamic_ncols=True,
    )

  def update(self, count: int, **figures: str) -> None:
    """Add `count` units done; show `figures` beside them."""
    self._count += count
    now = time.monotonic()
    if self._bar is not None:
      if figures:
        self._bar.set_postfix(figures, refresh=False)
      # tqdm draws nothing for 0 units, but the clock and the figures change.
      self._bar.update(count) if count else self._bar.refresh()
    elif self._interval is not None and now - self._shown >= self._interval:
      self._shown = now
      self._print(figures)

  def write(self, line: str) -> None:
    """Print a line above the bar."""
    if self._bar is None:
      print(line, file=self._stream, flush=True)
    else:
      self._bar.write(line, file=self._stream)

  def _print(self, figures: dict[str, str]) -> None:
    seconds = time.monotonic() - self._start
    done = self._count - self._initial
    rate = done / max(seconds, 1e-9)
    line = f"{self._description}: {_count(self._count)} {self._unit}"
    if self._total:
      line += f" of {_count(self._total)} ({self._count / self._total:.0%})"
    line += f", {_short(rate)}/s"
    if self._total and done > 1 and 20 * done >= self._total - self._initial:
      line += f", {tqdm.format_interval((self._total - self._count) / rate)} left"
    line += "".join(f", {name} {value}" for name, value in figures.items())
    print(line, file=self._stream, flush=True)

  def close(self) -> None:
    """Leave the finished bar, or a last plain line, behind."""
    self._redirected.close()
    if self._bar is not None:
      self._bar.close()
    elif self._interval is not None:
      self._print({})

  def __enter__(self) -> Self:
    if self._bar is not None:
      self._redirected.enter_context(logging_redirect_tqdm())
    return self

  def __exit__(self, *exception: object) -> None:
    self.close()


def _count(number: int) -> str:
  """Format a count: 16, 9,999, 13.0M."""
  return f"{number:,}" if number < 10_000 else _short(number)


def _short(number: float) -> str:
  """Format three figures, trailing zeros included: 75.0, 13.0M."""
  text = human(number)
  return text if text[-1].isalpha() else f"{number:#.3g}".rstrip(".")
