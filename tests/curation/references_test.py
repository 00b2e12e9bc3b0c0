"""What is found of a benchmark's problems, in documents made of HumanEval's."""

import ast
import gzip
import json
import pickle
import textwrap

import numpy as np
import pytest

from phi1_jax import InputError, storage
from phi1_jax.curation import references, verdict
from phi1_jax.curation.config import DecontaminateConfig
from phi1_jax.problems import humaneval, written
from phi1_jax.problems.problem import Problem
from phi1_jax.text import shingles, source, trees

PROBLEMS = {problem.id: problem for problem in humaneval.load()}
LONG = PROBLEMS["HumanEval/1"]  # separate_paren_groups


def shape(code):
  found = trees.shape(source.functions(code)[0].node)
  assert found is not None
  return found


@pytest.fixture(scope="module")
def index():
  return pickle.loads(pickle.dumps(references.Index.of(("humaneval-164",), 13)))


def reasons(index, text, problem, tau=0.95):
  found = [e for e in index.evidence(text, 0.8) if e.problem == problem.id]
  return {verdict.reason(e, tau) for e in found} - {None}


def without_text(problem):
  tree = ast.parse(references.without_docstrings(problem.solution))
  return ast.unparse(tree)


def test_every_problem_is_found_verbatim_and_formatted_anew(index):
  for problem in PROBLEMS.values():
    assert reasons(index, problem.solution, problem), problem.id
    formatted = ast.unparse(ast.parse(problem.solution)).replace("\n", "\r\n")
    assert reasons(index, formatted, problem), problem.id


def test_bodies_are_found_line_by_line(index):
  text = f"class A:\n  def f(self):\n{textwrap.indent(LONG.reference, '  ')}"
  assert "exact solution" in reasons(index, text, LONG)


def test_text_is_found_without_its_solution(index):
  text = f'"""{LONG.prompt.replace(chr(34) * 3, "")}"""\n'
  assert reasons(index, text, LONG) == {"text"}


def test_code_is_found_without_its_text_and_names(index):
  code = without_text(LONG)
  for number, name in enumerate(
    ("result", "current_string", "paren_string", LONG.entry_point)
  ):
    code = code.replace(name, f"name_{number}")
  assert reasons(index, code, LONG) == {"AST"}


def test_code_is_found_where_the_file_does_not_parse(index):
  text = f"print 'Python 2'\n\n\n{LONG.solution}\n\ndef torn("
  assert "exact solution" in reasons(index, text, LONG)
  shuffled = without_text(LONG).replace("current", "recent").replace("paren", "p")
  assert reasons(index, f"{shuffled}\n\ndef torn(", LONG) == {"AST"}


def test_what_anybody_writes_proves_nothing(index):
  add = PROBLEMS["HumanEval/53"]
  assert not reasons(index, "def add(x, y):\n  return x + y\n", add)
  assert reasons(index, add.solution, add)  # with its text it does
  assert references.generic(shape("def f(a, b): return a + b"))
  assert not references.generic(shape(LONG.solution))


def test_a_modules_other_functions_are_no_evidence_for_a_name(index):
  """`same_name` is of the function that matches, not of any in the file."""
  text = "def other(a):\n  return a[0]\n\ndef separate_paren_groups(b):\n  pass\n"
  assert not reasons(index, text, LONG)


def test_a_wrapper_is_known_by_what_it_wraps():
  solution = (
    "def g(a):\n  best = 0\n  for x in a:\n    if x % 3 == 1 and x > best:\n"
    "      best = x * 2\n  return best\ndef f(a):\n  return g(a)\n"
  )
  problem = Problem("Mbpp/0", "f", "Write a function to do.", solution, solution, ())
  made = references.reference("set", problem)
  assert len(made.shapes) == 2
  assert made.text_words == ("do",)
  assert made.lines == ("return g(a)",)


ROW = {"task_id": "Own/7", "prompt": "", "entry_point": "f", "test": ""}


@pytest.mark.parametrize(
  ("solution", "says"),
  [
    (
      "def f(:\n",
      "got a solution .* that is not valid Python, expected a function 'f'",
    ),
    ("class A:\n  def f(self): return 1\n", "got a solution without it, expected"),
    ("f = lambda a: a\n", "got a solution without it, expected"),
    (
      "def f(a):\n  if a: pass\n" + "  elif a > 1: pass\n" * 1200,
      "got one that is nested too deep to be compared",
    ),
  ],
)
def test_ones_own_problem_that_cannot_be_compared_is_named(solution, says, tmp_path):
  path = tmp_path / "my.jsonl"
  path.write_text(json.dumps({**ROW, "canonical_solution": solution}) + "\n")
  with pytest.raises(InputError, match=rf"{path}, Own/7: {says}") as error:
    references.Index.of((str(path),), 13)
  assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", written.TASK_SETS)
def test_what_was_written_for_this_project_is_found_by_name(name):
  config = DecontaminateConfig(("x",), (name,))
  made = references.Index.of(config.benchmarks, config.ngram)
  problems = written.load(name)
  assert made.ids() == {name: {problem.id for problem in problems}}
  found = [p for p in problems if reasons(made, p.solution, p)]
  assert len(found) == len(problems)


def test_distances_are_of_the_closest_function():
  problems = [PROBLEMS["HumanEval/0"], LONG]
  made = [references.reference("humaneval-164", problem) for problem in problems]

  def embed(texts):
    return np.array([[3.0, 0] if "first" in t else [0, 2.0] for t in texts])

  vectors = references.embed_code(lambda texts: np.array([[1.0, 0], [1, 1]]), "ab")
  index = references.Index(made, 13, "", vectors)
  text = "def first(): pass\n\ndef second(): pass\n"
  near = index.near([text, "prose", text], embed, 0.8)
  assert near[0] == near[2] == pytest.approx({0: 0.0, 1: (2 - 2**0.5) ** 0.5})
  assert near[1] == pytest.approx({1: (2 - 2**0.5) ** 0.5})
  found = {e.problem: e.distance for e in index.evidence(text, 0.9, near[0])}
  assert found["HumanEval/0"] == pytest.approx(0.0)


@pytest.mark.parametrize(
  "odd",
  [
    f"def f(a): return 0x{'f' * 5000}\n",
    "def f(a):\n  if a: pass\n" + "  elif a > 1: pass\n" * 1200,
    "def f(a):\n  return " + "a + " * 900 + "a\n",
  ],
)
def test_odd_code_is_code_without_shape(index, odd):
  assert "exact solution" in reasons(index, f"{odd}\n\n{LONG.solution}", LONG)


def test_problems_of_your_own_may_be_in_a_bucket(gcs):
  row = {**ROW, "canonical_solution": "def f(x):\n  return x + 1\n"}
  path = f"{gcs.folder}/my.jsonl.gz"
  content = gzip.compress(json.dumps(row).encode() + b"\n")
  storage.write_bytes(storage.parse(path), content)
  config = DecontaminateConfig(("x",), (path,))
  assert [p.id for _, p in references.problems(config.benchmarks)] == ["Own/7"]


def shared(grams, words):
  return grams.shared(shingles.word_hashes(words))


WORDS = "the quick brown fox jumps over a lazy dog near our old red barn today"
TEXT = WORDS.split()


def test_runs_are_counted_once_each_for_every_owner():
  grams = references.Grams([TEXT, ["so", *TEXT[1:]], ["it", "is", "short"]], 13, 6)
  assert grams.totals.tolist() == [3, 3, 0]
  assert shared(grams, TEXT) == {0: 3, 1: 2}
  assert shared(grams, [*TEXT, "and", *TEXT]) == {0: 3, 1: 2}
  assert shared(grams, TEXT[:12]) == {}
  short = references.Grams([TEXT[:7], TEXT[:5]], 13, 6)  # one run, and none
  assert short.totals.tolist() == [1, 0]
  assert shared(short, ["see", *TEXT]) == {0: 1}
  numbers = [str(n) for n in range(20)]  # rows of them tell nothing
  grams = references.Grams([numbers, ["ab", "cd"] * 10], 13, 6)
  assert grams.totals.tolist() == [0, 0]


@pytest.mark.parametrize("least", [0.95, 0.0])
def test_a_match_of_exactly_the_least_counts(least):
  codes = [f"def f(a): return a.b({', '.join(['x'] * 12)}, {n})" for n in "12"]
  one, other = map(shape, codes)
  assert len(one.written) == 20
  found = references.Shapes(["f"], [[one]]).best([("g", other)], least)
  assert found[0].rate >= 0.95
