"""The two programs of a completion, each judged with the problem's tests.

  truncated  the code before the completion, and the completion, cut at its first stop
             string; of a chat answer its code block
  sanitized  the part of the raw text that `extraction` finds: the entry point and its
             needs

Both are scored; the difference shows the effect of sanitizing.
"""

from collections.abc import Mapping
from typing import Any

from evals import extraction
from evals.extraction import Extraction
from evals.prompts import Prompt
from phi1_jax import InputError
from phi1_jax.problems.problem import Problem
from phi1_jax.sandbox.program import Program
from phi1_jax.text.settings_file import digest

VARIANTS = ("truncated", "sanitized")


def variants(
  problem: Problem, prompt: Prompt, row: Mapping[str, Any]
) -> dict[str, Extraction]:
  """Return the programs of a line of completions.jsonl, by variant."""
  prefix = "" if row.get("whole") else prompt.prefix
  whole = prefix + row.get("text", row["completion"])
  code = prefix + row["completion"]
  code = extraction.futures_first(code) if prompt.chat else code
  truncated = Extraction(code, (), bool(row["completion"].strip()))
  entry, also = problem.entry_point, problem.names()
  try:
    found = extraction.extract(whole, entry, also, len(prefix), prompt.chat)
  except RecursionError:
    found = Extraction(code, ("nothing: nested too deeply to sanitize",))
  return {"truncated": truncated, "sanitized": found}


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
