"""Dictionaries: choosing entries, changing values, merging, inverting, the best key."""

import random

from phi1_jax.grammar import inputs, words
from phi1_jax.grammar.draft import Argument, Draft
from phi1_jax.grammar.draws import chance, often_early, pick, several, whole
from phi1_jax.grammar.english import plural, singular
from phi1_jax.grammar.parts import Bound, opposite
from phi1_jax.grammar.plan import FILTERS, MAPS
from phi1_jax.grammar.reserve import Gate
from phi1_jax.grammar.scalars import hot, pieces
from phi1_jax.grammar.wording import NOUN_FRAMES, Frames, named, quoted, worded

_TYPE = "dict[str, int]"
_ABOUT = "a dictionary from strings to integers"
ENTRIES: Frames = (
  ("entries-keep", "Keep only the entries of {a} whose {what} {is_}{then}. {end}"),
  (
    "entries-new",
    "Return a new dictionary with the entries of {a} whose {what} {is_}{then}.",
  ),
  (
    "entries-given",
    "Given {given}, drop each entry whose {what} does not fit: a {what} "
    "fits if it {is_}. Return the rest as a dictionary{then}.",
  ),
  (
    "entries-build",
    "Build a dictionary from {a}: take the entries whose {what} {is_}{then}.",
  ),
  (
    "entries-question",
    "Which entries of {a} have a {what} that {is_}? Return them as a dictionary{then}.",
  ),
  (
    "entries-story",
    "{holder} keeps {given}. It needs a dictionary of those entries whose "
    "{what} {is_}{then}.",
  ),
)
_ENDS = (
  "Return the new dictionary.",
  "Return them as a dictionary.",
  "Return the result.",
)


def entries(rng: random.Random, gate: Gate) -> Draft | None:
  """ "Keep only the entries of stock whose value is even, with each value doubled." """
  argument = pick(rng, words.TABLES)
  a = quoted(rng, argument)
  what = pick(rng, ("value", "value", "key"))
  kind = "int" if what == "value" else "word"
  test = Bound(often_early(rng, FILTERS[kind]), rng)
  change = Bound(pick(rng, MAPS["int"]), rng) if chance(rng, 0.6) else None
  tail = (change.id,) if change else ()
  composition = (f"entries_{what}", test.id, *tail, "entries")
  if not gate.composition(composition):
    return None
  then = ""
  if change:
    then = f", with every value replaced by {change.say(rng, 'its', 'the old value')}"
    if chance(rng, 0.4):
      then = f", but instead of each value store {change.say(rng, 'its', 'that value')}"
  fields = {
    "a": a,
    "what": what,
    "is_": singular(test.say(rng, "verbs")),
    "then": then,
    "end": pick(rng, _ENDS),
    "given": f"{_ABOUT} {a}",
  }
  made = worded(rng, gate, ENTRIES, fields)
  if made is None:
    return None
  value = change.code("value") if change else "value"
  condition = test.code(what)
  body = _chosen(rng, argument, condition, value)

  def name(rng: random.Random) -> str:
    p, *q = pieces(rng, test, *([change] if change else []))
    rest = f"_{q[0]}" if q else ""
    return named(
      rng,
      f"[keep|filter|select]_entries_with_{what}_{p}{rest}",
      f"entries_with_{p}_{what}{rest}",
      f"[keep|get]_{p}_{what}s{rest}_of_table",
      f"filter_by_{what}_{p}{rest}",
      f"{argument}_with_{what}_{p}{rest}",
    )

  known = hot(test, *([change] if change else []))
  return Draft(
    composition,
    "dict",
    *made,
    (Argument(argument, _TYPE, _ABOUT),),
    _TYPE,
    "the new dictionary",
    body,
    name,
    lambda rng, count: _tables(rng, known, count),
  )


def _chosen(rng: random.Random, table: str, condition: str, value: str) -> list[str]:
  """A comprehension or a loop over the entries."""
  line = f"return {{key: {value} for key, value in {table}.items() if {condition}}}"
  if len(line) <= 76 and not chance(rng, 0.5):
    return [line]
  return [
    "result = {}",
    f"for key, value in {table}.items():",
    f"    if {condition}:",
    f"        result[key] = {value}",
    "return result",
  ]


def _tables(rng: random.Random, known: inputs.Hot, count: int):
  return [[inputs.table(rng, known, min(n, 4))] for n in inputs.sizes(rng, count)]


_KEYS = (
  ("list", "list[str]", "a list of the keys of {a} whose value {is_}", "{keys}"),
  (
    "sorted",
    "list[str]",
    "a sorted list of the keys of {a} whose value {is_}",
    "sorted({keys})",
  ),
  (
    "joined",
    "str",
    "the keys of {a} whose value {is_}, joined by '{s}'",
    '"{s}".join({keys})',
  ),
  ("count", "int", "the number of keys of {a} whose value {is_}", "len({keys})"),
  (
    "longest",
    "str | None",
    "the longest of the keys of {a} whose value {is_} (the first "
    "one of several, None if there is none)",
    "max({keys}, key=len, default=None)",
  ),
)


def keys(rng: random.Random, gate: Gate) -> Draft | None:
  """ "A sorted list of the keys of stock whose value is even." """
  argument = pick(rng, words.TABLES)
  a = quoted(rng, argument)
  tests = [Bound(often_early(rng, FILTERS["int"]), rng)]
  if chance(rng, 0.5):
    tests.append(Bound(often_early(rng, FILTERS["word"]), rng))
  id, returns, phrase, code = pick(rng, _KEYS)
  composition = ("keys", *(test.id for test in tests), f"keys:{id}")
  if not gate.composition(composition):
    return None
  s = pick(rng, (", ", "-", "/", " "))
  np = phrase.format(a=a, is_=singular(tests[0].say(rng, "verbs")), s=s)
  if len(tests) > 1:
    extra = plural(tests[1].say(rng, "verbs"))
    np = np.replace(f"keys of {a} whose", f"keys of {a} that {extra} and whose")
  made = worded(rng, gate, NOUN_FRAMES, {"np": np, "given": f"{_ABOUT} {a}"})
  if made is None:
    return None
  codes = [tests[0].code("value"), *(t.code("key") for t in tests[1:])]
  condition = " and ".join(f"({c})" if " or " in c and tests[1:] else c for c in codes)
  some = f"[key for key, value in {argument}.items() if {condition}]"
  body = [f"found = {some}", f"return {code.format(keys='found', s=s)}"]
  if len(some) > 70 or chance(rng, 0.4):
    body = [
      "found = []",
      f"for key, value in {argument}.items():",
      f"    if {condition}:",
      "        found.append(key)",
      f"return {code.format(keys='found', s=s)}",
    ]

  def name(rng: random.Random) -> str:
    p = "_".join(pieces(rng, *tests))
    return named(
      rng,
      f"{id}_[of_|]keys_with_{p}",
      f"{id}_keys_[where|with]_value_{p}",
      f"[get|find|pick]_{id}_keys_{p}",
      f"keys_{p}_{id}",
      f"{id}_{p}_of_{argument}",
    )

  known = hot(*tests)
  return Draft(
    composition,
    "dict",
    *made,
    (Argument(argument, _TYPE, _ABOUT),),
    returns,
    "the keys" if id != "count" else "the number of keys",
    body,
    name,
    lambda rng, count: _tables(rng, known, count),
  )


_MERGE = (
  ("add", "{x} + {y}", "the sum of both values"),
  ("larger", "max({x}, {y})", "the larger of both values"),
  ("smaller", "min({x}, {y})", "the smaller of both values"),
  ("second", "{y}", "the value from {b}"),
  ("first", "{x}", "the value from {a}"),
  ("multiply", "{x} * {y}", "the product of both values"),
  ("difference", "{x} - {y}", "the value from {a} minus the value from {b}"),
)
_MERGE_FRAMES: Frames = (
  ("merge-into", "Merge {a} and {b} into a new dictionary. {rule}"),
  ("merge-return", "Return a dictionary with the entries of {a} and of {b}. {rule}"),
  ("merge-given", "Given {given}, combine them in one dictionary. {rule}"),
  ("merge-question", "What is the union of the dictionaries {a} and {b}? {rule}"),
  ("merge-story", "{holder} joins {given}. {rule} Return the joined dictionary."),
)


def merge(rng: random.Random, gate: Gate) -> Draft | None:
  """ "Merge a and b; where both have a key, its value is the sum of both values." """
  first, second = several(rng, words.TABLES, 2)
  a, b = quoted(rng, first), quoted(rng, second)
  id, code, phrase = pick(rng, _MERGE)
  test = Bound(often_early(rng, FILTERS["int"]), rng) if chance(rng, 0.7) else None
  change = None
  if test and chance(rng, 0.3):
    change = Bound(pick(rng, MAPS["int"]), rng)
  parts = [part.id for part in (test, change) if part]
  composition = ("merge", f"merge:{id}", *parts)
  if not gate.composition(composition):
    return None
  rule = f"A key that both have gets {phrase.format(a=a, b=b)}."
  if test:
    verb = singular(test.say(rng, "verbs"))
    rule += f" Leave out every entry of the result whose value {verb}."
  if change:
    rule += (
      f" Replace each remaining value by {change.say(rng, 'its', 'the old value')}."
    )
  fields = {"a": a, "b": b, "rule": rule}
  fields["given"] = f"two dictionaries from strings to integers, {a} and {b}"
  made = worded(rng, gate, _MERGE_FRAMES, fields)
  if made is None:
    return None
  body = _joined(rng, id, code, first, second)
  answer = "result"
  if test:
    value = change.code("v") if change else "v"
    answer = f"{{k: {value} for k, v in result.items() if {opposite(test.code('v'))}}}"
  body.append(f"return {answer}")

  def name(rng: random.Random) -> str:
    p = "_".join(pieces(rng, *[part for part in (test, change) if part]))
    without = f"_without_{p}" if p else ""
    return named(
      rng,
      f"merge_[{first}|tables|dicts]_{id}{without}",
      f"[join|combine]_{first}_by_{id}{without}",
      f"[merge|join|unite]_with_{id}{without}",
      f"{first}_and_{second}{without}",
    )

  known = hot(*[part for part in (test, change) if part])
  arguments = [Argument(n, _TYPE, _ABOUT) for n in (first, second)]
  return Draft(
    composition,
    "merge",
    *made,
    arguments,
    _TYPE,
    "the merged dictionary",
    body,
    name,
    lambda rng, count: _overlapping(rng, known, count),
  )


def _joined(
  rng: random.Random, id: str, code: str, first: str, second: str
) -> list[str]:
  """Statements that make `result` of two dictionaries."""
  if id == "second":
    return [f"result = {{**{first}, **{second}}}"]
  if id == "first":
    return [f"result = {{**{second}, **{first}}}"]
  lines = [f"result = dict({first})", f"for key, value in {second}.items():"]
  if id == "add" and chance(rng, 0.5):
    return [*lines, "    result[key] = result.get(key, 0) + value"]
  return [
    *lines,
    "    if key in result:",
    f"        result[key] = {code.format(x='result[key]', y='value')}",
    "    else:",
    "        result[key] = value",
  ]


def _overlapping(
  rng: random.Random, known: inputs.Hot, count: int
) -> list[list[dict[str, int]]]:
  """Pairs of dictionaries that have one or two keys in common, mostly."""
  made = []
  for _ in range(count):
    left = inputs.table(rng, known, whole(rng, 0, 3))
    right = inputs.table(rng, known, whole(rng, 0, 2))
    shared = several(rng, list(left), whole(rng, 1, 2))
    both = {key: inputs.number(rng, known) for key in shared}
    made.append([left, {**right, **both}])
  return made
