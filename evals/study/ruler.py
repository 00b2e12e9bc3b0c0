"""Test problems and held-out texts, which no arm has read.

Tiers are reported apart (but for the table of pruning, which needs many problems). From
near to far: compositions of three parts of which only pairs are trained on, pairs that
are not, wordings that are not, compositions of four parts, and problems that people
wrote in free wording.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from evals import exercises, real_functions, report
from evals.study.config import StudyConfig
from phi1_jax.problems import written
from phi1_jax.problems.problem import Problem

# Problems of the ruler in HumanEval's format, for decontamination; held-out texts.
FILE, TEXTS = "ruler.jsonl", "held_out.jsonl"
# Beyond the tiers: judged, but nothing that is trained on resembles them.
FAR = (real_functions.TASK_SET, written.UNCONVENTIONAL)


# From near to far.
TIERS = (*exercises.TIERS, exercises.HANDWRITTEN)
# The tier whose problems are planted: the farthest.
LEAKED_FROM = TIERS[-1]


def problems() -> dict[str, list[Problem]]:
  """Return the problems of each task set that training data must not contain."""
  return {name: report.load_problems(name, None) for name in (*TIERS, *FAR)}


def write(config: StudyConfig, folder: Path) -> None:
  """Write the problems in the format of `Decontaminate.benchmarks`."""
  found = problems()
  lines = [json.dumps(row(problem)) for each in found.values() for problem in each]
  (folder / FILE).write_text("\n".join(lines) + "\n")


def row(problem: Problem) -> dict[str, str]:
  """Return a problem in HumanEval's format."""
  return {
    "task_id": problem.id,
    "prompt": problem.prompt,
    "entry_point": problem.entry_point,
    "canonical_solution": problem.reference,
    "test": check(problem.tests),
  }


def check(tests: Sequence[str]) -> str:
  """Return tests as HumanEval's `check`; they call the function by its own name."""
  lines = [line for test in tests for line in test.strip("\n").split("\n")]
  return "\n".join(["def check(candidate):", *(f"    {line}" for line in lines)]) + "\n"
