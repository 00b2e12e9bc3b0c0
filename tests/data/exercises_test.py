"""Which functions are exercises, and that what is taken runs on its own."""

import ast
import re

import pytest

from phi1_jax.data import exercises

SOURCE = '''import math
import os, sys as system
from collections import (
  Counter,
  deque as queue,
)
import numpy

LIMIT = 3


def area(radius):
  """Area of a circle."""
  # A comment belongs to the body.
  return math.pi * radius**2


def most_common(words, n=1):
    r"""The most common words.

    >>> most_common("aab")
    ['a']
    """
    counts = Counter(words)
    return [word for word, _ in counts.most_common(n)]


def factorial(n: int) -> int:
  """Factorial, by calling itself."""
  return 1 if n < 2 else n * factorial(n - 1)


def naturals():
  """A generator."""
  n = 0
  while True:
    yield n
    n += 1


def uses_module_constant(x):
  """Doc."""
  return x < LIMIT


def uses_third_party(x):
  """Doc."""
  return numpy.sum(x)


def default_from_module(x=LIMIT):
  """Doc."""
  return x


def keeps_state():
  """Doc."""
  global LIMIT
  return 1


def undocumented(x):
  y = x
  return y


def returns_nothing(x):
  """Doc."""
  def inner():
    return x
  inner()


def on_one_line(x):
  """Doc."""; return x


@staticmethod
def decorated(x):
  """Doc."""
  return x


class Holder:
  def method(self):
    """Doc."""
    return 1
'''


def mine(source):
  return exercises.mine(source, ast.parse(source))


def test_exactly_the_functions_that_stand_alone_are_taken():
  found = {}
  for text in mine(SOURCE):
    module = {}
    exec(text, module)  # each runs by itself
    name = re.search(r"^def (\w+)", text, re.MULTILINE)[1]
    found[name] = module[name]
  assert list(found) == ["area", "most_common", "factorial", "naturals"]
  assert found["most_common"]("aab") == ["a"]
  assert found["factorial"](5) == 120
  assert next(found["naturals"]()) == 0


def test_the_imports_that_a_function_needs_come_first():
  area, common, *_ = mine(SOURCE)
  assert area == (
    'import math\n\n\ndef area(radius):\n  """Area of a circle."""\n'
    "  # A comment belongs to the body.\n  return math.pi * radius**2\n"
  )
  assert common.startswith("from collections import Counter\n\n\ndef most")


@pytest.mark.parametrize(("statements", "taken"), [(77, True), (79, False)])
def test_eighty_lines_are_the_limit(statements, taken):
  body = "  x += 1\n" * statements
  source = f'def f(x):\n  """Doc."""\n{body}  return x\n'
  assert bool(mine(source)) == taken
  assert (source.count("\n") <= exercises.MAXIMUM_LINES) == taken


def test_crlf_and_form_feeds_do_not_shift_lines():
  source = SOURCE.replace("def area", "\x0c\ndef area").replace("\n", "\r\n")
  assert mine(source) == mine(SOURCE)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_bodies_are_what_comes_after_the_docstrings(end):
  text = SOURCE.replace("\n", end)
  shifted = ("# é😀" + end + text).encode()
  bodies = [shifted[a:b].decode() for a, b in exercises.bodies("# é😀" + end + text)]
  assert bodies[0] == (
    f"  # A comment belongs to the body.{end}  return math.pi * radius**2{end}"
  )
  plain = tuple(body.replace("\r\n", "\n").replace("\r", "\n") for body in bodies)
  assert all(exercise.endswith(plain) for exercise in mine(text))


def test_of_what_is_no_function_nothing_is_a_body():
  assert exercises.bodies("x = 1\n") == []
  assert exercises.bodies("def f(:\n") == []
  assert exercises.bodies('def f():\n  """Doc."""\n') == []
  assert exercises.bodies("def f(x):\n  return x\n") == []
