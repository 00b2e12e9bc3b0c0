"""MBPP (Austin et al. 2021, CC BY 4.0), read from a folder or downloaded once.

Task sets differ too much to be compared with one another (a model may score 44 on one
and 53 on another), so each has its own name:

  mbpp-full-974       everything
  mbpp-full-500       ids 11-510, the test range of the paper
  mbpp-sanitized-427  the hand-verified subset, with its own texts and tests
  mbpp-sanitized-257  its ids 11-510
"""

import ast
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from phi1_jax import InputError, storage
from phi1_jax.problems import files
from phi1_jax.problems.files import ENVIRONMENT as ENVIRONMENT
from phi1_jax.problems.problem import CPU_SECONDS, Problem, parse
from phi1_jax.storage import AnyPath

UPSTREAM = (
  "https://raw.githubusercontent.com/google-research/google-research/master/mbpp"
)
FEW_SHOT_IDS = (2, 3, 4)  # of the paper's three-shot prompt
TEST_IDS = range(11, 511)

_SLOW = {123: 28.0}  # task -> CPU seconds: ten times those of its reference

FULL, SANITIZED = "mbpp.jsonl", "sanitized-mbpp.json"
# Task set -> file in the folder, task ids that count (None for all), and sha256 of the
# parsed rows (see `content_digest`), few-shot rows included. It does not depend on how
# the JSON is laid out, nor, for a part of a file, on the rest: upstream once revised
# rows outside of the test range.
_DIGESTS = """
  mbpp-full-974       5a0743641857fd04ee1f8623d830eb545a5df5f3469c425f064ce69dd15f8ea3
  mbpp-full-500       0ece257b69e1de09ebfd1e98a973119e406dbd6b66bff60ba47b9a309ecd62c9
  mbpp-sanitized-427  0a699546e9e40b657bfd6bdaf9ecd330bd590ecc8e0602e9cb0ef85cd41d6e16
  mbpp-sanitized-257  1cc0c6504d86354f0ac8b054c0c8e927cbc1a06b41ac0c3aa7c5423c5d31303b
"""
TASK_SETS: dict[str, tuple[str, range | None, str]] = {
  name: (
    FULL if "full" in name else SANITIZED,
    TEST_IDS if name.endswith(("500", "257")) else None,
    sha256,
  )
  for name, sha256 in map(str.split, _DIGESTS.strip().splitlines())
}


def load(task_set: str, folder: str | AnyPath | None = None) -> list[Problem]:
  """Return the problems of a name of `TASK_SETS`.

  Args:
    task_set: its name.
    folder: where mbpp.jsonl and sanitized-mbpp.json are; None: see `files.find`.

  Raises:
    InputError: no such file, or a file that is not the one pinned here.
  """
  _, ids, _ = TASK_SETS[task_set]
  rows = _rows(task_set, folder)
  return [problem(row) for row in rows if ids is None or row["task_id"] in ids]


def load_few_shot(task_set: str, folder: str | AnyPath | None = None) -> list[Problem]:
  """Return the problems that the paper's few-shot prompt shows, from the same file."""
  rows = {row["task_id"]: row for row in _rows(task_set, folder)}
  return [problem(rows[number]) for number in FEW_SHOT_IDS]


def content_digest(rows: Sequence[Mapping[str, Any]]) -> str:
  """Return the sha256 of rows, however their JSON was laid out."""
  text = json.dumps(rows, sort_keys=True, separators=(",", ":"))
  return hashlib.sha256(text.encode()).hexdigest()


def problem(row: Mapping[str, Any]) -> Problem:
  """Return the problem of a row of either file; line ends become LF."""
  reference, text = _lf(row["code"]), _lf(row.get("text") or row["prompt"])
  asserts = tuple(_lf(test).strip() for test in row["test_list"])
  setup = _lf(row.get("test_setup_code", "")).strip()
  imports = "\n".join(row.get("test_imports", ()))
  tree = parse(reference)
  return Problem(
    id=f"Mbpp/{row['task_id']}",
    entry_point=_entry_point(tree, asserts, row["task_id"]),
    prompt=text,
    reference=reference,
    solution=f"{imports}\n{reference}" if imports else reference,
    tests=tuple(part for part in (imports, setup, *asserts) if part),
    examples=asserts,
    setup=imports,
    cpu_seconds=_SLOW.get(row["task_id"], CPU_SECONDS),
  )


def _lf(text: str) -> str:
  return text.replace("\r\n", "\n").replace("\r", "\n")


def _entry_point(tree: ast.Module, asserts: Sequence[str], number: int) -> str:
  """Return the function of the reference that the tests use.

  Not simply the first name in a test: that may be `set(f(x))`; and not a name that is
  no builtin: Mbpp/126 defines `sum`.
  """
  defined = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
  nodes = ast.walk(parse("\n".join(asserts)))
  used = {node.id for node in nodes if isinstance(node, ast.Name)}
  for name in reversed(defined):
    if name in used:
      return name
  raise InputError(f"Mbpp/{number}: no test calls a function of the reference")


def _rows(task_set: str, folder: str | AnyPath | None) -> list[dict[str, Any]]:
  file, ids, sha256 = TASK_SETS[task_set]
  path = files.find(file, folder, f"{UPSTREAM}/{file}")
  try:
    text = storage.read_text(path)
    if file == FULL:
      text = f"[{','.join(filter(str.strip, text.split(chr(10))))}]"
    wanted = None if ids is None else {*ids, *FEW_SHOT_IDS}
    rows = [
      row for row in json.loads(text) if wanted is None or row["task_id"] in wanted
    ]
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise InputError(f"{path}: not MBPP's {file} ({error!r})") from None
  got = content_digest(rows)
  if got != sha256:
    raise InputError(
      f"{path}: {len(rows)} rows of {task_set} have sha256 {got[:16]}, expected "
      f"{sha256[:16]}; fetch the file from {UPSTREAM}/{file}"
    )
  return rows
