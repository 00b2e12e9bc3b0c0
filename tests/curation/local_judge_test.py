"""The local judge: what it likes, and that it needs no luck to say so."""

import pytest

from phi1_jax.curation import local_judge

GOOD = '''"""Searching in sorted lists."""


def binary_search(numbers, wanted):
  """Returns an index of `wanted` in the sorted list `numbers`, or -1.

  >>> binary_search([1, 3, 5], 3)
  1
  """
  low, high = 0, len(numbers) - 1
  # What is left to search is numbers[low:high + 1].
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
SETTINGS = "import django\nfrom . import base\n" + "".join(
  f"OPTION_{i} = {i}\nDEFAULT_{i} = 'value'\n" for i in range(30)
)


def test_a_documented_algorithm_is_worth_more_than_settings():
  assert local_judge.score(GOOD) >= 4
  assert local_judge.score(SETTINGS) <= 1


@pytest.mark.parametrize(
  "text", ["print 'Python 2'\n", "", "\0", "def f(:\n", "(" * 999]
)
def test_what_is_no_program_is_worth_nothing(text):
  assert local_judge.score(text) == 0.0


def test_comments_alone_are_not_enough():
  commented = "".join(f"# This line says that option {i} is set.\n" for i in range(40))
  assert local_judge.score(SETTINGS + commented) < 2
  assert local_judge.comment_ratio(SETTINGS + commented) > 0.3


@pytest.mark.parametrize(
  ("change", "feature"),
  [
    (
      lambda text: text.replace('"""Returns an', '"Returns an').split('"Ret')[0],
      "logic",
    ),
    (lambda text: text.replace("  # What", "  pass # What"), "comments"),
    (lambda text: "import django\n" + text, "own"),
  ],
)
def test_a_feature_falls_with_what_it_measures(change, feature):
  before = local_judge.features(GOOD)
  after = local_judge.features(change(GOOD))
  assert before is not None
  if after is None:  # the change broke the program: nothing is left to measure
    assert local_judge.score(change(GOOD)) == 0
  else:
    assert getattr(after, feature) < getattr(before, feature)


def test_scores_are_in_range_and_in_tenths():
  for text in (GOOD, SETTINGS, GOOD * 40, "x = 1\n"):
    score = local_judge.score(text)
    assert 0 <= score <= 5
    assert round(10 * score) == pytest.approx(10 * score)
