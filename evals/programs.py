"""The two programs of a completion, each judged with the problem's tests.

  truncated  the code before the completion, and the completion, cut at its first stop
             string; of a chat answer its code block
  sanitized  the part of the raw text that `extraction` finds: the entry point and its
             needs

Both are scored; the difference shows the effect of sanitizing.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from evals import extraction
from evals.prompts import Prompt
from phi1_jax import InputError
from phi1_jax.problems.problem import Problem
from phi1_jax.sandbox.program import Program
from phi1_jax.text.settings_file import digest

VARIANTS = ("truncated", "sanitized")


@dataclasses.dataclass(frozen=True)
class Judged:
  """A variant of a completion."""

  variant: str  # one of `VARIANTS`
  code: str  # what is executed
  # what the extraction left out, a line each; empty if truncated
  dropped: tuple[str, ...] = ()
  answered: bool = True  # whether anything of the answer is in the code


def variants(problem: Problem, prompt: Prompt, row: Mapping[str, Any]) -> list[Judged]:
  """Return the programs of a line of completions.jsonl."""
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


def program(
  problem: Problem, code: str, plus: bool = False
) -> tuple[str, Program | None]:
  """Return the key of a program, and the program; None if it is too long to judge.

  The key is a digest of code, tests and limits. So a program that several samples have
  in common is judged once, blank lines at the end aside.

  Args:
    problem: gives tests and limits.
    code: the code to judge.
    plus: whether to judge it with the further tests.
  """
  content = {
    "code": code.rstrip() + "\n",
    "tests": problem.plus if plus else problem.tests,
    "cpu_seconds": problem.cpu_seconds,
    "in_process": problem.in_process,
  }
  key = digest(content)
  try:
    return key, Program(key=key, **content)
  except InputError:
    return key, None
