"""HumanEval+ and MBPP+ (Liu et al. 2023, Apache-2.0), as EvalPlus publishes them.

A problem has inputs and a reference solution, whose results are the expected ones
(`sandbox/inside/differential.py` compares). The base inputs are those of the original
benchmark. `Problem.tests` has the base inputs, `Problem.plus` the additional ones.

JSON has neither tuples nor sets, so EvalPlus rebuilds the arguments of some MBPP tasks.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

from phi1_jax import InputError
from phi1_jax.problems import files
from phi1_jax.problems.problem import Problem
from phi1_jax.storage import AnyPath

_UPSTREAM = "https://github.com/evalplus"
FIELDS = ("task_id", "prompt", "entry_point", "canonical_solution")
INPUTS = ("base_input", "plus_input")
# CPU time of a program, and of the reference, on one of the two lists of inputs. The
# references of the slow ones need 3 to 11 s, those of all others less than 3.
_CPU_SECONDS, _SLOW_SECONDS = 20.0, 60.0
_SLOW = ("HumanEval/15", "HumanEval/130", "HumanEval/139", "Mbpp/599")
# Mbpp/255 lists combinations: above this length 5 of its 109 additional inputs have
# results of 38 MB and more, which the sandbox does not pass on. They are left out.
_LONGEST_COMBINATION = 75
# Task set, name and version of the published file, and md5 of the unpacked file (the
# `hash` in EvalPlus' results).
_PUBLISHED = """
  humaneval-plus-164         HumanEvalPlus  v0.1.10  fe585eb4df8c88d844eeb463ea4d0302
  humaneval-plus-164-v0.1.9  HumanEvalPlus  v0.1.9   84f4b93a1270b492e4c54d5212da7a5b
  mbpp-plus-378              MbppPlus       v0.2.0   ee43ecabebf20deef4bb776a405ac5b1
  mbpp-plus-399              MbppPlus       v0.1.0   ebe95df0d5220f00cedd6f4bddea35e4
"""
TASK_SETS = {
  name: (file, version, md5)
  for name, file, version, md5 in map(str.split, _PUBLISHED.strip().splitlines())
}

_Convert = Callable[[list], list]


def _deep(value: Any) -> Any:
  return tuple(map(_deep, value)) if isinstance(value, list) else value


class _SortedSet(set):
  """A set whose text is the same in every process, since a program's key holds it."""

  def __repr__(self) -> str:
    return f"{{{', '.join(sorted(map(repr, self)))}}}"


def _set_or_dict(value: Any) -> Any:
  return _SortedSet(value) if isinstance(value, list) and value else {}


def _first(convert: Callable[[Any], Any]) -> _Convert:
  return lambda row: [convert(row[0]), *row[1:]]


def _each(convert: Callable[[Any], Any]) -> _Convert:
  return lambda row: [convert(argument) for argument in row]


def _tuples(values: list) -> list[tuple]:
  return [tuple(value) for value in values]


def _shallow(values: list) -> tuple:
  return tuple(tuple(x) if isinstance(x, list) else x for x in values)


# What EvalPlus makes of a list of arguments -> MBPP's task numbers.
_ARGUMENTS: dict[_Convert, str] = {
  _each(tuple): "2 116 132 143 222 261 273 394 399 421 424 429 470 560 579 596 616 630 "
  "726 740 744 809",
  _each(_tuples): "63 64 70 94 120 237 272 299 400 409 417 438 473 614 780",
  _first(_tuples): "75 413 444 753",
  lambda row: [row[0], tuple(row[1])]: "106 750",
  _first(lambda values: [_set_or_dict(value) for value in values]): "115",
  lambda row: [float(row[0]), complex(row[1])]: "124",
  _first(tuple): "250 307 405 446 617 720 763 808",
  _first(complex): "252",
  _each(lambda values: tuple(_tuples(values))): "259 401 445",
  _first(_shallow): "278",
  _each(_deep): "580 615 791",
  _first(lambda rows: {key: tuple(value) for key, value in rows.items()}): "722",
}
_OF_TASK = {int(n): convert for convert, of in _ARGUMENTS.items() for n in of.split()}
# Entry points of tasks with several right results; see differential.check.
_ORACLES = {
  "find_zero": "root",
  "are_equivalent": "any",
  "sum_div": "zero",
  "surface_Area": "pyramid",
  "digit_distance_nums": "digits",
  **dict.fromkeys(("check_str", "text_match_three", "text_starta_endb"), "not_none"),
  **dict.fromkeys(
    (
      *("similar_elements", "find_char_long", "common_in_nested_lists"),
      *("extract_singly", "larg_nnum", "intersection_array", "find_dissimilar", "Diff"),
    ),
    "set",
  ),
}

_LATER = ("set", "pyramid", "digits")


def load(task_set: str, folder: str | AnyPath | None = None) -> list[Problem]:
  """Return the problems of a task set.

  Args:
    task_set: a name of `TASK_SETS`.
    folder: the folder with EvalPlus' files; None looks as `files.find` does.

  Raises:
    InputError: no such file, or not the file that EvalPlus published.
  """
  name, version, md5 = TASK_SETS[task_set]
  url = (
    f"{_UPSTREAM}/{name.lower()}_release/releases/download/{version}/{name}.jsonl.gz"
  )
  path = files.find(f"{name}-{version}.jsonl.gz", folder, url)
  content = files.read(path, f"fetch {url}")
  got = hashlib.md5(content, usedforsecurity=False).hexdigest()
  if got != md5:
    raise InputError(f"{path}: got md5 {got}, expected {md5}; fetch {url}")
  early = task_set == "mbpp-plus-399"
  return [problem(json.loads(line), early) for line in content.splitlines()]


def problem(row: Mapping[str, Any], early: bool = False) -> Problem:
  """Return the problem of a row in EvalPlus' format.

  Args:
    row: the row.
    early: whether to judge as EvalPlus 0.2.0 did, which came with MBPP+ v0.1.0 and knew
      fewer tasks with several right results.

  Raises:
    ValueError: inputs that are not lists of arguments.
  """
  prompt, name = row["prompt"], row["entry_point"]
  benchmark, _, number = row["task_id"].partition("/")
  convert = _OF_TASK.get(int(number)) if benchmark == "Mbpp" else None
  oracle = _ORACLES.get(name, "") if benchmark in ("Mbpp", "HumanEval") else ""
  # Not if the other benchmark has the task of that name.
  if (oracle == "root") != (benchmark == "HumanEval") or (early and oracle in _LATER):
    oracle = ""
  reference = row["canonical_solution"]
  tests = []
  for field in INPUTS:
    inputs = row[field] or []  # {} stands for none
    if not isinstance(inputs, list) or not all(isinstance(x, list) for x in inputs):
      raise ValueError(f"{field} is not a list of lists of arguments")
    if row["task_id"] == "Mbpp/255":
      inputs = [x for x in inputs if x[1] <= _LONGEST_COMBINATION]
    if convert:
      inputs = [convert(arguments) for arguments in inputs]
    tests.append(
      f"__differential__({name}, {name!r}, reference={prompt + reference!r}, "
      f"inputs={repr(inputs)!r}, atol={row.get('atol', 0)!r}, oracle={oracle!r}"
      f"{', early=True' * early})"
    )
  text, examples = _text(prompt, name)
  return Problem(
    id=row["task_id"],
    entry_point=name,
    prompt=text,
    reference=reference,
    solution=prompt + reference,
    tests=(tests[0],),
    plus=(tests[1],),
    examples=examples,
    cpu_seconds=_SLOW_SECONDS if row["task_id"] in _SLOW else _CPU_SECONDS,
    accepts_any=oracle == "any",
  )


def _text(prompt: str, entry_point: str) -> tuple[str, tuple[str, ...]]:
  """Return the prompt; of a docstring without a stub, the text and its test."""
  if f"def {entry_point}" in prompt:
    return prompt, ()
  text, found, test = prompt.strip().strip('"').strip().rpartition("\nassert")
  return (text, (f"assert{test}",)) if found else (prompt, ())
