"""What is made of the elements in the end: how a row of the tables works."""

import dataclasses
import random

from phi1_jax.grammar.draws import pick
from phi1_jax.grammar.exercise import literal
from phi1_jax.grammar.parts import constants, named, split, spoken

ANY = ("int", "word", "char")
TEXT = ("word", "char")
TYPES = {"int": "int", "word": "str", "char": "str"}


@dataclasses.dataclass(frozen=True)
class Aggregate:
  """A row of a table; alternatives are separated by "|".

  Attributes:
    id: its name in compositions.
    kinds: what it can be made of.
    returns: its type; `{t}` is the elements' type.
    nouns: "the sum of {x}"; `{x}` is "the even numbers", `{n}` is "even numbers".
    does: "add up {x}".
    their: "their sum", where the elements were spoken of before.
    short: what is returned, in two or three words.
    empty: the answer where there is nothing, as said in prose.
    name: heads of function names; a mark as in "sum_of" leaves the rest to follow.
    comprehension: code over a generator `{g}`.
    whole: code over a list `{it}`.
    start: statements before a loop; several are separated by newlines.
    update: statements for the element `{e}`.
    result: the expression after the loop.
    states: how often the docstring says what the empty answer is.
    draw: its constants.
    ordered: whether the order of the elements shows in the answer, or in how it is
      written down.
    reads_twice: whether `update` reads the element more than once.
    imports: a module that `comprehension` and `whole` need.
  """

  id: str
  kinds: tuple[str, ...]
  returns: str
  nouns: str
  does: str
  their: str
  short: str
  empty: str
  name: str
  comprehension: str
  whole: str
  start: str
  update: str
  result: str
  states: float = 0.25
  draw: str = ""
  ordered: bool = False
  reads_twice: bool = False
  imports: str = ""


class BoundAggregate:
  """An aggregate with its constants."""

  def __init__(self, row: Aggregate, rng: random.Random):
    self.row, self.constants = row, constants(rng, row.draw)
    self._code = {key: literal(value) for key, value in self.constants.items()}
    self._texts = {key: spoken(value) for key, value in self.constants.items()}

  @property
  def id(self) -> str:
    """Its name in a composition."""
    return self.row.id

  def code(self, field: str, **values: str) -> str:
    """One of the code templates, filled in."""
    return getattr(self.row, field).format(**self._code, **values)

  def say(self, rng: random.Random, field: str, definite: str = "", bare: str = ""):
    """One of the phrases, filled in."""
    options = split(getattr(self.row, field))
    return pick(rng, options).format(x=definite, n=bare, **self._texts)

  def returns(self, kind: str) -> str:
    """The type of the answer where the elements are of a kind."""
    if self.constants.get("d", "") is None:
      return f"{self.row.returns} | None".format(t=TYPES[kind])
    return self.row.returns.format(t=TYPES[kind])

  def name_piece(self, rng: random.Random) -> str:
    """A head of a function's name."""
    names = {key: named(value) for key, value in self.constants.items()}
    return pick(rng, split(self.row.name)).format(**names)
