"""Arguments to try a solution on; constants of the task ("hot") occur among them."""

import random
from collections.abc import Sequence

from phi1_jax.grammar import words
from phi1_jax.grammar.draws import chance, pick, whole

Hot = Sequence[object]
MARKS = ("", "", "", "!", "?", ".", ",")


def number(rng: random.Random, hot: Hot = (), low: int = -12, high: int = 40) -> int:
  """A whole number, often a constant of the task, its neighbour or its multiple."""
  return _number(rng, [v for v in hot if isinstance(v, int)], low, high)


def _number(rng: random.Random, known: list[int], low: int, high: int) -> int:
  point = rng.random()
  if known and point < 0.4:
    constant = pick(rng, known)
    value = pick(rng, (constant, constant + 1, constant - 1, constant * 2, -constant))
    return min(max(value, low), max(high, constant + 1))
  if point > 0.94:
    return pick(rng, _SPECIAL)
  return whole(rng, low, high)


_SPECIAL = (0, 1, 2, 16, 25, 64, 81)


def numbers(rng: random.Random, hot: Hot, size: int, low: int = -12) -> list[int]:
  """A list of whole numbers, now and then with a repeated one."""
  known = [v for v in hot if isinstance(v, int)]
  values = [_number(rng, known, low, 40) for _ in range(size)]
  if size > 2 and rng.random() < 0.35:
    values[whole(rng, 1, size - 1)] = values[0]
  return values


def word(rng: random.Random, hot: Hot = ()) -> str:
  """A word, mostly lower-case, often with a letter or piece of the task in it."""
  return _word(rng, [v for v in hot if isinstance(v, str) and v])


def _word(rng: random.Random, known: list[str]) -> str:
  text = pick(rng, words.LOWER_WORDS)
  if known and rng.random() < 0.5:
    wanted = pick(rng, known)
    for _ in range(12):
      if wanted in text:
        break
      text = pick(rng, words.LOWER_WORDS)
  point = rng.random()
  return text.capitalize() if point < 0.15 else text.upper() if point < 0.22 else text


def word_list(rng: random.Random, hot: Hot, size: int) -> list[str]:
  """A list of words, now and then with a repeated one."""
  known = [v for v in hot if isinstance(v, str) and v]
  values = [_word(rng, known) for _ in range(size)]
  if size > 2 and rng.random() < 0.3:
    values[whole(rng, 1, size - 1)] = values[0]
  return values


def text(rng: random.Random, hot: Hot, size: int) -> str:
  """Words with spaces between them, some digits and marks; empty for size 0."""
  pieces = word_list(rng, hot, size)
  if pieces and chance(rng, 0.4):
    pieces[whole(rng, 0, size - 1)] += str(whole(rng, 0, 99))
  if pieces and chance(rng, 0.3):
    pieces[-1] += pick(rng, MARKS)
  return " ".join(pieces)


def plain_text(rng: random.Random, hot: Hot, size: int) -> str:
  """Words with spaces between them and nothing else."""
  return " ".join(word_list(rng, hot, size))


def table(rng: random.Random, hot: Hot, size: int) -> dict[str, int]:
  """A dictionary from distinct words to whole numbers."""
  return {pick(rng, words.LOWER_WORDS): number(rng, hot) for _ in range(size)}


def matrix(rng: random.Random, hot: Hot, size: int) -> list[list[int]]:
  """A list of `size` lists of 0 to 4 whole numbers."""
  return [numbers(rng, hot, whole(rng, 1, 4)) for _ in range(size)]


def rectangle(rng: random.Random, hot: Hot, rows: int, columns: int) -> list[list[int]]:
  """A list of `rows` lists of `columns` whole numbers."""
  return [[number(rng, hot, -9, 20) for _ in range(columns)] for _ in range(rows)]


def sizes(rng: random.Random, count: int, longest: int = 6) -> list[int]:
  """Lengths to try, long ones first, with an empty and a single one among them."""
  return [
    *(whole(rng, 3, longest) for _ in range(count - 4)),
    0,
    1,
    *(whole(rng, 2, longest) for _ in range(2)),
  ]
