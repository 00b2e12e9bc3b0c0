"""Collection of a study's results in study.json, from which its page is made.

  format, config, tiers (task sets, from near to far), far (other task sets)
  runs         a list, one per training:
    name, arm, about, size, seed, parameters, steps, tokens and flops (of the text
    before it too), seconds, curve (step, loss), held_out (loss of its own data)
    scores     task set -> solved (ids), total, and value, low, high of pass@1,
               valid_syntax and runs
    early      share of the nearest tier at the earlier checkpoint: flops, value, low,
               high
    loss       kind of text -> nats per byte
    sampled    pass@k of the nearest tier, where it was sampled
  arms         a list, one per arm and size, over the seeds: about, scores per task set
  repeated     of four seeds or more: a row per arm, size and tier, with the scores of
               the first half of the seeds and of the others
  comparisons  paired tests between arms: task set, difference, p_value, method
  pruning      a row per tau: removed, and per subset the shares before and after; for
               the strictest also of as few exercises drawn at random
  leak         what decontamination found, and what the planted problems did to a score
  nearest      task set -> score of the control that copies
  seen         per tier: problems whose function some exercise computes, those where
               none does, and those whose functions cannot be compared
  predictions  each with whether it held, and the numbers that say so
  examples     solved and failed problems with what was written
  sets         name -> documents and tokens of what was trained on
  steps        seconds of each step of the study
  where        commits (of the steps, and of the gathering), versions, hardware, when

Shares are of the truncated variant (see evals/programs.py). Null is not known.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evals import judge, loss, prompts, report, summary, workdir
from evals.study import arms, provenance, ruler, tables
from evals.study.arms import FULL
from evals.study.config import StudyConfig
from evals.study.graph import STEPS
from evals.study.page import FORMAT
from evals.study.plan import Run, runs
from phi1_jax import storage
from phi1_jax.curation import folder as folders

STUDY = "study.json"
VARIANT = "truncated"
_CURVE_POINTS = 60


def gather(config: StudyConfig, folder: Path) -> dict[str, Any]:
  """Read every run of a study and write study.json."""
  tiers = ruler.TIERS
  steps = list(storage.read_lines(folder / STEPS))
  seconds = {row["step"]: row["seconds"] for row in steps}
  found = [_run(run, config, folder, seconds) for run in runs(config)]
  by_arm = _by_arm(found)
  nearest = _nearest(folder, tiers)
  first_size = next(iter(config.models))
  shares = {
    arm: {name: each["value"] for name, each in scores.items()}
    for (arm, size), (_, scores) in by_arm.items()
    if size == first_size
  }
  shares["nearest"] = {name: each["value"] for name, each in nearest.items()}
  data = {
    "format": FORMAT,
    "config": dataclasses.asdict(config),
    "tiers": tiers,
    "far": list(ruler.FAR),
    "runs": found,
    "arms": [
      {"name": arm, "size": size, "about": about, "scores": scores}
      for (arm, size), (about, scores) in by_arm.items()
    ],
    "repeated": tables.repeated(found, config.seeds, tiers),
    "comparisons": tables.comparisons(found, first_size, tiers, config.taus),
    "pruning": tables.pruning(folder, found, first_size, tiers),
    "leak": tables.leak(config, folder, found, first_size),
    "nearest": nearest,
    "seen": tables.seen(folder, found, first_size, tiers),
    "predictions": arms.verdicts(tiers, min(config.taus), shares),
    "examples": _examples(config, folder, tiers),
    "sets": _sets(config, folder),
    "steps": seconds,
    "where": provenance.where(steps),
  }
  storage.write_json(folder / STUDY, data)
  return data


def _run(
  run: Run, config: StudyConfig, folder: Path, seconds: Mapping[str, float]
) -> dict[str, Any]:
  place = folder / "train" / run.name
  told = storage.read_json(place / "summary.json")
  rows = storage.read_lines(place / "metrics.jsonl")
  curve = [(row["step"], row["loss"]) for row in rows if "loss" in row]
  stride = max(1, len(curve) // _CURVE_POINTS)
  held_out = [(row["step"], row["eval/loss"]) for row in rows if "eval/loss" in row]
  started = run.before(config)
  per_step = told["tokens_seen"] / told["step"]
  flops_per_token = told["flops_per_token"]
  tokens = {
    "text": per_step * (started if run.arm.exercises else told["step"]),
    "exercises": told["tokens_seen"] if run.arm.exercises else 0,
  }
  judged = folder / "judged" / run.name
  nearest_tier = ruler.TIERS[0]
  early = judged.with_name(run.early) / nearest_tier
  total = sum(tokens.values())
  later = per_step * (told["step"] - run.early_step(config))
  return {
    "name": run.name,
    "arm": run.arm.name,
    "about": run.arm.about,
    "size": run.size,
    "seed": run.seed,
    "parameters": told["parameters"],
    "steps": started + told["step"],
    "tokens": tokens,
    "flops": total * flops_per_token,
    "seconds": sum(seconds.get(f"train_{name}", 0.0) for name in (run.name, run.early)),
    "started": started,
    "curve": curve[::stride],
    "held_out": held_out,
    "scores": {
      name: _score(judged / name)
      for name in _task_sets(judged)
      if not name.endswith(judge.SAMPLED)
    },
    "early": (
      early.exists()
      and {
        "flops": (total - later) * flops_per_token,
        **{key: _score(early)[key] for key in ("value", "low", "high")},
      }
    )
    or None,
    "loss": _losses(judged),
    "sampled": _sampled(judged),
  }


def _task_sets(judged: Path) -> list[str]:
  return sorted(path.parent.name for path in judged.glob(f"*/{workdir.SUMMARY}"))


def _score(place: Path) -> dict[str, Any]:
  """Return the score of a judged task set, with the ids of solved problems."""
  told = storage.read_json(place / workdir.SUMMARY)
  solved = _correct(place)
  rates = told["rates"][VARIANT]
  first = told["scores"][VARIANT]["pass@1"]
  return {
    **{key: first[key] for key in ("value", "low", "high")},
    "solved": sorted(name for name, each in solved.items() if each[0]),
    "total": len(solved),
    **{name: rates[name] for name in summary.RATES},
  }


def _correct(place: Path) -> dict[str, list[bool]]:
  """Return whether each sample of a problem passed, by problem."""
  judge_digest = storage.read_json(place / workdir.RUN)["execute"]["judge"]
  found: dict[str, dict[int, bool]] = {}
  for row in storage.read_lines(place / workdir.VERDICTS):
    if row["variant"] == VARIANT and row["judge"] == judge_digest:
      passed = row["outcome"] == "passed"
      found.setdefault(row["task_id"], {})[row["sample"]] = passed
  return {name: [each[i] for i in sorted(each)] for name, each in found.items()}


def _losses(judged: Path) -> dict[str, Any]:
  told = storage.read_json(judged / loss.RESULT)
  return {row["kind"]: row for row in told["losses"]}


def _sampled(judged: Path) -> dict[str, Any] | None:
  found = [name for name in _task_sets(judged) if name.endswith(judge.SAMPLED)]
  if not found:
    return None
  told = storage.read_json(judged / found[0] / workdir.SUMMARY)
  return {"task_set": told["settings"]["task_set"], **told["scores"][VARIANT]}


_Scores = dict[str, dict[str, Any]]


def _by_arm(
  found: Sequence[Mapping[str, Any]],
) -> dict[tuple[str, str], tuple[str, _Scores]]:
  """Return the scores over the seeds by arm and size."""
  grouped: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
  for run in found:
    grouped.setdefault((run["arm"], run["size"]), []).append(run)
  return {
    key: (
      group[0]["about"],
      {name: tables.over_seeds(group, name) for name in group[0]["scores"]},
    )
    for key, group in grouped.items()
  }


def _nearest(folder: Path, tiers: Sequence[str]) -> dict[str, Any]:
  return {name: _score(folder / "judged" / "nearest" / name) for name in tiers}


def _examples(
  config: StudyConfig, folder: Path, tiers: Sequence[str]
) -> list[dict[str, Any]]:
  """Return a solved and a failed problem of the full arm from every tier."""
  first = next(run for run in runs(config) if run.arm.name == FULL)
  rows = []
  for name in tiers:
    place = folder / "judged" / first.name / name
    problems = report.load_problems(name, None)
    asked = prompts.build_all(problems, name, "as-is", None)
    read = summary.read(place, problems, asked)
    wanted = [True, False]
    for problem in problems:
      row = read.completions[problem.id][0]
      verdict = read.verdicts[row["key"], VARIANT]
      passed = verdict["outcome"] == "passed"
      if passed in wanted:
        wanted.remove(passed)
        rows.append(
          {
            "task_set": name,
            "id": problem.id,
            "prompt": problem.prompt,
            "completion": row["completion"],
            "reference": problem.reference,
            "outcome": verdict["outcome"],
            "detail": verdict["detail"],
          }
        )
  return rows


def _sets(config: StudyConfig, folder: Path) -> dict[str, Any]:
  """Return documents and tokens of every store, and the counts of the stages."""
  found = {}
  for place in sorted((folder / "stores").iterdir()):
    manifest = storage.read_json(place / "manifest.json")
    found[place.name] = {key: manifest[key] for key in ("documents", "tokens", "bytes")}
  stages = {}
  for name in ("pool", "raw", "filter", "textbooks", "exercises", "main"):
    stats = folders.read_stats(folder / "curate" / name)
    stages[name] = {key: stats[key] for key in ("read", "kept", "dropped")}
  return {"stores": found, "stages": stages}
