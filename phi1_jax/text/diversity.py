"""Diversity of a set of texts: the figures on dataset cards."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np

from phi1_jax.text import shingles, source

SHINGLE = 5


def figures(texts: Sequence[str]) -> dict[str, float]:
  """Return all figures of a sample.

  They depend on the size of the sample (more text repeats more), so only equal sizes
  can be compared; `texts` says how many there were.
  """
  found: dict[str, float] = {"texts": len(texts)}
  for size in (1, 2, 3):
    found[f"distinct_{size}"] = round(distinct(texts, size), 4)
  found["compression_ratio"] = round(compression_ratio(texts), 3)
  found["nearest_neighbour_jaccard"] = round(nearest_neighbour(texts), 4)
  return found


def distinct(texts: Sequence[str], size: int) -> float:
  """Return the share of different ones among runs of `size` words (Li et al. 2016)."""
  runs = [shingles.ngrams(source.words(text), size) for text in texts]
  total = sum(map(len, runs))
  return len(np.unique(np.concatenate(runs))) / total if total else 0.0


def compression_ratio(texts: Sequence[str]) -> float:
  """Return bytes over bytes after zlib: higher if texts repeat each other.

  zlib looks back 32 KiB, so it sees repetition between neighbours.
  """
  compressor, before, after = zlib.compressobj(9), 0, 0
  for text in texts:
    content = text.encode("utf-8", "surrogatepass")
    before += len(content)
    after += len(compressor.compress(content))
  return before / (after + len(compressor.flush())) if before else 0.0


def nearest_neighbour(texts: Sequence[str], size: int = SHINGLE) -> float:
  """Return the mean Jaccard similarity of each text to its most similar one.

  Args:
    texts: n of them; memory grows with n squared, so at most a few thousand.
    size: words per shingle.
  """
  sets = [shingles.shingles(source.words(text), size) for text in texts]
  if len(sets) < 2:
    return 0.0
  lengths = np.array([len(found) for found in sets])
  owners = np.repeat(np.arange(len(sets)), lengths)
  shared = _shared(np.concatenate(sets), owners, len(sets))
  union = lengths[:, None] + lengths - shared
  similarity = np.divide(shared, union, out=np.zeros(shared.shape), where=union > 0)
  np.fill_diagonal(similarity, 0.0)
  return float(similarity.max(1).mean())


def _shared(hashes: shingles.Hashes, owners: np.ndarray, count: int) -> np.ndarray:
  """Return how many hashes each two of `count` owners share, [count, count]."""
  order = np.argsort(hashes, kind="stable")
  starts = np.flatnonzero(np.diff(hashes[order], prepend=~hashes[order][:1]))
  shared = np.zeros((count, count), np.int32)
  for group in np.split(owners[order], starts[1:]):
    if len(group) > 1:
      shared[np.ix_(group, group)] += 1
  return shared
