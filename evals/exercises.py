"""Unseen exercises: problems of the grammar teacher that no training set of it holds.

Each task set is one tier, and no two are ever added up: what is unseen in it (a
composition of three parts, a pair of parts, a wording, a longer composition) is what it
measures. Names of functions are unseen in all of them.

Asserts are added until solutions with one thing wrong fail (mutants.py), where a task
is about one number or word.

One set is not the teacher's: its 100 problems were written for this project, in words
that the grammar does not have.
"""

import dataclasses
import functools

from evals import mutants
from phi1_jax.grammar import teacher
from phi1_jax.grammar.exercise import Exercise
from phi1_jax.problems import written
from phi1_jax.problems.problem import Problem

NUMBER = 100
# Another seed than that of any training set; the tiers differ by content anyway.
_SEED = 1_000_003
HANDWRITTEN = "exercises-handwritten-100"
# The teacher's task sets -> their tier.
TIERS = {
  f"exercises-{tier.replace('_', '-')}-{NUMBER}": tier
  for tier in teacher.TIERS
  if tier != "train"
}
TASK_SETS = (*TIERS, HANDWRITTEN)


def load(task_set: str) -> tuple[Problem, ...]:
  """The problems of a task set; the same on every machine.

  Args:
    task_set: one of `TASK_SETS`.
  """
  if task_set == HANDWRITTEN:
    return written.load(written.HANDWRITTEN)
  return _of_teacher(task_set)


@functools.cache
def _of_teacher(task_set: str) -> tuple[Problem, ...]:
  found: dict[str, Problem] = {}
  index = 0
  while len(found) < NUMBER:
    exercise = teacher.exercise(_SEED, index, TIERS[task_set])
    index += 1
    tests = mutants.strengthened(exercise.text, exercise.name, exercise.tests)
    if tests and exercise.name not in found:  # a name is asked for once
      problem = _problem(f"{task_set}/{len(found)}", exercise)
      found[exercise.name] = dataclasses.replace(problem, tests=tests)
  return tuple(found.values())


def _problem(name: str, exercise: Exercise) -> Problem:
  return Problem(
    id=name,
    entry_point=exercise.name,
    prompt=exercise.prompt,
    reference=exercise.body,
    solution=exercise.text,
    tests=exercise.tests,
  )
