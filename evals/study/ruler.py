"""The ruler: problems that no arm has read, and texts that no arm has read.

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


def task_sets(menu: str) -> list[str]:
  """The tiers, from near to far.

  Args:
    menu: of the grammar teacher.
  """
  generated = [
    name for name, (_, of_menu) in exercises.TIERS.items() if of_menu == menu
  ]
  return [*generated, exercises.HANDWRITTEN]


def leaked_from(menu: str) -> str:
  """The tier whose problems are planted: the farthest, so that a leak is seen."""
  return task_sets(menu)[-1]


def problems(menu: str) -> dict[str, list[Problem]]:
  """Task set -> its problems, for every set that training data must not hold."""
  names = [*task_sets(menu), *FAR]
  return {name: report.load_problems(name, None) for name in names}


def write(config: StudyConfig, folder: Path) -> None:
  """Writes the problems as `Decontaminate.benchmarks` reads them."""
  found = problems(config.menu)
  lines = [json.dumps(row(problem)) for each in found.values() for problem in each]
  (folder / FILE).write_text("\n".join(lines) + "\n")


def row(problem: Problem) -> dict[str, str]:
  """A problem in HumanEval's format."""
  return {
    "task_id": problem.id,
    "prompt": problem.prompt,
    "entry_point": problem.entry_point,
    "canonical_solution": problem.reference,
    "test": check(problem.tests),
  }


def check(tests: Sequence[str]) -> str:
  """The tests as HumanEval's `check`, which calls the function by its own name."""
  lines = [line for test in tests for line in test.strip("\n").split("\n")]
  return "\n".join(["def check(candidate):", *(f"    {line}" for line in lines)]) + "\n"
