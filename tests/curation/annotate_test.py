"""A sample is chosen, judged, and its agreement measured; and the local judge."""

import pytest

from phi1_jax import InputError
from phi1_jax.curation import annotate, folder, local_judge
from phi1_jax.curation.config import AnnotateConfig
from phi1_jax.curation.document import Keep
from phi1_jax.curation.engine import Engine, Job
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
  config = AnnotateConfig(inputs, **settings)
  return annotate.run(Job(config, place, Engine(tasks=2, workers=1)), judge)


def test_a_larger_sample_holds_the_smaller_one(inputs, tmp_path):
  ids = []
  for size in (5, 20):
    stats = run(inputs, tmp_path / str(size), sample=size)
    ids.append({document.id for document in folder.kept(tmp_path / str(size))})
  assert len(ids[0]) == 5
  assert ids[0] < ids[1]
  assert "no LLM" in stats["models"][0]
  assert "no LLM" in (tmp_path / "20" / "README.md").read_text()


def test_the_progress_bar_ends_at_the_documents_that_are_there(inputs, tmp_path):
  bars = {}

  class Bar:
    def __init__(self, total, unit, title):
      self.title = title
      bars[title] = [total, 0]

    def __enter__(self):
      return self

    def __exit__(self, *error):
      pass

    def update(self, count):
      bars[self.title][1] += count

  job = Job(
    AnnotateConfig(inputs, sample=100), tmp_path / "out", Engine("local", 2, 1, Bar)
  )
  read = annotate.run(job)["read"]
  assert bars["out: judge"] == [read, read]


def test_scores_reasons_and_drops_are_noted(inputs, tmp_path):
  place = tmp_path / "out"
  stats = run(inputs, place, Listed(), sample=100, second_pass=8)
  wanted = {"not JSON": 1, "no usable answer": 1, "read twice": 2}
  assert stats["dropped"] == wanted | {"under 50 characters": 2}
  assert stats["kept"] == 30
  documents = list(folder.kept(place))
  unanswered = [d for d in folder.dropped(place) if d.reason == "no usable answer"]
  judged = [*documents, *(drop.document for drop in unanswered)]  # all of good form
  least = sorted(each.id for each in judged)[:8]
  again = {document.id for document in documents} & set(least)
  noted = {document.id: document.provenance["annotate"] for document in documents}
  assert {n for n, each in noted.items() if "second_score" in each} == again
  assert stats["second_pass"] == {
    "documents": len(again),
    "exact": 0.0,
    "within_one": 1.0,
    "spearman": 1.0,
    "mean_difference": 1.0,
  }
  assert all(
    n["judge"] == "listed" and n["reason"] == "because" for n in noted.values()
  )
  other = run(inputs, tmp_path / "b", Listed(), sample=10, compare_with=str(place))
  assert other["other_judge"]["documents"] in (7, 8, 9, 10)
  assert other["other_judge"]["exact"] == 1.0
  assert other["other_judge"]["models"] == ["a list"]


@pytest.mark.parametrize("noted", [None, {"score": "4"}])
def test_a_folder_without_scores_is_refused_before_anything_is_judged(
  inputs, tmp_path, noted
):
  other = tmp_path / "other"
  noted = {} if noted is None else {"annotate": noted}
  samples.stage(other, "exercises", [Keep(samples.document("x = 1\n", **noted))])

  class Paid(Listed):
    def scores(self, documents, sample):
      raise AssertionError("a judge was asked")

  says = rf"^Annotate\.compare_with: got {other}, a folder of exercises whose .* score;"
  with pytest.raises(InputError, match=says):
    run(inputs, tmp_path / "out", Paid(), compare_with=str(other))


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


@pytest.mark.parametrize(
  ("reply", "score"),
  [
    ('{"reason": "clear", "score": 4}', 4.0),
    ('```json\n{"score": "3", "reason": null}\n```', 3.0),
    ("I think {it} is fine. Score: 2.5", 2.5),
    ('{"score": 0}', 0.0),
    ('Draft: {"score": 1}. Better: {"score": 4} {"note": 1}', 4.0),
    ("Score: 1, no, score: 3", 3.0),
  ],
)
def test_scores_are_found(reply, score):
  assert annotate.read_reply(reply)[0] == score


@pytest.mark.parametrize(
  "reply",
  ["", "no", '{"score": 7}', '{"score": 1}{"score": 7}', '{"score": "high"}', "[5]"],
)
def test_answers_without_a_score_are_refused(reply):
  with pytest.raises(Malformed):
    annotate.read_reply(reply)


GOOD = '''"""Searching in sorted lists."""


def binary_search(numbers, wanted):
  """Returns an index of `wanted` in the sorted list `numbers`, or -1.

  >>> binary_search([1, 3, 5], 3)
  1
  """
  low, high = 0, len(numbers) - 1
  # The rest to search is numbers[low:high + 1].
  while low <= high:
    middle = (low + high) // 2
    if numbers[middle] == wanted:
      return middle
    if numbers[middle] < wanted:
      low = middle + 1
    else:
      high = middle - 1
  return -1
'''
COMMENTS = "".join(f"# This line says that option {i} is set.\n" for i in range(40))


def score(text):
  return local_judge.weigh(local_judge.features(text))


def test_the_local_judge_prefers_explained_code_to_comments_and_settings():
  assert 4 <= score(GOOD) <= 5
  assert 0 <= score(samples.settings(1) * 4) <= 1
  commented = samples.settings(1) * 4 + COMMENTS
  assert score(commented) < 2  # comments alone are not enough
  assert local_judge.features(commented).comments > 0.3
  foreign = local_judge.features("import django\n" + GOOD)
  assert foreign.own < local_judge.features(GOOD).own
  for text in ("print 'Python 2'\n", "", "\0", "def f(:\n"):
    assert local_judge.features(text) is None
