"""The rate limiter, backoff, and what headers say."""

import random

import pytest

from phi1_jax.llm import endpoint
from phi1_jax.llm.sender import RateLimiter


def send_all(limiter, sizes):
  """Sends as fast as the limiter lets it, with a clock of its own; the moments."""
  now, moments = 100.0, []
  for size in sizes:
    while pause := limiter.delay(size, now):
      now += pause
    limiter.sent(size, now)
    moments.append((now, size))
  return moments


def test_no_minute_holds_more_than_the_limits():
  chance = random.Random(0)
  sizes = [chance.randrange(1, 400) for _ in range(300)]
  moments = send_all(RateLimiter(20, 3000), sizes)
  for end, _ in moments:
    minute = [size for moment, size in moments if end - 60 < moment <= end]
    assert len(minute) <= 20
    assert sum(minute) <= 3000
  # And little is left unused: 300 requests of about 200 tokens need 15 to 20 minutes.
  assert 14 * 60 < moments[-1][0] - moments[0][0] < 24 * 60
  alone = send_all(RateLimiter(None, 10), [4, 50, 4])  # one is above the limit
  assert [moment for moment, _ in alone] == [100, 160, 220]


def test_the_longest_pause_counts():
  limiter = RateLimiter(None, None)
  limiter.hold(6, 10.0)
  limiter.hold(1, 10.0)
  assert [limiter.delay(1, now) for now in (12.0, 16.0)] == [4, 0]


def test_backoff_doubles_with_jitter_up_to_a_minute():
  for attempt, longest in ((1, 0.5), (2, 1.0), (5, 8.0), (50, 60.0)):
    pauses = [endpoint.backoff(attempt) for _ in range(200)]
    assert longest / 2 <= min(pauses) < 0.6 * longest
    assert 0.9 * longest < max(pauses) <= longest


@pytest.mark.parametrize(
  ("headers", "seconds"),
  [
    ({"retry-after": "0.25"}, 0.25),
    ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
    ({"retry-after": "Thu, 01 Jan 1970 00:01:00 GMT"}, 50),
    *[({"retry-after": text}, 0) for text in ("soon", "-5")],
    ({"retry-after": "9" * 400}, 1e9),
  ],
)
def test_retry_after(headers, seconds, monkeypatch):
  monkeypatch.setattr(endpoint.time, "time", lambda: 10.0)
  assert endpoint.retry_after(headers) == seconds
