"""The menu: which family an exercise is of, and the exercises one after the other."""

import functools
import random
from collections.abc import Callable, Iterator

from phi1_jax import InputError
from phi1_jax.grammar import (
  VERSION,
  cases,
  concepts,
  given_helpers,
  orders,
  pipelines,
  recursions,
  repeats,
  reserve,
  scalars,
  searches,
  sections,
  specials,
  tables,
)
from phi1_jax.grammar.draft import Draft
from phi1_jax.grammar.draws import generator, weighted
from phi1_jax.grammar.exercise import Exercise
from phi1_jax.grammar.finish import finish
from phi1_jax.grammar.reserve import TIERS, Gate
from phi1_jax.grammar.section import Section

Family = Callable[[random.Random, Gate], Draft | None]
MENU: tuple[tuple[float, Family], ...] = (
  (50, pipelines.draft),
  (7, scalars.conditional),
  (6, scalars.chain),
  (4, scalars.check),
  (3, cases.label),
  (3, cases.two_numbers),
  (3, searches.quantifier),
  (3, searches.position),
  (2.5, searches.stretch),
  (3, orders.sort),
  (3, orders.group),
  (2, tables.entries),
  (2, tables.keys),
  (1.5, tables.merge),
  (3.5, given_helpers.helper),
  (6, specials.draft),
  (2.5, repeats.until),
  (2, repeats.times),
  (3.5, recursions.over_list),
  (2, recursions.nested),
  (2, recursions.downwards),
)
# What a first model learns in minutes: short tasks about one or two values, in as many
# words as they need and no more.
FIRST_MENU: tuple[tuple[float, Family], ...] = (
  (7, scalars.conditional),
  (6, scalars.chain),
  (4, scalars.check),
)
# The same about numbers alone, with few parts: what minutes on one core are enough for.
_NUMBERS = scalars.Scope("int", most=8, varied=False)
NUMBERS_MENU: tuple[tuple[float, Family], ...] = tuple(
  (weight, functools.partial(family, scope=_NUMBERS))
  for weight, family in (
    (7, scalars.conditional),
    (6, scalars.chain),
    (4, scalars.check),
  )
)
MENUS = {"all": MENU, "first": FIRST_MENU, "numbers": NUMBERS_MENU}
_TRIES = 20_000
_GATES = {tier: Gate(tier) for tier in TIERS}


def exercise(seed: int, index: int, tier: str = "train", menu: str = "all") -> Exercise:
  """The exercise with this number.

  A function of its arguments alone, whatever the machine, the Python (3.11 or newer)
  and the hash seed. Two numbers may rarely give the same exercise.

  Args:
    seed: of the whole set.
    index: which of the set, from 0.
    tier: one of TIERS; "train" never shows what the others hold (`reserve`).
    menu: one of MENUS: which families there are.

  Raises:
    InputError: there is no such tier or menu.
  """
  if tier not in _GATES:
    raise InputError(f"grammar: tier is {tier!r}, expected one of {reserve.TIERS}")
  if menu not in MENUS:
    raise InputError(f"grammar: menu is {menu!r}, expected one of {tuple(MENUS)}")
  rng = generator("phi1_jax.grammar", VERSION, seed, tier, index)
  return draw(rng, tier, MENUS[menu])


def draw(
  rng: random.Random, tier: str, menu: tuple[tuple[float, Family], ...] = MENU
) -> Exercise:
  """An exercise of a tier, of a family of the menu."""
  gate, plain = _GATES[tier], menu is not MENU
  for _ in range(_TRIES):
    draft = weighted(rng, menu)(rng, gate)
    made = draft and finish(draft, rng, gate, plain)
    if made:
      return made
  raise RuntimeError(f"no exercise for tier {tier!r} in {_TRIES} draws")


def exercises(
  seed: int, start: int, stop: int, tier: str = "train", menu: str = "all"
) -> Iterator[Exercise]:
  """The exercises `start`, ..., `stop - 1`."""
  for index in range(start, stop):
    yield exercise(seed, index, tier, menu)


def section(seed: int, index: int) -> Section:
  """The textbook section with this number; a function of its arguments alone.

  Its functions are of the tier "train".
  """
  rng = generator("phi1_jax.grammar section", VERSION, seed, index)
  kind = weighted(rng, ((0.5, sections.pipeline), (0.5, concepts.section)))
  return kind(rng, _GATES["train"])
