"""Rate limiter and backoff. No clock and no network here; times are in seconds."""

import collections
import contextlib
import email.utils
import math
import random
import time
from collections.abc import Mapping

_MINUTE = 60.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 60.0
_MOST_SECONDS = 1e9  # that a server may ask for


class RateLimiter:
  """Keeps requests and tokens below a limit in any 60 seconds; None is no limit."""

  def __init__(self, requests: int | None, tokens: int | None):
    self._limits = requests or math.inf, tokens or math.inf
    self._sent: collections.deque[tuple[float, tuple[int, int]]] = collections.deque()
    self._held_until = 0.0

  def delay(self, tokens: int, now: float) -> float:
    """Return the seconds until a request of so many tokens may be sent.

    A request above the whole limit is sent alone.
    """
    while self._sent and self._sent[0][0] + _MINUTE <= now:
      self._sent.popleft()
    until = self._held_until
    for kind, (more, limit) in enumerate(zip((1, tokens), self._limits, strict=True)):
      excess = sum(sizes[kind] for _, sizes in self._sent) + more - limit
      for moment, sizes in self._sent:
        if excess <= 0:
          break
        excess -= sizes[kind]
        until = max(until, moment + _MINUTE)
    return max(0.0, until - now)

  def sent(self, tokens: int, now: float) -> None:
    """Count a request."""
    self._sent.append((now, (1, tokens)))

  def hold(self, seconds: float, now: float) -> None:
    """Allow no request for so long."""
    self._held_until = max(self._held_until, now + seconds)


def backoff(attempt: int) -> float:
  """Return the pause after so many attempts: it doubles from 0.5 to 60, half random."""
  longest = min(_FIRST_PAUSE * 2 ** min(attempt - 1, 20), _LONGEST_PAUSE)
  return longest * random.uniform(0.5, 1.0)


def retry_after(headers: Mapping[str, str]) -> float:
  """Return the pause that a server asks for, in seconds or as a date; or 0.

  Args:
    headers: names in lower case.
  """
  for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
    text = headers.get(name, "").strip()
    if text[:1].isdigit():
      with contextlib.suppress(ValueError):
        return min(float(text), _MOST_SECONDS) * unit
  try:
    moment = email.utils.parsedate_to_datetime(headers.get("retry-after", ""))
    return max(0.0, moment.timestamp() - time.time())
  except (TypeError, ValueError, OverflowError):
    return 0.0
