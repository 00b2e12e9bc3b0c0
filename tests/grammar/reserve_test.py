"""What is reserved, by which rule, and that enough of everything is left."""

import itertools

import pytest

from phi1_jax.grammar import (
  cases,
  orders,
  pipeline_frames,
  plan,
  recursions,
  repeats,
  reserve,
  scalars,
  tables,
  wording,
)
from phi1_jax.grammar.reserve import Gate, kind

PARTS = [
  *(f"filter:{row.id}" for row in plan.FILTERS["int"]),
  *(f"map:{row.id}" for row in plan.MAPS["int"]),
]

CHAINS = [chain for _, chain in plan.CHAINS]
LONGER = [chain for _, chain in plan.LONGER_CHAINS]


def share(values):
  return sum(values) / len(values)


def test_shares_are_as_declared():
  pairs = list(itertools.combinations(PARTS, 2))
  assert share([reserve.pair_is_reserved(*pair) for pair in pairs]) == pytest.approx(
    1 / reserve.PAIRS, rel=0.2
  )
  names = [f"name_{number}" for number in range(3000)]
  assert share([reserve.name_is_reserved(name) for name in names]) == pytest.approx(
    1 / reserve.NAMES, rel=0.2
  )


def test_a_pair_is_reserved_in_either_order():
  for one, other in itertools.islice(itertools.combinations(PARTS, 2), 300):
    assert reserve.pair_is_reserved(one, other) == reserve.pair_is_reserved(other, one)


def test_the_kind_of_a_composition():
  reserved = next(
    pair for pair in itertools.combinations(PARTS, 2) if reserve.pair_is_reserved(*pair)
  )
  assert kind(("list", *reserved)) == "unseen_pairs"
  assert kind(("words", reserved[1], "sum", reserved[0])) == "unseen_pairs"
  assert kind(("list", *reserved, "x", "y")) == "unused"
  assert kind(("list", "filter:even")) == "train"
  free = [("list", a, b, "sum") for a, b in itertools.combinations(PARTS, 2)]
  kinds = [kind(composition) for composition in free]
  assert {"train", "unseen_triples", "unseen_pairs"} == set(kinds)
  left = [k for k in kinds if k != "unseen_pairs"]
  assert share([k == "unseen_triples" for k in left]) == pytest.approx(
    1 / reserve.COMPOSITIONS, rel=0.25
  )
  longer = {kind((*composition, "more")) for composition in free}
  assert longer == {"longer", "unused"}


def test_the_source_is_no_part():
  for source in ("list", "words", "set"):
    assert kind((source, "filter:even", "sum")) == "train"


@pytest.mark.parametrize("chain", [*CHAINS, *LONGER])
def test_every_chain_has_wordings_on_both_sides(chain):
  ids = [f.id for f in pipeline_frames.TABLE if f.chains.fullmatch(chain)]
  reserved = [id for id in ids if reserve.frame_is_reserved(id)]
  assert 1 <= len(reserved) < len(ids) / 2


@pytest.mark.parametrize(
  "frames",
  [
    wording.NOUN_FRAMES,
    wording.TEST_FRAMES,
    scalars.CONDITIONAL,
    scalars.CHAIN,
    cases.LABEL,
    orders.SORTED,
    orders.GROUPED,
    tables.ENTRIES,
    repeats.UNTIL,
    repeats.TIMES,
    recursions.OVER_LIST,
    recursions.NESTED,
    recursions.DOWN,
  ],
)
def test_every_family_has_wordings_on_both_sides(frames):
  ids = [id for id, _ in frames]
  assert len(set(ids)) == len(ids)
  reserved = [id for id in ids if reserve.frame_is_reserved(id)]
  assert 1 <= len(reserved) < len(ids) / 2


def test_gates_divide_names_and_frames():
  gates = {tier: Gate(tier) for tier in reserve.TIERS}
  for number in range(50):
    name = f"name_{number}"
    sides = {tier: gate.name(name) for tier, gate in gates.items()}
    assert sides.pop("train") != any(sides.values())
    assert len(set(sides.values())) == 1
    frames = {tier: gate.frame(name) for tier, gate in gates.items()}
    assert frames.pop("reserved_frames") != any(frames.values())
    assert len(set(frames.values())) == 1
