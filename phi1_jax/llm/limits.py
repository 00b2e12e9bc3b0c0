"""Rate limiter and backoff. No clock and no network here; times are in seconds."""

import collections
import email.utils
import math
import random
import re
import time
from collections.abc import Mapping

_MINUTE = 60.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 60.0
_UNITS = {"ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class RateLimiter:
  """Keeps requests and tokens below a limit in any 60 seconds.

  Args:
    requests: a minute; None reads it from the server's headers.
    tokens: the same for tokens.
  """

  def __init__(self, requests: int | None, tokens: int | None):
    self._limits = {"requests": requests, "tokens": tokens}
    self._learns = [name for name, limit in self._limits.items() if limit is None]
    self._sent: collections.deque[tuple[float, dict[str, int]]] = collections.deque()
    self._held_until = 0.0

  def delay(self, tokens: int, now: float) -> float:
    """Return the seconds until a request of so many tokens may be sent.

    A request above the whole limit is sent alone.
    """
    while self._sent and self._sent[0][0] + _MINUTE <= now:
      self._sent.popleft()
    until = self._held_until
    for name, more in (("requests", 1), ("tokens", tokens)):
      limit = self._limits[name] or math.inf
      excess = sum(sizes[name] for _, sizes in self._sent) + more - limit
      for moment, sizes in self._sent:
        if excess <= 0:
          break
        excess -= sizes[name]
        until = max(until, moment + _MINUTE)
    return max(0.0, until - now)

  def sent(self, tokens: int, now: float) -> None:
    """Count a request."""
    self._sent.append((now, {"requests": 1, "tokens": tokens}))

  def hold(self, seconds: float, now: float) -> None:
    """Allow no request for so long."""
    self._held_until = max(self._held_until, now + seconds)

  def learn(self, headers: Mapping[str, str], now: float) -> None:
    """Read x-ratelimit-{limit,remaining,reset}-{requests,tokens}."""
    for name in self._limits:
      limit = duration(headers.get(f"x-ratelimit-limit-{name}"))
      if limit and name in self._learns:
        self._limits[name] = int(limit)
      reset = duration(headers.get(f"x-ratelimit-reset-{name}"))
      if duration(headers.get(f"x-ratelimit-remaining-{name}")) == 0 and reset:
        self.hold(min(reset, _MINUTE), now)


def backoff(attempt: int) -> float:
  """Return the pause before another attempt: doubles from 0.5 to 60, half of it random.

  Args:
    attempt: how many there were, from 1.
  """
  longest = min(_FIRST_PAUSE * 2 ** min(attempt - 1, 20), _LONGEST_PAUSE)
  return longest * random.uniform(0.5, 1.0)


def retry_after(headers: Mapping[str, str]) -> float:
  """Return the pause that a server asks for, or 0.

  Args:
    headers: names in lower case; `retry-after-ms`, or `retry-after` in seconds or as a
      date.
  """
  for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
    if (number := duration(headers.get(name))) is not None:
      return number * unit
  try:
    moment = email.utils.parsedate_to_datetime(headers.get("retry-after", ""))
    return max(0.0, moment.timestamp() - time.time())
  except (TypeError, ValueError, OverflowError):
    return 0.0


def duration(text: str | None) -> float | None:
  """Return the seconds in "1s", "6m0s", "120ms" or a bare number, or None."""
  text = (text or "").strip()
  if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", text):
    return float(text)
  if not re.fullmatch(r"(\d+(\.\d+)?(ms|[smhd]))+", text):
    return None
  parts = re.findall(r"(\d+(?:\.\d+)?)(ms|[smhd])", text)
  return sum(float(value) * _UNITS[unit] for value, unit in parts)
