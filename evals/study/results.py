"""Collection of a study's results in study.json, from which its page is made.

  format, config, tiers (task sets, from near to far), far (other task sets)
  runs         one per training: name, arm, about, size, seed, parameters, steps, tokens
               and flops (of the text before it too), seconds, curve (step, loss);
               scores: task set -> solved (ids), total, and value, low, high of pass@1,
               valid_syntax and runs; loss: kind of text -> nats per byte; sampled:
               pass@k of the nearest tier
  arms         one per arm and size, over the seeds: about, scores per task set
  comparisons  paired tests between arms: task set, difference, p_value, method
  pruning      a row per tau: removed, and per subset the shares before and after; for
               the strictest also of as few exercises drawn at random
  leak         what decontamination found, and what the planted problems did to a score
  nearest      task set -> score of the control that copies
  seen         per tier: problems whose function some exercise computes, those where
               none does, and those whose functions cannot be compared
  examples     solved and failed problems with what was written
  sets, steps  documents and tokens of every store; seconds of each step
  where        commits (of the steps, and of the gathering), versions, hardware, when

Shares are of the truncated variant (see evals/execute.py). Unknown values are null.
"""

import dataclasses
import functools
import importlib.metadata
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from evals import judge, loss, prompts, score, summary, task_sets, workdir
from evals.study import graph, materials
from evals.study.config import FULL, TEXTS, THINNED, StudyConfig, pruned
from evals.study.plan import Run, runs
from phi1_jax import storage
from phi1_jax.curation import folder as folders

STUDY, FORMAT = "study.json", 5
VARIANT = "truncated"
_CURVE_POINTS = 60
# Pairs of arms that the paper's claim and the controls are about: b against a. More
# pairs measure the cost of pruning, and how much of it is size alone.
_PAIRS = (
  *((text, f"{text}_exercises") for text in TEXTS),
  ("raw_exercises", "filtered_exercises"),
  *((a, FULL) for a in ("raw_exercises", "filtered_exercises", "exercises_alone")),
  *((a, FULL) for a in ("shuffled", "wrong", "few")),
)
_NEAR = 3  # tiers that the study of tau counts: what is far is hardly ever similar
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "seqio", "datatrove")

_Runs = Sequence[Mapping[str, Any]]
_OfArm = Callable[[str], _Runs]  # the trainings of an arm, of the first size


def gather(config: StudyConfig, folder: Path) -> dict[str, Any]:
  """Read every run of a study and write study.json."""
  tiers, read_json = materials.TIERS, storage.read_json
  steps = list(storage.read_lines(folder / graph.STEPS))
  seconds = {row["step"]: row["seconds"] for row in steps}
  found = [_run(run, config, folder, seconds) for run in runs(config)]
  groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
  for run in found:
    groups.setdefault((run["arm"], run["size"]), []).append(run)

  def of_arm(arm: str) -> _Runs:
    return groups[arm, next(iter(config.models))]

  stores = {
    place.name: read_json(place / "manifest.json")
    for place in sorted((folder / "stores").iterdir())
  }
  places = [*steps, graph.here()]
  machines = [str(row["machine"]) for row in places if "machine" in row]
  commits = [row["commit"] or "unknown" for row in places]
  data = {
    "format": FORMAT,
    "config": dataclasses.asdict(config),
    "tiers": tiers,
    "far": list(materials.FAR),
    "runs": found,
    "arms": [
      {"name": arm, "size": size, "about": group[0]["about"]}
      | {"scores": {name: over_seeds(group, name) for name in group[0]["scores"]}}
      for (arm, size), group in groups.items()
    ],
    "comparisons": _comparisons(of_arm, config.taus),
    "pruning": _pruning(folder, of_arm),
    "leak": _leak(config, folder, of_arm),
    "nearest": {name: _score(folder / "judged" / "nearest" / name) for name in tiers},
    "seen": [
      {"task_set": name, "kind": kind, "n": len(ids)}
      | {"share": _share(_samples(of_arm(FULL), name, ids)) if ids else None}
      for name, kinds in read_json(folder / materials.SEEN).items()
      for kind, ids in kinds.items()
    ],
    "examples": _examples(config, folder, tiers),
    "sets": {n: {k: r[k] for k in ("documents", "tokens")} for n, r in stores.items()},
    "steps": seconds,
    "where": {
      "commits": list(dict.fromkeys(commits)),
      "python": platform.python_version(),
      "machine": "; ".join(dict.fromkeys(machines)),
      "versions": {name: importlib.metadata.version(name) for name in _PACKAGES},
      "when": time.strftime("%Y-%m-%d %H:%M"),
    },
  }
  storage.write_json(folder / STUDY, data)
  return data


def _run(
  run: Run, config: StudyConfig, folder: Path, seconds: Mapping[str, float]
) -> dict[str, Any]:
  place, judged = folder / "train" / run.name, folder / "judged" / run.name
  trained = storage.read_json(place / "summary.json")
  rows = storage.read_lines(place / "metrics.jsonl")
  curve = [(row["step"], row["loss"]) for row in rows if "loss" in row]
  before, length, seen = run.before(config), trained["step"], trained["tokens_seen"]
  exercises = bool(run.arm.exercises)
  text = seen / length * (before if exercises else length)
  tokens = {"text": text, "exercises": seen if exercises else 0}
  sets = sorted(path.parent for path in judged.glob(f"*/{workdir.SUMMARY}"))
  sampled = None
  for each in [each for each in sets if each.name.endswith(judge.SAMPLED)]:
    sets.remove(each)
    found = storage.read_json(each / workdir.SUMMARY)
    sampled = {"task_set": found["settings"]["task_set"], **found["scores"][VARIANT]}
  names = (f"train_{run.name}", f"train_{run.name}-early")
  return {
    "name": run.name,
    "arm": run.arm.name,
    "about": run.arm.about,
    "size": run.size,
    "seed": run.seed,
    "parameters": trained["parameters"],
    "steps": before + length,
    "tokens": tokens,
    "flops": sum(tokens.values()) * trained["flops_per_token"],
    "seconds": sum(seconds.get(name, 0.0) for name in names),
    "started": before,
    "curve": curve[:: max(1, len(curve) // _CURVE_POINTS)],
    "scores": {each.name: _score(each) for each in sets},
    "loss": {r["kind"]: r for r in storage.read_json(judged / loss.RESULT)["losses"]},
    "sampled": sampled,
  }


def _score(place: Path) -> dict[str, Any]:
  """Return the score of a judged task set, with the ids of solved problems."""
  found = storage.read_json(place / workdir.SUMMARY)
  digest = storage.read_json(place / workdir.RUN)["execute"]["judge"]
  passed = {
    row["task_id"]: row["outcome"] == "passed"
    for row in storage.read_lines(place / workdir.VERDICTS)
    if (row["variant"], row["judge"], row["sample"]) == (VARIANT, digest, 0)
  }
  first, rates = found["scores"][VARIANT]["pass@1"], found["rates"][VARIANT]
  solved = sorted(name for name, each in passed.items() if each)
  facts = {name: first[name] for name in ("value", "low", "high")}
  facts |= {"solved": solved, "total": len(passed)}
  return facts | {name: rates[name] for name in summary.RATES}


def over_seeds(group: _Runs, name: str) -> dict[str, Any]:
  """Return a task set's score over the seeds."""
  solved = [len(run["scores"][name]["solved"]) for run in group]
  found = dataclasses.asdict(score.over_trainings(_samples(group, name)))
  return {**found, "solved": solved, "total": group[0]["scores"][name]["total"]}


@functools.cache
def ids_of(task_set: str) -> list[str]:
  """Return the ids of a task set."""
  return [problem.id for problem in task_sets.load(task_set)]


def _samples(
  group: _Runs, name: str, ids: Sequence[str] | None = None
) -> dict[str, list[bool]]:
  """Return whether each seed solves a problem, by problem."""
  solved = [set(run["scores"][name]["solved"]) for run in group]
  every = ids_of(name) if ids is None else ids
  return {problem: [problem in each for each in solved] for problem in every}


def _share(correct: Mapping[str, Sequence[bool]]) -> dict[str, Any]:
  """Return the share of some problems over the seeds."""
  return dataclasses.asdict(score.over_trainings(correct))


def _comparisons(of_arm: _OfArm, taus: Sequence[float]) -> list[dict[str, Any]]:
  """Return paired tests of `_PAIRS`, and about pruning, on every tier."""
  by_tau = [(pruned(tau), FULL) for tau in taus]
  size_alone = (THINNED, FULL), (pruned(min(taus)), THINNED)
  rows = []
  for a, b in (*_PAIRS, *by_tau, *size_alone):
    for name in materials.TIERS:
      both = [_samples(of_arm(arm), name) for arm in (a, b)]
      compared = dataclasses.asdict(score.compare_trainings(*both))
      rows.append({"a": a, "b": b, "task_set": name, **compared})
  return rows


def _pruning(folder: Path, of_arm: _OfArm) -> list[dict[str, Any]]:
  """Return the paper's Table 3: similar and other problems, before and after pruning.

  The three nearest tiers are counted together: each has only a few problems that are
  not similar.
  """
  found = storage.read_json(folder / "curate" / "pruned" / "study.json")["rows"]
  strictest, rows = min(row["tau"] for row in found), []
  for row in sorted(found, key=lambda row: -row["tau"]):
    arm = pruned(row["tau"])
    files = {Path(path).name: each for path, each in row["benchmarks"].items()}
    similar = set(files[materials.PROBLEMS]["similar"])
    wanted = {"before": FULL, "after": arm}
    wanted |= {"thinned": THINNED} if row["tau"] == strictest else {}
    subsets = []
    for kind in ("similar", "non-similar", "total"):
      subset: dict[str, Any] = {"subset": kind}
      for label, of in wanted.items():
        correct = {
          name: seeds
          for tier in materials.TIERS[:_NEAR]
          for name, seeds in _samples(of_arm(of), tier).items()
          if kind == "total" or (name in similar) == (kind == "similar")
        }
        subset |= {label: _share(correct) if correct else None, "n": len(correct)}
      subsets.append(subset)
    manifest = storage.read_json(folder / "stores" / arm / "manifest.json")
    read = of_arm(arm)[0]["tokens"]["exercises"]
    facts = {key: row[key] for key in ("tau", "read", "removed", "share", "reasons")}
    rows.append(facts | {"times_read": read / manifest["tokens"], "subsets": subsets})
  return rows


def _leak(config: StudyConfig, folder: Path, of_arm: _OfArm) -> dict[str, Any]:
  """Return what became of the planted problems.

  Problems count as similar where decontamination convicts an exercise of the leaked
  set for their likeness.
  """
  task_set = materials.LEAKED_FROM
  planted = {problem.id for problem in materials.leaked_problems(config)}
  caught, others_dropped, close = set(), 0, set()
  for each in folders.dropped(folder / "curate" / "leak_found"):
    close.update(each.evidence["problems"])
    if each.document.source != "leak":
      others_dropped += 1
    elif materials.is_copy(each.evidence):
      caught.add(each.document.provenance["variant"]["problem"])
  kinds = {
    "planted": planted,
    "similar to an exercise, not planted": close - planted,
    "not similar": {*ids_of(task_set)} - close - planted,
  }

  def shares(arm: str) -> dict[str, Any]:
    of = {k: _samples(of_arm(arm), task_set, sorted(ids)) for k, ids in kinds.items()}
    return {
      k: {**(_share(each) or {}), "n": len(each)} for k, each in of.items() if each
    }

  return {
    "task_set": task_set,
    "planted": len(planted),
    "copies": config.leak_copies,
    "found": len(caught),
    "others_dropped": others_dropped,
    "shares": {"without": shares(FULL), "with": shares("leaked")},
  }


def _examples(
  config: StudyConfig, folder: Path, tiers: Sequence[str]
) -> list[dict[str, Any]]:
  """Return a solved and a failed problem of the full arm from every tier."""
  first = next(run for run in runs(config) if run.arm.name == FULL)
  rows = []
  for name in tiers:
    asked = prompts.build_all(task_sets.load(name), name, "as-is")
    read = summary.read(folder / "judged" / first.name / name, asked)
    wanted = [True, False]
    for problem in (prompt.problem for prompt in asked.values()):
      row = read[problem.id][0]
      verdict = row["variants"][VARIANT]
      if (passed := verdict["outcome"] == "passed") in wanted:
        wanted.remove(passed)
        of = {"task_set": name, "id": problem.id, "prompt": problem.prompt}
        of |= {"completion": row["completion"], "reference": problem.reference}
        rows.append(of | {key: verdict[key] for key in ("outcome", "detail")})
  return rows
