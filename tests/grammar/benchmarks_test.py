"""The grammar and the benchmarks' problems: what they have in common."""

import ast
import re

import pytest

from phi1_jax import InputError
from phi1_jax.grammar import teacher
from phi1_jax.problems import humaneval

COUNT = 3000


@pytest.fixture(scope="module")
def problems():
  try:
    return humaneval.load()
  except InputError as error:
    pytest.skip(str(error))


@pytest.fixture(scope="module")
def exercises():
  return list(teacher.exercises(9, 0, COUNT))


def shape(source):
  """A function's code without its name, docstring and the names it uses."""
  function = next(
    node for node in ast.parse(source).body[::-1] if isinstance(node, ast.FunctionDef)
  )
  names: dict[str, str] = {}
  for node in ast.walk(function):
    if isinstance(node, ast.arg):
      node.annotation = None
      node.arg = names.setdefault(node.arg, f"v{len(names)}")
    elif isinstance(node, ast.Name):
      node.id = names.setdefault(node.id, f"v{len(names)}")
  function.name, function.returns = "f", None
  body = function.body[1:] if ast.get_docstring(function) else function.body
  return ast.dump(ast.Module(body=body, type_ignores=[]))


def words(text):
  return re.findall(r"[a-z]+", text.lower())


def test_no_exercise_has_the_name_of_a_problem(problems, exercises):
  names = {problem.entry_point for problem in problems}
  assert not names & {exercise.name for exercise in exercises}


def test_no_docstring_shares_ten_words_in_a_row_with_a_problem(problems, exercises):
  seen = {
    tuple(some[i : i + 10])
    for problem in problems
    for some in [words(problem.prompt)]
    for i in range(len(some) - 9)
  }
  shared = []
  for exercise in exercises:
    some = words(exercise.prompt)
    if any(tuple(some[i : i + 10]) in seen for i in range(len(some) - 9)):
      shared.append(exercise.name)
  assert shared == []


def test_only_generic_lines_are_solutions_of_problems_too(problems, exercises):
  """Bodies that equal a reference but for their names: at most one in 1,000."""
  solutions = {shape(problem.solution): problem.id for problem in problems}
  same = [
    (solutions[shape(exercise.text)], exercise.name)
    for exercise in exercises
    if shape(exercise.text) in solutions
  ]
  assert len(same) <= COUNT / 1000, same
