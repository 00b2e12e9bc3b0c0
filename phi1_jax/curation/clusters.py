"""Near-duplicates as pure functions: candidates, edges, and who stays.

A document is named by its key, which sorts by priority: what stays is the first of a
cluster. A document goes only if it is similar to one that stays; being similar to one
that goes is no reason. So no chain of small steps can carry a whole source away.
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from phi1_jax.curation.document import Decision, Document, Drop, Keep
from phi1_jax.text import shingles as runs
from phi1_jax.text import source

REASONS = ("exact duplicate", "near-duplicate", "read twice")
_RANK = "{:04d}"
_RANK_DIGITS = 4


@dataclasses.dataclass(frozen=True)
class Sketch:
  """What is compared of a document.

  Attributes:
    key: its key.
    digest: equal for copies.
    shingles: sorted 64-bit hashes, as bytes; b"" for a text of fewer words.
  """

  key: str
  digest: bytes
  shingles: bytes

  def hashes(self) -> runs.Hashes:
    """The shingles as an array."""
    return np.frombuffer(self.shingles, np.uint64)


@dataclasses.dataclass(frozen=True)
class Standing:
  """Where a document stands.

  Attributes:
    representative: key of the document that stays: its own or another.
    similarity: true Jaccard similarity to it.
    size: documents that it represents, itself among them.
  """

  representative: str
  similarity: float
  size: int


def key(document: Document, prefer: Sequence[str]) -> str:
  """Sorts documents by priority: preferred sources in their order, others, then id."""
  rank = prefer.index(document.source) if document.source in prefer else len(prefer)
  return _RANK.format(rank) + document.id


def sketch(document: Document, size: int, prefer: Sequence[str] = ()) -> Sketch:
  """The sketch of a document by shingles of `size` words.

  Texts of fewer words have none: they are copies where their lines are equal.
  """
  found = runs.shingles(source.words(document.text), size).tobytes()
  content = b"shingles" + found
  if not found:
    content = b"lines" + "\n".join(source.lines(document.text)).encode()
  digest = hashlib.blake2b(content, digest_size=16).digest()
  return Sketch(key(document, prefer), digest, found)


def keys_of_bands(of: Sketch, permutations: int, count: int) -> Iterator[bytes]:
  """The buckets that a document with shingles lies in."""
  yield from runs.bands(runs.signature(of.hashes(), permutations), count)


def candidates(
  members: Iterable[tuple[str, int]], similarity: float, most: int
) -> Iterator[tuple[str, list[str]]]:
  """Whom each member of a bucket is compared with.

  Args:
    members: keys and numbers of shingles.
    similarity: sets whose sizes differ by more than this ratio are not that similar.
    most: a member is compared with so many of the first ones, so that the work grows
      linearly with the bucket; what that leaves out is `cut`.

  Yields:
    A key and those before it that are to be compared with it.
  """
  ordered = sorted(set(members))
  for place, (name, size) in enumerate(ordered):
    first = [
      other
      for other, others in ordered[: min(place, most)]
      if min(size, others) >= similarity * max(size, others)
    ]
    if first:
      yield name, first


def cut(size: int, most: int) -> int:
  """Pairs of a bucket of `size` members that are not compared."""
  left = max(0, size - 1 - most)
  return left * (left + 1) // 2


def clusters(
  edges: Iterable[tuple[str, str, float]], sizes: Mapping[str, int]
) -> dict[str, Standing]:
  """Who stays and who goes, in order of priority.

  Args:
    edges: pairs of keys and their similarity; those that are not there are not similar.
    sizes: number of copies of a document, itself among them, where there are any.

  Returns:
    The standing of each document that has an edge or copies.
  """
  before: dict[str, list[tuple[str, float]]] = collections.defaultdict(list)
  named = set(sizes)
  for one, other, similarity in edges:
    first, second = sorted((one, other))
    before[second].append((first, similarity))
    named |= {first, second}
  chosen: dict[str, tuple[str, float]] = {}
  counts: collections.Counter[str] = collections.Counter()
  for name in sorted(named):
    staying = [(-s, other) for other, s in before[name] if chosen[other][0] == other]
    similarity, representative = min(staying, default=(-1.0, name))
    chosen[name] = representative, -similarity
    counts[representative] += sizes.get(name, 1)
  return {
    name: Standing(representative, similarity, counts[representative])
    for name, (representative, similarity) in chosen.items()
  }


def decide(document: Document, name: str, standing: Standing | None) -> Decision:
  """Keeps a representative, and notes how many it stands for; drops the others."""
  if standing is None or standing.representative == name:
    size = standing.size if standing else 1
    return Keep(document.noted("deduplicate", {"cluster": size}))
  evidence = {
    "representative": standing.representative[_RANK_DIGITS:],
    "similarity": round(standing.similarity, 4),
    "cluster": standing.size,
  }
  same = standing.similarity == 1.0
  return Drop(document, REASONS[0] if same else REASONS[1], evidence)


def again(document: Document) -> Drop:
  """A document that was read more than once."""
  return Drop(document, REASONS[2], {"representative": document.id})


def summary(standings: Mapping[str, Standing], largest: int = 10) -> dict[str, Any]:
  """How many clusters there are, and the largest of them."""
  sizes = {s.representative: s.size for s in standings.values() if s.size > 1}
  ordered = sorted(sizes.items(), key=lambda pair: (-pair[1], pair[0]))
  return {
    "clusters": len(sizes),
    "largest": [
      {"representative": name[_RANK_DIGITS:], "documents": size}
      for name, size in itertools.islice(ordered, largest)
    ],
  }
