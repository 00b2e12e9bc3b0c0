"""The tables of a study: arms in pairs, the study of tau, the leak, functions seen."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evals import report, score
from evals.study import arms, materials, ruler
from evals.study.arms import FULL
from evals.study.config import StudyConfig
from phi1_jax import storage
from phi1_jax.curation import folder as folders

# Pairs of arms that the paper's claim and the controls are about: b against a. More ask
# what pruning costs, what of it by size, and what beyond it.
PAIRS = (
  ("raw", "raw_exercises"),
  ("filtered", "filtered_exercises"),
  ("textbooks", FULL),
  ("raw_exercises", "filtered_exercises"),
  ("raw_exercises", FULL),
  ("filtered_exercises", FULL),
  ("exercises_alone", FULL),
  ("shuffled", FULL),
  ("wrong", FULL),
  ("few", FULL),
)
# Trainings of an arm, in each half of the seeds, that make an interval worth comparing.
_TRAININGS = 2
# Tiers that the study of tau counts: what is far is hardly ever similar.
_NEAR = 3
_TAUS = "study.json"  # of `curate decontaminate --tau`


def over_seeds(group: Sequence[Mapping[str, Any]], name: str) -> dict[str, Any]:
  """A task set's score over the seeds."""
  estimate = score.over_trainings(samples(group, name))
  solved = [len(run["scores"][name]["solved"]) for run in group]
  return {
    **dataclasses.asdict(estimate),
    "solved": solved,
    "total": group[0]["scores"][name]["total"],
  }


def samples(
  group: Sequence[Mapping[str, Any]], name: str, ids: Sequence[str] | None = None
) -> dict[str, list[bool]]:
  """Problem -> whether each seed solves it."""
  every = ids if ids is not None else ids_of(name)
  solved = [set(run["scores"][name]["solved"]) for run in group]
  return {problem: [problem in each for each in solved] for problem in every}


def ids_of(task_set: str) -> list[str]:
  """The ids of a task set."""
  return [problem.id for problem in report.load_problems(task_set, None)]


def runs_of(
  found: Sequence[Mapping[str, Any]], arm: str, size: str
) -> list[Mapping[str, Any]]:
  """The runs of an arm and a size."""
  return [run for run in found if run["arm"] == arm and run["size"] == size]


def repeated(
  found: Sequence[Mapping[str, Any]], seeds: Sequence[int], tiers: Sequence[str]
) -> list[dict[str, Any]]:
  """Every arm's scores with the first half of the seeds, and with the others.

  Empty if one of them would have a single training of an arm.
  """
  halves = split(seeds)
  if min(map(len, halves)) < _TRAININGS:
    return []
  rows = []
  for arm, size in dict.fromkeys((run["arm"], run["size"]) for run in found):
    group = runs_of(found, arm, size)
    for name in tiers:
      of_halves = [
        over_seeds([run for run in group if run["seed"] in half], name)
        for half in halves
      ]
      rows.append({"arm": arm, "size": size, "task_set": name, "halves": of_halves})
  return rows


def split(seeds: Sequence[int]) -> tuple[Sequence[int], Sequence[int]]:
  """The first half of the seeds, and the others; the middle one is of the first."""
  middle = (len(seeds) + 1) // 2
  return seeds[:middle], seeds[middle:]


def comparisons(
  found: Sequence[Mapping[str, Any]],
  size: str,
  tiers: Sequence[str],
  taus: Sequence[float],
) -> list[dict[str, Any]]:
  """Paired tests of `PAIRS`, and about pruning, on every tier."""
  rows = []
  pruned = [(arms.pruned(tau), FULL) for tau in taus]
  size_alone = (arms.THINNED, FULL), (arms.pruned(min(taus)), arms.THINNED)
  for a, b in (*PAIRS, *pruned, *size_alone):
    for name in tiers:
      both = [samples(runs_of(found, arm, size), name) for arm in (a, b)]
      compared = dataclasses.asdict(score.compare_trainings(*both))
      rows.append({"a": a, "b": b, "task_set": name, **compared})
  return rows


def pruning(
  folder: Path,
  found: Sequence[Mapping[str, Any]],
  size: str,
  tiers: Sequence[str],
) -> list[dict[str, Any]]:
  """The paper's Table 3: similar and other problems, before and after pruning.

  The three nearest tiers are counted together: of problems that are not similar each
  has only a few.
  """
  rows, taus = [], _taus(folder)
  strictest = min(row["tau"] for row in taus)
  for row in taus:
    similar = _similar(row)
    wanted = [("before", FULL), ("after", arms.pruned(row["tau"]))]
    if row["tau"] == strictest:
      wanted.append(("thinned", arms.THINNED))
    subsets = []
    for kind in ("similar", "non-similar", "total"):
      shares = {}
      for label, arm in wanted:
        group = runs_of(found, arm, size)
        correct = {}
        for name in tiers[:_NEAR]:
          ids = [
            n
            for n in ids_of(name)
            if kind == "total" or (n in similar) == (kind == "similar")
          ]
          correct |= samples(group, name, ids)
        shares[label] = (
          dataclasses.asdict(score.over_trainings(correct)) if correct else None
        )
        shares["n"] = len(correct)
      subsets.append({"subset": kind, **shares})
    rows.append(
      {
        **{key: row[key] for key in ("tau", "read", "removed", "share", "reasons")},
        "times_read": _times_read(folder, found, arms.pruned(row["tau"])),
        "subsets": subsets,
      }
    )
  return sorted(rows, key=lambda row: -row["tau"])


def leak(
  config: StudyConfig, folder: Path, found: Sequence[Mapping[str, Any]], size: str
) -> dict[str, Any]:
  """What became of the planted problems.

  Problems count as similar where decontamination convicts an exercise of the leaked
  set for their likeness.
  """
  task_set = ruler.LEAKED_FROM
  planted = {problem.id for problem in materials.leaked_problems(config)}
  place = folder / "curate" / "leak_found"
  caught, others_dropped, close = set(), 0, set()
  for each in folders.dropped(place):
    close.update(each.evidence["problems"])
    if each.document.source != "leak":
      others_dropped += 1
    elif materials.is_copy(each.evidence):
      caught.add(each.document.provenance["variant"]["problem"])
  ids = ids_of(task_set)
  kinds = {
    "planted": [n for n in ids if n in planted],
    "similar to an exercise, not planted": [n for n in ids if n in close - planted],
    "not similar": [n for n in ids if n not in close | planted],
  }
  shares = {}
  for label, arm in (("without", FULL), ("with", "leaked")):
    group = runs_of(found, arm, size)
    shares[label] = {
      kind: dataclasses.asdict(score.over_trainings(samples(group, task_set, of)))
      | {"n": len(of)}
      for kind, of in kinds.items()
      if of
    }
  return {
    "task_set": task_set,
    "planted": len(planted),
    "copies": config.leak_copies,
    "found": len(caught),
    "others_dropped": others_dropped,
    "shares": shares,
  }


def _taus(folder: Path) -> list[dict[str, Any]]:
  return storage.read_json(folder / "curate" / "pruned" / _TAUS)["rows"]


def _similar(row: Mapping[str, Any]) -> set[str]:
  """The problems of the ruler that some exercise is close to at the tau of a row."""
  found = {Path(path).name: each for path, each in row["benchmarks"].items()}
  return set(found[ruler.FILE]["similar"])


def _times_read(folder: Path, found: Sequence[Mapping[str, Any]], arm: str) -> float:
  """How often an arm reads each token of its exercises."""
  manifest = storage.read_json(folder / "stores" / arm / "manifest.json")
  read = runs_of(found, arm, found[0]["size"])[0]["tokens"]["exercises"]
  return read / manifest["tokens"]


def seen(
  folder: Path, found: Sequence[Mapping[str, Any]], size: str, tiers: Sequence[str]
) -> list[dict[str, Any]]:
  """Scores where some exercise computes a problem's function, where none does, and
  where functions cannot be compared.
  """
  known = storage.read_json(folder / materials.SEEN)
  group = runs_of(found, FULL, size)
  rows = []
  for name in tiers:
    for kind, ids in known[name].items():
      share = score.over_trainings(samples(group, name, ids)) if ids else None
      found_share = share and dataclasses.asdict(share)
      rows.append({"task_set": name, "kind": kind, "n": len(ids), "share": found_share})
  return rows
