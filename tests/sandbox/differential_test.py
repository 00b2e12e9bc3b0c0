"""Comparing with a reference: by the rules of EvalPlus."""

import pytest

from tests.sandbox import conftest

FUNCTION = "def f(x):\n  return {}\n"


def judge(sandbox, body, inputs, *, before="", **fields):
  fields = {"reference": FUNCTION.format("x"), "inputs": inputs, **fields}
  options = "".join(f", {name}={value!r}" for name, value in fields.items())
  test = f"__differential__(f, 'f'{options})"
  return conftest.judge(sandbox, before + FUNCTION.format(body), test)


@pytest.mark.parametrize(
  ("code", "inputs", "fields", "passes"),
  [
    ("x", "[[1], ['a'], [[1, (2,)]]]", {}, True),
    ("x + 1", "[[1]]", {}, False),
    ("list(x)", "[[(1, 2)]]", {}, False),
    ("x + 1e-7", "[[1.0]]", {}, True),
    ("x + 1e-5", "[[1.0]]", {}, False),
    ("x + 1e-5", "[[1.0]]", {"atol": 1e-4}, True),
    ("[v + 1e-8 for v in x]", "[[[1.0, 2.0]]]", {}, True),
    ("x + 1e-9", "[[1]]", {"atol": 1e-4}, False),  # a float for an int
    ("x + 1e-9", "[[1]]", {"atol": 1e-4, "early": True}, True),
    ("x + 1e-8 if x == 2.5 else x", "[[1], [2.5]]", {}, True),
    ("float('nan')", "[[float('nan')]]", {}, False),
    # An infinity is near no other number, within any tolerance (as of Mbpp/137).
    *(
      (code, "[[inf], [-inf]]", {"atol": atol, "early": early}, code == "x")
      for code in ("x", "-x", "5.0", "float('nan')", "1e308")
      for atol in (0.0, 1e-4)
      for early in (False, True)
    ),
    ("[x[0], 5.0]", "[[[1.0, inf]]]", {}, False),
    ("(x[0], -x[1])", "[[(1.0, inf)]]", {}, False),
    ("[x[0] + 1e-9, x[1]]", "[[[1.0, inf]]]", {}, True),
    ("[[0.0]]", "[[[[inf]]]]", {"atol": 1e-4}, False),
    ("float('inf')", "[[1.0]]", {"atol": 1e-4}, False),
    ("complex(5, 5)", "[[complex(inf, 5)]]", {"atol": 1e-4}, False),
    ("complex(x)", "[[complex(inf, 5)]]", {"atol": 1e-4}, True),
    ("float('nan')", "[[inf], [1.0], [-inf]]", {"atol": 1e-4}, False),
    ("[float('nan')]", "[[[nan]]]", {"atol": 1e-4}, False),
    *(
      (code, "[[[-4.0, 2.0]]]", {"oracle": "root", "atol": 1e-4}, False)
      for code in ("float('inf')", "-float('inf')", "float('nan')")
    ),
    ("float('nan')", "[[3]]", {"oracle": "zero", "atol": 1e-4}, False),
    ("[float('nan')]", "[[[nan]]]", {"oracle": "set"}, False),
    ("x[::-1]", "[[[1, 2]]]", {"oracle": "set"}, True),
    ("x + [3]", "[[[1, 2]]]", {"oracle": "set"}, False),
    ("'yes'", "[[3]]", {"oracle": "not_none"}, True),
    ("False", "[[3]]", {"oracle": "not_none"}, False),
    ("None", "[[3]]", {"oracle": "not_none"}, False),
    ("None", "[[3]]", {"oracle": "any"}, True),
    ("1 / 0", "[[3]]", {"oracle": "any"}, False),
    ("0", "[[3]]", {"oracle": "zero"}, True),
    ("-x[0] / x[1]", "[[[-4.0, 2.0]]]", {"oracle": "root", "atol": 1e-4}, True),
    ("0.0", "[[[-4.0, 2.0]]]", {"oracle": "root", "atol": 1e-4}, False),
  ],
)
def test_what_is_equal(sandbox, code, inputs, fields, passes):
  verdict = judge(sandbox, code, inputs, **fields)
  assert verdict.passed == passes, verdict


@pytest.mark.parametrize("got", ["float('inf')", "-float('inf')", "float('nan')"])
@pytest.mark.parametrize("oracle", ["pyramid", "digits"])
def test_no_oracle_takes_what_is_not_finite(sandbox, oracle, got):
  fields = {"reference": "def f(a, b): return 7", "oracle": oracle, "atol": 1e-4}
  fields["inputs"] = "[[3, 4]]"
  options = "".join(f", {name}={value!r}" for name, value in fields.items())
  test = f"__differential__(f, 'f'{options})"
  verdict = conftest.judge(sandbox, f"def f(a, b): return {got}", test)
  assert verdict.outcome == "wrong", verdict


def test_the_detail_names_the_input(sandbox):
  verdict = judge(sandbox, "x + (x > 2)", "[[1], [3]]")
  assert verdict.outcome == "wrong"
  assert "f(3) == 3, got 4" in verdict.detail
  assert verdict.failed_test == "assert f(3) == 3"


def test_a_program_that_changes_its_argument_spoils_no_other(sandbox):
  spoils = "x.clear() or [1]"
  for _ in range(2):
    assert judge(sandbox, spoils, "[[[1]]]").passed
    assert judge(sandbox, "x", "[[[1]]]").passed


def test_code_cannot_forge_what_it_is_compared_with(sandbox):
  always = "type('E', (), {'__eq__': lambda s, o: True})()"
  assert judge(sandbox, always, "[[1]]").outcome == "opaque_result"
  before = "def __differential__(*a, **k):\n  pass\n"
  assert judge(sandbox, "0", "[[1]]", before=before).outcome == "wrong"
