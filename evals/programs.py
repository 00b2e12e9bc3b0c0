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
from evals.workdir import digest
from phi1_jax.problems.problem import Problem
from phi1_jax.sandbox.program import Program

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
  found = extraction.extract(whole, problem.entry_point, problem.names())
  return [
    Judged("truncated", prompt.prefix + row["completion"]),
    Judged("sanitized", found.code, found.dropped),
  ]


def program(problem: Problem, code: str) -> Program:
  """Code with the problem's tests and limits; its key is a digest of all of that.

  So what several samples have in common is judged once, blank lines at the end aside.
  """
  code = code.rstrip() + "\n"
  content = {
    "code": code,
    "tests": problem.tests,
    "cpu_seconds": problem.cpu_seconds,
    "in_process": problem.in_process,
  }
  return Program(
    key=digest(content),
    code=code,
    tests=problem.tests,
    cpu_seconds=problem.cpu_seconds,
    in_process=problem.in_process,
  )
