"""Words, functions and shapes of code, and what changes leave no trace in them."""

import ast
import textwrap

import pytest

from phi1_jax.text import source, trees


def test_words_are_what_a_formatter_leaves_alone():
  one = "def f(a, b):\n    # Sum.\n    return {'x': a+b}\n"
  other = 'def f(\n  a,\n  b,\n):\n\t# sum\n\treturn {"x": (a + b)}'
  assert source.words(one) == source.words(other)
  assert " ".join(source.words(one)) == "def f a b sum return x a + b"
  # What changes a program stays.
  assert source.words("n % 2 == 0") != source.words("n % 3 == 0")
  assert source.words("a <= b") == ["a", "<=", "b"]
  assert source.words("pi is 3.14.") == ["pi", "is", "3.14"]
  assert source.words("größer É") == ["größer", "é"]


def test_functions_of_a_module_are_found_wherever_they_are():
  text = textwrap.dedent('''
    class A:
      def one(self):
        """First."""
        def two(): pass
        return two
    if True:
      async def three(): pass
  ''')
  found = source.functions(text)
  assert [f.name for f in found] == ["one", "two", "three"]
  assert found[0].docstring == "First."
  assert found[1].source == "def two(): pass"
  bodies = [ast.parse(f.source).body[0] for f in found]
  assert all(isinstance(node, source.FunctionNode) for node in bodies)


DEEP = "".join(f"  elif x == {n}: pass\n" for n in range(1200))


@pytest.mark.parametrize(
  ("text", "names"),
  [
    ("A section.\n\n```python\ndef f(a):\n    return a\n```\n\nMore prose.", ["f"]),
    ("A section:\n\n    def f(a):\n        return a\n\nMore prose.", ["f"]),
    ("print 'Python 2'\r\ndef f(a):\r\n    return a\r\nprint 'more'", ["f"]),
    ("def f(\n    a\n):\n    return a\n\ndef g(:\n  pass", ["f"]),
    ("def f(a):\n    return a\n\n\nclass Torn:\n    def g(self", ["f"]),
    (f"if x: pass\n{textwrap.dedent(DEEP)}else:\n  def f(): pass\n", ["f"]),
    *((text, []) for text in ("", "prose", "\0", "(" * 500, "def" * 9, "\ud800")),
    ("x = " + "-" * 100_000 + "1", []),
  ],
)
def test_functions_of_what_is_hardly_python(text, names):
  assert [f.name for f in source.functions(text)] == names
  source.words("(" * 100_000)  # is no crash


def shape(code):
  return trees.shape(source.functions(code)[0].node)


BASE = '''
def below(numbers: list[int], limit=10) -> bool:
  """Whether all are below."""
  # A comment.
  for n in numbers:
    if n >= limit:
      print("too large", n)
      return False
  return True
'''


@pytest.mark.parametrize(
  ("old", "new", "tokens"),
  [
    ("numbers", "xs", 0),
    ("below", "f", 0),
    ("Whether all are below.", "Other words.", 0),
    ("# A comment.", "pass", 0),
    (": list[int]", "", 0),
    (" -> bool", "", 0),
    ('"too large"', "'zu gross'", 0),
    ("  #", "  import math\n  #", 0),
    (">=", "<", 1),
    ("print", "len", 1),
    ("10", "11", 1),
    ("return False", "return None", 1),
    ("return True", "return n", 1),
  ],
)
def test_names_texts_and_annotations_leave_no_trace_in_a_shape(old, new, tokens):
  one, two = shape(BASE), shape(BASE.replace(old, new))
  assert old in BASE
  assert (one == two) == (tokens == 0)
  assert len(one.written) == len(two.written)
  rate = 1 - tokens / len(one.written)
  assert trees.match_rate(one, two) == pytest.approx(rate)


SIDES = "if x {}: return {}\n  else: return {}"


@pytest.mark.parametrize(
  ("one", "other", "same"),
  [
    ("a = 1; b = 2; print(a, b)", "b = 2; a = 1; print(a, b)", True),
    ("return x * (y + 1)", "return (1 + y) * x", True),
    ("return 1 + (x + y)", "return (y + x) + 1", True),
    ("return x > y", "return y < x", True),
    ("return x == 0 and y", "return y and 0 == x", True),
    ("x += y", "x = x + y", True),
    ("z = x - y; return z", "return x - y", True),
    ("if x: return 1\n  else: return 2", "if not x: return 2\n  else: return 1", True),
    ("if x: return 1\n  return 2", "if x: return 1\n  else: return 2", True),
    (SIDES.format("> y", 1, 2), SIDES.format("<= y", 2, 1), True),
    ("return 1 if x != y else 2", "return 2 if y == x else 1", True),
    ("return x - y", "return y - x + 0", False),
    (SIDES.format("> y", 1, 2), SIDES.format("== y", 1, 2), False),
    ("return x < y", "return x <= y", False),
    ("g = lambda a, b: x; return 1 + y", "g = lambda a: x; return y + 1", False),
    ("def g(*a): x; return 1 + y", "def g(): x; return y + 1", False),
    ("def g(*, a=x): x; return 1 + y", "def g(*, a): x; return y + 1", False),
    ("sum = 1; g = max; sum(g)", "g = max; sum = 1; id(g)", False),
    ("g = lambda sum: sum(x); h = y", "h = y; g = lambda id: id(x)", True),
  ],
)
def test_order_and_spelling_count_in_one_form_only(one, other, same):
  first, second = (shape(f"def f(x, y):\n  {body}") for body in (one, other))
  assert first.written != second.written
  assert (first.ordered == second.ordered) == same
  assert (trees.match_rate(first, second) == 1.0) == same


@pytest.mark.parametrize(
  ("one", "other", "same"),
  [
    # Builtins and methods are tokens, unless the function means its own.
    ("def f(a): return len(a)", "def f(a): return sum(a)", False),
    ("def f(a, len): return len(a)", "def f(a, g): return g(a)", True),
    ("def f(a): return a.pop()", "def f(a): return a.sort()", False),
    ('def f(a): return f"is {a}!"', "def f(b): return f'{b} ist das'", True),
  ],
)
def test_what_names_mean(one, other, same):
  assert (shape(one) == shape(other)) == same


def test_rates_below_the_least_are_zero():
  one, two = shape("def f(a): return a"), shape(BASE)
  assert 0 < trees.match_rate(one, two) < 0.5
  assert trees.match_rate(one, two, 0.5) == 0.0
  assert shape(f"def f(x):\n  if x < 0: pass\n{DEEP}") is None  # is nested too deep
