"""How long work is shown: a bar on a terminal, plain lines elsewhere."""

import contextlib
import logging
import sys
import time
from collections.abc import Mapping
from typing import TextIO

from phi1_jax.telemetry.terminal import human

try:
  from tqdm import tqdm
  from tqdm.contrib.logging import logging_redirect_tqdm
except ModuleNotFoundError:
  tqdm = logging_redirect_tqdm = None

log = logging.getLogger(__name__)


class Progress:
  """Counts work towards a total, with rate and time left.

  On a terminal this is one bar; elsewhere (a log file, CI, no tqdm) one plain line at
  most every `interval` seconds, so that a log stays readable. A context manager.

  Args:
    total: how much there is to do, in `unit`s; None when unknown.
    unit: what is counted, e.g. "tokens".
    description: what is being done, e.g. "writing stores/quickstart".
    interval: seconds between plain lines; None prints none.
    stream: where to; standard error by default.
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
    self._stream = stream or sys.stderr
    self._interval = interval
    self._description = description
    self._unit = unit
    self._bar = None
    self._held = contextlib.ExitStack()
    if self._stream.isatty() and tqdm is None:
      log.warning("tqdm is not installed: no progress bar")
    elif self._stream.isatty() and tqdm is not None:
      self._bar = tqdm(
        total=total,
        initial=initial,
        unit=f" {unit}",
        desc=description,
        unit_scale=True,
        file=self._stream,
        dynamic_ncols=True,
      )
    self._total, self._count, self._initial = total, initial, initial
    self._start = self._shown = time.monotonic()

  def update(self, count: int, **figures: str) -> None:
    """Adds `count` units done; `figures` are shown beside them."""
    self._count += count
    if self._bar is not None:
      if figures:
        self._bar.set_postfix(figures, refresh=False)
      # tqdm draws nothing for no progress, though clock and figures go on.
      self._bar.update(count) if count else self._bar.refresh()
    elif self._interval is not None and (
      time.monotonic() - self._shown >= self._interval
    ):
      self._shown = time.monotonic()
      self._print(figures)

  def skip(self, count: int) -> None:
    """Counts work that an earlier run did: done, but no part of the rate."""
    self._count += count
    self._initial += count
    if self._bar is not None:
      self._bar.initial += count
      self._bar.n += count
      self._bar.refresh()

  def write(self, line: str) -> None:
    """Prints a line without tearing the bar."""
    if self._bar is None:
      print(line, file=self._stream, flush=True)
    else:
      self._bar.write(line, file=self._stream)

  def _print(self, figures: Mapping[str, str]) -> None:
    seconds = time.monotonic() - self._start
    rate = (self._count - self._initial) / max(seconds, 1e-9)
    done = _count(self._count)
    parts = [f"{self._description}: {done} {self._unit}"]
    if self._total:
      share = self._count / self._total
      parts[0] += f" of {_count(self._total)} ({share:.0%})"
      if rate > 0:  # what has not begun has no time left that anybody knows
        left = (self._total - self._count) / rate
        parts.append(f"{_clock(left)} left")
    parts.insert(1, f"{_figures(rate)}/s")
    parts += [f"{name} {value}" for name, value in figures.items()]
    print(", ".join(parts), file=self._stream, flush=True)

  def close(self) -> None:
    """Leaves the finished bar, or a last plain line, behind."""
    if self._bar is not None:
      self._bar.close()
    elif self._interval is not None:
      self._print({})

  def __enter__(self) -> "Progress":
    if self._bar is not None and logging_redirect_tqdm is not None:
      self._held.enter_context(logging_redirect_tqdm())  # logs do not tear it either
    return self

  def __exit__(self, *exception: object) -> None:
    self._held.close()
    self.close()


def _count(number: int) -> str:
  """Small counts as they are, large ones short: 16, 13.0M."""
  return f"{number:,}" if number < 10_000 else _figures(number)


def _figures(number: float) -> str:
  """Three of them, in columns that do not jump: 75.0, 13.0M."""
  text = human(number)
  return text if text[-1].isalpha() else f"{number:#.3g}".rstrip(".")


def _clock(seconds: float) -> str:
  """Minutes and seconds, and hours where there are any: 00:16, 1:02:03."""
  minutes, left = divmod(int(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  return f"{hours:d}:{minutes:02d}:{left:02d}" if hours else f"{minutes:02d}:{left:02d}"
