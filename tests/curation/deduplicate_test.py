"""Near-duplicates: pairs, edges and the choice on tables of integers; and the stage."""

import dataclasses
import random

import numpy as np
import pytest

from phi1_jax.curation import deduplicate, folder, sketches
from phi1_jax.curation.config import DeduplicateConfig
from phi1_jax.text import shingles, source
from tests.curation import samples

LONG = "\n".join(f"value_{n} = compute_{n * 7 % 31}(item_{n})" for n in range(40))


def choose(tmp_path, edges, parts=4):
  """Verdicts on documents named by their keys; one of priority 0 always stays."""
  table = np.zeros(len(edges), deduplicate.EDGE)
  for place, (one, two, similarity) in enumerate(edges):
    table[place] = (one, one & 0xFFFF, two, two & 0xFFFF, similarity)
  ranges = deduplicate.part_of_key(table["key2"], parts)
  deduplicate.save_cut(tmp_path, "x", table, ranges)
  found = deduplicate.choose(tmp_path)
  gone = found[found["similarity"] != deduplicate.STAYS]
  return {int(v["number"]): (int(v["by"]), float(v["similarity"])) for v in gone}


def key(name, rank=1):
  """A key anywhere in its range, whose last bits name it."""
  return rank << 60 | name << 44 | name


@pytest.mark.parametrize(
  ("edges", "gone"),
  [
    # A document that goes makes no other go.
    ([(key(1), key(2), 0.8), (key(2), key(3), 0.8), (key(3), key(4), 0.8)],
     {2: (1, 0.8), 4: (3, 0.8)}),
    # The most similar of those that stay counts.
    ([(key(1), key(9), 0.75), (key(2), key(9), 0.9), (key(3), key(9), 0.9)],
     {9: (2, 0.9)}),
    # Equals of a document that goes go with it.
    ([(key(1), key(300), 0.8), (key(300), key(60000), 1.0)],
     {300: (1, 0.8), 60000: (1, 0.8)}),
    # A set to compare with stays.
    ([(key(1, 0), key(2, 0), 0.9), (key(2, 0), key(3), 0.9)], {3: (2, 0.9)}),
  ],
)  # fmt: skip
def test_choices(tmp_path, edges, gone):
  assert choose(tmp_path, edges) == gone


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


def documents():
  """One long text, a copy and a near copy of it, other texts, short ones."""
  spaced = LONG.replace("= compute", "=\tcompute").replace(")", ",)")
  other = LONG.replace("item", "deed")
  texts = [LONG.replace("\n", "\r\n"), spaced, other, other + "\nend = 1"]
  texts += [LONG.replace("value_3 ", "other ")]
  texts += [LONG.replace("item_1", f"thing_{n}_1") for n in range(4)]
  made = [samples.document(text, "a") for text in (LONG, "x = 1")]
  return made + [samples.document(text, "b") for text in (*texts, "x = 1\n", "x = 2")]


@pytest.fixture(scope="module")
def done(tmp_path_factory):
  """The stage's job and stats; its input holds a document twice and nonsense."""
  place = tmp_path_factory.mktemp("deduplicate")
  made = documents()
  path = samples.write(place / "in.jsonl", [*made, made[-1]], "nonsense\n")
  config = DeduplicateConfig((path,), prefer=("a",), maximum_loss=0.6)
  job = samples.job(config, place / "out")
  return job, deduplicate.run(job)


def run(tmp_path, documents, **settings):
  """The job and stats of documents."""
  path = samples.write(tmp_path / "in.jsonl", documents)
  job = samples.job(DeduplicateConfig((path,), **settings), tmp_path / "out")
  return job, deduplicate.run(job)


def kept(place):
  return {document.id: document for document in folder.kept(place)}


def test_reasons_and_evidence(done):
  job, stats = done
  assert stats["dropped"] == {"same words": 4, "near-duplicate": 2, "not JSON": 1}
  left = kept(job.folder)
  for drop in folder.dropped(job.folder):
    if drop.reason == "not JSON":
      continue
    stays = left[drop.evidence["representative"]]
    pair = (drop.document.text, stays.text)
    one, other = (shingles.shingles(source.words(text), 5) for text in pair)
    if len(one):
      assert drop.evidence["similarity"] == round(shingles.jaccard(one, other), 4)
    if drop.document.text.replace("\r\n", "\n").startswith(LONG[:9]):
      assert stays.source == "a" or "deed" in stays.text  # it is preferred
    assert stays.provenance["deduplicate"]["cluster"] == drop.evidence["cluster"]
  assert stats["losses"]["a"] == {"read": 2, "dropped": 0}
  assert stats["losses"]["b"] == {"read": 12, "dropped": 6}
  assert stats["duplicates"]["pairs_not_compared"] == 0
  sizes = {d.text: d.provenance["deduplicate"]["cluster"] for d in left.values()}
  assert sizes["x = 2"] == 1  # it was read twice
  assert sizes["x = 1"] == 2
  assert 0 < stats["diversity"]["nearest_neighbour_jaccard"] < 0.7
  card = (job.folder / "README.md").read_text()
  assert "No source may lose more than 60% to duplicates." in card
  assert "maximum_loss" not in card  # None, beside the share above
  assert "| b | 50.0% |" in card


def test_results_depend_on_no_order_of_files_lines_or_workers(done, tmp_path):
  job, _ = done
  made = documents()
  backwards = [*reversed(made), made[-1]]
  paths = [samples.write(tmp_path / f"{n}.jsonl", backwards[n::3]) for n in range(3)]
  config = dataclasses.replace(job.config, inputs=tuple(paths))
  deduplicate.run(samples.job(config, tmp_path / "out", tasks=3, workers=2))
  assert len(list((tmp_path / "out").glob("kept-*"))) == 3
  assert kept(tmp_path / "out") == kept(job.folder)


def test_a_source_that_would_lose_too_much_stops_the_stage(tmp_path):
  many = [samples.document(f"{LONG}\nnumber = {n}", "many") for n in range(20)]
  few = [samples.document(LONG.replace("item", f"x{n}"), "few") for n in range(5)]
  few += [samples.document(f"{LONG}\nsmall = 1", "small")]  # may lose everything
  settings = {"comparisons": 4, "prefer": ("many",)}
  says = r"many: 19 of 20.*95.0%.*maximum_loss is 50.0%"
  with pytest.raises(deduplicate.LossError, match=f"(?s){says}"):
    run(tmp_path, [*many, *few], **settings)
  assert not (tmp_path / "out" / folder.COMPLETED).exists()
  left = kept(tmp_path / "out").values()  # for a look at it
  assert sum(document.source == "many" for document in left) == 1
  inputs = (str(tmp_path / "in.jsonl"),)
  config = DeduplicateConfig(inputs, maximum_loss=1.0, **settings)
  stats = deduplicate.run(samples.job(config, tmp_path / "out"))
  assert stats["duplicates"]["pairs_not_compared"] > 0


def test_headers_and_imports_are_no_content(tmp_path):
  header = "".join(f"# Copyright line {n}: all rights reserved\n" for n in range(40))
  imports = "".join(f"import package_{n}\n" for n in range(40))
  bodies = [samples.algorithm(0), samples.settings(0), "def f(x):\n  return x\n" * 3]
  made = [samples.document(header + imports + body) for body in bodies]
  assert run(tmp_path, made)[1]["kept"] == 3
  text = '"""About files.\n\nLicensed under X."""\nfrom a import (\n  b,\n)\nx = 1\n'
  assert sketches.content(text).split() == ["x", "=", "1"]
  assert "About" in sketches.content('"""About files."""\nx = 1\n')


def test_an_existing_set_makes_documents_go_and_stays_as_it_is(tmp_path):
  near = [samples.document(f"{LONG}\nend = {n}") for n in range(3)]
  old, new = near[:2], [near[2], samples.document(samples.algorithm(1))]
  against = samples.write(tmp_path / "old.jsonl", old)
  job, stats = run(tmp_path, new, against=(against,))
  assert (stats["read"], stats["kept"]) == (2, 1)
  (drop,) = folder.dropped(job.folder)
  assert drop.document.text == new[0].text
  assert drop.evidence["representative"] in {document.id for document in old}


def test_documents_of_a_preferred_source_stay(tmp_path):
  near = [samples.document(f"{LONG}\nend = {source}", source) for source in "abc"]
  job, _ = run(tmp_path, near, prefer=("b",), maximum_loss=1.0)
  assert [document.source for document in folder.kept(job.folder)] == ["b"]
