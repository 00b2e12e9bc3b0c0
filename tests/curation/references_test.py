"""What is found of a benchmark's problems, in documents made of HumanEval's."""

import ast
import gzip
import json
import pickle
import textwrap

import pytest

from phi1_jax import InputError, storage
from phi1_jax.curation import references
from phi1_jax.curation.config import DecontaminateConfig
from phi1_jax.problems import humaneval, written
from phi1_jax.problems.problem import Problem
from phi1_jax.text import shingles, source, trees

PROBLEMS = {problem.id: problem for problem in humaneval.load()}
LONG = PROBLEMS["HumanEval/1"]  # separate_paren_groups
# Nested too deep to have a shape.
DEEP = "def f(a):\n  if a: pass\n" + "  elif a > 1: pass\n" * 1200


def shape(code):
  return trees.shape(source.functions(code)[0].node)


@pytest.fixture(scope="module")
def index():
  return pickle.loads(pickle.dumps(references.Index(("humaneval-164",), 13)))


def reasons(index, text, problem):
  found = [e for e in index.evidence(text, 0.8) if e.problem == problem.id]
  return {references.reason(e, 0.95) for e in found} - {None}


def test_every_problem_is_found_verbatim_and_formatted_anew(index):
  for problem in PROBLEMS.values():
    assert reasons(index, problem.solution, problem), problem.id
    formatted = ast.unparse(ast.parse(problem.solution)).replace("\n", "\r\n")
    assert reasons(index, formatted, problem), problem.id


@pytest.mark.parametrize(
  "body", ["    pass\n", '    raise NotImplementedError("to do")\n', "    ...\n", ""]
)
def test_every_prompt_is_found_without_a_solution(index, body):
  for problem in PROBLEMS.values():
    text = f"{problem.prompt.rstrip()}\n{body}"
    assert "text" in reasons(index, text, problem), problem.id


BARE = ast.unparse(ast.parse(references.without_docstrings(LONG.solution)))
OTHER_NAMES = BARE.replace("current", "recent").replace("paren", "p")
CLASS = f"class A:\n  def f(self):\n{textwrap.indent(LONG.reference, '  ')}"
PROMPT = f'"""{LONG.prompt.replace(chr(34) * 3, "")}"""\n'


@pytest.mark.parametrize(
  ("text", "reason"),
  [
    (CLASS, "exact solution"),
    (f"print 'Python 2'\n\n\n{LONG.solution}\n\ndef torn(", "exact solution"),
    (f"def f(a): return 0x{'f' * 5000}\n\n{LONG.solution}", "exact solution"),
    (f"{DEEP}\n\n{LONG.solution}", "exact solution"),
    (PROMPT, "text"),
    (OTHER_NAMES.replace("result", "found").replace(LONG.entry_point, "f"), "AST"),
    (f"{OTHER_NAMES}\n\ndef torn(", "AST"),
    # A name counts for the function that has it, not for others of the file.
    ("def other(a):\n  return a[0]\n\ndef separate_paren_groups(b):\n  pass\n", None),
  ],
)
def test_what_is_found_and_why(index, text, reason):
  found = reasons(index, text, LONG)
  assert reason in found if reason else not found


def test_what_anybody_writes_proves_nothing(index):
  add = PROBLEMS["HumanEval/53"]
  assert not reasons(index, "def add(x, y):\n  return x + y\n", add)
  assert reasons(index, add.solution, add)  # with its text it does
  made = [references.reference("humaneval-164", problem) for problem in (add, LONG)]
  assert [each.generic for each in made] == [True, False]


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
    ("class A:\n  def f(self): return 1\n", "got a solution without it, expected"),
    (DEEP, "got one that is nested too deep to be compared"),
  ],
)
def test_ones_own_problem_that_cannot_be_compared_is_named(solution, says, tmp_path):
  path = tmp_path / "my.jsonl"
  path.write_text(json.dumps({**ROW, "canonical_solution": solution}) + "\n")
  with pytest.raises(InputError, match=rf"{path}, Own/7: {says}[^\n]*$"):
    references.Index((str(path),), 13)


def test_problems_of_your_own_may_be_in_a_bucket(gcs):
  row = {**ROW, "canonical_solution": "def f(x):\n  return x + 1\n"}
  path = f"{gcs.folder}/my.jsonl.gz"
  content = gzip.compress(json.dumps(row).encode() + b"\n")
  storage.write_bytes(storage.parse(path), content)
  config = DecontaminateConfig(("x",), (path,))
  assert [p.id for _, p in references.problems(config.benchmarks)] == ["Own/7"]


@pytest.mark.parametrize("name", written.TASK_SETS)
def test_what_was_written_for_this_project_is_found_by_name(name):
  made, problems = references.Index((name,), 13), written.load(name)
  assert made.ids() == {name: {problem.id for problem in problems}}
  assert all(reasons(made, p.solution, p) for p in problems)


FOX = "the quick brown fox jumps over a lazy dog near our old red barn today"
WORDS = FOX.split()


def test_runs_are_counted_once_each_for_every_owner():
  def shared(grams, words):
    return grams.shared(shingles.word_hashes(words))

  grams = references.Grams([WORDS, ["so", *WORDS[1:]], ["it", "is", "short"]], 13, 6)
  assert grams.totals.tolist() == [3, 3, 0]
  assert shared(grams, WORDS) == {0: 3, 1: 2}
  assert shared(grams, [*WORDS, "and", *WORDS]) == {0: 3, 1: 2}
  assert shared(grams, WORDS[:12]) == {}
  short = references.Grams([WORDS[:7], WORDS[:5]], 13, 6)  # one run, and none
  assert short.totals.tolist() == [1, 0]
  assert shared(short, ["see", *WORDS]) == {0: 1}
  numbers = [str(n) for n in range(20)]  # rows of them tell nothing
  grams = references.Grams([numbers, ["ab", "cd"] * 10], 13, 6)
  assert grams.totals.tolist() == [0, 0]


@pytest.mark.parametrize("least", [0.95, 0.0])
def test_a_match_of_exactly_the_least_counts(least):
  codes = [f"def f(a): return a.b({', '.join(['x'] * 12)}, {n})" for n in "12"]
  one, other = map(shape, codes)
  assert len(one.written) == 20
  found = references.Shapes(["f"], [[one]]).best([("g", other)], least)
  assert found[0][0] >= 0.95
