"""What training never sees: decided by hashes, so that every session agrees.

The unit is the composition, and beside it pairs of parts, wordings and names:

- a **pair** of parts, in either order, is reserved for every task that holds both;
- a **composition** of three parts none of whose pairs is reserved may itself be;
- a **frame** (a wording) is reserved whatever it words;
- a **name** is reserved whatever it names: all held-out tiers share one set of names;
- a composition of four parts or more is **longer** than any that training shows.
"""

import functools
import hashlib

TIERS = ("train", "unseen_triples", "unseen_pairs", "reserved_frames", "longer")

# One in so many is reserved.
PAIRS, COMPOSITIONS, FRAMES, NAMES = 24, 10, 6, 10
LONGEST_IN_TRAINING = 3
# Of all numbers from 0 the first with which each family keeps wordings on both sides.
_FRAME_KEY = "frame 6269"


def _bucket(what: str, *parts: str) -> int:
  text = "/".join(("phi1_jax.grammar", what, *parts))
  return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


@functools.cache
def pair_is_reserved(one: str, other: str) -> bool:
  """Whether no training exercise holds both parts."""
  return _bucket("pair", *sorted((one, other))) % PAIRS == 0


@functools.cache
def frame_is_reserved(frame: str) -> bool:
  """Whether no training exercise is worded so."""
  return _bucket(_FRAME_KEY, frame) % FRAMES == 0


def name_is_reserved(name: str) -> bool:
  """Whether no training exercise has this name."""
  return _bucket("name", name) % NAMES == 0


@functools.lru_cache(1 << 16)
def kind(composition: tuple[str, ...]) -> str:
  """Where a composition belongs: "train", "unseen_triples", "unseen_pairs", "longer".

  The first entry, the source or the shape of the task, is no part: ("list",
  "filter:even", "map:square", "sum") has three.
  """
  parts = composition[1:]
  pairs = [(a, b) for i, a in enumerate(parts) for b in parts[i + 1 :]]
  reserved = any(pair_is_reserved(*pair) for pair in pairs)
  if len(parts) > LONGEST_IN_TRAINING:
    return "unused" if reserved else "longer"
  if reserved:
    return "unseen_pairs"
  if len(parts) == 3 and _bucket("composition", *composition) % COMPOSITIONS == 0:
    return "unseen_triples"
  return "train"


class Gate:
  """Lets through what belongs to a tier.

  Wordings are held out on compositions that are held out too (those of the tier
  "unseen_triples"), so that the two tiers differ in the wording alone.

  Args:
    tier: one of TIERS.
  """

  def __init__(self, tier: str):
    self.tier = tier
    self._kind = "unseen_triples" if tier == "reserved_frames" else tier

  @property
  def longer(self) -> bool:
    """Whether compositions of more than three parts are asked for."""
    return self.tier == "longer"

  def composition(self, composition: tuple[str, ...]) -> bool:
    """Whether a composition belongs to the tier."""
    return kind(composition) == self._kind

  def frame(self, frame: str) -> bool:
    """Whether a wording belongs to the tier."""
    return frame_is_reserved(frame) == (self.tier == "reserved_frames")

  def name(self, name: str) -> bool:
    """Whether a function's name belongs to the tier."""
    return name_is_reserved(name) == (self.tier != "train")
