"""Comparison of a run's verdicts with published ones, sample by sample.

It reads EvalPlus' eval_results.json of any version, and the results.jsonl of OpenAI's
human-eval (task_id, passed).
"""

import json
from collections import defaultdict
from typing import Any

from evals import workdir
from evals.summary import Samples
from evals.task_sets import base_name
from phi1_jax import InputError, storage
from phi1_jax.problems import evalplus, files
from phi1_jax.storage import AnyPath

RESULT = "compare.json"
_PASSES = ("pass", "success")
_COUNTS = ("both pass", "both fail", "only ours", "only theirs")
_SHOWN = 20  # differences that are printed
Published = dict[str, list[dict[str, bool]]]


def read(file: AnyPath) -> tuple[Published, dict[str, Any]]:
  """Return, by problem id, what each sample passes: {"base": ..., "plus": ...}.

  With it the file's path and EvalPlus' `hash` (md5) of the problems, None without one.

  Raises:
    InputError: neither of the forms.
  """
  text = files.read_text(file, "expected the file of --compare")
  found, hashed = defaultdict(list), None
  try:
    if '"eval"' in text[:200]:
      content = json.loads(text)
      hashed = content.get("hash")
      for task, result in content["eval"].items():
        found[task] = _of_task(result)
    else:
      for line in filter(str.strip, text.split("\n")):
        row = json.loads(line)
        found[row["task_id"]].append({"base": bool(row["passed"])})
  except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
    raise InputError(
      f"--compare: got {file} ({type(error).__name__}: {error}), expected EvalPlus' "
      "eval_results.json, or JSON lines with task_id and passed"
    ) from None
  return dict(found), {"file": str(file), "hash": hashed}


def _of_task(result: Any) -> list[dict[str, bool]]:
  """Return the samples of a task in EvalPlus' results."""
  if isinstance(result, list):
    names = ("base", "plus")
    return [
      {n: row[f"{n}_status"] in _PASSES for n in names if row.get(f"{n}_status")}
      for row in result
    ]
  suites = [[status in _PASSES for status, *_ in result["base"]]]
  if result.get("plus"):
    suites.append([status in _PASSES for status, *_ in result["plus"]])
  return [
    dict(zip(("base", "plus"), row, strict=False)) for row in zip(*suites, strict=True)
  ]


def compare(samples: Samples, published: Published) -> dict[str, Any]:
  """Return the counts and the differences of two judges.

  A sample counts as "plus" passed if it passes the base tests too. Samples of a problem
  are in the same order.

  Returns:
    `samples` (compared), `missing` (ours without theirs), `counts` and `differences`
    by variant and suite.
  """
  counts: dict[str, dict[str, int]] = {}
  differences: list[dict[str, Any]] = []
  pairs = [
    (problem, row, theirs)
    for problem, rows in samples.items()
    for row, theirs in zip(rows, published.get(problem, []), strict=False)
  ]
  for problem, row, theirs in pairs:
    for variant, of in row["variants"].items():
      for suite in ("base", "plus") if "plus" in of else ("base",):
        if suite not in theirs:
          continue
        judged = [of, of["plus"]] if suite == "plus" else [of]
        failed = next((v for v in judged if v["outcome"] != "passed"), None)
        other = theirs["base"] and theirs[suite]
        counted = counts.setdefault(f"{variant}, {suite}", dict.fromkeys(_COUNTS, 0))
        words = ("only theirs", "both fail") if failed else ("both pass", "only ours")
        counted[words[not other]] += 1
        if (failed is None) != other:
          failed = failed or {"outcome": "passed"}
          differences.append(
            {"problem": problem, "sample": row["sample"], "variant": variant}
            | {
              "suite": suite,
              "ours": failed["outcome"],
              "detail": failed.get("detail"),
            }
          )
  missing = sum(map(len, samples.values())) - len(pairs)
  found = {"samples": len(pairs), "missing": missing, "counts": counts}
  return found | {"differences": differences}


def write(
  folder: AnyPath, samples: Samples, published: Published, source: dict[str, Any]
) -> str:
  """Write compare.json; return what a terminal shows of it."""
  found = source | compare(samples, published)
  storage.write_json(folder / RESULT, found)
  lines = [f"compared verdicts of {found['samples']} samples"]
  if found["missing"]:
    lines[0] += f"; {found['missing']} samples have no published verdict"
  task_set = base_name(storage.read_json(folder / workdir.RUN)["settings"]["task_set"])
  names = {md5: name for name, (_, _, md5) in evalplus.TASK_SETS.items()}
  theirs = names.get(str(source["hash"]), task_set)
  if task_set in evalplus.TASK_SETS and theirs != task_set:
    lines.append(
      f"  these verdicts are of {theirs}, the run is of {task_set}: their tests differ"
    )
  for name, counts in found["counts"].items():
    listed = ", ".join(f"{kind} {count}" for kind, count in counts.items())
    lines.append(f"  {name:16}: {listed}")
  for row in found["differences"][:_SHOWN]:
    lines.append(
      f"  {row['problem']}, sample {row['sample']}, {row['variant']}, {row['suite']}: "
      f"{row['ours']} here {row['detail'] or ''}"[:160].rstrip()
    )
  more = len(found["differences"]) - _SHOWN
  return "\n".join(lines + [f"  and {more} more differences"] * (more > 0))
