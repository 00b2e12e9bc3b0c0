"""Problems written by hand for this project, in HumanEval's format, and frozen.

  unconventional-50  tasks that are unlikely in real code and in exercises: made-up
                     rules, and unusual combinations of simple steps (section 4 of the
                     paper has 50 such problems, which are not published). Each comes
                     with what a hasty reader might write, and its tests refuse that.
  handwritten-100    short tasks as people word them, for models that learnt from the
                     grammar's exercises: 50 about one or two values, 50 about lists,
                     texts and dictionaries.

A file whose content changes is another task set: its scores compare with no older ones.
A line may have `wrong`, a list of `misreading` and `body`.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from phi1_jax import InputError
from phi1_jax.problems import humaneval
from phi1_jax.problems.problem import Problem

UNCONVENTIONAL = "unconventional-50"
HANDWRITTEN = "handwritten-100"
_FOLDER = Path(__file__).parent
# Task set -> file in this package, and sha256 of its bytes.
TASK_SETS = {
  UNCONVENTIONAL: (
    "unconventional.jsonl",
    "d62531ff5bc622835252b0c246e9360200558b624b5a93a3cc2ee531250c389f",
  ),
  HANDWRITTEN: (
    "handwritten.jsonl",
    "c44e966791ff2a36de55a67a5eea15a71698fc9bf73e9414fc8f0ce599ff1b96",
  ),
}


def load(task_set: str) -> tuple[Problem, ...]:
  """Return the problems of a name of `TASK_SETS`, in the order of its file.

  Raises:
    InputError: a file that is not the one pinned here.
  """
  return tuple(humaneval.problem(row) for row in _rows(task_set))


def wrong_solutions(task_set: str) -> dict[str, tuple[tuple[str, str], ...]]:
  """Return programs that misread a problem, by its id: misreading and program.

  "handwritten-100" has no such programs.

  Raises:
    InputError: as `load`.
  """
  return {
    row["task_id"]: tuple(
      (wrong["misreading"], row["prompt"] + wrong["body"])
      for wrong in row.get("wrong", ())
    )
    for row in _rows(task_set)
  }


def _rows(task_set: str) -> list[dict[str, Any]]:
  file, sha256 = TASK_SETS[task_set]
  content = (_FOLDER / file).read_bytes()
  got = hashlib.sha256(content).hexdigest()
  if got != sha256:
    raise InputError(
      f"{_FOLDER / file}: got sha256 {got}, expected {sha256}; restore the file, or, "
      f"if the change is meant, put the new digest under a new name into TASK_SETS of "
      f"{Path(__file__).name}: scores of {task_set} compare with no others"
    )
  return [json.loads(line) for line in content.split(b"\n") if line]
