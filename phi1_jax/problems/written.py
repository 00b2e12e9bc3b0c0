"""Problems written by hand for this project, in HumanEval's format, and frozen.

  unconventional-50  tasks that are unlikely in real code and in exercises: made-up
                     rules, and unusual combinations of simple steps (section 4 of the
                     paper has 50 such problems, which are not published). Each comes
                     with what a hasty reader might write, and its tests refuse that.
  handwritten-100    short tasks as people word them, for models that learnt from the
                     grammar's exercises: 50 about one or two values ("values"), 50
                     about lists, texts and dictionaries ("collections").

A file whose content changes is another task set: its scores compare with no older ones.
"""

import dataclasses
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


@dataclasses.dataclass(frozen=True)
class TaskSet:
  """A file of problems, and what it must be.

  Attributes:
    file: name in this package; JSON lines with the fields of HumanEval's, perhaps
      `level`, and perhaps `wrong`: a list of `misreading` and `body`.
    sha256: of its bytes.
  """

  file: str
  sha256: str


TASK_SETS = {
  UNCONVENTIONAL: TaskSet(
    "unconventional.jsonl",
    "d62531ff5bc622835252b0c246e9360200558b624b5a93a3cc2ee531250c389f",
  ),
  HANDWRITTEN: TaskSet(
    "handwritten.jsonl",
    "c44e966791ff2a36de55a67a5eea15a71698fc9bf73e9414fc8f0ce599ff1b96",
  ),
}


def load(task_set: str) -> tuple[Problem, ...]:
  """The problems of a task set, in the order of its file.

  Args:
    task_set: a name of `TASK_SETS`.

  Raises:
    InputError: no such set, or a file that is not the one pinned here.
  """
  return tuple(humaneval.problem(row) for row in _rows(task_set))


def wrong_solutions(task_set: str) -> dict[str, tuple[tuple[str, str], ...]]:
  """Programs that misread a problem, by its id: pairs of the misreading and a program.

  Args:
    task_set: a name of `TASK_SETS`; "handwritten-100" has no such programs.

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


def levels(task_set: str) -> dict[str, str]:
  """Which part of a task set a problem belongs to, by id; empty for sets without parts.

  Args:
    task_set: a name of `TASK_SETS`.

  Raises:
    InputError: as `load`.
  """
  rows = _rows(task_set)
  return {row["task_id"]: row["level"] for row in rows if "level" in row}


def _rows(task_set: str) -> list[dict[str, Any]]:
  if task_set not in TASK_SETS:
    raise InputError(
      f"task_set: got {task_set!r}, expected one of {', '.join(TASK_SETS)}"
    )
  wanted = TASK_SETS[task_set]
  path = _FOLDER / wanted.file
  try:
    content = path.read_bytes()
  except OSError as error:
    raise InputError(
      f"{path}: cannot be read ({error.strerror}); it belongs to the package, "
      "which should be installed again"
    ) from None
  got = hashlib.sha256(content).hexdigest()
  if got != wanted.sha256:
    raise InputError(
      f"{path}: got sha256 {got}, expected {wanted.sha256}; restore the file, or, if "
      f"the change is meant, put the new digest under a new name into TASK_SETS of "
      f"{Path(__file__).name}: scores of {task_set} compare with no others"
    )
  return [json.loads(line) for line in content.split(b"\n") if line]
