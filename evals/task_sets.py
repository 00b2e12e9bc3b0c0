"""Task sets: their names, and the problems of each.

exercises-*    unseen problems of the grammar teacher, a tier each; no two tiers are
               added up. What is unseen in a tier (a composition of three parts, a
               pair of parts, a wording, a longer composition) is what it measures.
               Asserts are added until solutions with one mistake fail (mutants.py).
               The hand-written set has words that the grammar does not have.
doctests-75    public functions of more-itertools 11.2.1 (MIT, assets/doctests.*): of at
               most 15 lines, which need nothing beside constants and the standard
               library, and repeat themselves. The prompt is the function up to the
               end of its docstring, with its imports; the docstring's examples are
               the tests. The references pass them, and empty bodies fail.
custom-*       problems that the user gave as a file
NAME[...]      a subset of a task set
"""

import functools
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evals import mutants
from phi1_jax import InputError, storage
from phi1_jax.grammar import teacher
from phi1_jax.problems import evalplus, humaneval, mbpp, written
from phi1_jax.problems.problem import Problem, digest
from phi1_jax.storage import AnyPath
from phi1_jax.text import settings_file

NUMBER = 100  # problems of a task set of exercises
# Another seed than that of any training set; the tiers differ by content anyway.
_SEED = 1_000_003
HANDWRITTEN = "exercises-handwritten-100"
DOCTESTS = "doctests-75"
# The teacher's task sets -> their tier, from near to far.
TIERS = {
  f"exercises-{tier.replace('_', '-')}-{NUMBER}": tier
  for tier in teacher.TIERS
  if tier != "train"
}
TASK_SETS = {
  "humaneval": (humaneval.TASK_SET,),
  "mbpp": tuple(mbpp.TASK_SETS),
  "humaneval+": tuple(n for n in evalplus.TASK_SETS if n.startswith("humaneval")),
  "mbpp+": tuple(n for n in evalplus.TASK_SETS if n.startswith("mbpp")),
  "exercises": (*TIERS, HANDWRITTEN),
  "unconventional": (written.UNCONVENTIONAL,),
  "doctests": (DOCTESTS,),
}
KNOWN = [name for names in TASK_SETS.values() for name in names]
_CUSTOM = "custom-"  # begins the name of a task set that the user gave as a file


def benchmark_of(task_set: str) -> str | None:
  """Return the benchmark that a task set belongs to, e.g. "humaneval"; None if none."""
  if task_set.startswith(_CUSTOM):
    return "custom"
  return next((name for name, sets in TASK_SETS.items() if task_set in sets), None)


def load(task_set: str, folder: str | None = None) -> list[Problem]:
  """Return the problems of a task set; the same on every machine.

  Args:
    task_set: one of `KNOWN`.
    folder: where the files of MBPP and EvalPlus are; None looks in the usual places.
  """
  if task_set in evalplus.TASK_SETS:
    return evalplus.load(task_set, folder)
  if task_set in mbpp.TASK_SETS:
    return mbpp.load(task_set, folder)
  if task_set == humaneval.TASK_SET:
    return humaneval.load()
  if task_set == DOCTESTS:
    return _doctests()
  if task_set in TIERS:
    return list(_exercises(task_set))
  return list(written.load(task_set.removeprefix("exercises-")))


@functools.cache
def _exercises(task_set: str) -> Sequence[Problem]:
  found: dict[str, Problem] = {}
  for index in itertools.count():
    if len(found) == NUMBER:
      break
    exercise = teacher.exercise(_SEED, index, TIERS[task_set])
    tests = mutants.strengthened(exercise.text, exercise.name, exercise.tests)
    if tests and exercise.name not in found:  # a name is asked for once
      name = f"{task_set}/{len(found)}"
      found[exercise.name] = Problem(
        name, exercise.name, exercise.prompt, exercise.body, exercise.text, tests
      )
  return list(found.values())


def _doctests() -> list[Problem]:
  text = (Path(__file__).parent / "assets/doctests.jsonl").read_text(encoding="utf-8")
  return [
    Problem(
      id=f"doctests/{row['entry_point']}",
      solution=row["prompt"] + row["reference"],
      **row | {"tests": tuple(row["tests"])},
    )
    for row in map(json.loads, text.splitlines())
  ]


def problems_of(settings: Mapping[str, Any], folder: str | None) -> list[Problem]:
  """Return the problems that a run's settings name.

  These are task_set, and perhaps `problems` (see `custom`) and `subset` (ids).

  Raises:
    InputError: the user's file has changed since the run began.
  """
  file = settings.get("problems")
  if file:
    problems = humaneval.read(storage.parse(file["file"]))
    if digest(problems) != file["digest"]:
      raise InputError(
        f"{file['file']}: other problems than those that the run began with; restore "
        "the file, or begin a run in another --workdir"
      )
  else:
    problems = load(base_name(settings["task_set"]), folder)
  subset = settings.get("subset")
  return [p for p in problems if p.id in subset] if subset else problems


def custom(file: AnyPath) -> dict[str, Any]:
  """Return the settings that name the problems of a user's file."""
  problems = humaneval.read(file)
  stem = file.name.partition(".")[0]
  path = file if storage.is_remote(file) else Path(file).resolve()
  return {
    "task_set": f"{_CUSTOM}{stem}-{len(problems)}",
    "problems": {"file": str(path), "digest": digest(problems)},
  }


def ids_by_name(problems: Sequence[Problem]) -> dict[str, list[str]]:
  """Return the ids that a name may mean: a whole id, or the part after its last slash.

  A whole id means itself alone.
  """
  found: dict[str, list[str]] = {}
  for problem in problems:
    found.setdefault(problem.id.rpartition("/")[2], []).append(problem.id)
  return found | {problem.id: [problem.id] for problem in problems}


def one_id(setting: str, name: str, ids: Sequence[str]) -> str:
  """Return the id that a name means; an InputError if it may mean several."""
  if len(ids) > 1:
    raise InputError(
      f"{setting}: got {name!r}, which may be any of {', '.join(ids[:3])}; expected "
      "the whole id"
    )
  return ids[0]


def subset(problems: Sequence[Problem], task_set: str, given: str) -> dict[str, Any]:
  """Return the settings that name a part of a task set.

  `given` are ids with commas between them, or a file with one per line; see
  `ids_by_name`.

  Raises:
    InputError: an id that is not in the task set, or of several problems in it.
  """
  try:
    text = Path(given).read_text(encoding="utf-8-sig")
  except OSError:  # it is not a file
    text = given.replace(",", "\n")
  known = ids_by_name(problems)
  names = [name.strip() for name in text.splitlines() if name.strip()]
  unknown = [name for name in names if name not in known]
  if unknown or not names:
    raise InputError(
      f"--subset: got {(unknown or [given])[0]!r}, expected ids of {task_set} such as "
      f"{problems[0].id!r}, with commas, or a file of them"
    )
  chosen = {one_id("--subset", name, known[name]) for name in names}
  ids = [p.id for p in problems if p.id in chosen]
  shown = ", ".join(ids) if len(ids) < 4 else f"ids {settings_file.digest(ids)[:8]}"
  name = f"{task_set}[{len(ids)} of {len(problems)}: {shown}]"
  return {"task_set": name, "subset": ids}


def base_name(task_set: str) -> str:
  """Return the name of the task set that a subset is part of."""
  return task_set.partition("[")[0]
