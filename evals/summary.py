"""The third stage: scores of one run, from its completions and verdicts.

A task set with further tests (EvalPlus') has two scores: pass@k of the base tests, and
"plus pass@k", of programs that pass both.

Two rates improve before pass@k does:

  valid_syntax  the judged program parses and has code of the answer. Not: syntax_error,
                what was perhaps never compiled (too_long, worker_lost), an empty
                completion, and a program that sanitizing reduced to the prompt's stub
  runs          the tests got an answer to compare: passed or wrong. Not: an exception,
                an exit, a crash, a limit, a result that is not plain data, no function

Both are shares of the samples, each problem weighing the same, with the interval of
pass@1: Wilson's for one sample per problem, the bootstrap over problems for more.
"""

import collections
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from evals import execute, score, workdir
from evals.programs import VARIANTS
from evals.prompts import Prompt
from phi1_jax import InputError, storage
from phi1_jax.problems.problem import Problem
from phi1_jax.storage import AnyPath

_EMPTY = "empty"  # here the outcome of a program without code, whatever its verdict
_UNPARSED = frozenset(("syntax_error", execute.TOO_LONG, "worker_lost", _EMPTY))
# Whether an outcome counts for a rate.
RATES: dict[str, Callable[[str], bool]] = {
  "valid_syntax": lambda outcome: outcome not in _UNPARSED,
  "runs": lambda outcome: outcome in ("passed", "wrong"),
}


@dataclasses.dataclass(frozen=True)
class Results:
  """Completions with their verdicts."""

  # problem id -> its lines of completions.jsonl, by sample
  completions: dict[str, list[dict[str, Any]]]
  # (completion key, variant) -> its line of verdicts.jsonl
  verdicts: dict[tuple[str, str], dict[str, Any]]
  # (completion key, variant) of programs without code of the answer
  empty: frozenset[tuple[str, str]] = frozenset()
  # as `verdicts`, of the further tests; empty without such tests
  plus: dict[tuple[str, str], dict[str, Any]] = dataclasses.field(default_factory=dict)

  def correct(self, variant: str, plus: bool = False) -> dict[str, list[bool]]:
    """Return, by problem id, whether each sample passed (`plus`: both suites)."""

    def passed(key: tuple[str, str]) -> bool:
      found = [self.verdicts[key]]
      found += [self.plus[key]] if plus and key in self.plus else []
      return all(verdict["outcome"] == "passed" for verdict in found)

    return {
      problem: [passed((row["key"], variant)) for row in rows]
      for problem, rows in self.completions.items()
    }

  def where(self, variant: str, holds: Callable[[str], bool]) -> dict[str, list[bool]]:
    """Return, by problem id, whether the outcome of each sample fulfils a condition."""

    def outcome(key: tuple[str, str]) -> str:
      return _EMPTY if key in self.empty else self.verdicts[key]["outcome"]

    return {
      problem: [holds(outcome((row["key"], variant))) for row in rows]
      for problem, rows in self.completions.items()
    }

  def count(self, variant: str, field: str, plus: bool = False) -> dict[Any, int]:
    """Count the values of a verdict's field, the most frequent first."""
    judged = self.plus if plus else self.verdicts
    values = (verdict[field] for (_, of), verdict in judged.items() if of == variant)
    return dict(collections.Counter(values).most_common())


def read(
  folder: AnyPath, problems: Sequence[Problem], asked: Mapping[str, Prompt]
) -> Results:
  """Read a complete run.

  A verdict counts for the very program that would be executed now, by the judge that
  the run was last executed with.

  Raises:
    InputError: samples or verdicts are missing.
  """
  run = storage.read_json(folder / workdir.RUN)
  rows = execute.completions(folder, problems)
  of_problem = _complete(folder, run.get("generate", {}), rows, problems)
  judge = run.get("execute", {}).get("judge")
  names = ("key", "variant", "program", "judge")
  found = {
    tuple(row[name] for name in names): row
    for row in storage.read_lines(folder / workdir.VERDICTS)
  }
  verdicts, plus, empty = {}, {}, set()
  missing = total = 0
  for program, begun in execute.wanted(rows, problems, asked):
    key, variant = begun["key"], begun["variant"]
    if program and not begun["answered"]:
      empty.add((key, variant))
    verdict = found.get((key, variant, begun["program"], judge))
    total, missing = total + 1, missing + (not verdict)
    if verdict:
      (plus if "suite" in begun else verdicts)[key, variant] = verdict
  if missing:
    raise InputError(
      f"{folder}: {missing} of {total} verdicts are missing; resume with "
      "--stage=execute"
    )
  return Results(of_problem, verdicts, frozenset(empty), plus)


def _complete(
  folder: AnyPath,
  generated: Mapping[str, Any],
  rows: Sequence[dict[str, Any]],
  problems: Sequence[Problem],
) -> dict[str, list[dict[str, Any]]]:
  """Return the completions by problem; refuse a run that has not all of them.

  `samples` of run.json is their number per problem, `rows` that of a file's lines.
  """
  of_problem: dict[str, list[dict[str, Any]]] = {p.id: [] for p in problems}
  for row in sorted(rows, key=lambda row: row["sample"]):
    of_problem[row["task_id"]].append(row)
  samples = generated.get("samples")
  other = [n for n, found in of_problem.items() if samples and len(found) != samples]
  wrong = ""
  if other:
    wrong = (
      f"{len(other)} of {len(problems)} problems do not have {samples} completions, "
      f"{other[0]} for one has {len(of_problem[other[0]])}"
    )
  elif not samples and len(rows) != generated.get("rows"):
    expected = generated.get("rows", "a number in run.json")
    wrong = f"has {len(rows)} completions, expected {expected}; it was interrupted"
  if wrong:
    raise InputError(f"{folder}: {wrong}; resume with --stage=generate")
  return of_problem


def write(
  folder: AnyPath, results: Results, ks: Sequence[int] | None
) -> dict[str, Any]:
  """Score a run and write summary.json; return its content, as `scored` does."""
  found = scored(folder, results, ks)
  storage.write_json(folder / workdir.SUMMARY, found)
  return found


def scored(
  folder: AnyPath, results: Results, ks: Sequence[int] | None
) -> dict[str, Any]:
  """Return the content of summary.json; `ks` is None for 1, 10 and 100.

  Raises:
    InputError: a problem has fewer samples than a k of pass@k.
  """
  run = storage.read_json(folder / workdir.RUN)
  if ks is None:
    most = max(map(len, results.completions.values()))
    ks = [k for k in (1, 10, 100) if k <= most]

  def estimate(correct: dict[str, list[bool]], k: int) -> dict[str, Any]:
    return dataclasses.asdict(score.estimate(correct, k))

  scores = {
    variant: {
      f"{'plus ' * plus}pass@{k}": estimate(results.correct(variant, plus), k)
      for plus in (False, True)[: 2 if results.plus else 1]
      for k in ks
    }
    for variant in VARIANTS
  }
  rates = {
    variant: {n: estimate(results.where(variant, h), 1) for n, h in RATES.items()}
    for variant in VARIANTS
  }
  rows = [row for found in results.completions.values() for row in found]
  tokens = [row["tokens"] for row in rows if row.get("tokens") is not None]
  return {
    "format": 1,
    "settings": run["settings"],
    "problems": len(results.completions),
    "samples": len(rows),
    "scores": scores,
    "difference": difference(scores),
    "rates": rates,
    "outcomes": {v: results.count(v, "outcome") for v in VARIANTS},
    "plus_outcomes": {v: results.count(v, "outcome", True) for v in VARIANTS},
    "retried": {v: results.count(v, "attempts").get(2, 0) for v in VARIANTS},
    "prompts_too_long": sum(
      any(row.get("finish") == "prompt_too_long" for row in found)
      for found in results.completions.values()
    ),
    "finish": dict(collections.Counter(str(row.get("finish")) for row in rows)),
    "tokens": sum(tokens) if len(tokens) == len(rows) else None,
    "generate": run.get("generate", {}),
    "execute": run.get("execute", {}),
  }


def difference(scores: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
  """Return sanitized less truncated, by metric."""
  sanitized, truncated = scores["sanitized"], scores["truncated"]
  return {n: sanitized[n]["value"] - truncated[n]["value"] for n in truncated}


def table(named: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
  """Return a table for a terminal of some runs' summaries: scores, rates, outcomes.

  A summary that was written before there were rates has none.
  """
  header = ("run", "task set", "prompt", "", "truncated", "sanitized", "difference")
  lines: list[tuple[str, ...]] = [header]
  for part in ("scores", "rates"):
    for name, summary in named:
      if part not in summary:
        continue
      settings, found = summary["settings"], summary[part]
      for metric, apart in difference(found).items():
        cells = (name, settings["task_set"], settings["prompt_style"], metric)
        cells += tuple(_percent(found[variant][metric]) for variant in VARIANTS)
        lines.append((*cells, f"{100 * apart:+.1f}"))
  text = workdir.columns(lines)
  for name, summary in named:
    for variant in VARIANTS:
      counts = summary["outcomes"][variant].items()
      listed = ", ".join(f"{outcome} {count}" for outcome, count in counts)
      text.append(f"{name}, {variant}: {listed}")
    text += [f"{name}: {line}" for line in _remarks(summary)]
  return "\n".join(text)


def _remarks(summary: Mapping[str, Any]) -> list[str]:
  """Return what a reader of the scores has to know besides."""
  found = []
  samples, finish = summary["samples"], summary.get("finish", {})
  if finish.get("None", 0) < samples:
    sampling = summary["settings"].get("sampling") or {}
    limit = sampling.get("max_new_tokens") or "the limit of"
    cut = f"{finish.get('length', 0)} of {samples} answers were cut off at"
    found.append(f"{cut} {limit} new tokens")
  if count := summary.get("prompts_too_long"):
    found.append(
      f"{count} prompts are longer than the model reads; they count as failed"
    )
  packages = summary["execute"].get("identity", {}).get("packages")
  if packages:
    listed = ", ".join(f"{name} {version}" for name, version in packages.items())
    found.append(f"the code could import {listed}")
  return found


def _percent(estimate: Mapping[str, Any]) -> str:
  value, low, high = (100 * estimate[name] for name in ("value", "low", "high"))
  part = f", {estimate['problems']} problems" if estimate.get("problems") else ""
  return f"{value:.1f} [{low:.1f}, {high:.1f}]{part}"
