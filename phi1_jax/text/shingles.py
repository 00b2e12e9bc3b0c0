"""Runs of words as 64-bit hashes: n-grams, shingles, MinHash signatures.

All hashes are the same on every machine and in every process. The shingles of a text
are the set of its runs of n words; the similarity of two texts is the Jaccard index of
their sets, and a MinHash signature estimates it without bias (Broder 1997): the share
of equal entries has standard deviation sqrt(s (1 - s) / length).
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]
_CACHED_WORDS = 1 << 20
_CHUNK = 4096
_SEED = 0x5048_4931  # of the signatures' hash functions
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
  count = len(words) - size + 1
  if count < 1:
    return np.empty(0, np.uint64)
  hashes = words if isinstance(words, np.ndarray) else word_hashes(words)
  runs = np.zeros(count, np.uint64)
  for place in range(size):
    runs = runs * _ODD + hashes[place : place + count]
  return _mixed(runs)


def shingles(words: Sequence[str], size: int) -> Hashes:
  """The set of runs of `size` words, as sorted hashes without repeats."""
  return np.unique(ngrams(words, size))


def jaccard(one: Hashes, other: Hashes) -> float:
  """Size of the intersection by size of the union of two sets of sorted hashes."""
  shared = len(np.intersect1d(one, other, assume_unique=True))
  union = len(one) + len(other) - shared
  return shared / union if union else 0.0


def signature(hashes: Hashes, length: int) -> npt.NDArray[np.uint32]:
  """The MinHash signature of a set.

  Args:
    hashes: n > 0 hashes.
    length: entries of the signature.

  Returns:
    For each of `length` fixed hash functions the least value over the set.
  """
  factors, offsets = _functions(length)
  least = np.full(length, np.iinfo(np.uint64).max)
  for start in range(0, len(hashes), _CHUNK):
    part = hashes[start : start + _CHUNK, None]
    least = np.minimum(least, (part * factors + offsets).min(0))
  return (least >> np.uint64(32)).astype(np.uint32)


def bands(values: npt.NDArray[np.uint32], count: int) -> list[bytes]:
  """Cuts a signature into `count` keys: two sets are candidates if they share one."""
  return [
    number.to_bytes(2, "little")
    + hashlib.blake2b(rows.tobytes(), digest_size=10).digest()
    for number, rows in enumerate(values.reshape(count, -1))
  ]


@functools.lru_cache(maxsize=4)
def _functions(length: int) -> tuple[Hashes, Hashes]:
  random = np.random.Generator(np.random.PCG64(_SEED))
  factors, offsets = random.integers(0, 1 << 64, (2, length), np.uint64)
  return factors | np.uint64(1), offsets


def _mixed(values: Hashes) -> Hashes:
  """Spreads every bit over all of them (the finaliser of splitmix64)."""
  values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58_476D_1CE4_E5B9)
  values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D0_49BB_1331_11EB)
  return values ^ (values >> np.uint64(31))
