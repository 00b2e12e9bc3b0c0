"""How long work is shown: a bar on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Mapping
from typing import TextIO

from tqdm import tqdm


class Progress:
  """Counts work towards a total, with rate and time left.

  On a terminal this is one bar; elsewhere (a log file, CI) one plain line at most
  every `interval` seconds, so that a log stays readable. A context manager.

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
    self._bar = tqdm(
      total=total,
      initial=initial,
      unit=f" {unit}",
      desc=description,
      unit_scale=True,
      file=self._stream,
      dynamic_ncols=True,
      disable=not self._stream.isatty(),
    )
    self._total, self._count, self._initial = total, initial, initial
    self._start = self._shown = time.monotonic()

  def update(self, count: int, **figures: str) -> None:
    """Adds `count` units done; `figures` are shown beside them."""
    self._count += count
    if not self._bar.disable:
      if figures:
        self._bar.set_postfix(figures, refresh=False)
      self._bar.update(count)
    elif self._interval is not None and (
      time.monotonic() - self._shown >= self._interval
    ):
      self._shown = time.monotonic()
      self._print(figures)

  def skip(self, count: int) -> None:
    """Counts work that an earlier run did: done, but no part of the rate."""
    self._count += count
    self._initial += count
    if not self._bar.disable:
      self._bar.initial += count
      self._bar.n += count
      self._bar.refresh()

  def write(self, line: str) -> None:
    """Prints a line without tearing the bar."""
    if self._bar.disable:
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
        parts.append(f"{tqdm.format_interval(left)} left")
    parts.insert(1, f"{tqdm.format_sizeof(rate)}/s")
    parts += [f"{name} {value}" for name, value in figures.items()]
    print(", ".join(parts), file=self._stream, flush=True)

  def close(self) -> None:
    """Leaves the finished bar, or a last plain line, behind."""
    if self._bar.disable and self._interval is not None:
      self._print({})
    self._bar.close()

  def __enter__(self) -> "Progress":
    return self

  def __exit__(self, *exception: object) -> None:
    self.close()


def _count(number: int) -> str:
  """Small counts as they are, large ones short: 16, 13.0M."""
  return f"{number:,}" if number < 10_000 else tqdm.format_sizeof(number)
