"""How diverse the grammar teacher's exercises are, and how fast it makes them.

    python benchmarks/grammar.py --exercises=50000

No model and no network. Prints one table: distinct texts, compositions, names, argument
names, wordings and words, lengths, families, and exercises per second of one core's
time and of wall time.
"""

import argparse
import ast
import collections
import re
import time
from collections.abc import Sequence

from phi1_jax.grammar import teacher
from phi1_jax.grammar.exercise import Exercise


def arguments_of(exercise: Exercise) -> list[str]:
  """The names of its function's arguments."""
  function = ast.parse(exercise.text).body[-1]
  assert isinstance(function, ast.FunctionDef)
  return [argument.arg for argument in function.args.args]


def words_of(exercise: Exercise) -> list[str]:
  """The lower-case words of its docstring."""
  function = ast.parse(exercise.text).body[-1]
  assert isinstance(function, ast.FunctionDef)
  return re.findall(r"[a-z]+", (ast.get_docstring(function) or "").lower())


def print_table(exercises: Sequence[Exercise], core: float, wall: float) -> None:
  """Prints what there is in the exercises, made in so many seconds."""
  count = len(exercises)
  texts = collections.Counter(exercise.text for exercise in exercises)
  bodies = {exercise.body for exercise in exercises}
  lengths = sorted(len(exercise.text) for exercise in exercises)
  words = collections.Counter(w for exercise in exercises for w in words_of(exercise))
  arguments = {name for exercise in exercises for name in arguments_of(exercise)}
  rows = {
    "exercises": count,
    "exact duplicates": f"{1 - len(texts) / count:.3%}",
    "compositions": len({exercise.composition for exercise in exercises}),
    "function names": len({exercise.name for exercise in exercises}),
    "argument names": len(arguments),
    "distinct bodies": len(bodies),
    "frames": len({exercise.frame for exercise in exercises}),
    "words in docstrings": f"{sum(words.values()):,}, {len(words):,} distinct",
    "characters, mean": f"{sum(lengths) / count:.0f}",
    "characters, 50%, 90%, 99%, most": ", ".join(
      str(lengths[min(int(count * part), count - 1)]) for part in (0.5, 0.9, 0.99, 1)
    ),
    "at most 600 characters": f"{sum(n <= 600 for n in lengths) / count:.1%}",
    "exercises/s, core time": f"{count / core:,.0f}",
    "exercises/s, wall time": f"{count / wall:,.0f}",
  }
  for name, value in rows.items():
    print(f"{name:32} {value}")
  print("share of each family:")
  families = collections.Counter(exercise.family for exercise in exercises)
  for family, number in families.most_common():
    print(f"  {family:30} {number / count:.1%}")


def main() -> None:
  """Makes exercises and prints the table."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--exercises", type=int, default=20_000)
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--tier", choices=teacher.TIERS, default="train")
  options = parser.parse_args()
  core, wall = time.process_time(), time.perf_counter()
  made = list(teacher.exercises(options.seed, 0, options.exercises, options.tier))
  core, wall = time.process_time() - core, time.perf_counter() - wall
  print_table(made, core, wall)


if __name__ == "__main__":
  main()
