import numpy as np
import pytest

from phi1_jax.curation import search
from phi1_jax.text import source, trees

TEXT = [
  "the",
  "quick",
  "brown",
  "fox",
  "jumps",
  "over",
  "a",
  "lazy",
  "dog",
  "near",
  "our",
]
TEXT += ["old", "red", "barn", "today"]
NUMBERS = [str(n) for n in range(20)]


def shape(code):
  found = trees.shape(source.functions(code)[0].node)
  assert found is not None
  return found


def test_runs_are_counted_once_each_for_every_owner():
  grams = search.Grams([TEXT, ["so", *TEXT[1:]], ["it", "is", "short"]], 13, 6)
  assert grams.totals.tolist() == [3, 3, 0]
  assert grams.shared(TEXT) == {0: 3, 1: 2}
  assert grams.shared([*TEXT, "and", *TEXT]) == {0: 3, 1: 2}
  assert grams.shared(TEXT[:12]) == {}


def test_a_text_shorter_than_a_run_is_one_run():
  grams = search.Grams([TEXT[:7], TEXT[:5]], 13, 6)
  assert grams.totals.tolist() == [1, 0]
  assert grams.shared(["see", *TEXT]) == {0: 1}


def test_rows_of_numbers_and_repeated_words_tell_nothing():
  grams = search.Grams([NUMBERS, ["ab", "cd"] * 10], 13, 6)
  assert grams.totals.tolist() == [0, 0]
  assert grams.shared(NUMBERS) == {}


def test_lines_must_follow_each_other():
  lines = search.Lines([("a = 1", "result = a", "end"), ("result = a",), ()])
  assert lines.contained(["x", "a = 1", "result = a", "end"]) == {0, 1}
  assert lines.contained(["a = 1", "x", "result = a", "end"]) == {1}
  assert lines.contained(["result = a", "end"]) == {1}
  assert lines.contained([]) == set()


def test_the_best_match_wins_and_a_name_breaks_a_tie():
  far, near = "def far(a): return a + 1", "def near(a): return a * 2"
  wanted = "def isEven(x): return x * 2"
  shapes = search.Shapes(["isEven"], [[shape(wanted)]])
  found = [("near", shape(near)), ("far", shape(far))]
  assert shapes.best(found, 0.1)[0] == search.Match(1.0, False, 0, 0)
  found.append(("is_even", shape(near)))
  assert shapes.best(found, 0.1)[0] == search.Match(1.0, True, -2, 0)
  assert shapes.best(found[1:2], 0.9) == {}


def test_a_match_of_exactly_the_least_counts():
  codes = [f"def f(a): return a.b({', '.join(['x'] * 12)}, {n})" for n in "12"]
  one, other = map(shape, codes)
  assert len(one.written) == 20
  found = search.Shapes(["f"], [[one]]).best([("g", other)], 0.95)
  assert found[0].rate >= 0.95


def test_many_functions_are_compared_in_parts(monkeypatch):
  codes = [f"def f{n}(a):\n  return a{'.b' * n}" for n in range(9)]
  shapes = search.Shapes([""] * 9, [[shape(code)] for code in codes])
  functions = [(f"f{n}", shape(code)) for n, code in enumerate(codes)]
  whole = shapes.best(functions, 0.3)
  monkeypatch.setattr(search, "_CHUNK", 2)
  assert shapes.best(functions, 0.3) == whole
  assert {n: -match.function for n, match in whole.items()} == {n: n for n in range(9)}
  assert [match.rate for match in whole.values()] == pytest.approx(np.ones(9))
