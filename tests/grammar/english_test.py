"""The little grammar of English, and choices that are the same everywhere."""

import pytest

from phi1_jax.grammar import draws, english, wording


@pytest.mark.parametrize(
  ("phrase", "gerund", "third"),
  [
    ("square it", "squaring it", "squares it"),
    ("cut it", "cutting it", "cuts it"),
    ("multiply it", "multiplying it", "multiplies it"),
    ("find the largest", "finding the largest", "finds the largest"),
    ("put it there", "putting it there", "puts it there"),
    ("wash it", "washing it", "washes it"),
    ("play it", "playing it", "plays it"),
  ],
)
def test_verb_forms(phrase, gerund, third):
  assert english.gerund(phrase) == gerund
  assert english.third_person(phrase) == third


@pytest.mark.parametrize(
  ("verb", "one", "many", "not_one", "not_many"),
  [
    ("is/are even", "is even", "are even", "is not even", "are not even"),
    (
      "ends/end in 5",
      "ends in 5",
      "end in 5",
      "does not end in 5",
      "do not end in 5",
    ),
    ("is/are not odd", "is not odd", "are not odd", "is odd", "are odd"),
    ("is/are no twin", "is no twin", "are no twin", "is a twin", "are a twin"),
    ("does/do not end so", "does not end so", "do not end so", "ends so", "end so"),
    ("has/have two", "has two", "have two", "does not have two", "do not have two"),
  ],
)
def test_agreement_and_negation(verb, one, many, not_one, not_many):
  assert english.singular(verb) == one
  assert english.plural(verb) == many
  assert english.negated(verb) == not_one
  assert english.negated(verb, many=True) == not_many


def test_lists_articles_and_capitals():
  assert english.listed(["a"]) == "a"
  assert english.listed(["a", "b", "c"]) == "a, b and c"
  assert english.article("element") == "an element"
  assert english.article("word") == "a word"
  assert english.capital("even `x`") == "Even `x`"
  assert english.both(["is a or b", "is c"]) == "is a or b, and also is c"


def test_wrapping_keeps_every_word():
  text = "one two three four five six"
  lines = english.wrapped(text, 9, " ")
  assert max(map(len, lines)) <= 9
  assert " ".join(line.strip() for line in lines) == text


def test_draws_are_fixed_for_ever():
  """Numbers that Python's own promise about `random()` fixes."""
  rng = draws.generator("a", 1)
  assert [draws.whole(rng, 0, 99) for _ in range(5)] == [33, 88, 78, 14, 54]
  assert draws.several(draws.generator("b"), range(5), 9) == [3, 0, 2, 4, 1]


def test_weights_are_kept():
  rng = draws.generator("weights")
  drawn = [draws.weighted(rng, ((3, "a"), (1, "b"), (0, "c"))) for _ in range(4000)]
  assert drawn.count("a") / 4000 == pytest.approx(0.75, abs=0.03)
  assert "c" not in drawn


def test_early_options_come_more_often():
  rng = draws.generator("early")
  drawn = [draws.often_early(rng, range(10)) for _ in range(4000)]
  assert drawn.count(0) > 1.5 * drawn.count(9)
  assert set(drawn) == set(range(10))


@pytest.mark.parametrize(
  ("text", "expected"),
  [
    ("What is how many words fit?", "How many words fit?"),
    (
      "What is the even numbers of a, as a list?",
      "What are the even numbers of a, as a list?",
    ),
    ("What is the sum of a?", "What is the sum of a?"),
  ],
)
def test_questions_agree_with_what_they_ask_for(text, expected):
  assert wording.asked(text) == expected
