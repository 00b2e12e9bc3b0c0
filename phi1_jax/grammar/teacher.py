"""The grammar teacher: exercises and textbook sections by number."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import random
from collections.abc import Iterator

from phi1_jax import InputError
from phi1_jax.grammar import VERSION, rows
from phi1_jax.grammar import section as sections
from phi1_jax.grammar.exercise import Exercise, draw
from phi1_jax.grammar.reserve import TIERS, Gate
from phi1_jax.grammar.rows import Task
from phi1_jax.grammar.scene import choose
from phi1_jax.grammar.section import Section

# How much more often than plain tasks those that are composed of parts are drawn.
COMPOSED = 4.5
MENUS = ("all", "plain", "composed")
_TRIES = 20_000
_GATES = {tier: Gate(tier) for tier in TIERS}


def exercise(
  seed: int,
  index: int,
  tier: str = "train",
  menu: str = "all",
  tables: tuple[str, ...] = (),
) -> Exercise:
  """Return the exercise with this number.

  It depends on the arguments and the tables alone, not on the machine, the Python (3.11
  or newer) or the hash seed. Two numbers may give the same exercise.

  Args:
    seed: of the whole set.
    index: place in the set, from 0.
    tier: an item of `TIERS`; "train" never shows what the others hold (`reserve`).
    menu: an item of `MENUS`: all tasks, or those with or without parts. Held-out tiers
      have composed tasks alone.
    tables: paths of more tables.

  Raises:
    InputError: there is no such tier or menu, or a table is wrong.
  """
  if tier not in _GATES:
    raise InputError(f"grammar: got tier {tier!r}, expected one of {', '.join(TIERS)}")
  if menu not in MENUS:
    raise InputError(f"grammar: got menu {menu!r}, expected one of {', '.join(MENUS)}")
  rng = random.Random(f"phi1_jax.grammar/{VERSION}/{seed}/{tier}/{index}")
  loaded = rows.load(tables)
  tasks, upto = _tasks(tables, "composed" if tier != "train" else menu)
  for _ in range(_TRIES):
    made = draw(rng, loaded, choose(rng, tasks, upto), _GATES[tier])
    if made:
      return made
  raise RuntimeError(f"no exercise for tier {tier!r} in {_TRIES} draws")


def exercises(
  seed: int,
  start: int,
  stop: int,
  tier: str = "train",
  menu: str = "all",
  tables: tuple[str, ...] = (),
) -> Iterator[Exercise]:
  """Yield the exercises `start`, ..., `stop - 1`."""
  for index in range(start, stop):
    yield exercise(seed, index, tier, menu, tables)


@functools.cache
def _tasks(tables: tuple[str, ...], menu: str) -> tuple[list[Task], list[float]]:
  """Return the tasks of a menu and their cumulated weights."""
  tasks = [
    dataclasses.replace(task, weight=task.weight * COMPOSED) if task.composed else task
    for task in rows.load(tables).tasks
    if menu == "all" or task.composed == (menu == "composed")
  ]
  return tasks, rows.cumulated(tasks)


def section(seed: int, index: int) -> Section:
  """Return the textbook section with this number; it depends on the arguments alone.

  Its function is of the tier "train".
  """
  rng = random.Random(f"phi1_jax.grammar section/{VERSION}/{seed}/{index}")
  for number in itertools.count(index * 100):
    made = sections.section(rng, exercise(seed + 1, number))
    if made:
      return made
  raise AssertionError
