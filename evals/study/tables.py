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
from phi1_jax.text import records

# Pairs of arms that the paper's claim and the controls are about: b against a.
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
# Tiers that the study of tau counts: what is far is hardly ever similar.
_NEAR = 3
_TAUS = "study.json"  # of `curate decontaminate --tau`


def over_seeds(group: Sequence[Mapping[str, Any]], name: str) -> dict[str, Any]:
  """A task set's score, every seed a sample of each problem."""
  estimate = score.estimate(samples(group, name), 1)
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


def comparisons(
  found: Sequence[Mapping[str, Any]], size: str, tiers: Sequence[str]
) -> list[dict[str, Any]]:
  """Paired tests of `PAIRS` on every tier."""
  rows = []
  for a, b in PAIRS:
    for name in tiers:
      both = [samples(runs_of(found, arm, size), name) for arm in (a, b)]
      compared = dataclasses.asdict(score.compare(*both))
      rows.append({"a": a, "b": b, "task_set": name, **compared})
  return rows


def pruning(
  folder: Path,
  found: Sequence[Mapping[str, Any]],
  size: str,
  tiers: Sequence[str],
) -> list[dict[str, Any]]:
  """The paper's Table 3: similar and other problems, before and after pruning."""
  rows = []
  for row in _taus(folder):
    similar = _similar(row, folder)
    subsets = []
    for kind in ("similar", "non-similar", "total"):
      shares = {}
      for label, arm in (("before", FULL), ("after", arms.pruned(row["tau"]))):
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
          dataclasses.asdict(score.estimate(correct, 1)) if correct else None
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
  config: StudyConfig,
  folder: Path,
  found: Sequence[Mapping[str, Any]],
  size: str,
  task_set: str,
) -> dict[str, Any]:
  """What became of the planted problems."""
  planted = [problem.id for problem in materials.leaked_problems(config)]
  place = folder / "curate" / "leak_found"
  caught, others_dropped = set(), 0
  for file in sorted(place.glob("dropped-*.jsonl")):
    for row in records.read_lines(file):
      if row["source"] != "leak":
        others_dropped += 1
      elif materials.is_copy(row["dropped"]):
        caught.add(row["provenance"]["variant"]["problem"])
  similar = _similar(max(_taus(folder), key=lambda row: row["tau"]), folder)
  others = [name for name in ids_of(task_set) if name not in planted]
  shares = {}
  kinds = {
    "planted": planted,
    "planted, similar to an exercise": [n for n in planted if n in similar],
    "planted, not similar": [n for n in planted if n not in similar],
    "the others": others,
  }
  for label, arm in (("without", FULL), ("with", "leaked")):
    group = runs_of(found, arm, size)
    shares[label] = {
      kind: dataclasses.asdict(score.estimate(samples(group, task_set, ids), 1))
      | {"n": len(ids)}
      for kind, ids in kinds.items()
      if ids
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
  return records.read_json(folder / "curate" / "pruned" / _TAUS)["rows"]


def _similar(row: Mapping[str, Any], folder: Path) -> set[str]:
  """The problems that some exercise is close to at the tau of a row."""
  return set(row["benchmarks"][str(folder / ruler.FILE)]["similar"])


def _times_read(folder: Path, found: Sequence[Mapping[str, Any]], arm: str) -> float:
  """How often an arm reads each token of its exercises."""
  manifest = records.read_json(folder / "stores" / arm / "manifest.json")
  read = runs_of(found, arm, found[0]["size"])[0]["tokens"]["exercises"]
  return read / manifest["tokens"]


def seen(
  folder: Path, found: Sequence[Mapping[str, Any]], size: str, tiers: Sequence[str]
) -> list[dict[str, Any]]:
  """Scores where some exercise computes a problem's function, and where none does."""
  known = records.read_json(folder / materials.SEEN)
  group = runs_of(found, FULL, size)
  rows = []
  for name in tiers:
    new = [n for n in ids_of(name) if n not in known[name]]
    for kind, ids in (("seen", known[name]), ("new", new)):
      share = score.estimate(samples(group, name, ids), 1) if ids else None
      found_share = share and dataclasses.asdict(share)
      rows.append({"task_set": name, "kind": kind, "n": len(ids), "share": found_share})
  return rows
