"""Doing something again and again: until a limit is passed, or a number of times."""

import random

from phi1_jax.grammar import words
from phi1_jax.grammar.draft import Argument, Draft
from phi1_jax.grammar.draws import chance, often_early, pick, whole
from phi1_jax.grammar.english import singular
from phi1_jax.grammar.parts import Bound
from phi1_jax.grammar.plan import FILTERS, MAPS
from phi1_jax.grammar.reserve import Gate
from phi1_jax.grammar.scalars import pieces
from phi1_jax.grammar.wording import Frames, named, quoted, worded

# What surely ends, and what surely grows, when it is done to a positive number.
_SHRINKING = ("half", "minus", "quotient", "decrement")
_GROWING = ("double", "triple", "plus", "times", "increment", "affine")
_RESULTS = (
  ("steps", "int", "how many times that is done", "steps"),
  ("last", "int", "the value that is reached", "{x}"),
  (
    "values",
    "list[int]",
    "a list of all values on the way, the first one and the last one included",
    "values",
  ),
  (
    "sum",
    "int",
    "the sum of all values on the way, the first one and the last one included",
    "sum(values)",
  ),
)
UNTIL: Frames = (
  ("until-while", "As long as {x} is {while_}, {do}. Return {result}."),
  (
    "until-repeat",
    "Start with {x}. While the value is {while_}, {do_value}. Return {result}.",
  ),
  (
    "until-again",
    "Again and again, {do_x}, until it is {until}. Return {result}. If {x} is "
    "{until} from the start, nothing is done.",
  ),
  ("until-given", "Given {given}, {do} while it is {while_}, and return {result}."),
  (
    "until-question",
    "{Cap_do_x} for as long as it is {while_}. What is {result_what}?",
  ),
  ("until-story", "{holder} has {given}. While it is {while_}, {do}. Report {result}."),
)


def until(rng: random.Random, gate: Gate) -> Draft | None:
  """ "As long as n is greater than 3, halve it. Return how often that is done." """
  grows = chance(rng, 0.5)
  rows = [r for r in MAPS["int"] if r.id in (_GROWING if grows else _SHRINKING)]
  change = Bound(pick(rng, rows), rng)
  result, returns, phrase, answer = pick(rng, _RESULTS)
  composition = (
    "until",
    change.id,
    f"until:{'up' if grows else 'down'}",
    f"give:{result}",
  )
  if not gate.composition(composition):
    return None
  limit = whole(rng, 30, 300) if grows else whole(rng, 1, 15)
  name_of = pick(rng, words.NUMBERS) if chance(rng, 0.7) else pick(rng, ("n", "number"))
  x, about = quoted(rng, name_of), "a positive integer"
  fields = {
    "x": x,
    "given": f"{about} {x}",
    "while_": f"less than {limit}" if grows else f"greater than {limit}",
    "until": f"at least {limit}" if grows else f"at most {limit}",
    "do": change.say(rng, "does", "it"),
    "do_value": change.say(rng, "does", "it"),
    "do_x": change.say(rng, "does", x),
    "result": phrase,
    "result_what": "the number of times" if result == "steps" else phrase,
  }
  made = worded(rng, gate, UNTIL, fields)
  if made is None:
    return None
  sign = "<" if grows else ">"
  body = _until_body(name_of, f"{sign} {limit}", change.code(name_of), result, answer)

  def name(rng: random.Random) -> str:
    p = pieces(rng, change)[0]
    far = f"{'above' if grows else 'below'}_{limit}"
    return named(
      rng,
      f"{result}_until_{p}_{far}",
      f"[repeat|keep]_{p}_until_{far}_{result}",
      f"{result}_of_{p}_[{name_of}|value]_{far}",
      f"{p}_{result}_to_{limit}",
      f"{p}_while_[{'small' if grows else 'large'}]_{result}_{limit}",
    )

  high = limit + 20 if grows else limit * 6 + 20
  return Draft(
    composition,
    "while",
    *made,
    (Argument(name_of, "int", about),),
    returns,
    "the number of times" if result == "steps" else "the result",
    body,
    name,
    lambda rng, count: [[whole(rng, 1, high)] for _ in range(count + 3)],
  )


def _until_body(x: str, fails: str, code: str, result: str, answer: str) -> list[str]:
  """A loop while `x` is what `fails` says, with notes of what the answer needs."""
  start = {"steps": ["steps = 0"], "last": []}.get(result, [f"values = [{x}]"])
  note = {"steps": ["    steps += 1"], "last": []}.get(
    result, [f"    values.append({x})"]
  )
  return [
    *start,
    f"while {x} {fails}:",
    f"    {x} = {code}",
    *note,
    f"return {answer.format(x=x)}",
  ]


TIMES: Frames = (
  (
    "times-repeat",
    "Repeat {count} times: if {x} {is_}, {do}, otherwise {other}. Return {result}.",
  ),
  (
    "times-start",
    "Start with {x}. In each of {count} rounds, {do} if it {is_}; if not, "
    "{other}. Return {result}.",
  ),
  (
    "times-given",
    "Given {given}, do the following {count} times: {do} if {x} {is_}, else "
    "{other}. The answer is {result}.",
  ),
  (
    "times-question",
    "{count} times in a row, a number that {is_} is replaced by {its}, any "
    "other by {other_its}. Starting with {x}, what is {result}?",
  ),
  (
    "times-story",
    "{holder} plays {count} rounds with {given}. In a round, {do} if it {is_}, "
    "otherwise {other}. Return {result}.",
  ),
)


# Changes that may be repeated without giving giants.
_GENTLE = tuple(
  row for row in MAPS["int"] if row.id not in ("square", "cube", "power", "pronic")
)


def times(rng: random.Random, gate: Gate) -> Draft | None:
  """ "Repeat 4 times: if n is even, halve it, otherwise add 3 to it." """
  test = Bound(often_early(rng, FILTERS["int"][:12]), rng)
  change, other = Bound(pick(rng, _GENTLE), rng), Bound(pick(rng, _GENTLE), rng)
  rounds = whole(rng, 2, 6)
  as_argument = chance(rng, 0.5)
  result, returns, phrase, answer = pick(rng, _RESULTS[1:])
  composition = ("times", test.id, change.id, other.id)
  if change.id == other.id or not gate.composition(composition):
    return None
  name_of = pick(rng, words.NUMBERS) if chance(rng, 0.7) else pick(rng, ("n", "number"))
  counter = pick(rng, ("rounds", "times", "repeats", "turns"))
  x, about = quoted(rng, name_of), "an integer"
  fields = {
    "x": x,
    "count": f"`{counter}`" if as_argument else str(rounds),
    "is_": singular(test.say(rng, "verbs")),
    "result": phrase,
    "do": change.say(rng, "does", "it"),
    "other": other.say(rng, "does", "it"),
    "its": change.say(rng, "its", "that number"),
    "other_its": other.say(rng, "its", "that number"),
    "given": f"{about} {x}",
  }
  made = worded(rng, gate, TIMES, fields)
  if made is None:
    return None
  body = _rounds_body(
    name_of,
    counter if as_argument else str(rounds),
    (test.code(name_of), change.code(name_of), other.code(name_of)),
    result != "last",
    answer,
  )

  def name(rng: random.Random) -> str:
    p, q, r = pieces(rng, test, change, other)
    many = counter if as_argument else f"{rounds}_times"
    return named(
      rng,
      f"{result}_after_{q}_or_{r}_{many}",
      f"[repeat|iterate]_{q}_if_{p}_{many}",
      f"{q}_if_{p}_else_{r}_{result}",
      f"play_{p}_{q}_{r}_{many}",
    )

  second = Argument(counter, "int", "a non-negative integer")
  arguments = [Argument(name_of, "int", about), *([second] if as_argument else [])]

  return Draft(
    composition,
    "rounds",
    *made,
    arguments,
    returns,
    "the result",
    body,
    name,
    lambda rng, count: _rounds_inputs(rng, count, as_argument),
  )


def _rounds_inputs(
  rng: random.Random, count: int, as_argument: bool
) -> list[list[int]]:
  """A number, and how many rounds where that is an argument."""
  more = [[whole(rng, 0, 5)] if as_argument else [] for _ in range(count + 2)]
  return [[whole(rng, -5, 40), *rest] for rest in more]


def _rounds_body(
  x: str, count: str, step: tuple[str, str, str], keeps: bool, answer: str
) -> list[str]:
  """A counted loop; `step` is a condition and what `x` becomes if it holds, or not."""
  condition, yes, no = step
  return [
    *([f"values = [{x}]"] if keeps else []),
    f"for _ in range({count}):",
    f"    if {condition}:",
    f"        {x} = {yes}",
    "    else:",
    f"        {x} = {no}",
    *([f"    values.append({x})"] if keeps else []),
    f"return {answer.format(x=x)}",
  ]
