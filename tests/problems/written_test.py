"""Written problems: solvable, picky, frozen, unknown to HumanEval.

References must pass and misreadings must fail in the sandbox, as in an evaluation.
"""

import ast
import doctest
import re
from pathlib import Path

import pytest

from phi1_jax import InputError
from phi1_jax.problems import humaneval, written
from phi1_jax.sandbox.program import Program
from phi1_jax.sandbox.sandbox import Sandbox

LEAST_ASSERTS = {"unconventional-50": 6, "handwritten-100": 4}
EVERY = [problem for name in written.TASK_SETS for problem in written.load(name)]


@pytest.fixture(scope="module")
def sandbox():
  with Sandbox(workers=1) as box:
    yield box


@pytest.fixture(scope="module")
def benchmark():
  try:
    return humaneval.load()
  except InputError as error:
    pytest.skip(str(error))


def outcomes(sandbox, codes):
  """What the sandbox says of programs: a dictionary from keys to verdicts.

  Args:
    sandbox: judges.
    codes: pairs of a problem and a program, by key.
  """
  programs = [
    Program(key, code, problem.tests, problem.cpu_seconds)
    for key, (problem, code) in codes.items()
  ]
  return {verdict.key: verdict for verdict in sandbox.run(programs)}


def function(problem):
  space = {}
  exec(problem.solution, space)
  return space[problem.entry_point]


def accepts(problem, candidate):
  """Whether the tests accept a function, judged here: it is this file's own."""
  space = {problem.entry_point: candidate}
  try:
    for test in problem.tests:
      exec(test, space)
  except AssertionError:
    return False
  return True


def calls(problem):
  """Arguments and answers of the reference when it is tested."""
  made, solution = [], function(problem)

  def candidate(*arguments):
    answer = solution(*arguments)
    made.append((arguments, answer))
    return answer

  assert accepts(problem, candidate)
  return made


def only_function(source):
  """The function that a source consists of."""
  [node] = ast.parse(source).body
  assert isinstance(node, ast.FunctionDef)
  return node


def words(text):
  return re.findall(r"[a-z0-9]+", text.lower())


def test_the_sets_are_whole():
  assert [(name, len(written.load(name))) for name in written.TASK_SETS] == [
    ("unconventional-50", 50),
    ("handwritten-100", 100),
  ]
  ids = [f"Unconventional/{i}" for i in range(50)]
  ids += [f"Handwritten/{i}" for i in range(100)]
  assert [problem.id for problem in EVERY] == ids
  assert len({problem.entry_point for problem in EVERY}) == 150


def test_references_pass(sandbox):
  verdicts = outcomes(sandbox, {p.id: (p, p.solution) for p in EVERY})
  assert len(verdicts) == 150
  assert [v for v in verdicts.values() if not v.passed] == []


def test_empty_bodies_fail(sandbox):
  verdicts = outcomes(sandbox, {p.id: (p, p.empty_solution()) for p in EVERY})
  assert len(verdicts) == 150
  assert [v.key for v in verdicts.values() if v.passed] == []


def test_every_misreading_fails_by_an_assert(sandbox):
  of_id = {problem.id: problem for problem in EVERY}
  codes = {
    f"{id}: {misreading}": (of_id[id], code)
    for id, several in written.wrong_solutions("unconventional-50").items()
    for misreading, code in several
  }
  verdicts = outcomes(sandbox, codes)
  assert len(verdicts) == len(codes) >= 100
  assert [v for v in verdicts.values() if v.outcome != "wrong"] == []


def test_no_constant_and_no_argument_is_an_answer():
  found = []
  for problem in EVERY:
    made = calls(problem)
    constants = [lambda *_, kept=answer: kept for _, answer in [*made, ((), None)]]
    echoes = [lambda *given, i=i: given[i] for i in range(len(made[0][0]))]
    candidates = [*constants, *echoes]
    found += [problem.id for each in candidates if accepts(problem, each)]
  assert found == []


@pytest.mark.parametrize("task_set", written.TASK_SETS)
def test_there_are_enough_asserts(task_set):
  for problem in written.load(task_set):
    check, call = problem.tests
    lines = only_function(check).body
    asked = {ast.unparse(line).split(" == ")[0] for line in lines}
    assert all(line.startswith("assert candidate(") for line in asked), problem.id
    assert len(asked) == len(lines) >= LEAST_ASSERTS[task_set], problem.id
    assert call == f"check({problem.entry_point})"


def test_examples_are_right():
  count = 0
  for problem in EVERY:
    text = ast.get_docstring(only_function(problem.prompt)) or ""
    space = {problem.entry_point: function(problem)}
    for example in doctest.DocTestParser().get_examples(text):
      assert repr(eval(example.source, space)) == example.want.strip(), problem.id
      count += 1
  assert count >= 30


def test_nothing_is_shared_with_humaneval(benchmark):
  def runs(prompt):
    some = words(prompt)
    return {tuple(some[i : i + 13]) for i in range(len(some) - 12)}

  theirs = set().union(*(runs(problem.prompt) for problem in benchmark))
  assert len(theirs) > 5000
  assert [p.id for p in EVERY if runs(p.prompt) & theirs] == []
  names = {problem.entry_point for problem in benchmark}
  assert not names & {problem.entry_point for problem in EVERY}


@pytest.mark.parametrize("task_set", written.TASK_SETS)
def test_refuses_a_changed_file(tmp_path, monkeypatch, task_set):
  file, _ = written.TASK_SETS[task_set]
  content = (Path(written.__file__).parent / file).read_bytes()
  (tmp_path / file).write_bytes(content.replace(b"== 5", b"== 6", 1))
  monkeypatch.setattr(written, "_FOLDER", tmp_path)
  named = (
    f"{file}: got sha256 .*if the change is meant, .* into TASK_SETS of written.py"
  )
  for read in (written.load, written.wrong_solutions):
    with pytest.raises(InputError, match=named):
      read(task_set)
