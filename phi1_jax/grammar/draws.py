"""Random choices that come out the same on every machine and Python.

Everything is made from `Random.random()`, whose sequence Python promises to keep; the
algorithms behind `choice`, `shuffle` and `sample` may change between releases.
"""

import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def generator(*key: object) -> random.Random:
  """A source of randomness that is a function of the key's text alone."""
  return random.Random("/".join(map(str, key)))


def pick(rng: random.Random, options: Sequence[T]) -> T:
  """One of the options, all equally likely."""
  return options[int(rng.random() * len(options))]


def often_early(rng: random.Random, options: Sequence[T]) -> T:
  """One of the options, the first ones (common in tables) more often than the last."""
  return options[int(rng.random() ** 1.5 * len(options))]


def whole(rng: random.Random, low: int, high: int) -> int:
  """A whole number from `low` to `high`, both included."""
  return low + int(rng.random() * (high - low + 1))


def chance(rng: random.Random, probability: float) -> bool:
  """True that often."""
  return rng.random() < probability


def several(rng: random.Random, options: Sequence[T], count: int) -> list[T]:
  """`count` options at distinct places, in random order; all, where there are fewer."""
  left = list(options)
  return [
    left.pop(int(rng.random() * len(left))) for _ in range(min(count, len(options)))
  ]


def weighted(rng: random.Random, options: Sequence[tuple[float, T]]) -> T:
  """One of the options, each as likely as its weight says."""
  point = rng.random() * sum(weight for weight, _ in options)
  for weight, option in options:
    point -= weight
    if point < 0:
      return option
  return options[-1][1]
