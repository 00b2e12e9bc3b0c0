"""Literals, calls and asserts."""

import random

import pytest

from phi1_jax.grammar import exercise
from phi1_jax.grammar.exercise import Call


@pytest.mark.parametrize(
  ("value", "expected"),
  [
    ("it's", '"it\'s"'),
    ('say "no"', r'"say \"no\""'),
    (["a", "b"], '["a", "b"]'),
    ((1,), "(1,)"),
    (("a",), '("a",)'),
    ({"b", "a"}, '{"a", "b"}'),
    (set(), "set()"),
    ([{3, 1}, "x"], '[{1, 3}, "x"]'),
    ({"k": [1, "z"]}, '{"k": [1, "z"]}'),
    (True, "True"),
    (None, "None"),
    (-3, "-3"),
    (2.5, "2.5"),
    ("{}", '"{}"'),
  ],
)
def test_literal(value, expected):
  assert exercise.literal(value) == expected
  assert eval(expected) == value


def test_calls_are_distinct_short_and_rarely_echo():
  made = exercise.calls(lambda x: x, "f", [[1], [2]])
  assert made == []
  made = exercise.calls(
    lambda x: x * x, "f", [[3], [3], [1], [0], [4], ["a"] * 0 or [5]]
  )
  assert [call.source for call in made] == ["f(3)", "f(4)", "f(5)", "f(1)"]
  assert [call.answer for call in made] == ["9", "16", "25", "1"]
  assert exercise.calls(lambda x: len(x), "f", [["w" * 100]]) == []
  assert exercise.calls(lambda x: x * 100, "f", [["w"]]) == []


def test_a_solution_that_is_undefined_somewhere_is_not_called():
  assert exercise.calls(lambda x: x[0], "f", [[[1]], [[]]]) == []


def made_of(*answers):
  return [
    Call(f"f({n})", str(answer), f"{type(answer).__name__} {answer}")
    for n, answer in enumerate(answers)
  ]


@pytest.mark.parametrize(
  "answers",
  [
    (1, 1, 1, 2, 2, 2),
    (True, True, True, True, False),
    (True,) * 8,
    (1, 2, 3, 4),
  ],
)
def test_answers_that_are_too_much_alike_or_too_few_are_refused(answers):
  assert exercise.chosen(random.Random(0), made_of(*answers)) is None


def test_distinct_answers_come_first():
  for seed in range(10):
    taken = exercise.chosen(random.Random(seed), made_of(1, 1, 1, 1, 1, 2, 3, 4))
    assert taken is not None
    assert [call.answer for call in taken[:4]] == ["1", "2", "3", "4"]
    assert len(taken) in (5, 6)


def test_both_bools_are_there_twice():
  for seed in range(10):
    answers = [True] * 6 + [False] * 2
    taken = exercise.chosen(random.Random(seed), made_of(*answers))
    assert taken is not None
    assert [call.answer for call in taken].count("False") == 2


def test_asserts_use_is_for_what_is_one_of_its_kind():
  assert exercise.asserts(made_of(True, 1, None, "x")) == (
    "assert f(0) is True",
    "assert f(1) == 1",
    "assert f(2) is None",
    "assert f(3) == x",
  )
