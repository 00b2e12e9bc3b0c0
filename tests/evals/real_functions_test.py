"""Real functions as problems: solvable, not by nothing, and the very ones pinned."""

import doctest
import importlib.metadata
import importlib.util

import pytest

from evals import prompts, real_functions, report, selftest
from evals.config import EvaluationConfig
from phi1_jax import InputError
from phi1_jax.sampling import stopping
from phi1_jax.sandbox.sandbox import Sandbox

PROBLEMS = {problem.entry_point: problem for problem in real_functions.load()}


@pytest.fixture
def fresh():
  """Makes the next load read the package again."""
  real_functions.load.cache_clear()
  yield
  real_functions.load.cache_clear()


def test_references_pass_and_empty_bodies_fail_in_the_sandbox():
  problems = list(PROBLEMS.values())
  cases = selftest.references(problems)
  cases += [case for case in selftest.wrong(problems) if "empty" in case.name]
  assert len(cases) == 2 * len(problems) == 150
  with Sandbox(workers=2) as sandbox:
    assert [c for c in selftest.complaints(cases, sandbox) if c] == []


def test_a_problem_is_the_file_up_to_the_end_of_the_docstring():
  take = PROBLEMS["take"]
  assert take.prompt.startswith(
    "from itertools import islice\n\n\ndef take(n, iterable)"
  )
  assert take.prompt.endswith(
    '    returned.\n\n        >>> take(10, range(3))\n        [0, 1, 2]\n\n    """\n'
  )
  assert take.reference == "    return list(islice(iterable, n))\n"
  assert take.tests == (
    "assert take(3, range(10)) == [0, 1, 2]\n",
    "assert take(10, range(3)) == [0, 1, 2]\n",
  )
  first = PROBLEMS["first"]
  assert first.prompt.startswith("_marker = object()\n\n\ndef first(")


def test_all_are_short_and_stand_alone():
  for name, problem in PROBLEMS.items():
    assert problem.solution == problem.prompt + problem.reference
    assert real_functions._lines(problem.reference) <= 15
    assert problem.solution.count("\ndef ") + problem.solution.startswith("def ") == 1
    assert "import random" not in problem.solution
    assert f"{name}(" in "".join(problem.tests)


@pytest.mark.parametrize("style", ["as-is", "stripped"])
def test_no_stop_string_cuts_a_reference(style):
  EvaluationConfig(real_functions.TASK_SET, style)
  for problem in PROBLEMS.values():
    text = prompts.reference_completion(problem, style)
    assert stopping.cut(text, prompts.stops(style))[0] == text


def test_tests_bring_the_functions_that_examples_use():
  header, *rest = PROBLEMS["iterate"].tests
  assert header.startswith("from itertools import islice\n\n\ndef take(")
  assert rest[0].startswith("assert take(10, iterate(")


@pytest.mark.parametrize(
  ("source", "want", "test"),
  [
    ("f(1)", "3", "assert f(1) == 3\n"),
    ("f(1) == 3", "True", "assert (f(1) == 3) == True\n"),
    ("list(\n  f(1))", "[1,\n 2]", "assert list(\n  f(1)) == [1,\n 2]\n"),
    ("f(1)  # why", "3", "assert f(1) == 3\n"),
    ("f(1)", "", "assert f(1) is None\n"),
    ("x = f(1)", "", "x = f(1)\n"),
    ("f(1)", "<object at 0x1>", "f(1)\n"),
    ("f(1)", "[1, ...]", "f(1)\n"),
    ("print(f(1))", "3", "print(f(1))\n"),
    ("from more_itertools import take", "", ""),
    ("from itertools import count", "", "from itertools import count\n"),
  ],
)
def test_an_example_becomes_a_test(source, want, test):
  example = doctest.Example(source, want)
  assert real_functions._statement(example) == test


def test_an_exception_is_looked_for_by_its_class():
  example = doctest.Example("f(1)", "", exc_msg="ValueError: too short\n")
  source = real_functions._statement(example)
  for raised, passes in ((ValueError("other"), True), (None, False)):

    def f(_, raised=raised):
      if raised:
        raise raised

    if passes:
      exec(source, {"f": f})
    else:
      with pytest.raises(AssertionError, match="expected ValueError"):
        exec(source, {"f": f})
  with pytest.raises(KeyError):
    exec(source, {"f": {}.__getitem__})


def test_another_version_is_refused(fresh, monkeypatch):
  monkeypatch.setattr(importlib.metadata, "version", lambda _: "11.0.0")
  with pytest.raises(
    InputError, match=r"got version 11\.0\.0, doctests-75 is of 11\.2"
  ):
    report.load_problems("doctests-75", None)
  monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
  with pytest.raises(InputError, match="needs the package more-itertools: pip install"):
    report.load_problems("doctests-75", None)


def test_another_text_is_refused(fresh, monkeypatch):
  texts = real_functions._texts()
  texts[0] = texts[0].replace("Return first *n* items", "Return *n* items")
  monkeypatch.setattr(real_functions, "_texts", lambda: texts)
  with pytest.raises(InputError, match="its 75 functions have sha256"):
    real_functions.load()
