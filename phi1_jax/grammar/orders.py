"""Putting elements in order, and in groups, by something computed from them."""

import random

from phi1_jax.grammar import sources
from phi1_jax.grammar.draft import Draft
from phi1_jax.grammar.draws import chance, often_early, pick, weighted
from phi1_jax.grammar.english import both, plural
from phi1_jax.grammar.parts import Bound
from phi1_jax.grammar.pipeline_code import conjunction, variable
from phi1_jax.grammar.plan import FILTERS, MAPS
from phi1_jax.grammar.reserve import Gate
from phi1_jax.grammar.scalars import hot, pieces
from phi1_jax.grammar.sources import Setting
from phi1_jax.grammar.wording import Frames, named, quoted, worded

# Changes that tell elements apart well enough to sort or group them by.
_SORT_KEYS = {
  "int": ("absolute", "modulo", "last_digit", "digit_sum", "digit_count", "distance"),
  "word": ("length", "last", "reverse", "vowel_count", "drop_first", "suffix", "lower"),
}
_GROUP_KEYS = {
  "int": ("modulo", "last_digit", "digit_count", "sign", "quotient", "digit_sum"),
  "word": ("length", "first", "last", "vowel_count", "prefix", "distinct_count"),
}
SORTED: Frames = (
  ("sort-by", "Sort {things} by {key}, {order}."),
  ("sort-return", "Return a list of {things}, sorted by {key}, {order}."),
  ("sort-order", "Put {things} in order: what counts is {key}, {order}."),
  (
    "sort-given",
    "Given {given}, return {things} as a list, ordered by {key}, {order}.",
  ),
  ("sort-question", "In which order are {things} when sorted by {key}, {order}?"),
  ("sort-story", "{holder} asks for a list of {things}, sorted by {key}, {order}."),
  ("sort-returns", "Returns {things} in a new list, arranged by {key}, {order}."),
)
_TIES = (
  " Where that is equal, the original order is kept.",
  " Ties keep the order that they had.",
  " Equal ones stay in their original order.",
)


def _drawn(
  rng: random.Random, keys: dict[str, tuple[str, ...]]
) -> tuple[Setting, Bound, list[Bound]]:
  """A source, a key, and at most one filter."""
  setting = pick(rng, (sources.numbers, sources.word_list))(rng)
  rows = [row for row in MAPS[setting.kind] if row.id in keys[setting.kind]]
  key = Bound(pick(rng, rows), rng)
  tests = []
  if chance(rng, 0.6):
    tests.append(Bound(often_early(rng, FILTERS[setting.kind]), rng))
  return setting, key, tests


def _things(rng: random.Random, setting: Setting, tests: list[Bound], a: str) -> str:
  many = setting.noun.many
  if not tests:
    return f"the {many} of {a}"
  return (
    f"those {many} of {a} that {both([plural(t.say(rng, 'verbs')) for t in tests])}"
  )


def sort(rng: random.Random, gate: Gate) -> Draft | None:
  """ "Sort the words by their length, longest first." """
  setting, key, tests = _drawn(rng, _SORT_KEYS)
  down = chance(rng, 0.4)
  parts = [*(test.id for test in tests), key.id, f"sort:{'down' if down else 'up'}"]
  composition = (f"sort_{setting.id}", *parts)
  if not gate.composition(composition):
    return None
  a = quoted(rng, setting.noun.argument)
  down_words = ("in descending order", "from high to low", "the greatest first")
  up_words = ("in ascending order", "from low to high", "the smallest first")
  fields = {
    "things": _things(rng, setting, tests, a),
    "key": key.say(rng, "its", f"each {setting.noun.one}"),
    "order": pick(rng, down_words if down else up_words),
    "given": setting.given.format(a=a),
  }
  made = worded(rng, gate, SORTED, fields)
  if made is None:
    return None
  made = (made[0], made[1] + pick(rng, _TIES))
  var = pick(rng, [v for v in ("x", "v", "each") if v != setting.noun.argument])
  it = setting.noun.argument
  tail = ", reverse=True" if down else ""
  test = f" if {conjunction([t.code(var) for t in tests])}" if tests else ""
  if chance(rng, 0.4):
    body = [f"def key({var}):", f"    return {key.code(var)}", ""]
    if tests:
      body.append(f"kept = [{var} for {var} in {it}{test}]")
    body.append(f"return sorted({'kept' if tests else it}, key=key{tail})")
  else:
    body = [f"kept = [{var} for {var} in {it}{test}]"] if tests else []
    by = f"key=lambda {var}: {key.code(var)}{tail}"
    body.append(f"return sorted({'kept' if tests else it}, {by})")

  def name(rng: random.Random) -> str:
    k, *ps = pieces(rng, key, *tests)
    p, many = "_".join(ps), setting.noun.many
    way = pick(rng, ("descending", "downwards") if down else ("ascending", ""))
    return named(
      rng,
      f"sort_{p}_{many}_by_{k}_{way}",
      f"[order|arrange]_{p}_{many}_by_{k}_{way}",
      f"{p}_{many}_[sorted|ordered]_by_{k}_{way}",
      f"{way}_{p}_{many}_by_{k}",
    )

  element = "int" if setting.kind == "int" else "str"
  return Draft(
    composition,
    "sort",
    *made,
    setting.arguments,
    f"list[{element}]",
    "the sorted list",
    body,
    name,
    lambda rng, count: setting.inputs(rng, hot(key, *tests), count),
  )


# What each group becomes: id, type, words, and what is added for each element.
_GROUPED = (
  ("list", "list[{t}]", "the list of {those} that have it", ""),
  ("count", "int", "the number of {these} that have it", "1"),
  ("sum", "int", "the sum of {those} that have it", "{x}"),
  ("last", "{t}", "the last of {those} that have it", ""),
)
GROUPED: Frames = (
  ("group-map", "Return a dictionary that maps {key} to {value}."),
  ("group-build", "Build a dictionary. Its keys are {key}, its values {value}."),
  ("group-by", "Group {things} by {short}: the result maps each key to {value}."),
  ("group-given", "Given {given}, return a dictionary from {key} to {value}."),
  ("group-for", "For {key}, store {value} in a dictionary, and return it."),
  ("group-question", "Which dictionary maps {key} to {value}?"),
  ("group-story", "{holder} needs a dictionary that tells, for {key}, {value}."),
)


def group(rng: random.Random, gate: Gate) -> Draft | None:
  """ "Return a dictionary from each length to the list of the words that have it." """
  setting, key, tests = _drawn(rng, _GROUP_KEYS)
  id, returns, value, more = weighted(
    rng, tuple(zip((4, 3, 2 if setting.kind == "int" else 0, 1), _GROUPED, strict=True))
  )
  composition = (f"group_{setting.id}", *(t.id for t in tests), key.id, f"group:{id}")
  if not gate.composition(composition):
    return None
  a, many = quoted(rng, setting.noun.argument), setting.noun.many
  things = _things(rng, setting, tests, a)
  short = key.say(rng, "its", f"each {setting.noun.one}")
  fields = {
    "things": things,
    "short": short,
    "key": f"{key.say(rng, 'its', f'each of {things}')}",
    "value": value.format(
      those=f"those of these {many}" if tests else f"the {many}",
      these=f"these {many}" if tests else many,
    ),
    "given": setting.given.format(a=a),
  }
  made = worded(rng, gate, GROUPED, fields)
  if made is None:
    return None
  body = _grouped(rng, setting, key, tests, id, more)

  def name(rng: random.Random) -> str:
    k, *ps = pieces(rng, key, *tests)
    p = "_".join(ps)
    if id == "list":
      return named(
        rng, f"[group|collect|index]_{p}_{many}_by_{k}", f"{p}_{many}_by_{k}"
      )
    return named(
      rng, f"{id}_[of_|]{p}_{many}_[by|per]_{k}", f"{id}_by_{k}_[of|for]_{p}_{many}"
    )

  types = {"int": "int", "word": "str"}
  returns = (
    f"dict[{types[key.out(setting.kind)]}, {returns.format(t=types[setting.kind])}]"
  )
  return Draft(
    composition,
    "group",
    *made,
    setting.arguments,
    returns,
    "the dictionary",
    body,
    name,
    lambda rng, count: setting.inputs(rng, hot(key, *tests), count),
  )


def _grouped(
  rng: random.Random,
  setting: Setting,
  key: Bound,
  tests: list[Bound],
  id: str,
  more: str,
) -> list[str]:
  """The loop that fills the dictionary; `more` is what an element adds to its group."""
  var = variable(rng, setting)
  local = pick(rng, ("groups", "result", "table_of_groups"))
  lines = [f"{local} = {{}}", f"for {var} in {setting.iterable}:"]
  indent = "    "
  if tests:
    lines.append(f"    if {conjunction([t.code(var) for t in tests])}:")
    indent *= 2
  lines.append(f"{indent}key = {key.code(var)}")
  if id == "list":
    lines += _listing(rng, local, var, indent)
  elif id == "last":
    lines.append(f"{indent}{local}[key] = {var}")
  else:
    lines.append(f"{indent}{local}[key] = {local}.get(key, 0) + {more.format(x=var)}")
  return [*lines, f"return {local}"]


def _listing(rng: random.Random, local: str, var: str, indent: str) -> list[str]:
  """Appends to the list at `key`, which may not be there yet."""
  if chance(rng, 0.5):
    return [f"{indent}{local}.setdefault(key, []).append({var})"]
  return [
    f"{indent}if key not in {local}:",
    f"{indent}    {local}[key] = []",
    f"{indent}{local}[key].append({var})",
  ]
