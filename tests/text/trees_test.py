import pytest

from phi1_jax.text import source, trees


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
  "other",
  [
    BASE.replace("numbers", "xs").replace("below", "f").replace("limit", "top"),
    BASE.replace("Whether all are below.", "Other words."),
    BASE.replace("# A comment.", "pass"),
    BASE.replace(": list[int]", "").replace(" -> bool", ""),
    BASE.replace('"too large"', "'zu gross'"),
    BASE.replace("  #", "  import math\n  #"),
  ],
)
def test_names_texts_and_annotations_leave_no_trace(other):
  assert other != BASE
  assert shape(other) == shape(BASE)


@pytest.mark.parametrize(
  "other",
  [
    BASE.replace(">=", "<"),
    BASE.replace("print", "len"),
    BASE.replace("10", "11"),
    BASE.replace("return False", "return None"),
    BASE.replace("return True", "return n"),
  ],
)
def test_what_changes_the_program_costs_one_token(other):
  one, two = shape(BASE), shape(other)
  assert len(one.written) == len(two.written)
  assert trees.match_rate(one, two) == pytest.approx(1 - 1 / len(one.written))


@pytest.mark.parametrize(
  ("one", "other"),
  [
    ("a = 1; b = 2; print(a, b)", "b = 2; a = 1; print(a, b)"),
    ("return x * (y + 1)", "return (1 + y) * x"),
    ("return 1 + (x + y)", "return (y + x) + 1"),
    ("return x > y", "return y < x"),
    ("return x == 0 and y", "return y and 0 == x"),
    ("x += y", "x = x + y"),
    ("z = x - y; return z", "return x - y"),
    ("if x: return 1\n  else: return 2", "if not x: return 2\n  else: return 1"),
    ("if x: return 1\n  return 2", "if x: return 1\n  else: return 2"),
    ("if x > y: return 1\n  else: return 2", "if x <= y: return 2\n  else: return 1"),
    (
      "if x > y: return 1\n  else: return 2",
      "if not y < x: return 2\n  else: return 1",
    ),
    ("return 1 if x != y else 2", "return 2 if y == x else 1"),
  ],
)
def test_order_and_spelling_count_in_one_form_only(one, other):
  first, second = (shape(f"def f(x, y):\n  {body}") for body in (one, other))
  assert first.written != second.written
  assert first.ordered == second.ordered
  assert trees.match_rate(first, second) == 1.0


@pytest.mark.parametrize(
  ("one", "other"),
  [
    ("return x - y", "return y - x + 0"),
    ("if x > y: return 1\n  else: return 2", "if x == y: return 1\n  else: return 2"),
    ("return x < y", "return x <= y"),
  ],
)
def test_what_may_not_change_places(one, other):
  first, second = (shape(f"def f(x, y):\n  {body}") for body in (one, other))
  assert trees.match_rate(first, second) < 1.0


def test_builtins_are_tokens_unless_the_function_means_its_own():
  assert shape("def f(a): return len(a)") != shape("def f(a): return sum(a)")
  assert shape("def f(a, len): return len(a)") == shape("def f(a, g): return g(a)")
  assert shape("def f(a): return a.pop()") != shape("def f(a): return a.sort()")


def test_rates_below_the_least_are_zero():
  one, two = shape("def f(a): return a"), shape(BASE)
  assert 0 < trees.match_rate(one, two) < 0.5
  assert trees.match_rate(one, two, 0.5) == 0.0


def test_a_long_elif_chain_has_no_shape():
  tests = "".join(f"  elif x == {n}: return {n}\n" for n in range(1200))
  assert shape(f"def f(x):\n  if x < 0: return x\n{tests}") is None


def test_f_strings_count_by_what_they_show():
  one, other = 'def f(a): return f"is {a}!"', "def f(b): return f'{b} ist das'"
  assert shape(one) == shape(other)
