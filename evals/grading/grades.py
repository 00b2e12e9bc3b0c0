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
  planted            kind -> programs, graded, mean
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
from phi1_jax.cli import command
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
  runs = []
  for run in pool.runs:
    by_problem = {
      problem: [means[key] for key, _ in samples if key in means]
      for problem, samples in sorted(run["samples"].items())
    }
    of_problems = [_mean(each) for each in by_problem.values() if each]
    samples = [each for found in run["samples"].values() for each in found]
    runs.append(
      {
        **{name: run[name] for name in ("name", "workdir", "settings")},
        "understanding_score": _understanding(of_problems),
        "problems": len(of_problems),
        "completions": sum(key in means for key, _ in samples),
        "unparsed": sum(unparsed[key] for key, _ in samples),
        "spread": spread(grades.get(key, ()) for key, _ in samples),
        "agreement": _agreement(samples, means),
      }
    )
  planted = {}
  for kind in KINDS:
    keys = [key for key, of in pool.planted.items() if of == kind]
    found = [means[key] for key in keys if key in means]
    if keys:
      facts = {"programs": len(keys), "graded": len(found)}
      planted[kind] = facts | {"mean": _mean(found)}
  return {
    "repeats": 1 + max((row["repeat"] for row in rows), default=-1),
    "programs": len(pool.candidates),
    "unparsed": unparsed.total(),
    "runs": runs,
    "planted": planted,
    "complaints": complaints(planted),
  }


def complaints(planted: Mapping[str, Mapping[str, Any]]) -> list[str]:
  """Return why a grader that gave planted programs such grades cannot be trusted."""
  if not planted:
    return ["nothing was planted, so nobody knows what its grades mean"]
  found = []
  for kind, facts in planted.items():
    mean, name = facts["mean"], _NAMES[kind]
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


def table(data: Mapping[str, Any]) -> str:
  """Return what a terminal shows of grades.json."""
  header = ("run", "task set", "understanding", "spread", "passed", "failed", "AUC")
  lines: list[tuple[str, ...]] = [(*header, "unparsed")]
  for run in data["runs"]:
    found = run["understanding_score"]
    value = found and f"{found['value']:.1f} [{found['low']:.1f}, {found['high']:.1f}]"
    cells = (run["name"], run["settings"]["task_set"], value or "-")
    agreement = run["agreement"]
    cells += (_text(run["spread"]),)
    cells += tuple(
      f"{_text(agreement[f'mean_{kind}'])} ({agreement[kind]})"
      for kind in ("passed", "failed")
    )
    lines.append((*cells, _text(agreement["auc"]), str(run["unparsed"])))
  text = workdir.columns(lines)
  for kind, facts in data["planted"].items():
    mean = f"mean {_text(facts['mean'])} of {facts['programs']}"
    text.append(f"planted {_NAMES[kind]}: {mean}")
  text += [f"{label}: {value}" for label, value in data["cost"].items()]
  text += [f"THE GRADER CANNOT BE TRUSTED: {line}" for line in data["complaints"]]
  return "\n".join(text)


def _text(value: float | None) -> str:
  return "-" if value is None else f"{value:.2f}"


def main(parser: command.Parser, argv: Sequence[str]) -> int:
  """Grade runs, or print what that would cost."""
  add, path = parser.add_argument, storage.parse
  words = "work directories, executed"
  add("runs", nargs="+", type=path, metavar="RUN", help=words)
  add("--workdir", type=path, default=Path("runs/grades"), help="default: runs/grades")
  words = "print what it costs, send nothing, stop"
  add("--estimate", action="store_true", help=words)
  workdir.add_benchmarks(parser)
  arguments = parser.parse(argv)
  from phi1_jax.cli import gin_config  # after --help

  files = arguments.gin_files or ["gin/evals/grade.gin"]
  classes = {"Grade": GradeConfig, "Llm": LlmConfig}
  parts = gin_config.load(files, arguments.gin_bindings, classes)
  config, llm = parts["Grade"], parts["Llm"]
  pool = asking.gather(arguments.runs, config, arguments.benchmarks)
  print(pool.text(config.repeats), flush=True)
  if arguments.estimate:
    asked = asking.requests(pool, config, asking.load_prompt())
    with Client(llm) as client:
      print(client.estimate(request for _, _, request in asked).text())
    return command.DONE
  with workdir.opened(arguments.workdir, "grading") as mirror:
    print(table(make(mirror.local, pool, config, llm)))
  print(f"written to {arguments.workdir / asking.RESULT}")
  return command.DONE
