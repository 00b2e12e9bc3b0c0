"""Hashes of runs of words, the similarity of texts, and their diversity."""

import numpy as np
import pytest

from phi1_jax import InputError
from phi1_jax.text import diversity, settings_file, shingles


def test_a_run_is_known_by_its_words_and_their_order_in_every_process():
  hashes = shingles.ngrams(list("abcabcba"), 3)
  assert len(hashes) == 6
  assert hashes[0] == hashes[3]  # a b c
  assert len(set(hashes.tolist())) == 5
  assert len(shingles.ngrams(["a", "b"], 3)) == 0
  words = ["a", "b", "c"]
  hashed = shingles.ngrams(shingles.word_hashes(words), 2)
  assert np.array_equal(hashed, shingles.ngrams(words, 2))
  assert hashed[0] == 8064652577661087557  # as another process has found


def test_jaccard():
  one, other = np.array([1, 2, 3, 4], np.uint64), np.array([3, 4, 5], np.uint64)
  assert shingles.jaccard(one, other) == 2 / 5
  assert shingles.jaccard(one, one) == 1.0
  assert shingles.jaccard(one[:0], one[:0]) == 0.0


def test_measures_of_diversity():
  assert diversity.distinct(["a b a b"], 1) == 0.5
  assert diversity.distinct(["a b", "a b", "c d"], 2) == pytest.approx(2 / 3)
  assert diversity.distinct(["a"], 2) == 0.0  # no run at all
  varied = [f"{n * 7919 % 10007} words" for n in range(300)]
  assert diversity.compression_ratio(["the same words"] * 300) > 20
  assert diversity.compression_ratio(varied) < 5
  assert diversity.compression_ratio([]) == 0.0
  texts = ["a b c d e f", "a b c d e g", "q r s t u v"]
  # Of two shingles each, the first two share one: 1/3; the third has no neighbour.
  assert diversity.nearest_neighbour(texts) == pytest.approx((1 / 3 + 1 / 3 + 0) / 3)
  assert diversity.nearest_neighbour(["", "a"]) == 0.0
  assert diversity.nearest_neighbour(["a b c d e"] * 3) == 1.0


def test_a_folder_keeps_its_settings(tmp_path):
  settings = {"task_set": "humaneval-164", "stops": ("a", "b"), "seed": 0}
  begun = settings_file.begin(tmp_path / "run.json", settings)
  assert begun["settings"] == {**settings, "stops": ["a", "b"]}
  assert settings_file.begin(tmp_path / "run.json", settings) == begun
  with pytest.raises(InputError, match="begun with seed = 0, now it is 1; name"):
    settings_file.begin(tmp_path / "run.json", settings | {"seed": 1})
  # The digest is that of the content.
  assert settings_file.digest({"a": 1, "b": 2}) == settings_file.digest(
    {"b": 2, "a": 1}
  )
  assert settings_file.digest({"a": 1}) != settings_file.digest({"a": "1"})
  assert len(settings_file.digest("\ud800")) == 64  # JSON can hold it
