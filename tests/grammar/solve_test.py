"""Asserts: which calls are taken, and what they refuse."""

from phi1_jax.grammar import solve

GIVEN = [(n,) for n in range(-5, 25)]


def solved(*functions):
  return solve.solved(functions, GIVEN, (), "key")


def test_a_wrong_function_fails_an_assert():
  calls = solved(lambda n: n > 3 and n % 2 == 0, lambda n: n > 3, lambda n: n % 2 == 0)
  assert calls
  space = {}
  for wrong in ("n > 3", "n % 2 == 0", "True", "False"):
    exec(f"def f(n): return {wrong}", space)
    passed = 0
    for call in calls[: solve.TESTS]:
      passed += repr(eval(f"f({call.arguments})", space)) == call.answer
    assert passed < solve.TESTS


def test_what_no_input_tells_is_refused():
  assert solved(lambda n: n % 2 == 0 and n % 4 == 0, lambda n: n % 4 == 0) is None
  assert solved(lambda n: 1) is None
  assert solved(lambda n: n) is None


def test_a_set_is_written_in_order():
  assert solve.literal({"b", "a", "c"}) == "{'a', 'b', 'c'}"
  assert solve.literal([set(), {2, 1}]) == "[set(), {1, 2}]"
  assert solve.literal({"k": {"y", "x"}}) == "{'k': {'x', 'y'}}"
