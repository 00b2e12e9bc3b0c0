"""No docstring of a benchmark is in the tables or made by them."""

import ast
import os
import re

import pytest

from phi1_jax import InputError
from phi1_jax.grammar import agree, rows, teacher
from phi1_jax.problems import humaneval, mbpp, written

COUNT = 10_000


def words(text):
  return re.findall(r"[a-z0-9]+", text.lower())


def docstring(prompt):
  """The words of a prompt's docstring, without its examples."""
  nodes = ast.parse(prompt + "    pass\n").body
  function = [node for node in nodes if isinstance(node, ast.FunctionDef)][-1]
  text = ast.get_docstring(function) or ""
  return " ".join(words(re.split(r"\n\s*>>>|\n\s*\n", text)[0]))


def grams(text):
  found = words(text)
  return {tuple(found[i : i + 13]) for i in range(len(found) - 12)}


def problems(name):
  if name == "humaneval":
    return [p.prompt for p in humaneval.load()]
  if name != "mbpp":
    return [p.prompt for p in written.load(name)]
  try:
    loaded = mbpp.load("mbpp-full-500", os.environ.get(mbpp.ENVIRONMENT))
  except InputError as error:
    pytest.skip(str(error))
  stub = 'def f():\n    """{}"""\n'
  return [stub.format(p.prompt.replace("\\", "")) for p in loaded]


@pytest.fixture(scope="module")
def prompts():
  return [exercise.prompt for exercise in teacher.exercises(9, 0, COUNT)]


@pytest.mark.parametrize(
  "name", ["handwritten-100", "unconventional-50", "humaneval", "mbpp"]
)
def test_no_docstring_of_a_benchmark_is_made_by_the_tables(prompts, name):
  theirs = problems(name)
  docstrings = set(map(docstring, theirs)) - {""}
  assert len(docstrings) >= 50
  runs = set().union(*map(grams, theirs))
  for prompt in prompts:
    assert docstring(prompt) not in docstrings
    assert not grams(prompt) & runs, prompt
  said = {
    " ".join(words("".join(p if isinstance(p, str) else "x" for p in template)))
    for task in rows.load().tasks
    for wording in task.wordings
    for template in wording.templates
  }
  assert not said & docstrings


def test_a_problem_agrees_with_training_by_its_asserts_alone():
  vowels = "assert candidate('aXe') == 2; assert candidate('') == 0"
  asserts = [
    ("total", "g", ["assert g([1, 2, 3]) == 6", "assert g([5, -1]) == 4"]),
    ("vowels", "h", [f"def check(candidate):\n    {vowels}\n"]),
    ("odd", "k", ["assert k(2, 3) == 'no function does that'"]),
    ("other", "m", ["assert m(1) > 3"]),
  ]
  found = agree.agreeing([agree.read(*each) for each in asserts], 2000)
  assert found == {"total", "vowels"}
