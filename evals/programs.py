"""What is judged for a completion: two programs, each with the problem's tests.

  truncated  what stands before the completion, and the completion as it was cut at
             its first stop string; of a chat answer its code block
  sanitized  what `extraction` finds in the raw text: the entry point and its needs

Both are scored, side by side; the difference says how much of a score is in the
cleaning up.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from evals import extraction
from evals.prompts import Prompt
from phi1_jax.problems.problem import Problem
from phi1_jax.sandbox.program import Program
from phi1_jax.text.settings_file import digest

VARIANTS = ("truncated", "sanitized")


@dataclasses.dataclass(frozen=True)
class Judged:
  """One variant of one completion."""

  variant: str  # one of `VARIANTS`
  code: str  # what is executed
  # what the extraction left out, a line each; empty if truncated
  dropped: tuple[str, ...] = ()
  answered: bool = True  # whether anything of the answer is in the code


def variants(problem: Problem, prompt: Prompt, row: Mapping[str, Any]) -> list[Judged]:
  """The programs of one line of completions.jsonl."""
  prefix = "" if row.get("whole") else prompt.prefix
  whole = prefix + row.get("text", row["completion"])
  truncated = prefix + row["completion"]
  if prompt.chat:
    truncated = extraction.futures_first(truncated)
  try:
    found = extraction.extract(
      whole,
      problem.entry_point,
      problem.names(),
      border=len(prefix),
      chat=prompt.chat,
    )
  except RecursionError:
    found = extraction.Extraction(
      truncated, ("nothing: nested too deeply to sanitize",)
    )
  return [
    Judged("truncated", truncated, answered=bool(row["completion"].strip())),
    Judged("sanitized", found.code, found.dropped, found.answered),
  ]


def key(problem: Problem, code: str, plus: bool = False) -> str:
  """What a program is called: a digest of code, tests and limits.

  So what several samples have in common is judged once, blank lines at the end aside.
  """
  return digest(
    {
      "code": code.rstrip() + "\n",
      "tests": problem.plus if plus else problem.tests,
      "cpu_seconds": problem.cpu_seconds,
      "in_process": problem.in_process,
    }
  )


def program(problem: Problem, code: str, plus: bool = False) -> Program:
  """Code with the problem's tests and limits.

  Args:
    problem: the problem.
    code: what is judged.
    plus: whether to judge it with the further tests.

  Raises:
    InputError: longer than the sandbox takes.
  """
  return Program(
    key=key(problem, code, plus),
    code=code.rstrip() + "\n",
    tests=problem.plus if plus else problem.tests,
    cpu_seconds=problem.cpu_seconds,
    in_process=problem.in_process,
  )
