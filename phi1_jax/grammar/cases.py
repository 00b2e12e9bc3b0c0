"""Which of several cases: labels for a value, and two numbers combined by a test."""

import random

from phi1_jax.grammar import inputs, words
from phi1_jax.grammar.draft import Argument, Draft
from phi1_jax.grammar.draws import chance, often_early, pick, several
from phi1_jax.grammar.english import singular
from phi1_jax.grammar.parts import Bound
from phi1_jax.grammar.plan import FILTERS
from phi1_jax.grammar.reserve import Gate
from phi1_jax.grammar.scalars import CONDITIONAL, Subject, hot, pieces
from phi1_jax.grammar.wording import Frames, named, quoted, worded

LABEL: Frames = (
  ("label-return", "Return '{a}' if {x} {p}, '{b}' if it {q} instead, or else '{c}'."),
  (
    "label-classify",
    "Classify {x}: the label is '{a}' if it {p}; if not, it is '{b}' if it {q}; and "
    "'{c}' in the remaining cases.",
  ),
  (
    "label-order",
    "Test {x} in this order: if it {p}, return '{a}'; if it {q}, return '{b}'; "
    "otherwise return '{c}'.",
  ),
  (
    "label-list",
    "Name the first case that fits {x}:\n\n- it {p}: '{a}'\n- it {q}: '{b}'\n"
    "- neither: '{c}'",
  ),
  (
    "label-story",
    "{holder} sorts {given}. What {p} is called '{a}'. Of the rest, what {q} is called "
    "'{b}', and all else is called '{c}'. Return the name.",
  ),
)


def label(rng: random.Random, gate: Gate) -> Draft | None:
  """ "Return 'moss' if n is even, 'fern' if it is negative, or else 'oak'." """
  kind = "int" if chance(rng, 0.65) else "word"
  subject = Subject(rng, kind)
  tests = [Bound(row, rng) for row in several(rng, FILTERS[kind], 2)]
  composition = (f"label_{kind}", tests[0].id, tests[1].id, "label")
  if not gate.composition(composition):
    return None
  a, b, c = several(rng, words.LOWER_WORDS, 3)
  fields = {
    "x": subject.spoken,
    "given": subject.given,
    "a": a,
    "b": b,
    "c": c,
    "p": singular(tests[0].say(rng, "verbs")),
    "q": singular(tests[1].say(rng, "verbs")),
  }
  made = worded(rng, gate, LABEL, fields)
  if made is None:
    return None
  second = pick(rng, ("if", "elif"))
  body = [
    f"if {tests[0].code(subject.name)}:",
    f'    return "{a}"',
    f"{second} {tests[1].code(subject.name)}:",
    f'    return "{b}"',
    f'return "{c}"',
  ]

  def name(rng: random.Random) -> str:
    p, q = pieces(rng, *tests)
    return named(
      rng,
      f"[classify|label|name|categorize]_{p}_{q}",
      f"{p}_or_{q}_[label|name|kind]",
      f"[kind|class|label]_of_{subject.name}_{p}",
      f"{a}_{b}_or_{c}",
      f"[pick|choose]_{a}_or_{b}",
    )

  return Draft(
    composition,
    "label",
    *made,
    subject.arguments,
    "str",
    "the label",
    body,
    name,
    lambda rng, count: subject.inputs(rng, hot(*tests), count),
  )


_COMBINE = (
  ("add", "{a} + {b}", "the sum of {a} and {b}", "sum|added"),
  ("multiply", "{a} * {b}", "the product of {a} and {b}", "product|multiplied"),
  (
    "difference",
    "abs({a} - {b})",
    "the absolute difference of {a} and {b}",
    "difference|distance",
  ),
  ("larger", "max({a}, {b})", "the larger of {a} and {b}", "larger|greater|maximum"),
  ("smaller", "min({a}, {b})", "the smaller of {a} and {b}", "smaller|lesser|minimum"),
  ("minus", "{a} - {b}", "{a} minus {b}", "minus|subtracted"),
  (
    "sum_of_squares",
    "{a} ** 2 + {b} ** 2",
    "the sum of the squares of {a} and {b}",
    "sum_of_squared|squares_added",
  ),
)


# Those of the wordings that do not speak of one number as "it".
_OF_TWO = tuple(
  frame
  for frame in CONDITIONAL
  if "do_" not in frame[1] and frame[0] not in ("if-depends", "if-story")
)


def two_numbers(rng: random.Random, gate: Gate) -> Draft | None:
  """ "If both are even, return the product of a and b, otherwise their sum." """
  names = several(rng, words.NUMBERS, 2) if chance(rng, 0.6) else ["a", "b"]
  a, b = names
  p, q = (quoted(rng, a), quoted(rng, b))
  test = Bound(often_early(rng, FILTERS["int"]), rng)
  which = pick(rng, ("and", "or"))
  then, other = several(rng, _COMBINE, 2)
  composition = (f"two_{which}", test.id, f"combine:{then[0]}", f"combine:{other[0]}")
  if not gate.composition(composition):
    return None
  verb = singular(test.say(rng, "verbs"))
  each = f"{'each' if which == 'and' else 'at least one'} of {p} and {q}"
  fields = {
    "x": each,
    "is_": verb,
    "given": f"two integers, {p} and {q}",
    "then": then[2].format(a=p, b=q),
    "other": other[2].format(a=p, b=q),
  }
  made = worded(rng, gate, _OF_TWO, fields)
  if made is None:
    return None
  condition = f" {which} ".join(
    f"({code})" if (" or " in code or " and " in code) else code
    for code in (test.code(a), test.code(b))
  )
  yes, no = then[1].format(a=a, b=b), other[1].format(a=a, b=b)
  body = [f"if {condition}:", f"    return {yes}", f"return {no}"]
  if chance(rng, 0.3):
    body = [f"return {yes} if {condition} else {no}"]

  def name(rng: random.Random) -> str:
    (piece,) = pieces(rng, test)
    some = {"and": "both", "or": "any"}[which]
    return named(
      rng,
      f"[{then[3]}]_or_[{other[3]}]_{some}_{piece}",
      f"[combine|merge|join]_{some}_{piece}_[{then[3]}]",
      f"[{then[3]}]_if_{some}_{piece}",
      f"[{then[3]}]_when_{piece}_else_[{other[3]}]",
    )

  def tried(rng: random.Random, count: int) -> list[list[int]]:
    known = hot(test)
    return [
      [inputs.number(rng, known), inputs.number(rng, known)] for _ in range(count + 4)
    ]

  arguments = (Argument(a, "int", "an integer"), Argument(b, "int", "an integer"))
  return Draft(
    composition, "two_numbers", *made, arguments, "int", "the result", body, name, tried
  )
