"""Elements that a pipeline computes first: digits, divisors, sums of rows, gaps, ..."""

import random

from phi1_jax.grammar import inputs, words
from phi1_jax.grammar.draft import Argument
from phi1_jax.grammar.draws import pick, several, whole
from phi1_jax.grammar.sources import Setting, single
from phi1_jax.grammar.words import Noun


def up_to(rng: random.Random) -> Setting:
  """The whole numbers from 1 to n."""
  a = pick(rng, words.COUNTS)
  about = "a non-negative integer"
  noun = Noun(*pick(rng, (("number", "numbers"), ("integer", "integers"))), a)
  return Setting(
    "range",
    "int",
    noun,
    (Argument(a, "int", about),),
    (
      "from 1 to {a}",
      "from 1 up to and including {a}",
      "between 1 and {a} (inclusive)",
    ),
    f"{about} {{a}}",
    "",
    f"range(1, {a} + 1)",
    lambda rng, hot, count: [[whole(rng, 0, 30)] for _ in range(count - 1)] + [[0]],
    natural=True,
  )


def digits(rng: random.Random) -> Setting:
  """The digits of a number."""
  a = pick(rng, words.NUMBERS)
  about = "a positive integer"
  return Setting(
    "digits",
    "int",
    Noun("digit", "digits", a),
    (Argument(a, "int", about),),
    ("of {a}", "of the number {a}", "in the decimal notation of {a}"),
    f"{about} {{a}}",
    "",
    f"str({a})",
    lambda rng, hot, count: [
      [whole(rng, 1, 10 ** whole(rng, 1, 7))] for _ in range(count)
    ],
    target="char",
    element="int(char)",
    local=("digit", "digits"),
    natural=True,
  )


def divisors(rng: random.Random) -> Setting:
  """The divisors of a number."""
  a = pick(rng, words.NUMBERS)
  about = "a positive integer"
  return Setting(
    "divisors",
    "int",
    Noun("divisor", "divisors", a),
    (Argument(a, "int", about),),
    ("of {a}", "of the number {a}"),
    f"{about} {{a}}",
    "",
    f"[d for d in range(1, {a} + 1) if {a} % d == 0]",
    lambda rng, hot, count: [[whole(rng, 1, 90)] for _ in range(count)],
    natural=True,
    group="divisors",
  )


def row_sums(rng: random.Random) -> Setting:
  """The sums of the rows of nested lists."""
  a = pick(rng, words.GRIDS)
  about = "a list of lists of integers"
  return Setting(
    "row_sums",
    "int",
    Noun("row sum", "row sums", a),
    (Argument(a, "list[list[int]]", about),),
    ("of {a}", "in {a}"),
    f"{about} {{a}}",
    "",
    a,
    single(lambda rng, hot, size: inputs.matrix(rng, hot, min(size, 4))),
    target="row",
    element="sum(row)",
    local=("row_sum", "row_sums"),
    group="nested",
  )


def gaps(rng: random.Random) -> Setting:
  """The differences between neighbours in a list."""
  noun = words.number_list(rng)
  a = noun.argument
  about = "a list of integers"
  many = pick(rng, ("elements", "numbers", "values"))
  where = "between each element and the next one in {a} (next minus current)"
  return Setting(
    "gaps",
    "int",
    Noun("difference", "differences", a),
    (Argument(a, "list[int]", about),),
    (where, f"(later minus earlier) between neighbouring {many} of {{a}}"),
    f"{about} {{a}}",
    "list",
    f"zip({a}, {a}[1:])",
    single(inputs.numbers),
    target="left, right",
    element="right - left",
    local=("difference", "differences"),
    group="neighbours",
  )


_PAIRINGS = (
  ("pair_products", "product", "left * right"),
  ("pair_sums", "sum", "left + right"),
  ("pair_differences", "absolute difference", "abs(left - right)"),
  ("pair_maxima", "maximum", "max(left, right)"),
)


def pairs(rng: random.Random) -> Setting:
  """What two lists give at equal positions."""
  id, one, element = pick(rng, _PAIRINGS)
  many = {"maximum": "maxima"}.get(one, f"{one}s")
  a, b = pick(rng, words.FIRST_LISTS), pick(rng, words.SECOND_LISTS)
  local = one.split()[-1]
  local = {"product": "pair_product", "sum": "pair_sum"}.get(local, local)
  about = "a list of integers"

  def make(rng: random.Random, hot: inputs.Hot, count: int) -> list[list[list[int]]]:
    return [
      [inputs.numbers(rng, hot, size), inputs.numbers(rng, hot, size)]
      for size in inputs.sizes(rng, count, 5)
    ]

  return Setting(
    id,
    "int",
    Noun(one, many, a),
    (
      Argument(a, "list[int]", about),
      Argument(b, "list[int]", "a list of integers of the same length"),
    ),
    (
      "of the elements of {a} and {b} at equal positions",
      "of the numbers at the same index in {a} and {b}",
    ),
    "two lists of integers of the same length, {a} and {b}",
    "",
    f"zip({a}, {b})",
    make,
    target="left, right",
    element=element,
    local=(local, f"{local}_list"),
    group="pairs",
  )


def positions(rng: random.Random) -> Setting:
  """The numbers at every second position of a list."""
  noun = words.number_list(rng)
  a, start = noun.argument, whole(rng, 0, 1)
  about = "a list of integers"
  which = ("even indices (0, 2, 4, ...)", "odd indices (1, 3, 5, ...)")[start]
  return Setting(
    ("even_positions", "odd_positions")[start],
    "int",
    noun,
    (Argument(a, "list[int]", about),),
    (f"at {which} of {{a}}", f"of {{a}} at {which}"),
    f"{about} {{a}}",
    "list",
    f"{a}[{start or ''}::2]",
    single(inputs.numbers),
    group="positions",
  )


_PIECES = (
  ("sum", "sum", "sums"),
  ("max", "maximum", "maxima"),
  ("min", "minimum", "minima"),
)


def windows(rng: random.Random) -> Setting:
  """What neighbouring numbers of a list give together."""
  noun, size = words.number_list(rng), whole(rng, 2, 4)
  code, one, many = pick(rng, _PIECES)
  a, about = noun.argument, "a list of integers"
  return Setting(
    f"window_{many}",
    "int",
    Noun(one, many, a),
    (Argument(a, "list[int]", about),),
    (
      f"of every {size} consecutive {noun.many} in {{a}}",
      f"of all runs of {size} neighbouring {noun.many} in {{a}}",
    ),
    f"{about} {{a}}",
    "list",
    f"range(len({a}) - {size - 1})",
    single(lambda rng, hot, n: inputs.numbers(rng, hot, n + size - 1 if n else 0)),
    target="i",
    element=f"{code}({a}[i:i + {size}])",
    local=(f"window_{code}", many),
    group="neighbours",
  )


def weighted_positions(rng: random.Random) -> Setting:
  """The numbers of a list times their positions."""
  noun, start = words.number_list(rng), whole(rng, 0, 1)
  a, about = noun.argument, "a list of integers"
  count = f"enumerate({a}, 1)" if start else f"enumerate({a})"
  return Setting(
    f"times_position_{start}",
    "int",
    Noun("product", "products", a),
    (Argument(a, "list[int]", about),),
    (f"of each {noun.one} in {{a}} and its position, counted from {start}",),
    f"{about} {{a}}",
    "list",
    count,
    single(inputs.numbers),
    target="position, current",
    element="position * current",
    local=("product_here", "products_here"),
    group="positions",
  )


def word_lengths(rng: random.Random) -> Setting:
  """The lengths of the words of a text."""
  a, about = pick(rng, words.TEXTS), "a string of words separated by spaces"
  return Setting(
    "word_lengths",
    "int",
    Noun("length", "lengths", a),
    (Argument(a, "str", about),),
    ("of the words in {a}", "of the words of {a}"),
    f"{about} {{a}}",
    "text",
    f"{a}.split()",
    single(inputs.plain_text),
    target="word",
    element="len(word)",
    local=("length", "lengths"),
    natural=True,
    group="text_words",
  )


_RECORDS = (
  ("name", "score"),
  ("item", "price"),
  ("city", "distance"),
  ("player", "points"),
  ("product", "stock"),
  ("day", "temperature"),
  ("team", "goals"),
  ("street", "number"),
)


def records(rng: random.Random) -> Setting:
  """The second entries of a list of pairs."""
  one, two = pick(rng, _RECORDS)
  a = pick(rng, ("records", "pairs", "rows", f"{one}_{two}_pairs", "entries", "table"))
  about = f"a list of pairs ({one}, {two}), the {two} being an integer"
  return Setting(
    "pair_seconds",
    "int",
    Noun("second entry", "second entries", a),
    (Argument(a, "list[tuple[str, int]]", about),),
    ("of the pairs in {a}", "of all pairs in {a}"),
    f"{about}, {{a}}",
    "",
    a,
    single(lambda rng, hot, n: list(inputs.table(rng, hot, min(n, 4)).items())),
    target="_, second",
    element="second",
    local=("amount", "amounts"),
    group="records",
  )


_SET_OPERATIONS = (
  (
    "intersection",
    "&",
    "that {a} and {b} have in common",
    "that are in both {a} and {b}",
  ),
  ("union", "|", "that are in {a} or in {b}", "of the union of {a} and {b}"),
  ("set_difference", "-", "of {a} that {b} lacks", "that are in {a} but not in {b}"),
  (
    "symmetric",
    "^",
    "that are in exactly one of {a} and {b}",
    "that only one of the sets {a} and {b} holds",
  ),
)


def set_operations(rng: random.Random) -> Setting:
  """The numbers in both, one or either of two sets."""
  id, sign, *where = pick(rng, _SET_OPERATIONS)
  a, b = pick(rng, words.SET_PAIRS)
  noun = Noun(*pick(rng, words.GENERIC_NUMBERS), a)

  def make(rng: random.Random, hot: inputs.Hot, count: int) -> list[list[set[int]]]:
    made = []
    for size in inputs.sizes(rng, count):
      shared = inputs.numbers(rng, hot, size)
      left = {*shared, *inputs.numbers(rng, hot, whole(rng, 0, 2))}
      extra = inputs.numbers(rng, hot, whole(rng, 1, 3))
      made.append([left, {*several(rng, shared, max(1, size // 2)), *extra}])
    return made

  arguments = (
    Argument(a, "set[int]", "a set of integers"),
    Argument(b, "set[int]", "another set of integers"),
  )
  return Setting(
    id,
    "int",
    noun,
    arguments,
    tuple(where),
    "two sets of integers, {a} and {b}",
    "",
    f"{a} {sign} {b}",
    make,
    ordered=False,
    group="set",
  )
