"""Pairs, edges and the choice, on tables of integers."""

import random

import numpy as np
import pytest

from phi1_jax.curation import clusters
from phi1_jax.text import shingles


def members(*rows):
  return np.array(list(rows), clusters.MEMBER)


def test_pairs_are_of_one_bucket_and_alike_in_size():
  table = members(
    *((7, key, key, 100, clusters.BAND) for key in (3, 1, 2)),
    (7, 4, 4, 60, clusters.BAND),  # too small to be similar
    (8, 5, 5, 100, clusters.BAND),
  )
  found, repeated, left = clusters.pairs(table, 0.7, 10)
  pairs = list(zip(found["one"].tolist(), found["two"].tolist(), strict=True))
  assert pairs == [(1, 2), (1, 3), (2, 3)]
  assert (len(repeated), left) == (0, 0)


def test_a_large_bucket_is_compared_with_its_first_members_only():
  table = members(*((7, key, key, 100, clusters.BAND) for key in range(10)))
  found, _, left = clusters.pairs(table, 0.7, 3)
  assert set(found["one"].tolist()) == {0, 1, 2}
  assert len(found) + left == 45


def test_ids_that_are_there_twice_are_found():
  table = members(*((9, 5, number, 0, clusters.SAME_ID) for number in (4, 2, 8)))
  found, repeated, _ = clusters.pairs(table, 0.7, 10)
  assert len(found) == 0
  assert repeated["number"].tolist() == [4, 8]
  assert repeated["by"].tolist() == [2, 2]


def choose(tmp_path, edges, parts=4, repeated=()):
  """Verdicts on documents named by their keys; one of priority 0 always stays."""
  table = np.zeros(len(edges), clusters.EDGE)
  for place, (one, two, similarity) in enumerate(edges):
    table[place] = (one, one & 0xFFFF, two, two & 0xFFFF, similarity)
  ranges = clusters.part_of_key(table["key2"], parts)
  clusters.save_cut(tmp_path, "x", table, ranges)
  gone = clusters.choose(tmp_path, np.array(repeated, np.uint64), 0)
  return {int(v["number"]): (int(v["by"]), float(v["similarity"])) for v in gone}


def key(name, rank=1):
  """A key anywhere in its range, whose last bits name it."""
  return rank << 60 | name << 44 | name


def test_a_document_that_goes_makes_no_other_go(tmp_path):
  edges = [(key(1), key(2), 0.8), (key(2), key(3), 0.8), (key(3), key(4), 0.8)]
  assert choose(tmp_path, edges) == {2: (1, 0.8), 4: (3, 0.8)}


def test_the_most_similar_of_those_that_stay_counts(tmp_path):
  edges = [(key(1), key(9), 0.75), (key(2), key(9), 0.9), (key(3), key(9), 0.9)]
  assert choose(tmp_path, edges) == {9: (2, 0.9)}


def test_equals_of_a_document_that_goes_go_with_it(tmp_path):
  edges = [(key(1), key(300), 0.8), (key(300), key(60000), 1.0)]
  assert choose(tmp_path, edges) == {300: (1, 0.8), 60000: (1, 0.8)}


def test_documents_with_a_repeated_id_count_for_nothing(tmp_path):
  edges = [(key(1), key(2), 0.9), (key(2), key(3), 0.9)]
  assert choose(tmp_path, edges, repeated=[1]) == {3: (2, 0.9)}


def test_a_set_to_compare_with_stays(tmp_path):
  edges = [(key(1, 0), key(2, 0), 0.9), (key(2, 0), key(3), 0.9)]
  assert choose(tmp_path, edges) == {3: (2, 0.9)}


@pytest.mark.parametrize("parts", [1, 3, 50])
def test_ranges_of_keys_do_not_matter(tmp_path, parts):
  chance = random.Random(5)
  names = chance.sample(range(1 << 16), 300)
  edges = []
  for _ in range(900):
    one, two = sorted(chance.sample(names, 2))
    edges.append((key(one), key(two), round(chance.uniform(0.7, 0.99), 3)))
  found = choose(tmp_path / "a", edges, parts)
  assert found == choose(tmp_path / "b", edges, 7)
  near = {(one & 0xFFFF, two & 0xFFFF) for one, two, _ in edges}
  for number, (by, _) in found.items():
    assert by not in found
    assert (by, number) in near
  for one, two in near:  # of two that stay, none is near the other
    assert one in found or two in found


def test_edges_have_the_true_similarity(tmp_path):
  sets = [
    np.arange(10),
    np.arange(2, 12),
    np.arange(50, 60),
    np.arange(0),
    np.arange(0),
  ]
  ends = np.cumsum([0, *map(len, sets)])
  clusters.save(tmp_path / "00000.npy", np.concatenate(sets).astype(np.uint64))
  clusters.save(tmp_path / "00000-ends.npy", ends)
  pairs = np.array([(0, 0, 1, 1), (0, 0, 2, 2), (3, 3, 4, 4)], clusters.PAIR)
  found = clusters.edges(pairs, clusters.Shingles(tmp_path), 0.6)
  assert found["two"].tolist() == [1, 4]
  wanted = shingles.jaccard(*(each.astype(np.uint64) for each in sets[:2]))
  assert found["similarity"].tolist() == [wanted, 1.0]
