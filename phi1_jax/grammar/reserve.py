"""Held-out compositions, wordings and names.

Hashes decide, so that every machine holds out the same.

- A **pair** of parts is reserved, in either order, wherever both occur.
- A **composition** of three parts without a reserved pair may itself be reserved.
- A composition of four parts or more is **longer** than any in training.
- A **wording** and a **name** are reserved, whatever they belong to. The held-out tiers
  share the reserved names.
"""

from __future__ import annotations

import functools
import hashlib

TIERS = ("train", "unseen_triples", "unseen_pairs", "reserved_frames", "longer")
# One in so many is reserved.
PAIRS, COMPOSITIONS, WORDINGS, NAMES = 24, 10, 8, 10
LONGEST_IN_TRAINING = 3


def _bucket(kind: str, *parts: str) -> int:
  text = "/".join(("phi1_jax.grammar", kind, *parts))
  return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


@functools.cache
def pair_is_reserved(one: str, other: str) -> bool:
  """Return whether no training exercise has both parts."""
  return _bucket("pair", *sorted((one, other))) % PAIRS == 0


@functools.cache
def wording_is_reserved(wording: str) -> bool:
  """Return whether no training exercise has this frame or wording.

  The frames table marks reserved frames with "!". The first wording of a row, "", is
  never reserved.
  """
  if "/" in wording:  # of a row
    return _bucket("wording", wording) % WORDINGS == 0
  return wording.endswith("!")


def name_is_reserved(name: str) -> bool:
  """Return whether no training exercise has a function of this name."""
  return _bucket("name", name) % NAMES == 0


@functools.lru_cache(1 << 16)
def kind(composition: tuple[str, ...]) -> str:
  """Return the tier of a composition, or "unused".

  The first entry, the source, does not count: ("ints", "filter:even", "map:square",
  "sum") has three parts.
  """
  parts = composition[1:]
  pairs = [(a, b) for i, a in enumerate(parts) for b in parts[i + 1 :]]
  reserved = any(pair_is_reserved(*pair) for pair in pairs)
  if len(parts) > LONGEST_IN_TRAINING:
    return "unused" if reserved else "longer"
  if reserved:
    return "unseen_pairs"
  if len(parts) == 3 and _bucket("composition", *parts) % COMPOSITIONS == 0:
    return "unseen_triples"
  return "train"


class Gate:
  """The rule of a tier: which compositions, wordings and names belong to it.

  Reserved wordings are shown on reserved compositions, so that "reserved_frames"
  differs from "unseen_triples" in the wording alone.

  Args:
    tier: an item of `TIERS`.
  """

  def __init__(self, tier: str):
    self.tier = tier
    self._kind = "unseen_triples" if tier == "reserved_frames" else tier

  def composition(self, composition: tuple[str, ...]) -> bool:
    """Return whether a composition belongs to the tier."""
    return kind(composition) == self._kind

  def wording(self, *wordings: str) -> bool:
    """Return whether an exercise with these frames and wordings belongs to the tier."""
    reserved = any(map(wording_is_reserved, wordings))
    return reserved == (self.tier == "reserved_frames")

  def name(self, name: str) -> bool:
    """Return whether a function's name belongs to the tier."""
    return name_is_reserved(name) == (self.tier != "train")
