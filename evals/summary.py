"""The third stage: scores of one run, from its completions and verdicts.

A task set with further tests (EvalPlus') has two scores: pass@k of the base tests, and
"plus pass@k", of programs that pass both.

Beside pass@k stand two rates, which move before it does:

  valid_syntax  the judged program parses and has code of the answer. Not: syntax_error,
                what was perhaps never compiled (too_long, worker_lost), an empty
                completion, and a program that sanitizing reduced to the prompt's stub
  runs          the tests got an answer to compare: passed or wrong. Every other outcome
                counts as not: an exception, an exit, a crash, a limit, a result that is
                no plain data, no function

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

RATES = ("valid_syntax", "runs")
_EMPTY = "empty"  # here the outcome of a program without code, whatever its verdict
_UNPARSED = frozenset(("syntax_error", execute.TOO_LONG, "worker_lost", _EMPTY))


@dataclasses.dataclass(frozen=True)
class Results:
  """Completions beside their verdicts.

  Attributes:
    completions: problem id -> its lines of completions.jsonl, by sample.
    verdicts: (completion key, variant) -> its line of verdicts.jsonl.
    empty: (completion key, variant) of programs without code of the answer.
    plus: as `verdicts`, of the further tests; empty without such tests.
  """

  completions: dict[str, list[dict[str, Any]]]
  verdicts: dict[tuple[str, str], dict[str, Any]]
  empty: frozenset[tuple[str, str]] = frozenset()
  plus: dict[tuple[str, str], dict[str, Any]] = dataclasses.field(default_factory=dict)

  def correct(self, variant: str, plus: bool = False) -> dict[str, list[bool]]:
    """Return, by problem id, whether each sample passed (`plus`: both suites)."""
    return {
      problem: [self._passed((row["key"], variant), plus) for row in rows]
      for problem, rows in self.completions.items()
    }

  def _passed(self, key: tuple[str, str], plus: bool) -> bool:
    judged = [
      self.verdicts[key],
      *([self.plus[key]] if plus and key in self.plus else []),
    ]
    return all(verdict["outcome"] == "passed" for verdict in judged)

  def where(self, variant: str, holds: Callable[[str], bool]) -> dict[str, list[bool]]:
    """Problem id -> what `holds(outcome)` says of each sample."""
    return {
      problem: [holds(self._outcome(row["key"], variant)) for row in rows]
      for problem, rows in self.completions.items()
    }

  def _outcome(self, key: str, variant: str) -> str:
    found = (key, variant)
    return _EMPTY if found in self.empty else self.verdicts[found]["outcome"]

  def count(self, variant: str, field: str, plus: bool = False) -> dict[Any, int]:
    """How often each value of a verdict's field occurs, the most frequent first."""
    judged = self.plus if plus else self.verdicts
    values = (verdict[field] for (_, of), verdict in judged.items() if of == variant)
    return dict(collections.Counter(values).most_common())


def valid_syntax(outcome: str) -> bool:
  """Whether a program of this outcome parsed (see above)."""
  return outcome not in _UNPARSED


def runs(outcome: str) -> bool:
  """Whether a program of this outcome gave its tests something to compare."""
  return outcome in ("passed", "wrong")


def read(
  folder: AnyPath, problems: Sequence[Problem], asked: Mapping[str, Prompt]
) -> Results:
  """Reads a run and sees that it is complete.

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
      f"{folder}: {missing} of {total} verdicts are missing; go on with --stage=execute"
    )
  return Results(of_problem, verdicts, frozenset(empty), plus)


def _complete(
  folder: AnyPath,
  generated: Mapping[str, Any],
  rows: Sequence[dict[str, Any]],
  problems: Sequence[Problem],
) -> dict[str, list[dict[str, Any]]]:
  """The completions by problem, if they are as many as were to be made.

  `samples` of run.json is their number per problem, `rows` that of a file's lines.
  """
  of_problem: dict[str, list[dict[str, Any]]] = {p.id: [] for p in problems}
  for row in sorted(rows, key=lambda row: row["sample"]):
    of_problem[row["task_id"]].append(row)
  samples = generated.get("samples")
  if samples:
    other = [name for name, found in of_problem.items() if len(found) != samples]
    if other:
      raise InputError(
        f"{folder}: {len(other)} of {len(problems)} problems do not have {samples} "
        f"completions, {other[0]} for one has {len(of_problem[other[0]])}; go on with "
        "--stage=generate"
      )
  elif len(rows) != generated.get("rows"):
    raise InputError(
      f"{folder}: has {len(rows)} completions, expected "
      f"{generated.get('rows', 'that run.json says how many')}; it was interrupted, go "
      "on with --stage=generate"
    )
  return of_problem


def summarize(
  folder: AnyPath,
  problems: Sequence[Problem],
  asked: Mapping[str, Prompt],
  ks: Sequence[int] | None,
) -> dict[str, Any]:
  """Scores a run and writes summary.json; `ks` is None for 1, 10 and 100.

  Raises:
    InputError: it is not complete, or has fewer samples than a k of pass@k.
  """
  found = scored(folder, read(folder, problems, asked), ks)
  storage.write_json(folder / workdir.SUMMARY, found)
  return found


def scored(
  folder: AnyPath, results: Results, ks: Sequence[int] | None
) -> dict[str, Any]:
  """Return the content of summary.json."""
  run = storage.read_json(folder / workdir.RUN)
  if ks is None:
    most = max(map(len, results.completions.values()))
    ks = [k for k in (1, 10, 100) if k <= most]
  suites = (False, True)[: 2 if results.plus else 1]
  scores = {
    variant: {
      f"{'plus ' * plus}pass@{k}": dataclasses.asdict(
        score.estimate(results.correct(variant, plus), k)
      )
      for plus in suites
      for k in ks
    }
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
    "difference": _difference(scores),
    "rates": {variant: _rates(results, variant) for variant in VARIANTS},
    "outcomes": {v: results.count(v, "outcome") for v in VARIANTS},
    "plus_outcomes": {v: results.count(v, "outcome", True) for v in VARIANTS},
    "retried": {v: results.count(v, "attempts").get(2, 0) for v in VARIANTS},
    "finish": dict(collections.Counter(str(row.get("finish")) for row in rows)),
    "tokens": sum(tokens) if len(tokens) == len(rows) else None,
    "generate": run.get("generate", {}),
    "execute": run.get("execute", {}),
  }


def _rates(results: Results, variant: str) -> dict[str, Any]:
  """The estimate of each rate. A share of samples is estimated as pass@1 is."""
  return {
    name: dataclasses.asdict(score.estimate(results.where(variant, holds), 1))
    for name, holds in zip(RATES, (valid_syntax, runs), strict=True)
  }


def ks_of(summary: Mapping[str, Any]) -> list[int]:
  """Every k whose pass@k a summary has."""
  names = (name for name in summary["difference"] if name.startswith("pass@"))
  return [int(name.partition("@")[2]) for name in names]


def _difference(scores: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
  """Sanitized less truncated."""
  return {
    name: scores["sanitized"][name]["value"] - scores["truncated"][name]["value"]
    for name in scores["truncated"]
  }


def table(named: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
  """What a terminal shows of some runs' summaries: scores, rates, then outcomes.

  A summary that was written before there were rates has none.
  """
  header = ("run", "task set", "prompt", "", "truncated", "sanitized", "difference")
  lines: list[tuple[str, ...]] = [header]
  for name, summary in named:
    lines += _score_lines(name, summary["settings"], summary["scores"])
  for name, summary in named:
    if "rates" in summary:
      lines += _score_lines(name, summary["settings"], summary["rates"])
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
    text += [f"{name}: {line}" for line in _remarks(summary)]
  return "\n".join(text)


def _remarks(summary: Mapping[str, Any]) -> list[str]:
  """Return what a reader of the scores has to know besides."""
  found = []
  samples = summary["samples"]
  finish = summary.get("finish", {})
  if finish.get("None", 0) < samples:
    sampling = summary["settings"].get("sampling") or {}
    limit = sampling.get("max_new_tokens")
    found.append(
      f"{finish.get('length', 0)} of {samples} answers were cut off at "
      f"{limit or 'the limit of'} new tokens"
    )
  packages = summary["execute"].get("identity", {}).get("packages")
  if packages:
    listed = ", ".join(f"{name} {version}" for name, version in packages.items())
    found.append(f"the code could import {listed}")
  return found


def _score_lines(
  name: str, settings: Mapping[str, Any], scores: Mapping[str, Mapping[str, Any]]
) -> list[tuple[str, ...]]:
  return [
    (
      name,
      settings["task_set"],
      settings["prompt_style"],
      metric,
      *(_percent(scores[variant][metric]) for variant in VARIANTS),
      f"{100 * difference:+.1f}",
    )
    for metric, difference in _difference(scores).items()
  ]


def _percent(estimate: Mapping[str, Any]) -> str:
  value, low, high = (100 * estimate[name] for name in ("value", "low", "high"))
  part = f", {estimate['problems']} problems" if estimate.get("problems") else ""
  return f"{value:.1f} [{low:.1f}, {high:.1f}]{part}"
