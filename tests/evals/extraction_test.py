import os
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals import prompts
from evals.extraction import extract
from phi1_jax.problems import mbpp

F = "def f(x):\n  return x\n"


def test_keeps_what_the_entry_point_reaches():
  program = (
    "import re\nimport math as m\n"
    "def unused(x):\n  return re\n"
    "def helper(x):\n  return m.floor(x) + TABLE[x]\n"
    "@staticmethod\ndef decorated():\n  pass\n"
    "TABLE = {}\n"
    "for i in range(3):\n  TABLE[i] = i\n"
    "TABLE.update({4: 4})\n"
    "def f(x):\n  return helper(x)\n"
    "print(f(1))\n"
    "if __name__ == '__main__':\n  f(2)\n"
  )
  found = extract(program, "f")
  assert found.code == (
    "import math as m\n"
    "def helper(x):\n  return m.floor(x) + TABLE[x]\n"
    "TABLE = {}\n"
    "for i in range(3):\n  TABLE[i] = i\n"
    "TABLE.update({4: 4})\n"
    "def f(x):\n  return helper(x)\n"
  )
  assert found.dropped == (
    "import re: not needed",
    "def unused(x):: not needed",
    "@staticmethod: not needed",
    "print(f(1)): not needed",
    "if __name__ == '__main__':: main block",
  )


@pytest.mark.parametrize(
  ("program", "code"),
  [
    # Prose, before and after, in quotes of any kind.
    ("Here's the code:\n" + F + "It's done.\n", F),
    # A definition that was not finished, and one whose end is missing.
    (F + "def g(x):\n  return (1,\n", F),
    ("def f(x):\n  return x\n  y = [1,\n", F),
    ("def f(x):\n  return x\n  y = '''a\n", F),
    # No `return` is no reason to drop a function.
    ("def f(x):\n  x.sort()\n", "def f(x):\n  x.sort()\n"),
    # The first that does something: neither the prompt's stub nor the rambling.
    ('def f(x):\n  """Doc."""\n' + F + "def f(x):\n  return 3\n", F),
    # Column 0 inside of strings and brackets.
    ('def f(x):\n  """a\nb = 1\n"""\n  return x\n',) * 2,
    ("def f(x):\n  return [\n1,\n]\n",) * 2,
    ("T = (\n1,\n)\ndef f(x):\n  return T\n",) * 2,
    ("def f(x):\n  return '\\'\"'\n",) * 2,
    ('def f(x):\n  return """\\"""\nprint(1)\n"""\n',) * 2,
    ("def f(x):\n  return x # it's (\n",) * 2,
    # Statements of several parts.
    ("try:\n  import a\nexcept ImportError:\n  a = 0\ndef f(x):\n  return a\n",) * 2,
    ("if 1:\n  t = 1\nelse:\n  t = 2\n" + "def f(x):\n  return t\n",) * 2,
    ("from a import *\n" + F,) * 2,
    ("from __future__ import annotations\n" + F,) * 2,
    ("class A:\n  b = 1\nclass B(A):\n  pass\ndef f(x):\n  return B\n",) * 2,
    ("@lru\ndef f(x):\n  return x\nlru = 1\n",) * 2,
    ("def g(x):\n  return h(x)\nh = f = lambda x: g\n",) * 2,
    ("async def f(x):\n  return x\n",) * 2,
    # Fences: the block that has it, with what the prompt imports; or all before them.
    ("Sure!\n```python\nimport re\n" + F + "```\nBye `f`.\n```\nf(1)\n```\n", F),
    ("import re\n\n```python\ndef f(x):\n  return re\n```\n", None),
    (F + "```\nThat was it.\n", F),
  ],
)
def test_extracts(program, code):
  found = extract(program, "f").code
  if code is None:
    code = "import re\n\ndef f(x):\n  return re\n"
  assert found.replace("\n\n\n", "\n\n").strip() == code.strip()


def test_no_entry_point():
  found = extract("def g(x):\n  return x\n", "f")
  assert found.code == ""
  assert found.dropped == ("everything: no definition of f",)


def test_states_what_was_cut_off():
  found = extract("def f(x):\n  return x\n  y = 1 1\nThe end.\n", "f")
  assert found.dropped == ("y = 1 1: not Python", "The end.: not Python")


def test_names_that_tests_use_are_kept():
  program = "class Node:\n  pass\n" + F
  assert "Node" not in extract(program, "f").code
  assert "Node" in extract(program, "f", ["Node", "print"]).code


@pytest.mark.parametrize(
  "line",
  [
    "def g(x):\n  return f(x)\n",
    "'''\n",
    '"\n',
    "(\n",
    "x = 'a\\\n",
    "f = (f\n",
    "@a\n",
    "\\\\\n",
    "```\n",
    "if x:\n",
  ],
)
def test_time_is_linear(line):
  def seconds(size):
    program = F + line * (size // len(line))
    best = float("inf")
    for _ in range(3):
      start = time.process_time()
      extract(program, "f")
      best = min(best, time.process_time() - start)
    return best

  assert seconds(32_000) < 10 * seconds(8_000) + 0.05


@given(st.text(alphabet="def f(x):\n '\"#\\[]{}`@=1\0\ud800é", max_size=200))
def test_any_text_is_extracted_from(text):
  found = extract(F + text, "f")
  assert "def f(x)" in found.code or found.dropped


@pytest.mark.parametrize("style", ["as-is", "stripped"])
def test_references_of_humaneval_stay_right(five, style):
  for problem in five:
    whole = prompts.build(problem, style).prefix
    whole += prompts.reference_completion(problem, style)
    assert _right(problem, extract(whole, problem.entry_point, problem.names()).code)


@pytest.mark.skipif(
  mbpp.ENVIRONMENT not in os.environ,
  reason=f"{mbpp.ENVIRONMENT} names no folder with MBPP",
)
def test_references_of_mbpp_stay_right():
  wrong = []
  for problem in mbpp.load("mbpp-full-974"):
    if problem.cpu_seconds > 3:
      continue
    found = extract(problem.solution, problem.entry_point, problem.names())
    if not _right(problem, found.code):
      wrong.append(problem.id)
  assert wrong == []


def _right(problem, code):
  scope = {}
  try:
    exec(code, scope)
    for test in problem.tests:
      exec(test, scope)
  except Exception:
    return False
  return True
