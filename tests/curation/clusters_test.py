import dataclasses
import itertools

from phi1_jax.curation import clusters
from phi1_jax.curation.clusters import Standing
from phi1_jax.curation.document import Drop, Keep
from tests.curation import samples


def test_no_chains():
  """a ~ b ~ c, but not a ~ c: b goes because of a, which is no reason against c."""
  standings = clusters.clusters([("a", "b", 0.8), ("b", "c", 0.9)], {})
  assert standings["a"] == Standing("a", 1.0, 2)
  assert standings["b"] == Standing("a", 0.8, 2)
  assert standings["c"] == Standing("c", 1.0, 1)


def test_a_long_chain_loses_every_second_document():
  names = [f"{n:03d}" for n in range(100)]
  edges = [(one, other, 0.9) for one, other in itertools.pairwise(names)]
  standings = clusters.clusters(reversed(edges), {})
  kept = [name for name in names if standings[name].representative == name]
  assert kept == names[::2]


def test_the_most_similar_representative_counts_then_the_first():
  edges = [("a", "d", 0.8), ("b", "d", 0.9), ("c", "d", 0.9)]
  assert clusters.clusters(edges, {})["d"].representative == "b"


def test_copies_count_in_a_clusters_size():
  standings = clusters.clusters([("a", "b", 0.9)], {"a": 2, "b": 3, "z": 4})
  assert standings["a"].size == standings["b"].size == 5
  assert standings["z"] == Standing("z", 1.0, 4)
  found = clusters.summary(standings, largest=1)
  assert found["clusters"] == 2
  assert found["largest"][0]["documents"] == 5


def test_a_hot_bucket_is_linear_and_says_what_it_left_out():
  members = [(f"{n:04d}", 10) for n in range(1000)]
  found = dict(clusters.candidates(reversed(members), 0.7, 8))
  assert len(found) == 999
  assert found["0005"] == [f"{n:04d}" for n in range(5)]
  assert found["0999"] == [f"{n:04d}" for n in range(8)]
  compared = sum(map(len, found.values()))
  assert compared + clusters.cut(1000, 8) == 1000 * 999 // 2
  assert clusters.cut(9, 8) == 0


def test_sizes_that_rule_similarity_out_are_not_compared():
  assert list(clusters.candidates([("a", 60), ("b", 100)], 0.7, 8)) == []
  assert list(clusters.candidates([("a", 70), ("b", 100)], 0.7, 8)) == [("b", ["a"])]


def test_texts_too_short_for_a_shingle_are_copies_only_if_their_lines_are_equal():
  one, layout, other = (
    clusters.sketch(samples.document(text), 5)
    for text in ("x = f(1)\n", "\tx  = f(1)\r\n", "x = f[1]\n")
  )
  assert one.shingles == other.shingles == b""
  assert one.digest == layout.digest != other.digest


def test_layout_makes_no_difference_to_longer_texts():
  text = samples.algorithm(1)
  one, other = (
    clusters.sketch(samples.document(t), 5)
    for t in (text, text.replace("  ", "\t").replace("\n", "\r\n"))
  )
  assert one.digest == other.digest
  assert one.key != other.key


def test_priority_is_source_then_id():
  made = [samples.document(f"text {n}", source) for n, source in enumerate("abc")]
  order = sorted(made, key=lambda document: clusters.key(document, ("c", "b")))
  assert [document.source for document in order] == ["c", "b", "a"]


def test_decisions_carry_their_evidence():
  document = samples.document("text")
  a, b = f"0000a{'0' * 16}", f"0000b{'0' * 16}"
  kept = clusters.decide(document, a, Standing(a, 1.0, 3))
  assert isinstance(kept, Keep)
  assert kept.document.provenance["deduplicate"] == {"cluster": 3}
  assert clusters.decide(document, a, None) == Keep(
    document.noted("deduplicate", {"cluster": 1})
  )
  near = clusters.decide(document, a, Standing(b, 0.81239, 3))
  evidence = {"representative": "b", "similarity": 0.8124, "cluster": 3}
  assert near == Drop(document, "near-duplicate", evidence)
  for copy, reason in ((True, "exact duplicate"), (False, "same words")):
    dropped = clusters.decide(document, a, Standing(b, 1.0, 2), copy)
    assert isinstance(dropped, Drop)
    assert dropped.reason == reason


def test_an_id_is_of_one_text():
  one = samples.document("text")
  other = dataclasses.replace(one, text="another", source="z")
  assert clusters.key(one, ()) != clusters.key(other, ())
  assert clusters.id_of(clusters.key(other, ("a", "z"))) == one.id
  assert clusters.again(one, one).reason == "read twice"
  dropped = clusters.again(other, one)
  assert dropped.reason == "id of another text"
  shown = [(t["source"], t["begin"]) for t in dropped.evidence["texts"]]
  assert shown == [("s", "text"), ("z", "another")]
