"""Special: a task that is not put together from parts, and how a row is drafted."""

import dataclasses
import random
from collections.abc import Callable
from typing import Any

from phi1_jax.grammar import inputs, words
from phi1_jax.grammar.draft import SELF, Argument, Draft
from phi1_jax.grammar.draws import chance, pick, several, whole
from phi1_jax.grammar.exercise import literal
from phi1_jax.grammar.parts import constants, named, split, spoken
from phi1_jax.grammar.reserve import Gate
from phi1_jax.grammar.wording import NOUN_FRAMES, TEST_FRAMES, quoted, worded
from phi1_jax.grammar.wording import named as from_pattern


@dataclasses.dataclass(frozen=True)
class Special:
  """A row: `{a}` and `{b}` are the arguments, other letters constants.

  Attributes:
    family: the kind of task.
    id: its name in compositions.
    arguments: keys of KINDS, separated by blanks.
    returns: the type of the answer.
    phrases: "the number of vowels in {a}"; alternatives are separated by "|". Where
      the answer is a bool, what is true: "{a} reads the same backwards".
    names: patterns of function names, separated by "|"; "[x/y]" is x or y.
    bodies: solutions, each a string of lines.
    draw: constants, as for parts.
  """

  family: str
  id: str
  arguments: str
  returns: str
  phrases: str
  names: str
  bodies: tuple[str, ...]
  draw: str = ""


Make = Callable[[random.Random, inputs.Hot, int], Any]


@dataclasses.dataclass(frozen=True)
class _Kind:
  """A kind of argument: names, type, what it is, and a maker of values."""

  names: tuple[str, ...]
  type: str
  about: str
  make: Make


_LISTS = (*words.NUMBER_LISTS, *(many for _, many in words.NUMBER_NOUNS))
_WORD_LISTS = (*words.WORD_LISTS, *(many for _, many in words.WORD_NOUNS))
KINDS = {
  "numbers": _Kind(_LISTS, "list[int]", "a list of integers", inputs.numbers),
  "some_numbers": _Kind(
    _LISTS,
    "list[int]",
    "a non-empty list of integers",
    lambda rng, hot, n: inputs.numbers(rng, hot, max(n, 2)),
  ),
  "words": _Kind(_WORD_LISTS, "list[str]", "a list of strings", inputs.word_list),
  "text": _Kind(
    words.TEXTS,
    "str",
    "a string",
    lambda rng, hot, n: inputs.text(rng, hot, min(n, 3)),
  ),
  "plain": _Kind(
    words.TEXTS,
    "str",
    "a string of words separated by single spaces",
    lambda rng, hot, n: inputs.plain_text(rng, hot, min(n, 4)),
  ),
  "word": _Kind(
    ("word", "term", "token", "label", "name", "title", "code", "key_word"),
    "str",
    "a non-empty string",
    lambda rng, hot, n: inputs.word(rng, hot),
  ),
  "natural": _Kind(
    (*words.NUMBERS, "n", "n", "number"),
    "int",
    "a non-negative integer",
    lambda rng, hot, n: whole(rng, 0, 12) if chance(rng, 0.3) else whole(rng, 0, 999),
  ),
  "small": _Kind(
    ("n", "count", "steps_left", "terms", "order", "rounds", "number"),
    "int",
    "a non-negative integer",
    lambda rng, hot, n: whole(rng, 0, 11),
  ),
  "positive": _Kind(
    (*words.NUMBERS, "n", "number"),
    "int",
    "a positive integer",
    lambda rng, hot, n: whole(rng, 1, 60),
  ),
  "rectangle": _Kind(
    words.GRIDS,
    "list[list[int]]",
    "a list of equally long, non-empty lists of integers",
    lambda rng, hot, n: inputs.rectangle(rng, hot, whole(rng, 1, 3), whole(rng, 1, 3)),
  ),
  "square": _Kind(
    words.GRIDS,
    "list[list[int]]",
    "a square matrix, as a list of rows of integers",
    lambda rng, hot, n: inputs.rectangle(rng, hot, *[whole(rng, 1, 3)] * 2),
  ),
  "table": _Kind(
    words.TABLES,
    "dict[str, int]",
    "a dictionary from strings to integers",
    lambda rng, hot, n: inputs.table(rng, hot, min(n, 4)),
  ),
}


def _related(rng: random.Random, first: str, other: str) -> str:
  """A word that often has to do with the first one: its letters, or its start."""
  letters = "".join(several(rng, first, len(first)))
  start = first[: whole(rng, 1, len(first))] + other[:2]
  return pick(rng, (letters, letters.lower(), start, other, other))


def draft(rng: random.Random, gate: Gate, row: Special) -> Draft | None:
  """Words a row; None where no wording of the tier is fit."""
  composition = (row.family, row.id)
  if not gate.composition(composition):
    return None
  kinds = [KINDS[key] for key in row.arguments.split()]
  names: list[str] = []
  for kind in kinds:
    names.append(pick(rng, [name for name in kind.names if name not in names]))
  drawn = constants(rng, row.draw)
  quotes = [quoted(rng, name) for name in names]
  said = {
    **{key: spoken(value) for key, value in drawn.items()},
    **dict(zip("ab", quotes, strict=False)),
  }
  phrase = pick(rng, split(row.phrases)).format(**said)
  given = " and ".join(
    f"{kind.about} {quote}" for kind, quote in zip(kinds, quotes, strict=True)
  )
  frames = TEST_FRAMES if row.returns == "bool" else NOUN_FRAMES
  fields = {"np": phrase, "test": phrase, "given": given}
  made = worded(rng, gate, frames, fields)
  if made is None:
    return None
  code = {
    **{key: literal(value) for key, value in drawn.items()},
    **dict(zip("ab", names, strict=False)),
    "self": SELF,
  }
  body = pick(rng, row.bodies).format(**code).split("\n")
  pieces = {key: named(value) for key, value in drawn.items()} | {"a": names[0]}

  def name(rng: random.Random) -> str:
    pattern = pick(rng, split(row.names)).format(**pieces).replace("/", "|")
    return from_pattern(rng, pattern)

  def tried(rng: random.Random, count: int) -> list[list[Any]]:
    hot = list(drawn.values())
    sizes = inputs.sizes(rng, count + 2)
    made = [[kind.make(rng, hot, size) for kind in kinds] for size in sizes]
    if row.arguments == "word word":
      return [[first, _related(rng, first, second)] for first, second in made]
    return made

  arguments = [
    Argument(n, kind.type, kind.about) for n, kind in zip(names, kinds, strict=True)
  ]
  answer = "whether this is the case" if row.returns == "bool" else "the result"
  return Draft(
    composition, row.family, *made, arguments, row.returns, answer, body, name, tried
  )
