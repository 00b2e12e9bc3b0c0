"""Runs of words as 64-bit hashes: n-grams and shingles.

All hashes are the same on every machine and in every process. The shingles of a text
are the set of its runs of n words; the similarity of two texts is the Jaccard index of
their sets.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]
_CACHED_WORDS = 1 << 20
_ODD = np.uint64(0x9E37_79B9_7F4A_7C15)


class _WordHashes(dict[str, int]):
  """Hashes of words, each computed once."""

  def __missing__(self, word: str) -> int:
    if len(self) >= _CACHED_WORDS:
      self.clear()
    digest = hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8)
    self[word] = value = int.from_bytes(digest.digest(), "little")
    return value


_word_hashes = _WordHashes()


def word_hashes(words: Sequence[str]) -> Hashes:
  """The hash of each word."""
  return np.fromiter(map(_word_hashes.__getitem__, words), np.uint64, len(words))


def ngrams(words: Sequence[str] | Hashes, size: int) -> Hashes:
  """The hash of each run of `size` words, in order.

  Args:
    words: n words, or their hashes.
    size: words in a run.

  Returns:
    max(0, n - size + 1) hashes.
  """
  return next(ngrams_of_sizes(words, [size]))


def ngrams_of_sizes(
  words: Sequence[str] | Hashes, sizes: Sequence[int]
) -> Iterator[Hashes]:
  """Yield `ngrams` of each of these ascending sizes."""
  hashes = words if isinstance(words, np.ndarray) else word_hashes(words)
  runs, done = np.zeros(len(hashes), np.uint64), 0
  for size in sizes:
    for place in range(done, size):
      runs = runs[: max(0, len(hashes) - place)] * _ODD + hashes[place:]
    done = size
    yield _mixed(runs)


def shingles(words: Sequence[str], size: int) -> Hashes:
  """The set of runs of `size` words, as sorted hashes without repeats."""
  return np.unique(ngrams(words, size))


def jaccard(one: Hashes, other: Hashes) -> float:
  """Size of the intersection by size of the union of two sets of sorted hashes."""
  shared = len(np.intersect1d(one, other, assume_unique=True))
  union = len(one) + len(other) - shared
  return shared / union if union else 0.0


def _mixed(values: Hashes) -> Hashes:
  """Spreads every bit over all of them (the finaliser of splitmix64)."""
  values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58_476D_1CE4_E5B9)
  values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D0_49BB_1331_11EB)
  return values ^ (values >> np.uint64(31))
