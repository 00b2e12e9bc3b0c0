"""Which functions are exercises, and that what is taken runs on its own."""

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


def test_exactly_the_functions_that_stand_alone_are_taken():
  found = {exercise.name: {} for exercise in exercises.mine(SOURCE)}
  assert list(found) == ["area", "most_common", "factorial", "naturals"]
  for exercise in exercises.mine(SOURCE):
    exec(exercise.text, found[exercise.name])  # each runs by itself
  assert found["most_common"]["most_common"]("aab") == ["a"]
  assert found["factorial"]["factorial"](5) == 120
  assert next(found["naturals"]["naturals"]()) == 0


def test_prompt_and_body_meet_after_the_docstring():
  area, common, *_ = exercises.mine(SOURCE)
  assert area.prompt == (
    'import math\n\n\ndef area(radius):\n  """Area of a circle."""\n'
  )
  assert area.body == (
    "  # A comment belongs to the body.\n  return math.pi * radius**2\n"
  )
  assert common.prompt.startswith("from collections import Counter\n\n\ndef most")
  assert common.prompt.endswith('"""\n')


@pytest.mark.parametrize(("statements", "taken"), [(77, True), (79, False)])
def test_eighty_lines_are_the_limit(statements, taken):
  body = "  x += 1\n" * statements
  source = f'def f(x):\n  """Doc."""\n{body}  return x\n'
  assert bool(exercises.mine(source)) == taken
  assert (source.count("\n") <= exercises.MAXIMUM_LINES) == taken


def test_crlf_and_form_feeds_do_not_shift_lines():
  source = SOURCE.replace("def area", "\x0c\ndef area").replace("\n", "\r\n")
  plain = [exercise.text for exercise in exercises.mine(SOURCE)]
  assert [exercise.text for exercise in exercises.mine(source)] == plain


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_bodies_are_what_comes_after_the_docstrings(end):
  text = SOURCE.replace("\n", end)
  shifted = ("# é😀" + end + text).encode()
  bodies = [shifted[a:b].decode() for a, b in exercises.bodies("# é😀" + end + text)]
  assert bodies[0] == (
    f"  # A comment belongs to the body.{end}  return math.pi * radius**2{end}"
  )
  mined = exercises.mine(text)
  assert {exercise.body for exercise in mined} <= {
    body.replace("\r\n", "\n").replace("\r", "\n") for body in bodies
  }


def test_of_what_is_no_function_nothing_is_a_body():
  assert exercises.bodies("x = 1\n") == []
  assert exercises.bodies("def f(:\n") == []
  assert exercises.bodies('def f():\n  """Doc."""\n') == []
  assert exercises.bodies("def f(x):\n  return x\n") == []
