import ast
import textwrap

import pytest

from phi1_jax.text import source


def test_words_are_what_a_formatter_leaves_alone():
  one = "def f(a, b):\n    # Sum.\n    return {'x': a+b}\n"
  other = 'def f(\n  a,\n  b,\n):\n\t# sum\n\treturn {"x": (a + b)}'
  assert source.words(one) == source.words(other)
  assert " ".join(source.words(one)) == "def f a b sum return x a + b"


def test_words_keep_what_changes_a_program():
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
  assert all(
    isinstance(ast.parse(f.source).body[0], source.FunctionNode) for f in found
  )


@pytest.mark.parametrize(
  "text",
  [
    "A section.\n\n```python\ndef f(a):\n    return a\n```\n\nMore prose.",
    "A section, indented:\n\n    def f(a):\n        return a\n\nMore prose.",
    "print 'Python 2'\r\ndef f(a):\r\n    return a\r\nprint 'more'",
    "def f(\n    a\n):\n    return a\n\ndef g(:\n  pass",
    "def f(a):\n    return a\n\n\nclass Torn:\n    def g(self",
  ],
)
def test_functions_of_what_is_no_python_as_a_whole(text):
  assert source.parse(text) is None
  assert [(f.name, f.node.body[0].lineno > 0) for f in source.functions(text)] == [
    ("f", True)
  ]


@pytest.mark.parametrize("text", ["", "prose", "\0", "(" * 500, "def" * 9, "\ud800"])
def test_nothing_to_find(text):
  assert source.functions(text) == []


def test_a_long_elif_chain_is_walked():
  tests = "".join(f"elif x == {n}: pass\n" for n in range(1200))
  text = f"if x: pass\n{tests}else:\n  def f(): pass\n"
  assert [f.name for f in source.functions(text)] == ["f"]


def test_deep_nesting_is_no_crash():
  source.functions("x = " + "-" * 100_000 + "1")
  source.words("(" * 100_000)
