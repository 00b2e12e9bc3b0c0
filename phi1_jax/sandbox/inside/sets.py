"""Sets that iterate in the order of other sets, in another process with equal hashes.

The order of a set follows from its table: its size, and where each element was put when
its own place was taken, by elements that may be gone. `plan` finds a way to such a
table for any order that a set has; `build` and `fill` go it. A dictionary's keys give a
set its final table size at once, so they are inserted in a known order. Fillers stand
where something was, and are taken out again.
"""

from __future__ import annotations

import itertools
import operator
import struct

_LINEAR_PROBES, _PERTURB_SHIFT = 9, 5  # of CPython's Objects/setobject.c
_ENTRY_BYTES = 2 * struct.calcsize("P")
_SMALLEST = 8
_PROBES = 40  # that are followed for an element
_FEW, _MOST = 6, 5000  # elements: all orders are tried, or none


class Opaque(Exception):
  """A value that is not plain data."""


class _Filler:
  """Object that is inserted at a place of the table and removed again."""

  def __init__(self, place: int):
    self._place = place

  def __hash__(self):
    return self._place


def plan(base, value):
  """Return what a set is made of, for `build` and `fill`.

  Its table's size, the number of its elements, these in its order, and steps: what to
  insert, in order: an element's index, or -1 - place for a filler. No steps mean the
  elements as they come.

  Args:
    base: set or frozenset.
    value: a set, or an instance of a subclass.

  Raises:
    Opaque: no way to its order is found.
  """
  order = list(base.__iter__(value))
  table = base.__sizeof__(value) - type(value).__basicsize__
  parts = [max(_SMALLEST, table // _ENTRY_BYTES), len(order), *order]
  for steps in _ways(order, parts[0]):
    if _is_like(_made(base, [*parts, *steps]), order):
      return [*parts, *steps]
  raise Opaque("a set whose order cannot be kept")


def _ways(order: list, size: int):
  yield ()
  yield _steps(order, size)
  if len(order) <= _FEW:
    yield from itertools.permutations(range(len(order)))


def build(base, parts):
  """Return a new set of the parts that `plan` found; Opaque if its order differs."""
  made = _made(base, parts)
  _check(made, parts)
  return made


def fill(target: set, parts) -> None:
  """Give a set these parts; Opaque if its order differs."""
  first, fillers, rest = _stages(parts)
  set.clear(target)
  set.update(target, dict.fromkeys(first))
  set.update(target, rest)
  set.difference_update(target, fillers)
  _check(target, parts)


def _made(base, parts):
  first, fillers, rest = _stages(parts)
  result = base(dict.fromkeys(first))
  result = result.union(rest) if rest else result
  return result.difference(fillers) if fillers else result


def _check(made, parts) -> None:
  if not _is_like(made, parts[2 : 2 + parts[1]]):
    raise Opaque("a set whose elements are in another order here")


def _is_like(value, order) -> bool:
  return len(value) == len(order) and all(map(operator.is_, value, order))


def _stages(parts):
  """Return the elements inserted at once, the fillers, and the elements added later."""
  size, number = parts[:2]
  order, steps = list(parts[2 : 2 + number]), parts[2 + number :]
  if steps:
    order = [order[s] if s >= 0 else _Filler(-1 - s) for s in steps]
  room = size // 2 - 1  # a dictionary with more keys makes the table larger
  first, rest = order[:room], order[room:]
  if size > _SMALLEST:  # and with fewer smaller
    first += map(_Filler, range(len(first), max(5, min(size, 1 << 20) // 4)))
  return first, [x for x in [*first, *rest] if type(x) is _Filler], rest


def _steps(order: list, size: int) -> list:
  """Return steps that put each element where its probes and the order allow it."""
  if len(order) > _MOST:
    return []
  probes = [list(itertools.islice(_probes(x, size), _PROBES)) for x in order]
  places = _places(probes)
  owners = {place: index for index, place in enumerate(places)}
  steps: list = []
  taken: set = set()
  waiting = list(range(len(order)))[::-1]
  begun: set = set()
  while waiting:  # an element comes after those that drive it off
    index = waiting.pop()
    if places[index] in taken:
      continue
    before = list(itertools.takewhile(lambda p, i=index: p != places[i], probes[index]))
    first = [owners[p] for p in before if p in owners and p not in taken]
    if first and index in begun:
      return []  # they drive each other off
    begun.add(index)
    if first:
      waiting += [index, *first]
      continue
    blocked = [p for p in dict.fromkeys(before) if p not in taken]
    steps += [-1 - p for p in blocked] + [index]
    taken.update(blocked, [places[index]])
  return steps if 5 * len(steps) < 3 * (size - 1) + 5 else []  # a fuller table grows


def _probes(element, size: int):
  """Yield the places where CPython looks for room for an element, in order."""
  mask, hashed = size - 1, hash(element)
  perturb = hashed & (256 ** struct.calcsize("P") - 1)
  place = hashed & mask
  while True:
    linear = _LINEAR_PROBES if place + _LINEAR_PROBES <= mask else 0
    yield from range(place, place + linear + 1)
    perturb >>= _PERTURB_SHIFT
    place = (place * 5 + 1 + perturb) & mask


def _places(probes: list) -> list:
  """Return rising places, one per list of probes, with the fewest probes before."""
  ways: list = [(-1, 0, None)]  # (place, cost, the way before), costs falling
  for own in probes:
    found = {}
    for cost, place in enumerate(own):
      found.setdefault(place, cost)
    reached, best, at = [], None, 0
    for place in sorted(found):
      while at < len(ways) and ways[at][0] < place:
        best, at = ways[at], at + 1
      if best is None:
        continue
      cost = best[1] + found[place]
      if not reached or cost < reached[-1][1]:
        reached.append((place, cost, best))
    ways = reached
  places, way = [], ways[-1] if ways else (-1, 0, None)
  while way[2] is not None:
    places.append(way[0])
    way = way[2]
  return places[::-1] if ways else list(range(-len(probes), 0))
