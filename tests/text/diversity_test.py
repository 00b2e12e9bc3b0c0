import pytest

from phi1_jax.text import diversity


def test_distinct_is_the_share_of_runs_that_differ():
  assert diversity.distinct(["a b a b"], 1) == 0.5
  assert diversity.distinct(["a b", "a b", "c d"], 2) == pytest.approx(2 / 3)
  assert diversity.distinct(["a"], 2) == 0.0  # no run at all


def test_repetition_compresses():
  varied = [f"{n * 7919 % 10007} words" for n in range(300)]
  assert diversity.compression_ratio(["the same words"] * 300) > 20
  assert diversity.compression_ratio(varied) < 5
  assert diversity.compression_ratio([]) == 0.0


def test_nearest_neighbour_is_the_mean_over_each_texts_best():
  texts = ["a b c d e f", "a b c d e g", "q r s t u v"]
  # Of two shingles each, the first two share one: 1/3; the third has no neighbour.
  assert diversity.nearest_neighbour(texts) == pytest.approx((1 / 3 + 1 / 3 + 0) / 3)
  assert diversity.nearest_neighbour(["a b c d e"]) == 0.0
  assert diversity.nearest_neighbour(["", "a"]) == 0.0
  assert diversity.nearest_neighbour(["a b c d e"] * 3) == 1.0
