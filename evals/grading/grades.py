"""What an LLM's grades come to, and whether they can be trusted: grades.json.

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
    repeats            the mean grade of each repeat
    spread             between two repeats of a completion: mean absolute difference
    agreement          with the unit tests, of one grade per completion (its mean):
      passed, failed   completions
      mean_passed, mean_failed
      auc              how often a passed one has the higher grade than a failed one; a
                       tie counts half; 0.5 is chance
      kappa            Cohen's, of "passed" and "grade of at least `threshold`"
      threshold
  agreement          the same over the different programs of all runs together
  comparisons        of every two runs of one task set: a, b, difference of their
                     understanding scores (b - a), low, high (paired bootstrap), n
                     (problems of both)
  planted            kind -> programs, graded, mean, right_side (share of them on their
                     side of 5, which itself is on neither)
  complaints         why the grader cannot be trusted; empty where nothing says so
  cost

What is not known is null.
"""

import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evals import score
from evals.grading import asking, planting
from evals.grading.asking import BEST, GradeConfig, GradedRun, Pool
from phi1_jax import storage
from phi1_jax.cli.progress import Progress
from phi1_jax.curation.replies import Replies
from phi1_jax.llm.budget import Progress as LlmProgress
from phi1_jax.llm.client import Client
from phi1_jax.llm.config import LlmConfig
from phi1_jax.text import settings_file

# Where a grade says that a program is right. A choice: the prompt calls 8 "right but
# for a rare edge case", and the tests of a benchmark do not hold every rare case.
THRESHOLD = 8.0
MIDDLE = 5.0
# What planted programs must get on average for the grades to mean anything.
LEAST_FOR_TENS, MOST_FOR_ZEROS = 8.0, 3.0
_NAMES = {
  "reference": "references",
  "empty": "empty bodies",
  "constant": "constants",
  "misreading": "misreadings",
}


def estimate(pool: Pool, config: GradeConfig, llm: LlmConfig) -> str:
  """What `make` would cost, for people; sends nothing."""
  asked = asking.requests(pool, config, asking.load_prompt())
  with Client(llm) as client:
    return client.estimate(request for _, _, request in asked).text()


def make(
  folder: Path, pool: Pool, config: GradeConfig, llm: LlmConfig
) -> dict[str, Any]:
  """Has a pool graded, and writes the files of a work directory.

  Args:
    folder: the work directory.
    pool: what to grade.
    config: how to ask.
    llm: whom.

  Returns:
    What grades.json holds.

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
      replies = Replies(llm, client)
      settings = asking.settings(config, prompt, replies)
      begun = settings_file.begin(folder / asking.RESULT, settings)
      rows, models = asking.ask(pool, config, prompt, replies)
      cost = replies.facts()["cost"]
  asking.write(folder, pool, rows)
  data = {name: begun[name] for name in ("format", "settings")}
  data |= {"prompt": prompt.record(), "models": models}
  data |= {**results(pool, rows), "cost": cost}
  storage.write_json(folder / asking.RESULT, data)
  return data


def results(pool: Pool, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
  """The numbers of grades.json.

  Args:
    pool: what was graded.
    rows: the lines of grades.jsonl.
  """
  found = _by_program(rows)
  outcomes = {
    key: passed
    for run in pool.runs
    for samples in run.samples.values()
    for key, passed in samples
  }
  planted = {kind: _planted(pool, kind, found) for kind in planting.KINDS}
  return {
    "repeats": 1 + max((row["repeat"] for row in rows), default=-1),
    "programs": len(pool.candidates),
    "unparsed": sum(row["grade"] is None for row in rows),
    "runs": [_run(run, found) for run in pool.runs],
    "agreement": _agreement(list(outcomes.items()), found),
    "comparisons": _comparisons(pool.runs, found),
    "planted": {kind: facts for kind, facts in planted.items() if facts["programs"]},
    "complaints": complaints(planted),
  }


def complaints(planted: Mapping[str, Mapping[str, Any]]) -> list[str]:
  """Why a grader that gave planted programs such grades cannot be trusted."""
  if not any(facts["programs"] for facts in planted.values()):
    return ["nothing was planted, so nobody knows what its grades mean"]
  found = []
  for kind, facts in planted.items():
    mean, name = facts["mean"], _NAMES[kind]
    if not facts["programs"]:
      continue
    if mean is None:
      found.append(f"no grade of the planted {name} could be read")
    elif kind == "reference" and mean < LEAST_FOR_TENS:
      found.append(f"{name} get {mean:.1f} on average, expected {LEAST_FOR_TENS:g} up")
    elif kind in ("empty", "constant") and mean > MOST_FOR_ZEROS:
      most = f"{MOST_FOR_ZEROS:g} at most"
      found.append(f"{name} get {mean:.1f} on average, expected {most}")
    elif kind == "misreading" and mean >= MIDDLE:
      found.append(f"{name} get {mean:.1f} on average, expected less than {MIDDLE:g}")
  return found


def auc(higher: Sequence[float], lower: Sequence[float]) -> float | None:
  """How often one of `higher` is above one of `lower`, ties half; None without both."""
  if not len(higher) or not len(lower):
    return None
  a, b = np.asarray(higher, float)[:, None], np.asarray(lower, float)[None, :]
  return float(((a > b) + 0.5 * (a == b)).mean())


def kappa(a: Sequence[bool], b: Sequence[bool]) -> float | None:
  """Cohen's kappa of two judges; None where chance alone would agree always."""
  if not a:
    return None
  observed = sum(x == y for x, y in zip(a, b, strict=True)) / len(a)
  share_a, share_b = sum(a) / len(a), sum(b) / len(b)
  chance = share_a * share_b + (1 - share_a) * (1 - share_b)
  return None if chance == 1 else (observed - chance) / (1 - chance)


def spread(repeats: Iterable[Sequence[float]]) -> float | None:
  """Mean absolute difference between two grades of a program, over programs."""
  apart = [
    math.fsum(abs(x - y) for x, y in itertools.combinations(grades, 2))
    / math.comb(len(grades), 2)
    for grades in repeats
    if len(grades) > 1
  ]
  return _mean(apart)


def _by_program(rows: Iterable[Mapping[str, Any]]) -> dict[str, dict[int, int | None]]:
  """Program -> repeat -> grade."""
  found: dict[str, dict[int, int | None]] = defaultdict(dict)
  for row in rows:
    found[row["program"]][row["repeat"]] = row["grade"]
  return found


Found = Mapping[str, Mapping[int, int | None]]


def _grades(found: Found, key: str) -> list[int]:
  return [grade for grade in found[key].values() if grade is not None]


def _mean(values: Sequence[float]) -> float | None:
  return math.fsum(values) / len(values) if values else None


def _means(found: Found, keys: Iterable[str]) -> list[float]:
  """Mean grades of the programs that have one."""
  means = (_mean(_grades(found, key)) for key in keys)
  return [mean for mean in means if mean is not None]


def _run(run: GradedRun, found: Found) -> dict[str, Any]:
  samples = [sample for rows in run.samples.values() for sample in rows]
  keys = [key for key, _ in samples]
  by_repeat: dict[int, list[float]] = defaultdict(list)
  for key in keys:
    for repeat, grade in found[key].items():
      by_repeat[repeat] += [] if grade is None else [grade]
  of_problem = _of_problem(run, found)
  return {
    "name": run.name,
    **run.facts,
    "understanding_score": _score(list(of_problem.values())),
    "problems": len(of_problem),
    "completions": len(_means(found, keys)),
    "unparsed": sum(grade is None for key in keys for grade in found[key].values()),
    "repeats": [_mean(by_repeat[repeat]) for repeat in sorted(by_repeat)],
    "spread": spread(_grades(found, key) for key in keys),
    "agreement": _agreement(samples, found),
  }


def _of_problem(run: GradedRun, found: Found) -> dict[str, float]:
  """Problem -> mean grade, for those with one; in the order of their ids."""
  means = {
    problem: _mean(_means(found, [key for key, _ in samples]))
    for problem, samples in sorted(run.samples.items())
  }
  return {problem: mean for problem, mean in means.items() if mean is not None}


def _score(grades: Sequence[float]) -> dict[str, Any] | None:
  """The mean of some problems' grades in percent, with its interval.

  Wilson's interval where all are equal, of which the bootstrap would make one of no
  width (as in evals/score.py).
  """
  if not grades:
    return None
  shares = [grade / BEST for grade in grades]
  value = math.fsum(shares) / len(shares)
  if min(shares) == max(shares):
    low, high = score.wilson(math.fsum(shares), len(shares))
    estimate = score.Estimate(value, low, high, "wilson")
  else:
    estimate = score.Estimate(value, *_bootstrap(shares), "bootstrap")
  percent = {name: 100 * getattr(estimate, name) for name in ("value", "low", "high")}
  return {**percent, "method": estimate.method}


def _bootstrap(values: Sequence[float], seed: int = 0) -> tuple[float, float]:
  """The 95% interval of a mean, by resampling."""
  random, array = np.random.default_rng(seed), np.asarray(values)
  means = array[random.integers(len(array), size=(score.RESAMPLES, len(array)))].mean(1)
  low, high = np.quantile(means, [0.025, 0.975])
  return float(low), float(high)


def _agreement(samples: Sequence[tuple[str, bool]], found: Found) -> dict[str, Any]:
  graded = [
    (mean, passed)
    for key, passed in samples
    if (mean := _mean(_grades(found, key))) is not None
  ]
  good = [mean for mean, passed in graded if passed]
  bad = [mean for mean, passed in graded if not passed]
  says = [mean >= THRESHOLD for mean, _ in graded]
  return {
    "passed": len(good),
    "failed": len(bad),
    "mean_passed": _mean(good),
    "mean_failed": _mean(bad),
    "auc": auc(good, bad),
    "kappa": kappa(says, [passed for _, passed in graded]),
    "threshold": THRESHOLD,
  }


def _comparisons(runs: Sequence[GradedRun], found: Found) -> list[dict[str, Any]]:
  compared = []
  for a, b in itertools.combinations(runs, 2):
    if a.facts["settings"]["task_set"] != b.facts["settings"]["task_set"]:
      continue
    of_a, of_b = _of_problem(a, found), _of_problem(b, found)
    apart = [100 / BEST * (of_b[p] - of_a[p]) for p in of_a if p in of_b]
    if apart:
      # All apart by the same say nothing of how far others would be.
      low, high = _bootstrap(apart) if min(apart) < max(apart) else (None, None)
      facts = {"difference": _mean(apart), "low": low, "high": high, "n": len(apart)}
      compared.append({"a": a.name, "b": b.name, **facts})
  return compared


def _planted(pool: Pool, kind: str, found: Found) -> dict[str, Any]:
  keys = [key for key, planted in pool.planted.items() if planted == kind]
  means = _means(found, keys)
  high = kind == "reference"
  right = [mean > MIDDLE if high else mean < MIDDLE for mean in means]
  return {
    "programs": len(keys),
    "graded": len(means),
    "mean": _mean(means),
    "right_side": _mean(right),
  }


def table(data: Mapping[str, Any]) -> str:
  """What a terminal shows of grades.json."""
  header = ("run", "task set", "understanding", "spread", "passed", "failed", "AUC")
  lines: list[tuple[str, ...]] = [(*header, "kappa", "unparsed")]
  for run in data["runs"]:
    cells = (run["name"], run["settings"]["task_set"], _percent(run))
    agrees = (_text(run["spread"]), *_agrees(run["agreement"]))
    lines.append((*cells, *agrees, str(run["unparsed"])))
  if len(data["runs"]) > 1:
    lines.append(("together", "", "", "", *_agrees(data["agreement"]), ""))
  widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
  text = [
    "  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip()
    for line in lines
  ]
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
  return passed, failed, _text(found["auc"]), _text(found["kappa"])


def _percent(run: Mapping[str, Any]) -> str:
  found = run["understanding_score"]
  if found is None:
    return "-"
  return f"{found['value']:.1f} [{found['low']:.1f}, {found['high']:.1f}]"


def _text(value: float | None) -> str:
  return "-" if value is None else f"{value:.2f}"
