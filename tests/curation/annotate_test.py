"""A sample is chosen, judged, and its agreement measured."""

import json

import pytest

from phi1_jax import InputError
from phi1_jax.curation import annotate, folder
from phi1_jax.curation.annotate import Judgement
from phi1_jax.curation.config import AnnotateConfig
from phi1_jax.curation.document import Keep
from phi1_jax.curation.engine import Engine
from tests.curation import samples

UNJUDGED = "# unjudged\n" + samples.algorithm(77)


class Listed:
  """A judge that knows its scores by heart: the second pass is one higher."""

  varies = True

  def identity(self):
    return {"judge": "listed"}

  def facts(self):
    return {"models": ["a list"]}

  def scores(self, documents, sample):
    for number, document in enumerate(documents):
      score = None if "unjudged" in document.text else number % 4 + sample
      yield Judgement(score, "because", {"judge": "listed"})


@pytest.fixture
def inputs(tmp_path):
  path = tmp_path / "raw.jsonl"
  texts = [samples.algorithm(i) for i in range(30)] + [UNJUDGED, "", " \n", " \n"]
  path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts) + "{\n")
  return (str(path),)


def run(inputs, folder_path, judge=None, **settings):
  folder_path.mkdir(exist_ok=True)
  config = AnnotateConfig(inputs, **settings)
  return annotate.run(config, folder_path, Engine(workers=1), judge or Listed())


def test_a_larger_sample_holds_the_smaller_one(inputs, tmp_path):
  ids = []
  for size in (5, 20):
    path = tmp_path / str(size)
    run(inputs, path, annotate.LocalJudge(), sample=size)
    ids.append({document.id for document in folder.kept(path)})
  assert len(ids[0]) == 5
  assert ids[0] < ids[1]


def test_scores_reasons_and_drops_are_noted(inputs, tmp_path):
  stats = run(inputs, tmp_path / "out", sample=100, second_pass=8)
  wanted = {"not JSON": 1, "no usable answer": 1, "read twice": 1}
  assert stats["dropped"] == wanted | {"under 50 characters": 2}
  assert stats["kept"] == 30
  assert stats["second_pass"] == {
    "documents": 8 - (_place_of_unjudged(tmp_path / "out") < 8),
    "exact": 0.0,
    "within_one": 1.0,
    "spearman": 1.0,
    "mean_difference": 1.0,
  }
  documents = list(folder.kept(tmp_path / "out"))
  noted = [document.provenance["annotate"] for document in documents]
  assert all(n["judge"] == "listed" and n["reason"] == "because" for n in noted)
  assert sum("second_score" in n for n in noted) == stats["second_pass"]["documents"]


def _place_of_unjudged(path):
  documents = [*folder.kept(path), *(drop.document for drop in folder.dropped(path))]
  ids = sorted(document.id for document in documents if document.text.strip())
  (unjudged,) = (d.id for d in documents if "unjudged" in d.text)
  return ids.index(unjudged)


def test_two_judges_are_compared_on_what_both_have(inputs, tmp_path):
  run(inputs, tmp_path / "a", sample=100)
  other = str(tmp_path / "a")
  stats = run(inputs, tmp_path / "b", sample=10, compare_with=other)
  assert stats["other_judge"]["documents"] in (7, 8, 9, 10)
  assert stats["other_judge"]["models"] == ["a list"]


@pytest.mark.parametrize("noted", [None, {"reason": "x"}, {"score": "4"}, "4"])
def test_a_folder_without_scores_is_refused_before_anything_is_judged(
  inputs, tmp_path, noted
):
  other = tmp_path / "other"
  other.mkdir()
  folder.begin(other, "exercises", {})
  noted = {} if noted is None else {"annotate": noted}
  counts = folder.write(other, [Keep(samples.document("x = 1\n", **noted))])
  folder.finish(other, "exercises", counts.stats(), {})

  class Paid(Listed):
    def scores(self, documents, sample):
      raise AssertionError("a judge was asked")

  says = rf"^Annotate\.compare_with: got {other}, a folder of exercises whose .* score;"
  with pytest.raises(InputError, match=says):
    run(inputs, tmp_path / "out", Paid(), compare_with=str(other))


def test_the_local_judge_says_that_it_is_no_llm(inputs, tmp_path):
  stats = run(inputs, tmp_path / "out", annotate.LocalJudge(), sample=10)
  assert "no LLM" in stats["models"][0]
  assert "no LLM" in (tmp_path / "out" / "README.md").read_text()


def test_nothing_to_judge_is_refused(tmp_path):
  path = tmp_path / "raw.jsonl"
  path.write_text("nonsense\n")
  with pytest.raises(InputError, match="hold no code to judge"):
    run((str(path),), tmp_path / "out")
  path.write_text('{"text": ""}\n')
  with pytest.raises(folder.EmptyError, match="kept 0 of 1 documents"):
    run((str(path),), tmp_path / "again")


@pytest.mark.parametrize(
  ("first", "second", "wanted"),
  [
    ([1, 2, 3], [1, 2, 3], {"exact": 1.0, "within_one": 1.0, "spearman": 1.0}),
    ([1, 2, 3], [3, 2, 1], {"exact": 0.3333, "within_one": 0.3333, "spearman": -1.0}),
    ([1, 1, 4], [1, 2, 3], {"spearman": 0.866}),
    ([2, 2], [1, 3], {"spearman": None, "mean_difference": 0.0}),
    ([], [], {"documents": 0}),
  ],
)
def test_agreement(first, second, wanted):
  found = annotate.agreement(first, second)
  assert {name: found[name] for name in wanted} == wanted
