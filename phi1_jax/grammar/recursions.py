"""Functions that call themselves: on the rest of a list, on nested lists, on n - k."""

import random

from phi1_jax.grammar import inputs, pipelines, plan, sources, words
from phi1_jax.grammar.draft import SELF, Argument, Draft
from phi1_jax.grammar.draws import chance, often_early, pick, whole
from phi1_jax.grammar.english import gerund, singular
from phi1_jax.grammar.parts import Bound, opposite
from phi1_jax.grammar.phrases import Phrases
from phi1_jax.grammar.pipeline_code import bracketed, recursive
from phi1_jax.grammar.plan import FILTERS, MAPS
from phi1_jax.grammar.reserve import Gate
from phi1_jax.grammar.scalars import hot, pieces
from phi1_jax.grammar.wording import Frames, named, quoted, worded

_STEPS = {
  "sum": ("0", "{e} + {r}"),
  "product": ("1", "{e} * {r}"),
  "count": ("0", "1 + {r}"),
  "list": ("[]", "[{e}] + {r}"),
  "reversed_list": ("[]", "{r} + [{e}]"),
  "concatenated": ('""', "{e} + {r}"),
  "total_length": ("0", "len({e}) + {r}"),
}
_CHAINS = ((3, "F"), (2, "M"), (5, "FM"), (1, "FF"))
OVER_LIST: Frames = (
  ("recursive-return", "Return {np}. Use recursion."),
  ("recursive-compute", "Recursively compute {np}."),
  ("recursive-without", "Return {np}, without a loop: the function calls itself."),
  ("recursive-given", "Given {given}, return {np}. Solve it by recursion."),
  (
    "recursive-rest",
    "Handle the first {one} and call the function for the rest, to find {np}.",
  ),
  ("recursive-question", "What is {np}? Answer with a recursive function."),
  ("recursive-bare", "{Cap_np}, computed recursively."),
)


def over_list(rng: random.Random, gate: Gate) -> Draft | None:
  """ "Recursively compute the sum of the squares of the even numbers." """
  source = pick(
    rng, (sources.numbers, sources.numbers, sources.word_list, sources.letters)
  )
  task = plan.draw(rng, False, source, _CHAINS, frozenset(_STEPS))
  if task is None:
    return None
  composition = (f"recursive_{task.setting.id}", *task.composition[1:])
  if not gate.composition(composition):
    return None
  phrases = Phrases(task, rng)
  fields = {"np": phrases.np(), "given": phrases.given(), "one": phrases.one()}
  made = worded(rng, gate, OVER_LIST, fields)
  if made is None:
    return None
  base, step = _STEPS[task.aggregate.id]
  return Draft(
    composition,
    "recursion",
    *made,
    task.setting.arguments,
    task.aggregate.returns(task.kind),
    phrases.short(),
    recursive(rng, task, base, step),
    lambda rng: (
      named(rng, "[recursive|rec]_") + pipelines.name(rng, task)
      if chance(rng, 0.5)
      else pipelines.name(rng, task) + named(rng, "_[recursively|rec]")
    ),
    lambda rng, count: pipelines.inputs(rng, task, count),
  )


NESTED: Frames = (
  (
    "deep-return",
    "Return {np} in {a}, a list whose items are integers or such lists again.",
  ),
  (
    "deep-lists",
    "The list {a} holds integers and lists, which may hold lists in turn. "
    "Look at the integers at any depth, and return {np}.",
  ),
  ("deep-given", "Given {given}, look at all its levels and return {np}."),
  ("deep-recursive", "Recursively walk through {given}, and return {np} in it."),
  ("deep-question", "What is {np}, at whatever depth of the nested list {a}?"),
)
_DEEP = (
  ("sum", "int", "the sum of {them}", "0", "total += {self}(item)", "total += {e}"),
  ("count", "int", "the number of {bare}", "0", "total += {self}(item)", "total += 1"),
  (
    "list",
    "list[int]",
    "a flat list of {them}",
    "[]",
    "total += {self}(item)",
    "total.append({e})",
  ),
  (
    "product",
    "int",
    "the product of {them}",
    "1",
    "total *= {self}(item)",
    "total *= {e}",
  ),
)


def nested(rng: random.Random, gate: Gate) -> Draft | None:
  """ "Return the sum of the even integers at any depth of a nested list." """
  id, returns, phrase, start, inner, update = pick(rng, _DEEP)
  test = Bound(often_early(rng, FILTERS["int"]), rng) if chance(rng, 0.75) else None
  change = (
    Bound(pick(rng, MAPS["int"]), rng) if chance(rng, 0.5) and id != "count" else None
  )
  parts = [part for part in (test, change) if part]
  composition = ("deep", *(part.id for part in parts), f"deep:{id}")
  if not parts or not gate.composition(composition):
    return None
  argument = pick(rng, ("nested", "tree", "nested_list", "data", "items", "structure"))
  a, about = quoted(rng, argument), "a nested list of integers"
  them = bare = "integers"
  if test:
    after = test.say(rng, "after") or f"that are {test.say(rng, 'adjective')}"
    bare = f"integers {after}"
  them = f"the {bare}"
  if change:
    doing = gerund(change.say(rng, "does", f"each of the {bare}"))
    them = f"the results of {doing}"
  fields = {"np": phrase.format(them=them, bare=bare), "a": a, "given": f"{about} {a}"}
  made = worded(rng, gate, NESTED, fields)
  if made is None:
    return None
  value = change.code("item") if change else "item"
  adds = [f"    elif {test.code('item')}:" if test else "    else:"]
  body = [
    f"total = {start}",
    f"for item in {argument}:",
    "    if isinstance(item, list):",
    f"        {inner.format(self=SELF)}",
    *adds,
    f"        {update.format(e=value)}",
    "return total",
  ]

  def name(rng: random.Random) -> str:
    p = "_".join(pieces(rng, *parts))
    return named(
      rng,
      f"[deep|nested|recursive]_{id}_{p}",
      f"{id}_{p}_[at_any_depth|in_nested]",
      f"{id}_of_{p}_[in_tree|all_levels]",
      f"[walk|descend]_{id}_{p}",
    )

  return Draft(
    composition,
    "recursion",
    *made,
    (Argument(argument, "list", about),),
    returns,
    "the result",
    body,
    name,
    lambda rng, count: [[_tree(rng, hot(*parts), 3)] for _ in range(count)],
  )


def _tree(rng: random.Random, known: inputs.Hot, depth: int) -> list[object]:
  items: list[object] = []
  for _ in range(whole(rng, 1, 3)):
    deeper = depth > 1 and chance(rng, 0.4)
    items.append(_tree(rng, known, depth - 1) if deeper else inputs.number(rng, known))
  return items


DOWN: Frames = (
  (
    "down-define",
    "Let f(n) be {start} for n <= 0, and otherwise {rule}. Return f({x}).",
  ),
  (
    "down-recursive",
    "Recursively compute f({x}), where f(n) = {rule} for positive n, and "
    "f(n) = {start} for all other n.",
  ),
  (
    "down-given",
    "Given {given}, return f({x}). Here f(n) is {start} if n is not positive, "
    "else {rule}.",
  ),
  (
    "down-question",
    "What is f({x}), if f(n) = {rule} for n > 0 and f(n) = {start} for n <= 0?",
  ),
)
_DOWN = (
  ("sum", "0", "{e} + {r}", "f(n - {k}) plus {t}"),
  ("product", "1", "{e} * {r}", "f(n - {k}) times ({t})"),
  ("list", "[]", "[{e}] + {r}", "a list of {t} and then the items of f(n - {k})"),
  ("reversed", "[]", "{r} + [{e}]", "a list of the items of f(n - {k}) and then {t}"),
)


def downwards(rng: random.Random, gate: Gate) -> Draft | None:
  """ "Let f(n) be 0 for n <= 0, and otherwise n ** 2 + f(n - 3)." """
  id, start, step, rule = pick(rng, _DOWN)
  k = whole(rng, 1, 4)
  change = Bound(pick(rng, MAPS["int"][:22]), rng)
  test = Bound(often_early(rng, FILTERS["int"]), rng) if chance(rng, 0.5) else None
  parts = [part for part in (test, change) if part]
  composition = ("downwards", *(part.id for part in parts), f"down:{id}")
  if not gate.composition(composition):
    return None
  name_of = pick(rng, words.NUMBERS) if chance(rng, 0.5) else "n"
  x, about = quoted(rng, name_of), "an integer"
  term = change.say(rng, "its", "n")
  rules = rule.format(t=term, k=k)
  if test:
    rules += f" if n {singular(test.say(rng, 'verbs'))}, else just f(n - {k})"
  fields = {"x": x, "start": "an empty list" if start == "[]" else start, "rule": rules}
  made = worded(rng, gate, DOWN, {**fields, "given": f"{about} {x}"})
  if made is None:
    return None
  rest = f"{SELF}({name_of} - {k})"
  value = change.code(name_of)
  value = value if id in ("list", "reversed") else bracketed(value)
  body = [f"if {name_of} <= 0:", f"    return {start}"]
  if test:
    body += [f"if {opposite(test.code(name_of))}:", f"    return {rest}"]
  body.append(f"return {step.format(e=value, r=rest)}")

  def name(rng: random.Random) -> str:
    p = "_".join(pieces(rng, *parts))
    return named(
      rng,
      f"{id}_{p}_down_by_{k}",
      f"[recursive|descending|stepwise]_{id}_{p}",
      f"{id}_of_{p}_in_steps_of_{k}",
      f"{p}_{id}_[downwards|to_zero]",
    )

  high = 12 if id == "product" else 18
  returns = "list[int]" if start == "[]" else "int"
  return Draft(
    composition,
    "recursion",
    *made,
    (Argument(name_of, "int", about),),
    returns,
    "the result",
    body,
    name,
    lambda rng, count: [[whole(rng, -1, high)] for _ in range(count + 4)],
  )
