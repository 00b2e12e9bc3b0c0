"""Shuffling without a list: where each index of an epoch goes, computed alone.

A block cipher is a permutation of all numbers of its width, and a key chooses which
one. Encrypting a number again and again until it is at most the largest index keeps
the permutation of a range of any length. The cipher is Simon's with four rounds; it
only has to look random.

This is the order of grain.MapDataset.shuffle (Grain 0.2), bit for bit, and tested
against it, so that training needs no Grain and older runs go on as they began. One
exception: of exactly 4^k + 1 indices, k > 7, Grain visits one twice and one never, and
this order is another one.
"""

import functools

import numpy as np

_ROUNDS = 4
_LEAST_BITS = 16  # blocks of fewer bits show patterns
_SMALL = 2**_LEAST_BITS
_WORD = 2**32 - 1


def shuffled(indices: np.ndarray, count: int, seed: int) -> np.ndarray:
  """Where `indices` go in a permutation of range(count).

  Args:
    indices: integers [N], each at least 0 and below `count`.
    count: how many indices there are, at least 1.
    seed: below 2^32; another seed, another permutation.

  Returns:
    int64 [N].
  """
  if count <= _SMALL:
    return _small_order(count, seed)[indices]
  last = count - 1
  out = np.array(indices, np.uint64)
  left = np.arange(len(out))
  while len(left):
    out[left] = _encrypted(out[left], (last.bit_length() + 1) // 2, _round_keys(seed))
    left = left[out[left] > last]
  return out.astype(np.int64)


@functools.lru_cache(maxsize=64)
def _small_order(count: int, seed: int) -> np.ndarray:
  """The whole permutation: one by one, indices of a small range are long on the way."""
  blocks = np.arange(_SMALL, dtype=np.uint64)
  after = _encrypted(blocks, _LEAST_BITS // 2, _round_keys(seed)).tolist()
  order = []
  for index in range(count):
    index = after[index]
    while index >= count:
      index = after[index]
    order.append(index)
  return np.array(order)


def _encrypted(blocks: np.ndarray, half: int, keys: tuple[int, ...]) -> np.ndarray:
  """One pass of the cipher over uint64 blocks of 2 * half bits."""
  mask = np.uint64(2**half - 1)

  def turned(words: np.ndarray, bits: int) -> np.ndarray:
    return words << np.uint64(bits) | words >> np.uint64(half - bits)

  left, right = blocks >> np.uint64(half), blocks & mask
  for key in keys:
    mixed = turned(right, 1) & turned(right, 8) ^ turned(right, 2)
    left, right = right, (left ^ mixed ^ np.uint64(key)) & mask
  return left << np.uint64(half) | right


@functools.lru_cache(maxsize=64)
def _round_keys(seed: int) -> tuple[int, ...]:
  """Spreads a seed over the keys, as C++'s std::seed_seq does (section rand.util)."""
  n, keys = _ROUNDS, [0x8B8B8B8B] * _ROUNDS
  for k in range(n):
    mixed = keys[k] ^ keys[(k + 1) % n] ^ keys[k - 1]
    first = 1664525 * (mixed ^ mixed >> 27) & _WORD
    second = first + {0: 1, 1: 1 + seed}.get(k, k) & _WORD
    keys[(k + 1) % n] = keys[(k + 1) % n] + first & _WORD
    keys[(k + 2) % n] = keys[(k + 2) % n] + second & _WORD
    keys[k] = second
  for k in range(n):
    mixed = keys[k] + keys[(k + 1) % n] + keys[k - 1] & _WORD
    first = 1566083941 * (mixed ^ mixed >> 27) & _WORD
    second = first - k & _WORD
    keys[(k + 1) % n] ^= first
    keys[(k + 2) % n] ^= second
    keys[k] = second
  return tuple(keys)
