"""Near-duplicates as pure functions: candidates, edges, and who stays.

A document is named by its key, which sorts by priority: what stays is the first of a
cluster. A document goes only if it is similar to one that stays; being similar to one
that goes is no reason. So no chain of small steps can carry a whole source away. Texts
under one id have keys of their own; the first of them has the id, the others go.
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

REASONS = (
  "exact duplicate",
  "same words",
  "near-duplicate",
  "read twice",
  "id of another text",
)
_RANK = "{:04d}"
_RANK_DIGITS, _TEXT_DIGITS = 4, 16
_SHOWN = 200  # characters of a text that is evidence


@dataclasses.dataclass(frozen=True)
class Sketch:
  """What is compared of a document.

  Attributes:
    key: its key.
    digest: equal for texts of the same words.
    lines: digest of its lines (see `source.lines`), equal for copies.
    shingles: sorted 64-bit hashes, as bytes; b"" for a text of fewer words.
  """

  key: str
  digest: bytes
  lines: bytes
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
  """Sorts documents by priority: preferred sources in their order, others, then id.

  At its end is a digest of the text, for ids that are not unique.
  """
  rank = prefer.index(document.source) if document.source in prefer else len(prefer)
  return _RANK.format(rank) + document.id + _of_text(document.text)[:_TEXT_DIGITS]


def id_of(name: str) -> str:
  """The id in a key."""
  return name[_RANK_DIGITS:-_TEXT_DIGITS]


def _of_text(text: str) -> str:
  return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def sketch(document: Document, size: int, prefer: Sequence[str] = ()) -> Sketch:
  """The sketch of a document by shingles of `size` words.

  Texts of fewer words have none: they are copies where their lines are equal.
  """
  found = runs.shingles(source.words(document.text), size).tobytes()
  written = "\n".join(source.lines(document.text)).encode("utf-8", "surrogatepass")
  lines = hashlib.blake2b(b"lines" + written, digest_size=16).digest()
  digest = lines
  if found:
    digest = hashlib.blake2b(b"shingles" + found, digest_size=16).digest()
  return Sketch(key(document, prefer), digest, lines, found)


def buckets(hashes: runs.Hashes, permutations: int, count: int) -> list[bytes]:
  """The buckets that a document with shingles lies in."""
  return runs.bands(runs.signature(hashes, permutations), count)


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


def decide(
  document: Document, name: str, standing: Standing | None, copy: bool = False
) -> Decision:
  """Keeps a representative, and notes how many it stands for; drops the others.

  Args:
    document: what is decided about.
    name: its key.
    standing: where it stands; None if nothing is like it.
    copy: whether its lines are those of the first with its words.
  """
  if standing is None or standing.representative == name:
    size = standing.size if standing else 1
    return Keep(document.noted("deduplicate", {"cluster": size}))
  evidence = {
    "representative": id_of(standing.representative),
    "similarity": round(standing.similarity, 4),
    "cluster": standing.size,
  }
  if standing.similarity < 1.0:
    return Drop(document, "near-duplicate", evidence)
  return Drop(document, "exact duplicate" if copy else "same words", evidence)


def again(document: Document, first: Document) -> Drop:
  """A document with the id of one before it: read twice, or another text.

  The other text is no duplicate, but an id names one text, and which is meant by it
  only the giver knows; the evidence shows both.
  """
  if document.text == first.text:
    return Drop(document, "read twice", {"representative": first.id})
  texts = [
    {"source": each.source, "sha256": _of_text(each.text), "begin": each.text[:_SHOWN]}
    for each in (first, document)
  ]
  return Drop(
    document, "id of another text", {"representative": first.id, "texts": texts}
  )


def summary(standings: Mapping[str, Standing], largest: int = 10) -> dict[str, Any]:
  """How many clusters there are, and the largest of them."""
  sizes = {s.representative: s.size for s in standings.values() if s.size > 1}
  ordered = sorted(sizes.items(), key=lambda pair: (-pair[1], pair[0]))
  return {
    "clusters": len(sizes),
    "largest": [
      {"representative": id_of(name), "documents": size}
      for name, size in itertools.islice(ordered, largest)
    ],
  }
