"""Compares a function with a reference on many inputs, by EvalPlus' rules.

A test calls `__differential__(f, "f", reference=...)`, see `check`.
Results are equal, or finite numbers within `atol` and a relative 1e-7; NaN equals
nothing. Once an expected result is made of floats, `atol` is at least 1e-6 for the
other inputs too. An oracle replaces equality where several results are right.
"""

from __future__ import annotations

import copy
import functools
import math
import pickle
from typing import Any

NAME = "__differential__"
_RELATIVE = 1e-7
_FLOATS = 1e-6


class Differs(AssertionError):
  """A result that is not the reference's.

  Attributes:
    test: the input and the expected result, as an assert.
  """

  def __init__(self, test: str, got: str):
    super().__init__(f"{test}, got {got}")
    self.test = f"assert {test}"


def check(
  function: Any,
  name: str,
  *,
  reference: str,
  inputs: str,
  atol=0.0,
  oracle="",
  early=False,
) -> None:
  """Calls a function with every input; raises Differs at the first wrong result.

  Args:
    function: the function of the code.
    name: its name in the reference.
    reference: source of a program that defines the right function.
    inputs: a Python literal, a list of lists of arguments.
    atol: absolute tolerance of numbers.
    early: as EvalPlus 0.2.0: numbers of other types may be close, and "not_none" makes
      no exception for bools.
    oracle: "", "set", "not_none", "any", "root", or a key of `_ORACLES`.
  """
  rows, answers = pickle.loads(_prepare(reference, name, inputs, oracle))
  for row, expected in zip(rows, answers):  # noqa: B905 (Python 3.9)
    shown = ", ".join(_show(argument) for argument in row)  # before the code changes it
    got = function(*row)
    if oracle == "root":
      right = abs(sum(c * got**i for i, c in enumerate(row[0]))) <= atol
    else:
      exact = _exact(got, expected, row, atol, oracle, early)
      atol = atol or (_FLOATS if _is_floats(expected) else 0.0)
      right = exact or bool(
        atol and (early or type(got) is type(expected)) and _close(got, expected, atol)
      )
    if not right:
      raise Differs(f"{name}({shown}) == {_show(expected)}", _show(got))


@functools.lru_cache(maxsize=64)  # many programs of a problem follow each other
def _prepare(reference: str, name: str, inputs: str, oracle: str) -> bytes:
  """Returns inputs and results, pickled, so that each program gets its own."""
  namespace: dict = {"__name__": "reference"}
  exec(compile(reference, "<reference>", "exec", dont_inherit=True), namespace)
  rows = eval(inputs, {"inf": math.inf, "nan": math.nan})
  answers = [namespace[name](*copy.deepcopy(row)) for row in rows]
  if oracle == "not_none":
    answers = [answer is not None for answer in answers]
  return pickle.dumps((rows, answers))


def _exact(got, expected, row, atol: float, oracle: str, early: bool) -> bool:
  if oracle == "set":
    return set(got) == set(expected)
  if oracle == "not_none" and (early or not isinstance(got, bool)):
    return expected == (got is not None)
  if got == expected or oracle == "any":
    return True
  return oracle in _ORACLES and _ORACLES[oracle](got, atol, *row)


def _pyramid(got, atol: float, base: float, height: float) -> bool:
  slant = math.sqrt((base / 2) ** 2 + height**2)
  return abs(got - round(base**2 + 2 * base * slant)) <= atol


def _digits(got, _, first: int, second: int) -> bool:
  width = max(len(str(first)), len(str(second)))
  digits = (map(int, str(number).zfill(width)) for number in (first, second))
  return got == sum(abs(a - b) for a, b in zip(*digits))  # noqa: B905


# What is right besides the reference's result.
_ORACLES = {
  "zero": lambda got, *_: got == 0,
  "pyramid": _pyramid,
  "digits": _digits,
}


def _is_floats(value) -> bool:
  if isinstance(value, (list, tuple)):
    return bool(value) and all(isinstance(item, float) for item in value)
  return isinstance(value, float)


def _close(got, expected, atol: float) -> bool:
  if isinstance(expected, (list, tuple)):
    same = isinstance(got, (list, tuple)) and len(got) == len(expected)
    return same and all(map(functools.partial(_close, atol=atol), got, expected))
  numbers = (int, float, complex)
  if not (isinstance(got, numbers) and isinstance(expected, numbers)):
    return False
  try:
    if got == expected or not abs(expected) < math.inf:  # nothing is near an infinity
      return got == expected
    return abs(got - expected) <= atol + _RELATIVE * abs(expected)
  except OverflowError:
    return False


def _show(value) -> str:
  try:
    text = repr(value)
  except BaseException as error:
    return f"({type(error).__name__} in its repr)"
  return text if len(text) <= 160 else f"{text[:160]}..."
