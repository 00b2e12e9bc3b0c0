"""The rules, and the evidence that they note."""

import dataclasses

import pytest

from phi1_jax.curation import references
from phi1_jax.curation.document import Drop, Keep
from phi1_jax.curation.references import Evidence
from tests.curation import samples

LONG = Evidence("HumanEval/0", tokens=40, words=30, text_words=20)
SHORT = dataclasses.replace(LONG, problem="Mbpp/1", tokens=9, words=6, text_words=7)
IDIOM = dataclasses.replace(LONG, tokens=23)
COMMON = dataclasses.replace(LONG, generic=True, generic_match=True)
RULES = [
  (LONG, {"exact": True}, "exact solution"),
  (SHORT, {"exact": True}, None),  # `return a + b` stands in every third file
  (COMMON, {"exact": True}, None),
  (LONG, {"text": 0.5, "text_runs": 3}, "text"),
  (LONG, {"text": 0.49, "text_runs": 9}, None),
  (LONG, {"text": 1.0, "text_runs": 1}, "text"),
  (SHORT, {"text": 1.0, "text_runs": 1}, None),
  (LONG, {"solution": 0.5, "solution_runs": 3}, "solution words"),
  (COMMON, {"solution": 0.9, "solution_runs": 9}, None),
  (LONG, {"match": 0.95}, "AST"),
  (LONG, {"match": 0.949}, None),
  (IDIOM, {"match": 1.0}, None),  # two people write 23 tokens alike
  (IDIOM, {"match": 1.0, "same_name": True}, "AST"),
  (IDIOM, {"match": 1.0, "phrases": 0.5}, "AST"),
  (COMMON, {"match": 1.0, "same_name": True}, None),
  (COMMON, {"match": 1.0, "phrases": 0.5}, "short, AST and words"),
  (SHORT, {"match": 1.0}, None),
  (SHORT, {"match": 1.0, "same_name": True}, "short, AST and words"),
  (SHORT, {"match": 1.0, "text": 1.0, "text_runs": 1}, "short, AST and words"),
  (LONG, {"match": 0.85, "same_name": True}, "AST and words"),
  (LONG, {"match": 0.84, "same_name": True}, None),
  (LONG, {"match": 0.7, "phrases": 0.5}, "AST and words"),
  (LONG, {"match": 0.7, "distance": 0.1}, "AST and words"),
  (LONG, {"distance": 0.1}, None),  # a candidate, no more
  (SHORT, {"match": 0.9, "same_name": True}, None),
]


@pytest.mark.parametrize(("found", "facts", "reason"), RULES)
def test_rules_at_the_papers_first_tau(found, facts, reason):
  assert references.reason(dataclasses.replace(found, **facts), 0.95) == reason


def test_every_reason_is_listed():
  assert {reason for _, _, reason in RULES} - {None} == set(references.REASONS)


def test_a_lower_tau_convicts_more_but_not_the_short_ones():
  long = dataclasses.replace(LONG, match=0.85)
  assert references.reason(long, 0.85) == "AST"
  short = dataclasses.replace(SHORT, match=0.9, same_name=True)
  assert references.reason(short, 0.8) is None


def test_a_drop_names_every_problem_and_the_strongest_pairs():
  def similar(number, **facts):
    return dataclasses.replace(LONG, problem=f"Mbpp/{number}", **facts)

  found = [similar(n, match=0.95 + n / 1000) for n in range(8)]
  found += [similar(98, match=0.8), similar(99, text=0.6, text_runs=3)]
  decision = references.decide(samples.document("text"), found, 0.95)
  assert isinstance(decision, Drop)
  assert decision.reason == "AST"
  assert decision.evidence["problems"] == [f"Mbpp/{n}" for n in (*range(8), 99)]
  pairs = decision.evidence["pairs"]
  # A copy is noted behind any number of likenesses.
  assert [p["problem"] for p in pairs] == [f"Mbpp/{n}" for n in (7, 6, 5, 4, 3, 99)]
  assert [p["reason"] for p in pairs] == ["AST"] * references.NOTED + ["text"]
  size = {"tokens": 40, "words": 30, "text_words": 20}
  assert pairs[0] == {"problem": "Mbpp/7", "match": 0.957, **size, "reason": "AST"}


def test_kept_documents_note_the_evidence():
  weak = dataclasses.replace(LONG, match=0.9, function="f", text_runs=1)
  decision = references.decide(samples.document("text"), [weak], 0.95)
  assert isinstance(decision, Keep)
  noted = decision.document.provenance["decontaminate"]
  assert noted["candidates"] == 1
  (pair,) = noted["looked_at"]
  assert (pair["match"], pair["function"]) == (0.9, "f")
