"""A sample is chosen, judged, and its agreement measured; and the local judge."""

import pytest

from phi1_jax import InputError
from phi1_jax.curation import annotate, folder, local_judge
from phi1_jax.curation.config import AnnotateConfig
from phi1_jax.llm.conversation import Malformed
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
    for document in documents:
      score = int(document.id, 16) % 4 + sample
      score = None if "unjudged" in document.text else score
      yield score, "because", {"judge": "listed"}


@pytest.fixture
def inputs(tmp_path):
  texts = [samples.algorithm(i) for i in range(30)] + [UNJUDGED, "", *[" \n"] * 3]
  rows = [{"text": text, "repo": "r"} for text in texts]
  paths = (tmp_path / f"{n}.jsonl" for n in range(2))
  return tuple(samples.write(p, rows[n::2], "{\n" * n) for n, p in enumerate(paths))


def run(inputs, place, judge=None, **settings):
  return annotate.run(samples.job(AnnotateConfig(inputs, **settings), place), judge)


def test_a_larger_sample_holds_the_smaller_one(inputs, tmp_path):
  ids = []
  for size in (5, 20):
    stats = run(inputs, tmp_path / str(size), sample=size)
    ids.append({document.id for document in folder.kept(tmp_path / str(size))})
  assert len(ids[0]) == 5
  assert ids[0] < ids[1]
  assert "no LLM" in stats["models"][0]
  assert "no LLM" in (tmp_path / "20" / "README.md").read_text()


def test_scores_reasons_and_drops_are_noted(inputs, tmp_path):
  place = tmp_path / "out"
  stats = run(inputs, place, Listed(), sample=100, second_pass=8)
  wanted = {"not JSON": 1, "no usable answer": 1, "read twice": 2}
  assert stats["dropped"] == wanted | {"under 50 characters": 2}
  assert stats["kept"] == 30
  documents = list(folder.kept(place))
  dropped = (d.document for d in folder.dropped(place) if d.reason != "not JSON")
  least = sorted({each.id for each in (*documents, *dropped)})[:8]  # of the sample
  again = {document.id for document in documents} & set(least)
  noted = {document.id: document.provenance["annotate"] for document in documents}
  assert {n for n, each in noted.items() if "second_score" in each} == again
  shares = {"exact": 0.0, "within_one": 1.0, "spearman": 1.0, "mean_difference": 1.0}
  assert stats["second_pass"] == {"documents": len(again), **shares}
  assert {(n["judge"], n["reason"]) for n in noted.values()} == {("listed", "because")}
  other = run(inputs, tmp_path / "b", Listed(), sample=10, compare_with=str(place))
  assert other["other_judge"]["documents"] > 5
  assert other["other_judge"]["exact"] == 1.0
  assert other["other_judge"]["models"] == ["a list"]


@pytest.mark.parametrize("noted", [{}, {"annotate": {"score": "4"}}])
def test_a_folder_without_scores_is_refused_before_anything_is_judged(
  inputs, tmp_path, noted
):
  other = samples.stage(
    tmp_path / "other", "exercises", [samples.document("x = 1\n", **noted)]
  )

  class Paid(Listed):
    def scores(self, documents, sample):
      raise AssertionError("a judge was asked")

  says = rf"^Annotate\.compare_with: got {other}, a folder of exercises whose .* score;"
  with pytest.raises(InputError, match=says):
    run(inputs, tmp_path / "out", Paid(), compare_with=str(other))


@pytest.mark.parametrize(
  ("first", "second", "wanted"),
  [
    ([1, 2, 3], [3, 2, 1], {"exact": 0.3333, "within_one": 0.3333, "spearman": -1.0}),
    ([1, 1, 4], [1, 2, 3], {"spearman": 0.866}),
    ([2, 2], [1, 3], {"spearman": None, "mean_difference": 0.0}),
    ([], [], {"documents": 0}),
  ],
)
def test_agreement(first, second, wanted):
  found = annotate.agreement(first, second)
  assert {name: found[name] for name in wanted} == wanted


@pytest.mark.parametrize(
  ("reply", "score"),
  [
    ('```json\n{"score": "3", "reason": null}\n```', 3.0),
    ("I think {it} is fine. Score: 1, no, score: 2.5", 2.5),
    ('Draft: {"score": 1}. Better: {"score": 0} {"note": 1}', 0.0),
    ("no", None),
    ('{"score": 1}{"score": 7}', None),
    ('{"score": "high"}', None),
  ],
)
def test_the_last_score_of_an_answer_counts(reply, score):
  if score is None:
    with pytest.raises(Malformed):
      annotate.read_reply(reply)
  else:
    assert annotate.read_reply(reply)[0] == score


def test_the_local_judge_prefers_explained_code_to_comments_and_settings():
  good, poor = samples.algorithm(1), samples.settings(1) * 4
  comments = "".join(f"# This line says that option {i} is set.\n" for i in range(40))
  found = [local_judge.features(text) for text in (good, poor, poor + comments)]
  explained, plain, commented = map(local_judge.weigh, found)
  assert explained > 4
  assert plain < 1
  assert commented < 2  # comments alone are not enough
  assert found[2].comments > 0.3
  assert local_judge.features("import django\n" + good).own < found[0].own
  for text in ("print 'Python 2'\n", "", "\0", "def f(:\n"):
    assert local_judge.features(text) is None
