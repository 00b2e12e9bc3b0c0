"""What is judged for a completion: two programs, each with the problem's tests.

  truncated  what stands before the completion, and the completion as it was cut at
             its first stop string
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
  """One variant of one completion.

  Attributes:
    variant: one of `VARIANTS`.
    code: what is executed.
    dropped: what the extraction left out, a line each; empty if truncated.
  """

  variant: str
  code: str
  dropped: tuple[str, ...] = ()


def variants(problem: Problem, prompt: Prompt, row: Mapping[str, Any]) -> list[Judged]:
  """The programs of one line of completions.jsonl."""
  whole = prompt.prefix + row.get("text", row["completion"])
  truncated = prompt.prefix + row["completion"]
  try:
    found = extraction.extract(
      whole, problem.entry_point, problem.names(), border=len(prompt.prefix)
    )
  except RecursionError:
    found = extraction.Extraction(
      truncated, ("nothing: nested too deeply to sanitize",)
    )
  return [
    Judged("truncated", truncated),
    Judged("sanitized", found.code, found.dropped),
  ]


def key(problem: Problem, code: str) -> str:
  """What a program is called: a digest of code, tests and limits.

  So what several samples have in common is judged once, blank lines at the end aside.
  """
  return digest(
    {
      "code": code.rstrip() + "\n",
      "tests": problem.tests,
      "cpu_seconds": problem.cpu_seconds,
      "in_process": problem.in_process,
    }
  )


def program(problem: Problem, code: str) -> Program:
  """Code with the problem's tests and limits.

  Raises:
    InputError: longer than the sandbox takes.
  """
  return Program(
    key=key(problem, code),
    code=code.rstrip() + "\n",
    tests=problem.tests,
    cpu_seconds=problem.cpu_seconds,
    in_process=problem.in_process,
  )
