import dataclasses
import json

import pytest

from phi1_jax import InputError
from phi1_jax.curation import deduplicate, folder, sketches
from phi1_jax.curation.config import DeduplicateConfig
from phi1_jax.curation.engine import Engine
from phi1_jax.text import shingles, source
from tests.curation import samples

ENGINE = Engine(tasks=2, workers=1)
LONG = "\n".join(f"value_{n} = compute_{n * 7 % 31}(item_{n})" for n in range(40))


def write(path, documents):
  rows = (json.dumps(document.record()) + "\n" for document in documents)
  path.write_text("".join(rows))
  return str(path)


def kept(place):
  """The documents that a stage kept, by id, without what depends on the order."""
  return {document.id: document for document in folder.kept(place)}


def documents():
  """One long text, a copy and a near copy of it, other texts, short ones."""
  twice = samples.document(LONG.replace("item", "case"), "b")
  return [
    samples.document(LONG, "a"),
    samples.document(LONG.replace("\n", "\r\n"), "b"),
    samples.document(LONG.replace("= compute", "=\tcompute").replace(")", ",)"), "b"),
    twice,
    dataclasses.replace(twice, text=LONG.replace("item", "deed")),
    # It must not go because of a text that goes.
    samples.document(LONG.replace("item", "deed") + "\nend = 1", "b"),
    samples.document(LONG.replace("value_3 ", "other "), "b"),
    *(samples.document(LONG.replace("item_1", f"thing_{n}_1"), "b") for n in range(4)),
    samples.document("x = 1", "a"),
    samples.document("x = 1\n", "b"),
    samples.document("x = 2", "b"),
  ]


@pytest.fixture(scope="module")
def done(tmp_path_factory):
  """The stage's folder; its input holds one document twice and a line of nonsense."""
  place = tmp_path_factory.mktemp("deduplicate")
  made = documents()
  path = write(place / "in.jsonl", [*made, made[-1]])
  with open(path, "ab") as file:
    file.write(b"nonsense\n")
  (place / "out").mkdir()
  config = DeduplicateConfig((path,), prefer=("a",), maximum_loss=0.6)
  stats = deduplicate.run(config, place / "out", ENGINE)
  return config, place / "out", stats


def test_the_card_says_what_sources_lost_and_may_lose(done):
  _, place, stats = done
  card = (place / "README.md").read_text()
  assert "No source may lose more than 60% to duplicates." in card
  for name, counts in stats["losses"].items():
    assert f"| {name} | {counts['dropped'] / counts['read']:.1%} |" in card


def test_what_goes_and_why(done):
  _, place, stats = done
  assert stats["dropped"] == {
    "exact duplicate": 2,
    "same words": 1,
    "id of another text": 1,
    "near-duplicate": 1,
    "read twice": 1,
    "not JSON": 1,
  }
  assert stats["kept"] == 9
  left = kept(place)
  for drop in folder.dropped(place):
    evidence, text = drop.evidence, drop.document.text
    if drop.reason == "same words":
      assert source.lines(text) != source.lines(LONG)
    if drop.reason == "id of another text":
      first, this = evidence["texts"]
      assert left[drop.document.id].text.startswith(first["begin"])
      assert text.startswith(this["begin"])
    if drop.reason in ("exact duplicate", "same words", "near-duplicate"):
      stays = left[evidence["representative"]]
      assert stays.source == "a"  # it is preferred, whatever the ids
      one, other = (
        shingles.shingles(source.words(each), 5) for each in (text, stays.text)
      )
      if len(one):
        assert evidence["similarity"] == round(shingles.jaccard(one, other), 4)
      assert stays.provenance["deduplicate"]["cluster"] == evidence["cluster"]
  sizes = sorted(d.provenance["deduplicate"]["cluster"] for d in left.values())
  assert sizes == [1, 1, 1, 1, 1, 1, 1, 2, 4]


def test_stats_say_what_the_clusters_and_the_diversity_are(done):
  _, _, stats = done
  assert stats["losses"]["b"] == {"read": 13, "dropped": 6}
  assert stats["losses"]["a"] == {"read": 2, "dropped": 0}
  duplicates = stats["duplicates"]
  assert (duplicates["clusters"], duplicates["pairs_not_compared"]) == (2, 0)
  assert stats["diversity"]["texts"] == 9
  assert 0 < stats["diversity"]["nearest_neighbour_jaccard"] < 0.7


def test_a_complete_stage_is_not_run_again(done):
  config, place, stats = done
  assert deduplicate.run(config, place, ENGINE) == stats
  with pytest.raises(deduplicate.LossError):  # it decides whether, not what
    deduplicate.run(dataclasses.replace(config, maximum_loss=0.1), place, ENGINE)
  with pytest.raises(InputError, match=r"begun with similarity = 0\.7, now it is 0\.9"):
    deduplicate.run(dataclasses.replace(config, similarity=0.9), place, ENGINE)


def test_results_depend_on_no_order_of_files_lines_or_workers(done, tmp_path):
  config, place, _ = done
  made = documents()
  backwards = [*reversed(made), made[-1]]
  paths = [write(tmp_path / f"{n}.jsonl", backwards[n::3]) for n in range(3)]
  (tmp_path / "out").mkdir()
  again = dataclasses.replace(config, inputs=tuple(paths))
  deduplicate.run(again, tmp_path / "out", Engine(tasks=3, workers=2))
  assert len(list((tmp_path / "out").glob("kept-*"))) == 3
  assert kept(tmp_path / "out") == kept(place)


def test_a_source_that_would_lose_too_much_stops_the_stage(tmp_path):
  boilerplate = [samples.document(f"{LONG}\nnumber = {n}", "many") for n in range(20)]
  few = [samples.document(LONG.replace("item", f"x{n}"), "few") for n in range(5)]
  path = write(tmp_path / "in.jsonl", [*boilerplate, *few])
  place = tmp_path / "out"
  place.mkdir()
  config = DeduplicateConfig((path,), comparisons=4)
  with pytest.raises(deduplicate.LossError) as error:
    deduplicate.run(config, place, ENGINE)
  for part in (
    "many: 19 of 20",
    "95.0%",
    "maximum_loss is 50.0%",
    "20 like",
    "value_0",
    "for another Deduplicate.similarity name a new --workdir",
  ):
    assert part in str(error.value)
  assert not (place / folder.COMPLETED).exists()
  left = kept(place).values()  # for a look at it
  assert sum(document.source == "many" for document in left) == 1
  higher = dataclasses.replace(config, maximum_loss=1.0)
  stats = deduplicate.run(higher, place, ENGINE)
  assert stats["duplicates"]["pairs_not_compared"] > 0


def test_headers_and_imports_are_no_content(tmp_path):
  header = "".join(
    f"# Copyright line {n}: all rights are reserved\n" for n in range(40)
  )
  imports = "".join(f"import package_{n}\n" for n in range(40))
  bodies = [
    samples.algorithm(0),
    samples.settings(0),
    "def f(x):\n  return x * x\n" * 3,
  ]
  texts = [header + imports + body for body in bodies]
  path = write(tmp_path / "in.jsonl", map(samples.document, texts))
  stats = deduplicate.run(DeduplicateConfig((path,)), tmp_path / "out", ENGINE)
  assert stats["kept"] == 3
  text = '"""About files.\n\nLicensed under X."""\nfrom a import (\n  b,\n)\nx = 1\n'
  assert sketches.content(text).split() == ["x", "=", "1"]
  assert "About" in sketches.content('"""About files."""\nx = 1\n')


def test_an_existing_set_makes_documents_go_and_stays_as_it_is(tmp_path):
  old = [
    samples.document(LONG),
    samples.document(LONG + "\nend = 1"),
  ]  # near each other
  new = [samples.document(LONG + "\nend = 2"), samples.document(samples.algorithm(1))]
  paths = [write(tmp_path / f"{n}.jsonl", each) for n, each in enumerate((old, new))]
  config = DeduplicateConfig((paths[1],), against=(paths[0],))
  stats = deduplicate.run(config, tmp_path / "out", ENGINE)
  assert (stats["read"], stats["kept"]) == (2, 1)
  (drop,) = folder.dropped(tmp_path / "out")
  assert drop.document.text == new[0].text
  assert drop.evidence["representative"] in {document.id for document in old}


def test_a_small_source_may_lose_more(tmp_path):
  losses = {"one": {"read": 1, "dropped": 1}}
  deduplicate.check_loss(losses, 0.5, tmp_path)
