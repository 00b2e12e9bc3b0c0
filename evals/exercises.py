"""Unseen exercises: problems of the grammar teacher that no training set of it holds.

Each task set is one tier, and no two are ever added up: what is unseen in it (a
composition of three parts, a pair of parts, a wording, a longer composition) is what it
measures. Names of functions are unseen in all of them. The set of short ones (unseen
pairs, at most 350 characters) is for models that were trained on short ones.
"""

import functools

from phi1_jax.grammar import teacher
from phi1_jax.grammar.exercise import Exercise
from phi1_jax.problems.problem import Problem

NUMBER = 100
# Another seed than that of any training set; the tiers differ by content anyway.
_SEED = 1_000_003
_ANY, _SHORT = 1 << 20, 350  # characters of prompt and solution
# Task set -> its tier, and the longest exercise in it.
TASK_SETS = {
  f"exercises-short-{NUMBER}": ("unseen_pairs", _SHORT),
  **{
    f"exercises-{tier.replace('_', '-')}-{NUMBER}": (tier, _ANY)
    for tier in teacher.TIERS
    if tier != "train"
  },
}


@functools.cache
def load(task_set: str) -> tuple[Problem, ...]:
  """The problems of a task set; the same on every machine.

  Args:
    task_set: one of `TASK_SETS`.
  """
  tier, longest = TASK_SETS[task_set]
  found: dict[str, Problem] = {}
  index = 0
  while len(found) < NUMBER:
    exercise = teacher.exercise(_SEED, index, tier)
    index += 1
    if exercise.name not in found and len(exercise.text) <= longest:
      found[exercise.name] = _problem(f"{tier}/{len(found)}", exercise)
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
