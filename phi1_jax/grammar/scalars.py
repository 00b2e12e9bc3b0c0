"""One value in, one value out: a condition, a chain of changes, a check."""

import dataclasses
import random

from phi1_jax.grammar import inputs, words
from phi1_jax.grammar.draft import Argument, Draft
from phi1_jax.grammar.draws import chance, often_early, pick, several
from phi1_jax.grammar.english import both, singular
from phi1_jax.grammar.parts import Bound, Filter, Map, opposite
from phi1_jax.grammar.pipeline_code import conjunction
from phi1_jax.grammar.plan import FILTERS, MAPS
from phi1_jax.grammar.reserve import Gate
from phi1_jax.grammar.wording import (
  TEST_FRAMES,
  Frames,
  named,
  quoted,
  worded,
)

CONDITIONAL: Frames = (
  ("if-return", "If {x} {is_}, return {then}; otherwise return {other}."),
  ("if-when", "Return {then} when {x} {is_}, and {other} in all other cases."),
  ("if-do", "{Cap_do_then} if {x} {is_}. If not, {do_other}. Return the result."),
  ("if-depends", "The result depends on {x}: {then} if it {is_}, {other} if not."),
  ("if-else", "Returns {then} if {x} {is_}, else {other}."),
  ("if-given", "Given {given}, return {then} if {x} {is_} and {other} otherwise."),
  ("if-question", "What is {then} if {x} {is_}, or else {other}?"),
  ("if-case", "Two cases: where {x} {is_}, give back {then}; elsewhere, {other}."),
  ("if-test", "Test if {x} {is_}. If so, the answer is {then}. If not, it is {other}."),
  ("if-list", "Return\n- {then}, if {x} {is_},\n- {other}, otherwise."),
  ("if-story", "{holder} has {given}. If it {is_}, return {then}, otherwise {other}."),
  ("if-unless", "Return {other}, unless {x} {is_}: then return {then}."),
)
CHAIN: Frames = (
  ("chain-return", "{Cap_first} and then {rest}. Return the result."),
  ("chain-start", "Start with {x}. {Cap_first_it}, then {rest}."),
  ("chain-steps", "Take these steps: {first}; {rest}. Return what comes out."),
  ("chain-given", "Given {given}, {first}, then {rest}, and return the outcome."),
  ("chain-question", "What comes out if you {first} and then {rest}?"),
  ("chain-story", "{holder} has {given}: {first}, then {rest}. Return the result."),
  ("chain-after", "Return what {x} becomes when you {first_it} and then {rest}."),
  ("chain-numbered", "Change {x} in this order:\n\n{numbered}\n\nReturn the result."),
)
_ABOUT = {"int": "an integer", "word": "a non-empty string"}
_TYPE = {"int": "int", "word": "str"}


@dataclasses.dataclass(frozen=True)
class Scope:
  """How much of the language a menu uses.

  Attributes:
    kind: "int" or "word"; None is both.
    most: so many of the tests, and of the changes, the first ones; None is all.
    varied: whether a part has several phrases.
  """

  kind: str | None = None
  most: int | None = None
  varied: bool = True

  def bound(self, row: Filter | Map, rng: random.Random) -> Bound:
    """A part with its constants."""
    return Bound(row, rng, self.varied)


class Subject:
  """The one argument: a number or a word."""

  def __init__(self, rng: random.Random, kind: str):
    pool = words.NUMBERS if kind == "int" else words.TEXTS
    short = ("n", "x", "num", "number", "value") if kind == "int" else ("s", "word")
    self.name = pick(rng, short) if chance(rng, 0.25) else pick(rng, pool)
    self.spoken = quoted(rng, self.name)
    self.given = f"{_ABOUT[kind]} {self.spoken}"
    self.arguments = (Argument(self.name, _TYPE[kind], _ABOUT[kind]),)
    self.kind = kind

  def inputs(self, rng: random.Random, hot: inputs.Hot, count: int):
    """Values to try."""
    if self.kind == "int":
      return [[inputs.number(rng, hot)] for _ in range(count + 4)]
    return [[inputs.word(rng, hot)] for _ in range(count + 4)]


def hot(*parts: Bound) -> list[object]:
  """The constants of the parts, for inputs."""
  return [value for part in parts for value in part.constants.values()]


def pieces(rng: random.Random, *parts: Bound) -> list[str]:
  """Name pieces without their marks."""
  return [part.name_piece(rng).strip("+-").removesuffix("_of") for part in parts]


def conditional(rng: random.Random, gate: Gate, scope: Scope = Scope()) -> Draft | None:
  """ "If n is even, return its square; otherwise return twice its value." """
  kind = scope.kind or ("int" if chance(rng, 0.75) else "word")
  subject = Subject(rng, kind)
  x = subject.name
  maps = [row for row in MAPS[kind] if row.out == kind][: scope.most]
  test = scope.bound(often_early(rng, FILTERS[kind][: scope.most]), rng)
  then, other = (scope.bound(pick(rng, maps), rng) for _ in range(2))
  plain = chance(rng, 0.2)
  composition = ("conditional", test.id, then.id, "unchanged" if plain else other.id)
  if then.id == other.id or not gate.composition(composition):
    return None
  fields = {
    "x": subject.spoken,
    "given": subject.given,
    "is_": singular(test.say(rng, "verbs")),
    "then": then.say(rng, "its", subject.spoken),
    "other": f"{subject.spoken} unchanged",
    "do_then": then.say(rng, "does", subject.spoken),
    "do_other": "leave it as it is",
  }
  if not plain:
    fields["other"] = other.say(rng, "its", subject.spoken)
    fields["do_other"] = other.say(rng, "does", "it")
  made = worded(rng, gate, CONDITIONAL, fields)
  if made is None:
    return None
  no = x if plain else other.code(x)
  body = _branches(rng, test.code(x), then.code(x), no)

  def name(rng: random.Random) -> str:
    p, q, r = pieces(rng, test, then, other)
    return named(
      rng,
      f"{q}_if_{p}",
      f"{q}_if_{p}_[else|or]_{r}",
      f"{q}_when_{p}",
      f"[adjust|change|convert|update|treat]_{p}_{q}",
      f"{p}_then_{q}_else_{r}",
      f"[maybe|conditionally]_{q}_{p}",
      f"{q}_or_{r}_by_{p}",
    )

  return Draft(
    composition,
    "conditional",
    *made,
    subject.arguments,
    _TYPE[kind],
    "the result",
    body,
    name,
    lambda rng, count: subject.inputs(rng, hot(test, then, other), count),
  )


def _branches(rng: random.Random, condition: str, yes: str, no: str) -> list[str]:
  """Returns one or the other value, in one of four styles."""
  body = [f"if {condition}:", f"    return {yes}", f"return {no}"]
  style = rng.random()
  if style < 0.4:
    return [f"return {yes} if {condition} else {no}"]
  if style < 0.6:
    return [*body[:2], "else:", f"    return {no}"]
  if style < 0.75:
    return [
      f"result = {no}",
      f"if {condition}:",
      f"    result = {yes}",
      "return result",
    ]
  return body


def chain(rng: random.Random, gate: Gate, scope: Scope = Scope()) -> Draft | None:
  """ "Square n and then add 3 to the result." """
  kind = scope.kind or ("int" if chance(rng, 0.5) else "word")
  subject = Subject(rng, kind)
  count = 4 if gate.longer else 2 + (rng.random() < 0.6)
  rows = [row for row in MAPS[kind] if row.out == kind][: scope.most]
  parts = [scope.bound(row, rng) for row in several(rng, rows, count)]
  composition = (f"chain_{kind}", *(part.id for part in parts))
  if not gate.composition(composition):
    return None
  first = parts[0].say(rng, "does", subject.spoken)
  rest = [part.say(rng, "does", "the result") for part in parts[1:]]
  steps = [first, *rest]
  fields = {
    "x": subject.spoken,
    "given": subject.given,
    "first": first,
    "first_it": parts[0].say(rng, "does", "it"),
    "rest": ", then ".join(rest),
    "numbered": "\n".join(
      f"{i}. {s[0].upper()}{s[1:]}." for i, s in enumerate(steps, 1)
    ),
  }
  made = worded(rng, gate, CHAIN, fields)
  if made is None:
    return None
  local = pick(rng, ("result", "changed", "current", "answer"))
  body, current = [], subject.name
  for part in parts[:-1]:
    body.append(f"{local} = {part.code(current)}")
    current = local
  body.append(f"return {parts[-1].code(current)}")

  def name(rng: random.Random) -> str:
    all_pieces = pieces(rng, *parts)
    joined = "_".join(all_pieces)
    return named(
      rng,
      "_then_".join(all_pieces),
      "_and_".join(all_pieces),
      joined,
      f"[apply|make|get]_{joined}",
      f"{joined}_{subject.name}",
    )

  return Draft(
    composition,
    "chain",
    *made,
    subject.arguments,
    _TYPE[kind],
    "the result",
    body,
    name,
    lambda rng, count: subject.inputs(rng, hot(*parts), count),
  )


def check(rng: random.Random, gate: Gate, scope: Scope = Scope()) -> Draft | None:
  """ "Check whether n is even and greater than 5." """
  kind = scope.kind or ("int" if chance(rng, 0.65) else "word")
  subject = Subject(rng, kind)
  rows = FILTERS[kind][: scope.most]
  parts = [scope.bound(row, rng) for row in several(rng, rows, 2)]
  word = pick(rng, ("and", "or"))
  composition = (f"check_{kind}", parts[0].id, word, parts[1].id)
  if not gate.composition(composition):
    return None
  verbs = [singular(part.say(rng, "verbs")) for part in parts]
  if word == "or":
    test = f"{subject.spoken} {verbs[0]} or {verbs[1]} (or both)"
  else:
    test = f"{subject.spoken} {both(verbs)}"
  made = worded(rng, gate, TEST_FRAMES, {"test": test, "given": subject.given})
  if made is None:
    return None
  codes = [part.code(subject.name) for part in parts]
  joined = conjunction(codes)
  if word == "or":
    joined = " or ".join(f"({c})" if " and " in c else c for c in codes)
  body = [f"return {joined}"]
  if chance(rng, 0.35):
    answer = word == "or"
    lines = [f"if {codes[0]}:", "    return True"]
    if not answer:
      lines = [f"if {opposite(codes[0])}:", "    return False"]
    body = [*lines, f"return {codes[1]}"]
  if len(body[0]) > 78:
    body = [
      f"first = {codes[0]}",
      f"second = {codes[1]}",
      f"return first {word} second",
    ]

  def name(rng: random.Random) -> str:
    p, q = pieces(rng, *parts)
    return named(
      rng,
      f"is_{p}_{word}_{q}",
      f"[check|test|verify]_{p}_{word}_{q}",
      f"{p}_{word}_{q}",
      f"[has|is]_{p}_{word}_{q}_{subject.name}",
    )

  return Draft(
    composition,
    "check",
    *made,
    subject.arguments,
    "bool",
    "whether this is the case",
    body,
    name,
    lambda rng, count: subject.inputs(rng, hot(*parts), count),
  )
