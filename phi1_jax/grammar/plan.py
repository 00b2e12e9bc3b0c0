"""Plan: a source, a chain of parts, and an aggregate; what a pipeline computes."""

import dataclasses
import functools
import random
from collections.abc import Callable, Sequence

from phi1_jax.grammar import (
  collection_aggregates,
  computed_sources,
  number_filters,
  number_maps,
  sources,
  text_filters,
  text_maps,
  value_aggregates,
)
from phi1_jax.grammar.aggregate import ANY, BoundAggregate
from phi1_jax.grammar.draws import often_early, weighted
from phi1_jax.grammar.parts import Bound
from phi1_jax.grammar.sources import Setting

FILTERS = {
  "int": number_filters.FILTERS,
  "word": text_filters.WORDS,
  "char": text_filters.LETTERS,
}
MAPS = {"int": number_maps.MAPS, "word": text_maps.WORDS, "char": text_maps.LETTERS}
# How much more often than others some aggregates are drawn.
_COMMON = {"list": 7, "sum": 5, "count": 4, "largest": 2, "smallest": 2, "joined": 2}
AGGREGATES = {
  kind: tuple(
    (_COMMON.get(row.id, 1), row)
    for row in (*value_aggregates.TABLE, *collection_aggregates.TABLE)
    if kind in row.kinds
  )
  for kind in ANY
}
Source = Callable[[random.Random], Setting]
SOURCES: tuple[tuple[float, Source], ...] = (
  (16, sources.numbers),
  (8, sources.word_list),
  (5, sources.letters),
  (3, sources.text_words),
  (1.4, sources.table_values),
  (1, sources.table_keys),
  (1, sources.number_set),
  (1, sources.number_tuple),
  (1.4, sources.nested),
  (1.5, computed_sources.up_to),
  (2, computed_sources.digits),
  (0.6, computed_sources.divisors),
  (0.8, computed_sources.row_sums),
  (1, computed_sources.gaps),
  (1.6, computed_sources.pairs),
  (1, computed_sources.positions),
  (0.8, computed_sources.windows),
  (0.7, computed_sources.weighted_positions),
  (0.7, computed_sources.word_lengths),
  (0.8, computed_sources.records),
  (1.2, computed_sources.set_operations),
)
# Chains of filters (F) and maps (M) before the aggregate, with their weights.
CHAINS = ((4, "F"), (2, "M"), (10, "FM"), (3, "MF"), (1.5, "FF"))
LONGER_CHAINS = ((4, "FFM"), (3, "FMM"), (3, "FMF"), (2, "MFM"), (1, "MMF"))
# Parts that say nothing about numbers that are never negative.
_POINTLESS = {
  *("filter:positive", "filter:negative", "filter:not_negative", "map:absolute"),
  *("map:sign", "filter:magnitude_above", "filter:magnitude_below"),
}


@dataclasses.dataclass(frozen=True)
class Plan:
  """What a pipeline computes.

  Attributes:
    setting: where the elements come from.
    stages: filters and maps, in the order they are applied.
    aggregate: what is made of the results.
    kind: what the results are: int, word or char.
  """

  setting: Setting
  stages: tuple[Bound, ...]
  aggregate: BoundAggregate
  kind: str

  @property
  def composition(self) -> tuple[str, ...]:
    """Source, stages and aggregate, without constants."""
    stages = (stage.id for stage in self.stages)
    return (self.setting.id, *stages, self.aggregate.id)

  @functools.cached_property
  def chain(self) -> str:
    """The stages as letters, e.g. "FM"."""
    return "".join("F" if stage.part.role == "filter" else "M" for stage in self.stages)

  @property
  def hot(self) -> list[object]:
    """Constants, which inputs should hold now and then."""
    return [value for stage in self.stages for value in stage.constants.values()]


def draw(
  rng: random.Random,
  longer: bool,
  source: Source | None = None,
  chains: Sequence[tuple[float, str]] = CHAINS,
  aggregates: frozenset[str] | None = None,
) -> Plan | None:
  """Thinks out a pipeline; None where a draw makes no sense.

  Args:
    rng: chooses.
    longer: whether to take one of LONGER_CHAINS.
    source: where the elements come from; one of SOURCES where it is None.
    chains: which chains of filters and maps to take otherwise.
    aggregates: the ids of those that are fit; None for all.
  """
  setting = (source or weighted(rng, SOURCES))(rng)
  chain = weighted(rng, LONGER_CHAINS if longer else chains)
  kind, stages, ids = setting.kind, [], set()
  for letter in chain:
    stage = Bound(often_early(rng, (FILTERS if letter == "F" else MAPS)[kind]), rng)
    if stage.id in ids or (setting.natural and stage.id in _POINTLESS):
      return None
    ids.add(stage.id)
    stages.append(stage)
    kind = stage.out(kind)
  rows = AGGREGATES[kind]
  if aggregates is not None:
    rows = tuple(pair for pair in rows if pair[1].id in aggregates)
  row = weighted(rng, rows)
  if row.ordered and not setting.ordered:
    return None
  if row.id == "count" and chain[-1] == "M":  # which a map does not change
    return None
  return Plan(setting, tuple(stages), BoundAggregate(row, rng), kind)
