"""Parts that tasks are composed of: tests of an element, and changes to it.

A row of a table is a template: code, phrases and pieces of function names, with the
same constants in all of them. Alternatives are separated by "|". In phrases `{x}` is
what is spoken about; verbs are given for one and for many, "ends/end in 5".
"""

import dataclasses
import functools
import random

from phi1_jax.grammar import english
from phi1_jax.grammar.draws import pick, whole
from phi1_jax.grammar.exercise import literal

POOLS = {
  "letter": tuple("aeiorstnlcdmpbgk"),
  "middle": tuple("fghijklmnop"),
  "mark": tuple("*-_#+.!"),
  "affix": ("re", "un", "pre", "my_", "x-", "co", "sub", "old ", "un", "ex"),
  "common": tuple("aeosrtln"),
  "group": ("abc", "xyz", "aeo", "rst", "lmn", "nest", "word", "care"),
  "ending": ("s", "ly", "er", "ed", "!", "?", "_ok", "ing", "-x", "ish"),
  "piece": ("an", "in", "er", "ar", "le", "on", "st", "re", "or", "at"),
  "separator": (", ", "-", " ", "_", "; ", " + ", "/", "|"),
  "none": (None,),
  "call": ("fizz", "hop", "clap", "tick", "beep", "zap", "moo", "bell"),
  "default": (None, None, 0, -1),
  "word_default": (None, None, "", "none"),
}


def split(text: str) -> tuple[str, ...]:
  """The alternatives of a cell."""
  return tuple(filter(None, text.split("|")))


@functools.cache
def _plan(draw: str) -> tuple[tuple[str, str, str], ...]:
  """ "k:2..9 c:@letter" -> (("k", "2..9", ""), ("c", "", "letter"))."""
  steps = []
  for word in draw.split():
    name, _, how = word.partition(":")
    pool = how[1:] if how.startswith("@") else ""
    steps.append((name, "" if pool else how, pool))
  return tuple(steps)


def constants(rng: random.Random, draw: str) -> dict[str, int | str | None]:
  """Draws constants: "k:2..9", "c:@letter", or "b:a+1..5" (from 1 to 5 more than a)."""
  drawn: dict[str, int | str | None] = {}
  for name, span, pool in _plan(draw):
    if pool:
      drawn[name] = pick(rng, POOLS[pool])
      continue
    low, _, high = span.partition("..")
    base, plus, low = low.rpartition("+")
    start = drawn[base] if plus else 0
    assert isinstance(start, int)
    drawn[name] = start + whole(rng, int(low), int(high))
  return drawn


def spoken(value: int | str | None) -> str:
  """A constant in a docstring."""
  return f"'{value}'" if isinstance(value, str) else str(value)


def named(value: int | str | None) -> str:
  """A constant in a function's name; empty where it cannot be one."""
  if isinstance(value, int):
    return str(value) if value >= 0 else f"minus_{-value}"
  return value if value and value.isalpha() else ""


@dataclasses.dataclass(frozen=True)
class Filter:
  """A test of an element.

  Attributes:
    id: its name in compositions.
    code: a condition on `{x}`.
    verbs: "is/are even" and other ways to say so.
    adjective: "even", before the noun; may be empty.
    after: "divisible by {k}", after the noun; may be empty.
    name: pieces of function names; "+above_{k}" goes after the noun.
    draw: its constants.
    role: its kind in compositions.
  """

  id: str
  code: str
  verbs: str
  adjective: str = ""
  after: str = ""
  name: str = ""
  draw: str = ""
  role: str = "filter"


@dataclasses.dataclass(frozen=True)
class Map:
  """A change to an element.

  Attributes:
    id: its name in compositions.
    code: an expression of `{x}`.
    does: "square {x}".
    its: "the square of {x}", for one thing.
    nouns: "squares of {x}", for many; may be empty.
    name: pieces of function names; "squared" stands before the noun as an adjective,
      "+squares_of" before everything that is meant, "-plus_{k}" after the noun.
    draw: its constants.
    out: the kind of what comes out: int, word or char.
    role: its kind in compositions.
  """

  id: str
  code: str
  does: str
  its: str
  nouns: str = ""
  name: str = ""
  draw: str = ""
  out: str = "int"
  role: str = "map"


class Bound:
  """A part with its constants.

  Args:
    part: the part.
    rng: draws the constants.
    varied: whether it may be said in other words than the first.
  """

  def __init__(self, part: Filter | Map, rng: random.Random, varied: bool = True):
    self._phrases = None if varied else 1
    self.part, self.constants = part, constants(rng, part.draw)
    self._texts = {key: spoken(value) for key, value in self.constants.items()}

  @property
  def id(self) -> str:
    """Its name in a composition."""
    return f"{self.part.role}:{self.part.id}"

  def out(self, kind: str) -> str:
    """The kind of what comes out where elements of a kind go in."""
    return self.part.out if isinstance(self.part, Map) else kind

  def code(self, x: str) -> str:
    """Its code, with the element called `x`."""
    values = {key: literal(value) for key, value in self.constants.items()}
    return self.part.code.format(x=x, **values)

  def say(self, rng: random.Random, field: str, x: str = "") -> str:
    """One alternative of a phrase, or an empty string where there is none."""
    options = split(getattr(self.part, field))[: self._phrases]
    return pick(rng, options).format(x=x, **self._texts) if options else ""

  def name_piece(self, rng: random.Random) -> str:
    """A piece of a function's name, with its mark; empty where a constant is none."""
    names = {key: named(value) for key, value in self.constants.items()}
    template = pick(rng, split(self.part.name))
    if any(f"{{{key}}}" in template and not name for key, name in names.items()):
      return ""
    return template.format(**names)


def opposite(condition: str) -> str:
  """The condition's negation, as one would write it."""
  flips = {" == ": " != ", " != ": " == ", " > ": " <= ", " < ": " >= "}
  flips |= {" >= ": " < ", " <= ": " > ", " not in ": " in ", " in ": " not in "}
  if " and " in condition or " or " in condition or " for " in condition:
    return f"not ({condition})"
  found = [sign for sign in flips if sign in condition]
  if " not in " in found:
    found.remove(" in ")
  if len(found) == 1 and condition.count(found[0]) == 1:
    return condition.replace(found[0], flips[found[0]])
  if found:
    return f"not {condition}"
  return condition[4:] if condition.startswith("not ") else f"not {condition}"


def negative(rng: random.Random, test: Bound, many: bool = False) -> str:
  """ "is not even"."""
  return english.negated(test.say(rng, "verbs"), many)
