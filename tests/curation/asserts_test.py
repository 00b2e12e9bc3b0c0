"""Which checks of a solution are taken."""

import ast

import pytest

from phi1_jax.curation import asserts


def taken(source):
  return asserts.taken(ast.parse(source).body, "f")


@pytest.mark.parametrize(
  "source",
  [
    "assert f(1) == 2",
    "assert f([1, 2], key='a') == {'a': (1, -2)}",
    "assert not f('x')",
    "assert abs(f(0.1) - 0.3) < 1e-09",
    "assert sorted(f({1: 2})) == [1]",
    "assert f(1) is None",
    "assert f(f(1)) == 4 and f(2) == 3",
  ],
)
def test_plain_asserts_are_taken_as_they_are(source):
  assert taken(source) == (source,)


@pytest.mark.parametrize(
  "source",
  [
    "assert True",
    "assert 1 == 1",
    "assert g(1) == 2",
    "assert f(__import__('os').system('ls')) == 0",
    "assert f(open('/etc/passwd')) == 1",
    "assert f(lambda: 1) == 1",
    "assert f([x for x in (1, 2)]) == 1",
    "assert f(9**9**9) == 1",
    "assert f(x := 3) == 3",
    "f(1) == 2",
    "print(f(1))",
    "assert f.__globals__ == {}",
  ],
)
def test_others_are_not(source):
  assert taken(source) == ()


@pytest.mark.parametrize(
  "value", ["0x" + "f" * 5000, "+".join("1" * 900), "-" * 999 + "1"]
)
def test_a_poisoned_assert_is_left_out(value):
  source = f"assert f(1) == {value}\nassert f(1) == 2\n"
  try:
    tree = ast.parse(source)
  except (RecursionError, MemoryError, SyntaxError):
    return  # Python itself refuses it
  assert asserts.taken(tree.body, "f")[-1] == "assert f(1) == 2"


def test_messages_and_repetitions_go():
  assert taken("assert f(1) == 2, 'wrong'\nassert f(1)==2\n") == ("assert f(1) == 2",)


def test_doctest_examples_become_asserts():
  docstring = """Adds one.

  >>> f(1)
  2
  >>> f("a") # doctest: +SKIP
  Traceback (most recent call last):
  >>> x = 3
  >>> f(-1)
  0
  """
  assert asserts.of_examples(docstring, "f") == (
    "assert f(1) == 2",
    "assert f(-1) == 0",
  )
  assert asserts.of_examples(">>> f(1\n>>>x", "f") == ()


@pytest.mark.parametrize(
  ("sources", "several"),
  [
    (["assert f(1) == 2", "assert f(2) == 2"], False),
    (["assert f(1) == 2", "assert f(2) == 3"], True),
    (["assert f(1)", "assert f(2) == True", "assert f(3) is True"], False),
    (["assert f(1)", "assert not f(2)"], True),
    (["assert abs(f(1) - 0.5) < 1e-6", "assert abs(f(2) - 0.5) < 1e-6"], False),
    (["assert abs(f(1) - 0.5) < 1e-6", "assert abs(f(2) - 1.5) < 1e-6"], True),
    (["assert sorted(f(1)) == [1]", "assert f(1) == [1]"], True),
    (["assert f(1) > 0", "assert f(2) < 9"], False),
    (["assert f(1) == 1", "assert 1 == f(2)"], False),
    (["assert f(1) == 1", "assert f(2) == 1.0", "assert f(3) == True"], False),
    (["assert f(3) == f(3)", "assert f(1) == 2"], False),
  ],
)
def test_a_constant_may_not_pass_all(sources, several):
  assert asserts.expects_several(sources, "f") == several
