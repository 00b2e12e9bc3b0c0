"""Docstrings mean what their bodies do: rows solved again from the prompt alone.

`solved.jsonl` has two or more exercises of a row: "id" (row/number), "prompt", "tests",
and "solution", the body that somebody wrote who saw only the prompt.

    python tests/grammar/solved_test.py asserts.jsonl solutions.jsonl

joins rows {id, prompt, tests} and {id, solution} into it, and prints what disagrees.
"""

import collections
import json
import pathlib
import sys
import textwrap

from phi1_jax.grammar import rows

FILE = pathlib.Path(__file__).with_name("solved.jsonl")
# Rows of the tables that nobody has solved twice yet: solve a new row, or count it.
UNSOLVED = 0


def read(path=FILE):
  return [json.loads(line) for line in path.read_text().splitlines()]


def program(row):
  """The prompt with the solution, which is a body or a whole program."""
  solution = row["solution"].strip("\n")
  if "def " in solution.split("\n")[0] or solution.startswith(("import ", "from ")):
    return solution
  if not solution.startswith(" "):
    solution = textwrap.indent(solution, "    ")
  return row["prompt"] + solution + "\n"


def disagreement(row):
  """The first assert that the solution fails, or None."""
  space = {}
  try:
    exec(program(row), space)
  except Exception as error:
    return repr(error)
  for test in row["tests"]:
    try:
      exec(test, space)
    except Exception as error:
      return f"{test} ({error!r})"
  return None


def test_somebody_elses_solutions_pass():
  wrong = {row["id"]: disagreement(row) for row in read()}
  assert [f"{id}: {said}" for id, said in wrong.items() if said] == []


def test_rows_are_solved_twice():
  counts = collections.Counter(row["id"].split("/")[0] for row in read())
  missing = [t.id for t in rows.load().tasks if counts[t.id] < 2]
  assert len(missing) == UNSOLVED, missing


def main(asserts, solutions):
  solved = {row["id"]: row["solution"] for row in read(pathlib.Path(solutions))}
  kept = []
  for row in read(pathlib.Path(asserts)):
    if row["id"] in solved:
      made = {key: row[key] for key in ("id", "prompt", "tests")}
      made["solution"] = solved[row["id"]]
      if wrong := disagreement(made):
        print(f"{row['id']}\n{program(made)}{wrong}\n")
      else:
        kept.append(made)
  FILE.write_text("".join(json.dumps(row) + "\n" for row in kept))
  print(f"{len(kept)} agree, {len(solved) - len(kept)} do not")


if __name__ == "__main__":
  main(*sys.argv[1:])
