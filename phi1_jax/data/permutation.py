"""A random permutation whose entries are computed one by one.

A block cipher permutes all numbers of its width; the key chooses the permutation.
Encrypting a number repeatedly until it is in the range gives a permutation of a range
of any length. The cipher is Simon's with four rounds.

The order is that of grain.MapDataset.shuffle (Grain 0.2), bit for bit, and tested
against it. One exception: of exactly 4^k + 1 indices, k > 7, Grain visits an index
twice and another never; this order visits each once.
"""

import functools

import numpy as np

_ROUNDS = 4
_LEAST_BITS = 16  # blocks of fewer bits show patterns
_SMALL = 2**_LEAST_BITS
_WORD = 2**32 - 1


def shuffled(indices: np.ndarray, count: int, seed: int) -> np.ndarray:
  """Return the images, int64 [N], of indices under a permutation of range(count).

  Args:
    indices: integers [N], each at least 0 and below `count`.
    count: the length of the range, at least 1.
    seed: chooses the permutation; below 2^32.
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
  """Return the whole permutation: an index of a small range takes many encryptions."""
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
  """Return uint64 blocks of 2 * half bits, encrypted."""
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
  """Return the keys of a seed, as C++'s std::seed_seq (section rand.util)."""
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
