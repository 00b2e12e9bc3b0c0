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
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from evals import execute, score, workdir
from evals.execute import VARIANTS
from evals.prompts import Prompt
from phi1_jax import InputError, storage
from phi1_jax.storage import AnyPath

_EMPTY = "empty"  # here the outcome of a program without code, whatever its verdict
_UNPARSED = frozenset(("syntax_error", execute.TOO_LONG, "worker_lost", _EMPTY))
# Whether an outcome counts for a rate.
RATES: dict[str, Callable[[str], bool]] = {
  "valid_syntax": lambda outcome: outcome not in _UNPARSED,
  "runs": lambda outcome: outcome in ("passed", "wrong"),
}
# Problem id -> its lines of completions.jsonl, by sample. Each has `variants`: the line
# of verdicts.jsonl for each variant, with `code`, `empty` (no code of the answer is in
# it) and, of a problem with further tests, their line as `plus`.
Samples = Mapping[str, Sequence[Mapping[str, Any]]]


def correct(samples: Samples, variant: str, plus: bool = False) -> dict[str, list]:
  """Return, by problem id, whether each sample passed (`plus`: both suites)."""

  def passed(verdict: Mapping[str, Any]) -> bool:
    return verdict["outcome"] == "passed"

  return {
    problem: [
      passed(of) and (not plus or passed(of.get("plus", of)))
      for of in (row["variants"][variant] for row in rows)
    ]
    for problem, rows in samples.items()
  }


def read(folder: AnyPath, asked: Mapping[str, Prompt]) -> dict[str, list]:
  """Return the samples of a complete run; see `Samples`.

  A verdict counts for the very program that would be executed now, by the judge that
  the run was last executed with.

  Raises:
    InputError: samples or verdicts are missing.
  """
  run = storage.read_json(folder / workdir.RUN)
  generated = run.get("generate", {})
  rows = [{**row, "variants": {}} for row in execute.completions(folder, asked)]
  # `samples` is their number per problem, `rows` that of a file's lines.
  expected = generated.get("rows", "a number in run.json")
  if number := generated.get("samples"):
    expected = number * len(asked)
  if len(rows) != expected:
    raise InputError(
      f"{folder}: has {len(rows)} completions, expected {expected}; resume with "
      "--stage=generate"
    )
  samples: dict[str, list[dict[str, Any]]] = {name: [] for name in asked}
  for row in sorted(rows, key=lambda row: row["sample"]):
    samples[row["task_id"]].append(row)
  lines = storage.read_lines(folder / workdir.VERDICTS)
  found = {tuple(line[name] for name in execute.KEY): line for line in lines}
  judge, of_key = run.get("execute", {}).get("judge"), {row["key"]: row for row in rows}
  missing = total = 0
  for judged, program, verdict in execute.wanted(rows, asked):
    verdict["judge"], total = judge, total + 1
    line = found.get(tuple(verdict[name] for name in execute.KEY))
    if line is None:
      missing += 1
      continue
    of = of_key[line["key"]]["variants"].setdefault(line["variant"], {})
    if "suite" in verdict:
      of["plus"] = line
    else:
      empty = bool(program) and not judged.answered
      of |= {**line, "code": judged.code, "empty": empty}
  if missing:
    raise InputError(
      f"{folder}: {missing} of {total} verdicts are missing; resume with "
      "--stage=execute"
    )
  return samples


def write(
  folder: AnyPath, samples: Samples, ks: Sequence[int] | None
) -> dict[str, Any]:
  """Score a run and write summary.json; return its content, as `scored` does."""
  found = scored(folder, samples, ks)
  storage.write_json(folder / workdir.SUMMARY, found)
  return found


def scored(
  folder: AnyPath, samples: Samples, ks: Sequence[int] | None
) -> dict[str, Any]:
  """Return the content of summary.json; `ks` is None for 1, 10 and 100.

  Raises:
    InputError: a problem has fewer samples than a k of pass@k.
  """
  run = storage.read_json(folder / workdir.RUN)
  rows = [row for found in samples.values() for row in found]
  if ks is None:
    most = max(map(len, samples.values()))
    ks = [k for k in (1, 10, 100) if k <= most]

  def estimate(right: Mapping[str, Sequence[bool]], k: int) -> dict[str, Any]:
    return dataclasses.asdict(score.estimate(right, k))

  def rate(variant: str, holds: Callable[[str], bool]) -> dict[str, Any]:
    outcomes: dict[str, list[bool]] = {name: [] for name in samples}
    for name, found in samples.items():
      for of in (row["variants"][variant] for row in found):
        outcomes[name].append(holds(_EMPTY if of["empty"] else of["outcome"]))
    return estimate(outcomes, 1)

  def count(variant: str, field: str, plus: bool = False) -> dict[Any, int]:
    of = [row["variants"][variant] for row in rows]
    of = [verdict["plus"] for verdict in of if "plus" in verdict] if plus else of
    return dict(collections.Counter(each[field] for each in of).most_common())

  suites = (False, True)[: 1 + any(count(v, "outcome", True) for v in VARIANTS)]
  scores = {
    variant: {
      f"{'plus ' * plus}pass@{k}": estimate(correct(samples, variant, plus), k)
      for plus in suites
      for k in ks
    }
    for variant in VARIANTS
  }
  tokens = [row["tokens"] for row in rows if row.get("tokens") is not None]
  long = [n for n, of in samples.items() if any(map(_too_long, of))]
  of_id = [(row["task_id"], row["variants"]["truncated"]["flags"]) for row in rows]
  return {
    "format": 1,
    "settings": run["settings"],
    "problems": len(samples),
    "samples": len(rows),
    "scores": scores,
    "difference": difference(scores),
    "rates": {v: {n: rate(v, holds) for n, holds in RATES.items()} for v in VARIANTS},
    "outcomes": {v: count(v, "outcome") for v in VARIANTS},
    "plus_outcomes": {v: count(v, "outcome", True) for v in VARIANTS},
    "retried": {v: count(v, "attempts").get(2, 0) for v in VARIANTS},
    "prompts_too_long": len(long),
    "in_process": len({name for name, flags in of_id if "in_process" in flags}),
    "without_function": count("sanitized", "code").get("", 0),
    "finish": dict(collections.Counter(str(row.get("finish")) for row in rows)),
    "tokens": sum(tokens) if len(tokens) == len(rows) else None,
    "generate": run.get("generate", {}),
    "execute": run.get("execute", {}),
  }


def _too_long(row: Mapping[str, Any]) -> bool:
  return row.get("finish") == "prompt_too_long"


def difference(scores: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
  """Return sanitized less truncated, by metric."""
  sanitized, truncated = scores["sanitized"], scores["truncated"]
  return {n: sanitized[n]["value"] - truncated[n]["value"] for n in truncated}


def table(named: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
  """Return a table for a terminal of some runs' summaries: scores, rates, outcomes."""
  header = ("run", "task set", "prompt", "", "truncated", "sanitized", "difference")
  lines: list[tuple[str, ...]] = [header]
  for part in ("scores", "rates"):
    for name, summary in named:
      settings, found = summary["settings"], summary[part]
      for metric, apart in difference(found).items():
        cells = (name, settings["task_set"], settings["prompt_style"], metric)
        cells += tuple(_percent(found[variant][metric]) for variant in VARIANTS)
        lines.append((*cells, f"{100 * apart:+.1f}"))
  text = workdir.columns(lines)
  if (sets := len({each["settings"]["task_set"] for _, each in named})) > 1:
    text.append(f"{sets} task sets: compare scores of the same task set only")
  for name, summary in named:
    for variant in VARIANTS:
      counts = summary["outcomes"][variant].items()
      listed = ", ".join(f"{outcome} {count}" for outcome, count in counts)
      text.append(f"{name}, {variant}: {listed}")
    text += [f"{name}: {line}" for line in _remarks(summary)]
  return "\n".join(text)


def _remarks(summary: Mapping[str, Any]) -> Iterator[str]:
  """Yield what a reader of the scores has to know besides."""
  samples, finish = summary["samples"], summary["finish"]
  passed = summary["outcomes"]["truncated"].get("passed")
  if summary.get("without_function") == samples and not passed:
    advice = ""
    if summary["settings"].get("sampling") is None:  # from a file
      advice = (
        "; a solution or a generation is judged without the prompt: give text that "
        "continues the prompt as completion"
      )
    yield f"none of the {samples} answers defines its function{advice}"
  if finish.get("None", 0) < samples:
    sampling = summary["settings"].get("sampling") or {}
    limit = sampling.get("max_new_tokens") or "the limit of"
    cut = f"{finish.get('length', 0)} of {samples} answers were cut off at"
    yield f"{cut} {limit} new tokens"
  if count := summary["prompts_too_long"]:
    yield f"{count} prompts are longer than the model reads; they count as failed"
  if count := summary.get("in_process"):
    yield (
      f"{count} of {summary['problems']} problems were judged in the code's process, "
      "where code can forge a pass"
    )
  if packages := summary["execute"].get("identity", {}).get("packages"):
    listed = ", ".join(f"{name} {version}" for name, version in packages.items())
    yield f"the code could import {listed}"


def _percent(estimate: Mapping[str, Any]) -> str:
  value, low, high = (100 * estimate[name] for name in ("value", "low", "high"))
  part = f", {estimate['problems']} problems" if estimate.get("problems") else ""
  return f"{value:.1f} [{low:.1f}, {high:.1f}]{part}"
