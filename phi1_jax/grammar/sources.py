"""Where a pipeline's elements come from: a list, a text, a dictionary, ..."""

import dataclasses
import random
from collections.abc import Callable, Sequence
from typing import Any

from phi1_jax.grammar import inputs, words
from phi1_jax.grammar.draft import Argument
from phi1_jax.grammar.draws import pick
from phi1_jax.grammar.words import Noun

Inputs = Callable[[random.Random, inputs.Hot, int], Sequence[Sequence[Any]]]


@dataclasses.dataclass(frozen=True)
class Setting:
  """A source with its argument names.

  Attributes:
    id: its name in compositions.
    kind: what the elements are: int, word or char.
    noun: what they are called.
    arguments: of the function.
    where: places after the noun, "in {a}"; `{a}`, `{b}` are the arguments.
    given: the arguments in prose.
    holder: what `{a}` may be called without its name, as in "the list".
    iterable: code that gives the elements.
    target: loop variables, where an element is computed from several.
    element: that computation; empty where the loop variable is the element.
    local: names for one computed element and a list of them.
    inputs: proposes arguments.
    ordered: whether the elements have an order.
    indexed: whether `iterable` can be indexed.
    natural: whether the numbers are never negative.
    group: the family, where several sources make one.
  """

  id: str
  kind: str
  noun: Noun
  arguments: tuple[Argument, ...]
  where: tuple[str, ...]
  given: str
  holder: str
  iterable: str
  inputs: Inputs
  target: str = ""
  element: str = ""
  local: tuple[str, str] = ("", "")
  ordered: bool = True
  indexed: bool = False
  natural: bool = False
  group: str = ""

  @property
  def family(self) -> str:
    """The family of exercises about it."""
    return self.group or self.id


def single(make: Callable[[random.Random, inputs.Hot, int], Any]) -> Inputs:
  """Inputs of one argument, made for several sizes."""
  return lambda rng, hot, count: [
    [make(rng, hot, size)] for size in inputs.sizes(rng, count)
  ]


def numbers(rng: random.Random) -> Setting:
  """The numbers of a list."""
  noun = words.number_list(rng)
  a = noun.argument
  about = "a list of integers"
  return Setting(
    "list",
    "int",
    noun,
    (Argument(a, "list[int]", about),),
    ("in {a}", "in {a}", "of {a}", "from {a}", "found in {a}"),
    f"{about} {{a}}",
    "list",
    a,
    single(inputs.numbers),
    indexed=True,
  )


def word_list(rng: random.Random) -> Setting:
  """The words of a list."""
  noun = words.word_list(rng)
  a = noun.argument
  about = "a list of non-empty strings"
  return Setting(
    "words",
    "word",
    noun,
    (Argument(a, "list[str]", about),),
    ("in {a}", "in {a}", "of {a}", "from {a}"),
    f"{about} {{a}}",
    "list",
    a,
    single(inputs.word_list),
    indexed=True,
  )


def letters(rng: random.Random) -> Setting:
  """The characters of a string."""
  a = pick(rng, words.TEXTS)
  noun = Noun("character", "characters", a)
  return Setting(
    "characters",
    "char",
    noun,
    (Argument(a, "str", "a string"),),
    ("in {a}", "of {a}", "of {a}", "from {a}"),
    "a string {a}",
    "string",
    a,
    single(lambda rng, hot, size: inputs.text(rng, hot, min(size, 3))),
    indexed=True,
  )


def text_words(rng: random.Random) -> Setting:
  """The words of a text."""
  a = pick(rng, words.TEXTS)
  about = "a string of words separated by spaces"
  return Setting(
    "text_words",
    "word",
    Noun("word", "words", a),
    (Argument(a, "str", about),),
    ("in {a}", "of {a}", "of {a}"),
    f"{about} {{a}}",
    "text",
    f"{a}.split()",
    single(inputs.plain_text),
  )


def table_values(rng: random.Random) -> Setting:
  """The values of a dictionary."""
  a = pick(rng, words.TABLES)
  about = "a dictionary from strings to integers"
  return Setting(
    "dict_values",
    "int",
    Noun("value", "values", a),
    (Argument(a, "dict[str, int]", about),),
    ("of {a}", "in {a}", "stored in {a}"),
    f"{about} {{a}}",
    "dictionary",
    f"{a}.values()",
    single(inputs.table),
    group="dict",
  )


def table_keys(rng: random.Random) -> Setting:
  """The keys of a dictionary."""
  a = pick(rng, words.TABLES)
  about = "a dictionary from strings to integers"
  return Setting(
    "dict_keys",
    "word",
    Noun("key", "keys", a),
    (Argument(a, "dict[str, int]", about),),
    ("of {a}", "in {a}"),
    f"{about} {{a}}",
    "dictionary",
    a,
    single(inputs.table),
    group="dict",
  )


def number_set(rng: random.Random) -> Setting:
  """The numbers of a set."""
  a = pick(rng, words.SETS)
  about = "a set of integers"
  noun = Noun(*pick(rng, words.GENERIC_NUMBERS), a)
  return Setting(
    "set",
    "int",
    noun,
    (Argument(a, "set[int]", about),),
    ("in {a}", "of {a}", "from {a}"),
    f"{about} {{a}}",
    "set",
    a,
    single(lambda rng, hot, size: set(inputs.numbers(rng, hot, size))),
    ordered=False,
  )


def number_tuple(rng: random.Random) -> Setting:
  """The numbers of a tuple."""
  a = pick(rng, words.TUPLES)
  about = "a tuple of integers"
  noun = Noun(*pick(rng, words.GENERIC_NUMBERS), a)
  return Setting(
    "tuple",
    "int",
    noun,
    (Argument(a, "tuple[int, ...]", about),),
    ("in {a}", "of {a}", "from {a}"),
    f"{about} {{a}}",
    "tuple",
    a,
    single(lambda rng, hot, size: tuple(inputs.numbers(rng, hot, size))),
    indexed=True,
  )


def nested(rng: random.Random) -> Setting:
  """The numbers of nested lists."""
  a = pick(rng, words.GRIDS)
  about = "a list of lists of integers"
  return Setting(
    "nested",
    "int",
    Noun("number", "numbers", a),
    (Argument(a, "list[list[int]]", about),),
    ("in all rows of {a}", "in the inner lists of {a}", "anywhere in {a}"),
    f"{about} {{a}}",
    "",
    f"[v for row in {a} for v in row]",
    single(lambda rng, hot, size: inputs.matrix(rng, hot, min(size, 3))),
  )
