"""Completions that were made elsewhere, in any of the usual forms.

  JSON lines      objects with task_id and `completion` (continues the prompt) or
                  `solution` (a whole program, judged without the prompt)
  a JSON array    of such objects
  generations     bigcode's generations.json: for each problem of the task set in its
                  order, a list of whole programs
  eval_results    EvalPlus' results, whose `solution`s are judged again

Each of them may be compressed with gzip. An id may lack what stands before its last
slash, where one problem has that: 11 is Mbpp/11.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from evals import workdir
from evals.task_sets import ids_by_name, one_id
from phi1_jax import InputError, storage
from phi1_jax.problems import files
from phi1_jax.problems.problem import Problem
from phi1_jax.storage import AnyPath
from phi1_jax.text import settings_file

_EXPECTED = (
  "expected JSON lines or a JSON array of objects with task_id and completion or "
  "solution, bigcode's generations.json, or EvalPlus' eval_results.json with solutions"
)
SUBSET = "completions"  # as --subset: the problems that the file has


def take(folder: Path, file: AnyPath, rows: Sequence[Mapping[str, Any]]) -> None:
  """Add the completions of a file, as `read` returns them, to completions.jsonl."""
  counts: dict[str, int] = {}
  facts = {"completions": str(file), "samples": None, "rows": len(rows)}
  workdir.note(folder, "generate", facts)
  with storage.JsonLines(folder / workdir.COMPLETIONS) as journal:
    done = {row.get("key") for row in journal.rows}
    for row in rows:
      task = row["task_id"]
      sample = counts.get(task, 0)
      counts[task] = sample + 1
      text = row.get("text", row["completion"])
      content = {"task": task, "sample": sample, "of": [row["completion"], text]}
      whole = {"whole": True} if row["whole"] else {}
      key = settings_file.digest(content | whole)
      if key not in done:
        made = {"key": key, "task_id": task, "sample": sample, "text": text}
        journal.append(made | {"completion": row["completion"], **whole})


def read(
  file: AnyPath, problems: Sequence[Problem], task_set: Sequence[Problem] = ()
) -> list[dict[str, Any]]:
  """Return the completions of a file for problems, which are perhaps of a `task_set`.

  Rows of other tasks are left out, with a note on the terminal.

  Returns:
    Rows with task_id, completion, `whole` (it stands without the prompt), and perhaps
    text.

  Raises:
    InputError: none of the forms above, an id of several problems, or a problem without
      a completion.
  """
  wanted, rows = {problem.id for problem in problems}, []
  others, left_out = set(), set()  # of no task set, and not in the subset
  for place, row, name in _identified(file, problems, task_set or problems):
    if name in wanted:
      rows.append(_checked(f"{file}, {place}", row) | {"task_id": name})
    else:
      (left_out if name else others).add(str(row["task_id"]))
  missing = sorted(wanted - {row["task_id"] for row in rows})
  if missing:
    unknown = ""
    if found := others | left_out:
      unknown = f"; it has {len(found)} others, such as {min(found)!r}"
    raise InputError(
      f"{file}: {len(missing)} of {len(problems)} problems have no completion, "
      f"{missing[0]} for one{unknown}; expected at least one for every problem of the "
      f"task set (--subset={SUBSET} judges those that the file has)"
    )
  for tasks, where in ((left_out, "subset"), (others, "task set")):
    if tasks:
      print(f"{file}: left out {len(tasks)} tasks that are not in the {where}")
  return rows


def ids(file: AnyPath, problems: Sequence[Problem]) -> list[str]:
  """Return the ids of the problems that a file has completions for."""
  found = {name for *_, name in _identified(file, problems, problems)}
  if not found & {problem.id for problem in problems}:
    raise InputError(
      f"{file}: none of its ids is of this task set, such as {problems[0].id!r}; name "
      "the benchmark that the completions are of"
    )
  return [problem.id for problem in problems if problem.id in found]


def _identified(
  file: AnyPath, problems: Sequence[Problem], task_set: Sequence[Problem]
) -> Iterator[tuple[str, dict[str, Any], str | None]]:
  """Yield place and row of each completion, and the id of its problem."""
  known = ids_by_name(task_set)
  for place, row in _rows(file, problems):
    task = row.get("task_id")
    if isinstance(task, bool) or not isinstance(task, str | int):
      raise InputError(f"{file}, {place}: got task_id {task!r:.60}, expected an id")
    name, setting = str(task), f"{file}, {place}: task_id"
    found = known.get(name)
    yield place, row, one_id(setting, name, found) if found else None


def _checked(place: str, row: dict[str, Any]) -> dict[str, Any]:
  whole = "solution" in row
  text = row["solution"] if whole else row.get("completion")
  if not isinstance(text, str):
    found = ", ".join(row)
    raise InputError(
      f"{place}: expected a string as 'completion' or 'solution', got {text!r:.40} in "
      f"an object with {found}"
    )
  if not isinstance(row.get("text", ""), str):
    raise InputError(f"{place}: expected a string as 'text'")
  return row | {"completion": text, "whole": whole}


def _rows(
  file: AnyPath, problems: Sequence[Problem]
) -> Iterator[tuple[str, dict[str, Any]]]:
  """Yield the objects of a file, each with its place."""
  text = files.read_text(file, "expected the file of --completions")
  try:
    content = json.loads(text)
  except ValueError:
    content = None
  if isinstance(content, dict) and isinstance(content.get("eval"), dict):
    for task, results in content["eval"].items():
      if not isinstance(results, list):
        raise InputError(
          f"{file}: got EvalPlus' results without the solutions; give the solutions as "
          "--completions, and this file as --compare"
        )
      yield from ((f"task {task}", row) for row in results)
  elif isinstance(content, list) and content and isinstance(content[0], list):
    if len(content) != len(problems):
      raise InputError(
        f"{file}: got generations of {len(content)} problems, expected "
        f"{len(problems)}, in the order of the task set"
      )
    for problem, programs in zip(problems, content, strict=True):
      if not isinstance(programs, list):
        raise InputError(f"{file}: got {programs!r:.60}, expected a list of programs")
      row = {"task_id": problem.id}
      yield from ((problem.id, row | {"solution": program}) for program in programs)
  elif isinstance(content, list):
    for number, row in enumerate(content, 1):
      if not isinstance(row, dict):
        raise InputError(f"{file}, item {number}: got {row!r:.60}; {_EXPECTED}")
      yield f"item {number}", row
  else:
    try:
      yield from (
        (f"line {n}", row) for n, row in storage.json_objects(text.split("\n"), file)
      )
    except InputError as error:
      raise InputError(
        f"{str(error).partition(', expected')[0]}; {_EXPECTED}"
      ) from None
