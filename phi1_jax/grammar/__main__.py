"""Shows exercises of the grammar teacher.

python -m phi1_jax.grammar --tables=mine.toml --task=taxed --count=3
"""

import argparse
import contextlib
import difflib
import random
import sys
from collections.abc import Sequence
from typing import NoReturn

from phi1_jax import InputError
from phi1_jax.grammar import rows, teacher
from phi1_jax.grammar.exercise import Exercise, draw
from phi1_jax.grammar.reserve import Gate

_DRAWS = 1_000  # for an exercise of one row


class _Parser(argparse.ArgumentParser):
  def error(self, message: str) -> NoReturn:
    """Exit with 2 and one line, as every command does."""
    self.exit(2, f"error: {message} (see {self.prog} --help)\n")


def main(argv: Sequence[str] | None = None) -> int:
  """Print exercises and their asserts; return the exit code."""
  parser = _Parser(
    "python -m phi1_jax.grammar", description=__doc__, allow_abbrev=False
  )
  parser.add_argument("--tables", action="append", default=[], help="a TOML file")
  parser.add_argument("--task", help="a row: NAME of a task, filter, map or kind")
  parser.add_argument("--count", type=int, default=3, help="how many (default: 3)")
  parser.add_argument("--seed", type=int, default=0)
  arguments = parser.parse_args(argv)
  if arguments.count < 1:
    parser.error(f"--count: got {arguments.count}, expected at least 1")
  try:
    shown = [_exercise(arguments, number) for number in range(arguments.count)]
  except InputError as error:
    print(f"error: {error}", file=sys.stderr)
    return 2
  with contextlib.suppress(BrokenPipeError):  # of `| head`
    for exercise in shown:
      print(exercise.text, *exercise.tests, "", sep="\n", flush=True)
  return 0


def _exercise(arguments: argparse.Namespace, number: int) -> Exercise:
  tables = tuple(arguments.tables)
  if arguments.task is None:
    return teacher.exercise(arguments.seed, number, tables=tables)
  loaded = rows.load(tables)
  named = arguments.task.rpartition(".")[2]
  tasks = [task for task in loaded.tasks if task.id == named]
  parts = {f"{role}:{named}" for role in ("filter", "map")} | {named}
  known = {part.id for row in loaded.parts.values() for part in row[0]}
  if not tasks and not parts & (known | loaded.kinds.keys()):
    names = {task.id for task in loaded.tasks} | {*loaded.kinds}
    names |= {id.partition(":")[2] for id in known}
    close = difflib.get_close_matches(named, sorted(names))
    raise InputError(
      f"--task: got {arguments.task!r}, expected the name of a task, filter, map or "
      f"kind of the tables{', such as ' * bool(close)}{', '.join(close)}"
    )
  rng = random.Random(f"{arguments.seed}/{number}")
  for _ in range(_DRAWS if tasks else 100 * _DRAWS):
    found = draw(rng, loaded, rng.choice(tasks or loaded.tasks), Gate("train"))
    if found and (tasks or parts & set(found.composition)):
      return found
  raise InputError(
    f"{tasks[0].place if tasks else arguments.task}: no exercise in many draws: its "
    "inputs do not tell its solution from a simpler function; give it `inputs` (or a "
    "`pool`) that do"
  )


if __name__ == "__main__":
  sys.exit(main())
