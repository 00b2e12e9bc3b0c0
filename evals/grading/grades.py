"""The results of an LLM's grades, and whether they can be trusted: grades.json.

  format, settings   as begun: the grader's model, prompt version, temperature, ...
  prompt             id, version, text
  models             that answered, by the server's own names
  repeats, programs, unparsed   how many; `unparsed` are answers without a grade
  runs               a list:
    name, workdir, settings
    understanding_score  value, low, high (a 95% interval over problems), method: the
                       mean grade in percent, of a mean per completion and then problem
    problems, completions   that have a grade
    unparsed           answers about these completions that gave none
    spread             between two repeats of a completion: mean absolute difference
    agreement          with the unit tests, of the mean grade of each completion:
      passed, failed   completions
      mean_passed, mean_failed
      auc              how often a passed one has the higher grade than a failed one; a
                       tie counts half; 0.5 is chance
  agreement          the same over the different programs of all runs together
  comparisons        of every two runs of one task set: a, b, difference of their
                     understanding scores (b - a), low, high (paired bootstrap), n
                     (problems of both)
  planted            kind -> programs, graded, mean, right_side (share of them on their
                     side of 5, which itself is on neither)
  complaints         why the grader cannot be trusted; empty where nothing says so
  cost

Unknown values are null.
"""

import collections
import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from evals import score, workdir
from evals.grading import asking
from evals.grading.asking import BEST, KINDS, GradeConfig, Pool
from phi1_jax import storage
from phi1_jax.cli.progress import Progress
from phi1_jax.llm.budget import Progress as LlmProgress
from phi1_jax.llm.client import Client
from phi1_jax.llm.config import LlmConfig
from phi1_jax.text import settings_file

MIDDLE = 5.0
# What planted programs must get on average for the grades to mean anything.
LEAST_FOR_TENS, MOST_FOR_ZEROS = 8.0, 3.0
_NAMES: dict[str, str] = dict(
  zip(KINDS, ("references", "empty bodies", "constants", "misreadings"), strict=True)
)


def make(
  folder: Path, pool: Pool, config: GradeConfig, llm: LlmConfig
) -> dict[str, Any]:
  """Have a pool graded, and write the files of a work directory.

  Args:
    folder: the work directory.
    pool: the programs.
    config: how to ask.
    llm: the grader.

  Returns:
    The content of grades.json.

  Raises:
    InputError: the folder was begun with another grader; or see `Client`.
    BudgetError, RequestError: see `Client.ask`.
  """
  prompt, seen = asking.load_prompt(), 0
  total = len(pool.candidates) * config.repeats
  with Progress(total, "grades", "grading") as bar:

    def show(now: LlmProgress) -> None:
      nonlocal seen
      bar.update(now.done - seen, **now.budget.figures())
      seen = now.done

    with Client(llm, show) as client:
      settings = {**client.identity(), "prompt": prompt.version, **config.identity()}
      begun = settings_file.begin(folder / asking.RESULT, settings)
      rows, models = asking.ask(pool, config, prompt, client)
      cost = client.facts()["cost"]
  asking.write(folder, pool, rows)
  data = {name: begun[name] for name in ("format", "settings")}
  data |= {"prompt": prompt.record(), "models": models}
  data |= {**results(pool, rows), "cost": cost}
  storage.write_json(folder / asking.RESULT, data)
  return data


def results(pool: Pool, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
  """Return the numbers of grades.json.

  Args:
    pool: the programs.
    rows: the lines of grades.jsonl.
  """
  grades: dict[str, list[int]] = defaultdict(list)
  unparsed = collections.Counter()
  for row in rows:
    if row["grade"] is None:
      unparsed[row["program"]] += 1
    else:
      grades[row["program"]].append(row["grade"])
  means = {key: math.fsum(found) / len(found) for key, found in grades.items()}
  samples = [
    [each for of_problem in run["samples"].values() for each in of_problem]
    for run in pool.runs
  ]
  by_problem = [_by_problem(run, means) for run in pool.runs]
  runs = []
  for run, found, of_problem in zip(pool.runs, samples, by_problem, strict=True):
    keys = [key for key, _ in found]
    runs.append(
      {
        **{name: run[name] for name in ("name", "workdir", "settings")},
        "understanding_score": _understanding(list(of_problem.values())),
        "problems": len(of_problem),
        "completions": sum(key in means for key in keys),
        "unparsed": sum(unparsed[key] for key in keys),
        "spread": spread(grades.get(key, ()) for key in keys),
        "agreement": _agreement(found, means),
      }
    )
  planted = {kind: _planted(pool, kind, means) for kind in KINDS}
  return {
    "repeats": 1 + max((row["repeat"] for row in rows), default=-1),
    "programs": len(pool.candidates),
    "unparsed": unparsed.total(),
    "runs": runs,
    "agreement": _agreement(dict(itertools.chain(*samples)).items(), means),
    "comparisons": [
      {"a": a["name"], "b": b["name"], **compared}
      for (a, of_a), (b, of_b) in itertools.combinations(
        zip(pool.runs, by_problem, strict=True), 2
      )
      if a["settings"]["task_set"] == b["settings"]["task_set"]
      and (compared := _compared(of_a, of_b))
    ],
    "planted": {kind: facts for kind, facts in planted.items() if facts["programs"]},
    "complaints": complaints(planted),
  }


def complaints(planted: Mapping[str, Mapping[str, Any]]) -> list[str]:
  """Return why a grader that gave planted programs such grades cannot be trusted."""
  if not any(facts["programs"] for facts in planted.values()):
    return ["nothing was planted, so nobody knows what its grades mean"]
  found = []
  for kind, facts in planted.items():
    mean, name = facts["mean"], _NAMES[kind]
    if not facts["programs"]:
      continue
    if mean is None:
      found.append(f"no grade of the planted {name} could be read")
      continue
    right, expected = {
      "reference": (mean >= LEAST_FOR_TENS, f"{LEAST_FOR_TENS:g} up"),
      "misreading": (mean < MIDDLE, f"less than {MIDDLE:g}"),
    }.get(kind, (mean <= MOST_FOR_ZEROS, f"{MOST_FOR_ZEROS:g} at most"))
    if not right:
      found.append(f"{name} get {mean:.1f} on average, expected {expected}")
  return found


def auc(higher: Sequence[float], lower: Sequence[float]) -> float | None:
  """Return how often a value of `higher` exceeds one of `lower`, ties half."""
  if not len(higher) or not len(lower):
    return None
  u = stats.mannwhitneyu(higher, lower).statistic
  return float(u) / (len(higher) * len(lower))


def spread(repeats: Iterable[Sequence[float]]) -> float | None:
  """Return the mean absolute difference of two grades of a program, over programs."""
  pairs = (list(itertools.combinations(grades, 2)) for grades in repeats)
  return _mean(
    [float(np.mean([abs(x - y) for x, y in some])) for some in pairs if some]
  )


def _mean(values: Sequence[float]) -> float | None:
  return math.fsum(values) / len(values) if values else None


def _by_problem(
  run: Mapping[str, Any], means: Mapping[str, float]
) -> dict[str, float | None]:
  """Return the mean grade by problem, for those with any, in the order of their ids."""
  found = {
    problem: [means[key] for key, _ in samples if key in means]
    for problem, samples in sorted(run["samples"].items())
  }
  return {problem: _mean(each) for problem, each in found.items() if each}


def _understanding(of_problems: Sequence[Any]) -> dict[str, Any] | None:
  if not of_problems:
    return None
  found = score.mean_of([grade / BEST for grade in of_problems])
  names = ("value", "low", "high")
  return {n: 100 * getattr(found, n) for n in names} | {"method": found.method}


def _agreement(
  samples: Iterable[tuple[str, bool]], means: Mapping[str, float]
) -> dict[str, Any]:
  graded = [(means[key], passed) for key, passed in samples if key in means]
  good = [mean for mean, passed in graded if passed]
  bad = [mean for mean, passed in graded if not passed]
  return {
    "passed": len(good),
    "failed": len(bad),
    "mean_passed": _mean(good),
    "mean_failed": _mean(bad),
    "auc": auc(good, bad),
  }


def _compared(of_a: Mapping[str, Any], of_b: Mapping[str, Any]) -> dict[str, Any]:
  apart = [100 / BEST * (of_b[p] - of_a[p]) for p in of_a if p in of_b]
  if not apart:
    return {}
  low = high = None  # equal differences say nothing of others
  if min(apart) < max(apart):
    low, high = map(float, score.bootstrap(apart).confidence_interval)
  return {"difference": _mean(apart), "low": low, "high": high, "n": len(apart)}


def _planted(pool: Pool, kind: str, means: Mapping[str, float]) -> dict[str, Any]:
  keys = [key for key, planted in pool.planted.items() if planted == kind]
  found, high = [means[key] for key in keys if key in means], kind == "reference"
  right = [mean > MIDDLE if high else mean < MIDDLE for mean in found]
  facts = {"programs": len(keys), "graded": len(found)}
  return facts | {"mean": _mean(found), "right_side": _mean(right)}


def table(data: Mapping[str, Any]) -> str:
  """Return what a terminal shows of grades.json."""
  header = ("run", "task set", "understanding", "spread", "passed", "failed", "AUC")
  lines: list[tuple[str, ...]] = [(*header, "unparsed")]
  for run in data["runs"]:
    found = run["understanding_score"]
    value = found and f"{found['value']:.1f} [{found['low']:.1f}, {found['high']:.1f}]"
    cells = (run["name"], run["settings"]["task_set"], value or "-")
    agrees = (_text(run["spread"]), *_agrees(run["agreement"]))
    lines.append((*cells, *agrees, str(run["unparsed"])))
  if len(data["runs"]) > 1:
    lines.append(("together", "", "", "", *_agrees(data["agreement"]), ""))
  text = workdir.columns(lines)
  for pair in data["comparisons"]:
    interval = f"(the same on all {pair['n']} problems, so no interval)"
    if pair["low"] is not None:
      interval = f"[{pair['low']:+.1f}, {pair['high']:+.1f}]"
    text.append(f"{pair['b']} - {pair['a']}: {pair['difference']:+.1f} {interval}")
  for kind, facts in data["planted"].items():
    side = "above" if kind == "reference" else "below"
    share = "-" if facts["right_side"] is None else f"{facts['right_side']:.0%}"
    counted = f"{facts['programs']}, {share} {side} {MIDDLE:g}"
    text.append(f"planted {_NAMES[kind]}: mean {_text(facts['mean'])} ({counted})")
  text += [f"{label}: {value}" for label, value in data["cost"].items()]
  text += [f"THE GRADER CANNOT BE TRUSTED: {line}" for line in data["complaints"]]
  return "\n".join(text)


def _agrees(found: Mapping[str, Any]) -> tuple[str, ...]:
  passed = f"{_text(found['mean_passed'])} ({found['passed']})"
  failed = f"{_text(found['mean_failed'])} ({found['failed']})"
  return passed, failed, _text(found["auc"])


def _text(value: float | None) -> str:
  return "-" if value is None else f"{value:.2f}"
