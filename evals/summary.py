"""The third half: scores of one run, from its completions and verdicts."""

import collections
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from evals import execute, score, workdir
from evals.programs import VARIANTS
from phi1_jax import InputError
from phi1_jax.problems.problem import Problem


@dataclasses.dataclass(frozen=True)
class Results:
  """Completions beside their verdicts.

  Attributes:
    completions: problem id -> its lines of completions.jsonl, by sample.
    verdicts: (completion key, variant) -> its line of verdicts.jsonl.
  """

  completions: dict[str, list[dict[str, Any]]]
  verdicts: dict[tuple[str, str], dict[str, Any]]

  def correct(self, variant: str) -> dict[str, list[bool]]:
    """Problem id -> whether each sample passed."""
    return {
      problem: [
        self.verdicts[row["key"], variant]["outcome"] == "passed" for row in rows
      ]
      for problem, rows in self.completions.items()
    }

  def count(self, variant: str, field: str) -> dict[Any, int]:
    """How often each value of a verdict's field occurs, the most frequent first."""
    values = (
      self.verdicts[row["key"], variant][field]
      for rows in self.completions.values()
      for row in rows
    )
    return dict(collections.Counter(values).most_common())


def read(folder: Path, problems: Sequence[Problem]) -> Results:
  """Reads a run and sees that it is complete.

  Raises:
    InputError: samples or verdicts are missing.
  """
  run = workdir.read_json(folder / workdir.RUN)
  wanted = run.get("generate", {}).get("samples") or 1
  rows = execute.completions(folder, problems)
  of_problem: dict[str, list[dict[str, Any]]] = {p.id: [] for p in problems}
  for row in sorted(rows, key=lambda row: row["sample"]):
    of_problem[row["task_id"]].append(row)
  short = [name for name, found in of_problem.items() if len(found) < wanted]
  if short:
    raise InputError(
      f"{folder}: {len(short)} of {len(problems)} problems have fewer than {wanted} "
      f"completions, {short[0]} for one; go on with --stage=generate"
    )
  judge = run.get("execute", {}).get("judge")
  verdicts = {
    (row["key"], row["variant"]): row
    for row in workdir.read_lines(folder / workdir.VERDICTS)
    if row["judge"] == judge
  }
  missing = sum(
    (row["key"], variant) not in verdicts for row in rows for variant in VARIANTS
  )
  if missing:
    raise InputError(
      f"{folder}: {missing} of {len(VARIANTS) * len(rows)} verdicts are missing; go on "
      "with --stage=execute"
    )
  return Results(of_problem, verdicts)


def summarize(
  folder: Path, problems: Sequence[Problem], ks: Sequence[int]
) -> dict[str, Any]:
  """Scores a run and writes summary.json.

  Raises:
    InputError: it is not complete, or has fewer samples than a k of pass@k.
  """
  results = read(folder, problems)
  run = workdir.read_json(folder / workdir.RUN)
  scores = {
    variant: {
      f"pass@{k}": dataclasses.asdict(score.estimate(results.correct(variant), k))
      for k in ks
    }
    for variant in VARIANTS
  }
  rows = [row for found in results.completions.values() for row in found]
  tokens = [row["tokens"] for row in rows if row.get("tokens") is not None]
  summary = {
    "format": 1,
    "settings": run["settings"],
    "problems": len(problems),
    "samples": len(rows),
    "scores": scores,
    "difference": _difference(scores),
    "outcomes": {v: results.count(v, "outcome") for v in VARIANTS},
    "retried": {v: results.count(v, "attempts").get(2, 0) for v in VARIANTS},
    "finish": dict(collections.Counter(str(row.get("finish")) for row in rows)),
    "tokens": sum(tokens) if len(tokens) == len(rows) else None,
    "generate": run.get("generate", {}),
    "execute": run.get("execute", {}),
  }
  workdir.write_json(folder / workdir.SUMMARY, summary)
  return summary


def _difference(scores: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
  """Sanitized less truncated."""
  return {
    name: scores["sanitized"][name]["value"] - scores["truncated"][name]["value"]
    for name in scores["truncated"]
  }


def table(named: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
  """What a terminal shows of some runs' summaries: a line per score, then outcomes."""
  header = ("run", "task set", "prompt", "", "truncated", "sanitized", "difference")
  lines: list[tuple[str, ...]] = [header]
  for name, summary in named:
    settings = summary["settings"]
    for metric, difference in summary["difference"].items():
      lines.append(
        (
          name,
          settings["task_set"],
          settings["prompt_style"],
          metric,
          *(_percent(summary["scores"][variant][metric]) for variant in VARIANTS),
          f"{100 * difference:+.1f}",
        )
      )
  widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
  text = [
    "  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip()
    for line in lines
  ]
  for name, summary in named:
    for variant in VARIANTS:
      counts = summary["outcomes"][variant].items()
      listed = ", ".join(f"{outcome} {count}" for outcome, count in counts)
      text.append(f"{name}, {variant}: {listed}")
  return "\n".join(text)


def _percent(estimate: Mapping[str, Any]) -> str:
  value, low, high = (100 * estimate[name] for name in ("value", "low", "high"))
  return f"{value:.1f} [{low:.1f}, {high:.1f}]"
