"""Which functions are exercises, and that what is taken runs on its own."""

import ast

import pytest

from phi1_jax.data import exercises

TAKEN = '''import math
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
'''
LEFT = [
  'def constant(x):\n  """Doc."""\n  return x < LIMIT\n',
  'def third_party(x):\n  """Doc."""\n  return numpy.sum(x)\n',
  'def default(x=LIMIT):\n  """Doc."""\n  return x\n',
  'def state():\n  """Doc."""\n  global LIMIT\n  return 1\n',
  "def undocumented(x):\n  y = x\n  return y\n",
  'def nothing(x):\n  """Doc."""\n  def inner():\n    return x\n  inner()\n',
  'def on_one_line(x):\n  """Doc."""; return x\n',
  '@staticmethod\ndef decorated(x):\n  """Doc."""\n  return x\n',
  'class A:\n  def method(self):\n    """Doc."""\n    return 1\n',
]
SOURCE = "\n\n".join([TAKEN, *LEFT])


def mine(source):
  return exercises.mine(source, ast.parse(source))


def test_exactly_the_functions_that_stand_alone_are_taken():
  found = mine(SOURCE)
  spaces = [{} for _ in found]
  for text, space in zip(found, spaces, strict=True):
    exec(text, space)  # each runs by itself
  _, most_common, factorial, naturals = spaces
  assert most_common["most_common"]("aab") == ["a"]
  assert factorial["factorial"](5) == 120
  assert next(naturals["naturals"]()) == 0
  # The imports that a function needs come first.
  assert found[0] == (
    'import math\n\n\ndef area(radius):\n  """Area of a circle."""\n'
    "  # A comment belongs to the body.\n  return math.pi * radius**2\n"
  )
  assert found[1].startswith("from collections import Counter\n\n\ndef most")
  # Neither other line ends nor a form feed shift the lines.
  assert (
    mine(SOURCE.replace("def area", "\x0c\ndef area").replace("\n", "\r\n")) == found
  )


@pytest.mark.parametrize(("statements", "taken"), [(77, True), (79, False)])
def test_eighty_lines_are_the_limit(statements, taken):
  body = "  x += 1\n" * statements
  assert bool(mine(f'def f(x):\n  """Doc."""\n{body}  return x\n')) == taken


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_bodies_are_what_comes_after_the_docstrings(end):
  text = SOURCE.replace("\n", end)
  shifted = "# é😀" + end + text
  spans = exercises.bodies(shifted)
  bodies = [shifted.encode()[start:stop].decode() for start, stop in spans]
  assert bodies[0] == (
    f"  # A comment belongs to the body.{end}  return math.pi * radius**2{end}"
  )
  plain = tuple(body.replace("\r\n", "\n").replace("\r", "\n") for body in bodies)
  assert all(exercise.endswith(plain) for exercise in mine(text))
  for other in ("x = 1", "def f(:", 'def f():\n  """Doc."""', "def f(x):\n  return x"):
    assert exercises.bodies(other + "\n") == []
