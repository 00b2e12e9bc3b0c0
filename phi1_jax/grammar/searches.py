"""Looking for something: whether any or all fit, where the first is, how far to go."""

import random
from collections.abc import Sequence

from phi1_jax.grammar import sources
from phi1_jax.grammar.draft import Draft
from phi1_jax.grammar.draws import chance, often_early, pick
from phi1_jax.grammar.english import both, gerund, plural, singular
from phi1_jax.grammar.parts import Bound, opposite
from phi1_jax.grammar.pipeline_code import variable
from phi1_jax.grammar.plan import FILTERS, MAPS
from phi1_jax.grammar.reserve import Gate
from phi1_jax.grammar.scalars import hot, pieces
from phi1_jax.grammar.sources import Setting
from phi1_jax.grammar.wording import NOUN_FRAMES, TEST_FRAMES, named, quoted, worded

_SOURCES = (sources.numbers, sources.numbers, sources.word_list, sources.letters)


def _setting(rng: random.Random) -> tuple[Setting, str, str]:
  """A source, its argument in prose, and a name for an element."""
  setting = pick(rng, _SOURCES)(rng)
  return setting, quoted(rng, setting.noun.argument), variable(rng, setting)


def quantifier(rng: random.Random, gate: Gate) -> Draft | None:
  """ "Check whether all even numbers in values are greater than 5." """
  setting, a, var = _setting(rng)
  which = pick(rng, ("any", "all", "none"))
  tests = [Bound(often_early(rng, FILTERS[setting.kind]), rng) for _ in range(2)]
  composition = (f"search_{setting.id}", tests[0].id, which, tests[1].id)
  if tests[0].id == tests[1].id or not gate.composition(composition):
    return None
  one, many = setting.noun.one, setting.noun.many
  if which == "all":
    verbs = plural(tests[1].say(rng, "verbs"))
    some = f"those {many} of {a} that {plural(tests[0].say(rng, 'verbs'))} all"
    test = f"{some} {verbs}".replace(" all are ", " are all ")
    test += " (which holds if there are none)" if chance(rng, 0.6) else ""
  else:
    verbs = both([singular(test.say(rng, "verbs")) for test in tests])
    if which == "none" and " not " in f" {verbs} ":  # two negations confuse
      return None
    test = f"{'any' if which == 'any' else 'no'} {one} of {a} {verbs}"
    test = test.replace("any", "at least one", 1) if chance(rng, 0.5) else test
  given = setting.given.format(a=a)
  made = worded(rng, gate, TEST_FRAMES, {"test": test, "given": given})
  if made is None:
    return None
  first, second = (part.code(var) for part in tests)
  body = _quantified(rng, which, first, second, var, setting.iterable)

  def name(rng: random.Random) -> str:
    p, q = pieces(rng, *tests)
    return named(
      rng,
      f"{which}_{p}_{many}_{q}",
      f"[has|check|test]_{which}_{p}_{many}_{q}",
      f"{'are_all' if which == 'all' else f'is_{which}'}_{p}_{one}_{q}",
      f"{which}_{many}_{p}_[and|with]_{q}",
    )

  return Draft(
    composition,
    "search",
    *made,
    setting.arguments,
    "bool",
    "whether this is the case",
    body,
    name,
    lambda rng, count: setting.inputs(rng, hot(*tests), count + 2),
  )


def _quantified(
  rng: random.Random, which: str, first: str, second: str, var: str, iterable: str
) -> list[str]:
  """A loop that returns early, or `any` and `all`."""
  wanted = opposite(second) if which == "all" else second
  condition = " and ".join(f"({c})" if " or " in c else c for c in (first, wanted))
  if chance(rng, 0.5):
    found = which == "any"
    return [
      f"for {var} in {iterable}:",
      f"    if {condition}:",
      f"        return {found}",
      f"return {not found}",
    ]
  if which == "all":
    return [f"return all({second} for {var} in {iterable} if {first})"]
  return [
    f"return {'not ' * (which == 'none')}any({condition} for {var} in {iterable})"
  ]


_ENDS = (
  ("first", "the index of the first {one} in {a} that {verb}, or -1 if there is none"),
  ("last", "the index of the last {one} in {a} that {verb}, or -1 if there is none"),
  ("all", "a list of the indices of all {many} in {a} that {verbs}"),
  (
    "count_before",
    "how many {many} of {a} come before the first one that {verb} (all of "
    "them, if there is none)",
  ),
)


def position(rng: random.Random, gate: Gate) -> Draft | None:
  """ "Return the index of the first even number, or -1 if there is none." """
  setting, a, var = _setting(rng)
  which, noun_phrase = pick(rng, _ENDS)
  tests = [Bound(often_early(rng, FILTERS[setting.kind]), rng)]
  if chance(rng, 0.6):
    tests.append(Bound(often_early(rng, FILTERS[setting.kind]), rng))
  parts = [test.id for test in tests]
  composition = (f"position_{setting.id}", *parts, f"index:{which}")
  if len(set(parts)) < len(parts) or not gate.composition(composition):
    return None
  verbs = [test.say(rng, "verbs") for test in tests]
  fields = {
    "np": noun_phrase.format(
      one=setting.noun.one,
      many=setting.noun.many,
      a=a,
      verb=both([singular(v) for v in verbs]),
      verbs=both([plural(v) for v in verbs]),
    ),
    "given": setting.given.format(a=a),
  }
  made = worded(rng, gate, NOUN_FRAMES, fields)
  if made is None:
    return None
  codes = [test.code(var) for test in tests]
  condition = " and ".join(
    f"({c})" if " or " in c and len(codes) > 1 else c for c in codes
  )
  body = _positioned(rng, which, condition, var, setting.noun.argument)

  def name(rng: random.Random) -> str:
    p, one, many = "_".join(pieces(rng, *tests)), setting.noun.one, setting.noun.many
    if which == "all":
      return named(rng, f"[indices|positions]_of_{p}_{many}", f"where_{many}_{p}")
    if which == "count_before":
      return named(rng, f"[count|{many}]_before_[first_|]{p}", f"{many}_until_{p}")
    return named(
      rng,
      f"[find_|get_|]{which}_[index|position]_of_{p}_{one}",
      f"{which}_{p}_{one}_[index|position]",
      f"where_is_{which}_{p}_{one}",
    )

  returns = "list[int]" if which == "all" else "int"
  return Draft(
    composition,
    "position",
    *made,
    setting.arguments,
    returns,
    "the indices" if which == "all" else "the index",
    body,
    name,
    lambda rng, count: setting.inputs(rng, hot(*tests), count),
  )


def _positioned(
  rng: random.Random, which: str, condition: str, var: str, a: str
) -> list[str]:
  loop = f"for index, {var} in enumerate({a}):"
  if which == "all":
    if chance(rng, 0.5):
      return [f"return [i for i, {var} in enumerate({a}) if {condition}]"]
    return [
      "result = []",
      loop,
      f"    if {condition}:",
      "        result.append(index)",
      "return result",
    ]
  if which == "last":
    return [
      "found = -1",
      loop,
      f"    if {condition}:",
      "        found = index",
      "return found",
    ]
  missing = "-1" if which == "first" else f"len({a})"
  if chance(rng, 0.25):
    return [
      "index = 0",
      f"while index < len({a}):",
      f"    {var} = {a}[index]",
      f"    if {condition}:",
      "        return index",
      "    index += 1",
      f"return {missing}",
    ]
  return [loop, f"    if {condition}:", "        return index", f"return {missing}"]


_WHILE = (
  ("take", "from the start of {a} up to, but not including, the first one that {verb}"),
  ("drop", "of {a} from the first one that {verb} to the end"),
)
_MADE = (
  ("list", "a list of the {many}", "list[{t}]", "result"),
  ("sum", "the sum of the {many}", "int", "sum(result)"),
  ("count", "the number of {many}", "int", "len(result)"),
  (
    "largest",
    "the largest (0, if there is none) of the {many}",
    "int",
    "max(result, default=0)",
  ),
  ("reversed", "a list, in reverse order, of the {many}", "list[{t}]", "result[::-1]"),
)


def stretch(rng: random.Random, gate: Gate) -> Draft | None:
  """ "The sum of the numbers from the start up to the first that is not even." """
  setting, a, var = _setting(rng)
  which, where = pick(rng, _WHILE)
  made_of = pick(
    rng, _MADE if setting.kind == "int" else (_MADE[0], _MADE[2], _MADE[4])
  )
  test = Bound(often_early(rng, FILTERS[setting.kind]), rng)
  row = pick(rng, [row for row in MAPS[setting.kind] if row.out == setting.kind])
  change = Bound(row, rng) if chance(rng, 0.5) else None
  parts = [test.id, *([change.id] if change else []), f"{which}_while_{made_of[0]}"]
  composition = (f"stretch_{setting.id}", *parts)
  if not gate.composition(composition):
    return None
  verb = singular(test.say(rng, "verbs"))
  many = setting.noun.many
  np = f"{made_of[1].format(many=many)} " + where.format(a=a, verb=verb)
  if change:
    doing = gerund(change.say(rng, "does", "each of them"))
    some = f"the {many} {where.format(a=a, verb=verb)}"
    np = f"{made_of[1].format(many='results')} of taking {some}, and {doing}"
  fields = {"np": np, "given": setting.given.format(a=a)}
  worded_ = worded(rng, gate, NOUN_FRAMES, fields)
  if worded_ is None:
    return None
  condition = test.code(var)
  value = change.code(var) if change else var
  body = _stretched(which, condition, var, value, setting.noun.argument)
  body.append(f"return {made_of[3]}")
  returns = made_of[2].format(t={"int": "int"}.get(setting.kind, "str"))

  def name(rng: random.Random) -> str:
    p = pieces(rng, test)[0]
    q = f"_{pieces(rng, change)[0]}" if change else ""
    word = {"take": "[until|before|up_to]", "drop": "[from|after_reaching|starting_at]"}
    return named(
      rng,
      f"{made_of[0]}{q}_{many}_{word[which]}_[first_|]{p}",
      f"[get_|]{many}{q}_{word[which]}_{p}_{made_of[0]}",
    )

  parts_used: Sequence[Bound] = [test, *([change] if change else [])]
  return Draft(
    composition,
    "stretch",
    *worded_,
    setting.arguments,
    returns,
    "the result",
    body,
    name,
    lambda rng, count: setting.inputs(rng, hot(*parts_used), count),
  )


def _stretched(which: str, condition: str, var: str, value: str, a: str) -> list[str]:
  if which == "take":
    return [
      "result = []",
      f"for {var} in {a}:",
      f"    if {condition}:",
      "        break",
      f"    result.append({value})",
    ]
  return [
    "result = []",
    "found = False",
    f"for {var} in {a}:",
    f"    if {condition}:",
    "        found = True",
    "    if found:",
    f"        result.append({value})",
  ]
