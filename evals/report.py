"""One report of several runs: JSON, and a page of HTML made of it; or a study's page.

The JSON, which evals/page.py shows and anybody may read:

  format       1
  runs         a list:
    name         of the work directory, made unique
    workdir      its path
    summary      its summary.json: settings, scores and rates with intervals,
                 outcomes, times
    problems     a list:
      id, entry_point, prompt (as the model saw it), reference (a whole program),
      tests (sources)
      samples      a list:
        sample, text (raw), completion (cut), finish, tokens, log_probs, seconds
        variants     "truncated" and "sanitized", each:
          code (as it was executed), outcome, detail, failed_test, cpu_seconds,
          wall_seconds, attempts, flags, dropped (what sanitizing left out)
  comparisons  of every two runs of one task set, for both variants:
    a, b         names
    variant, difference (of pass@1, b - a), p_value, method ("mcnemar" or "bootstrap"),
    only_a, only_b, low, high (see score.Comparison)
    ids_only_a, ids_only_b   problems that at least half of the samples of one run
                 solve, and less than half of the other's
  points       of runs whose checkpoint says its step, for a plot of learning:
    run, task_set, prompt_style, variant, step, tokens_seen, value, low, high (pass@1)

Numbers that are not known are null.
"""

import argparse
import contextlib
import dataclasses
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from evals import (
  exercises,
  generate,
  page,
  programs,
  prompts,
  real_functions,
  score,
  summary,
  workdir,
)
from evals.completions import ids_by_name
from evals.config import CUSTOM, EvaluationConfig, benchmark_of
from evals.programs import VARIANTS
from phi1_jax import InputError, storage
from phi1_jax.cli import command
from phi1_jax.problems import evalplus, humaneval, mbpp, written
from phi1_jax.problems.problem import Problem, digest
from phi1_jax.storage import AnyPath
from phi1_jax.text import settings_file

# Of a study's work directory (see evals/study/), at its beginning and at its end.
_LONGEST_TEST = 20_000  # characters of a test's source in a report
_BEGUN, _STUDY = "study_settings.json", "study.json"


def load_problems(task_set: str, folder: str | None) -> list[Problem]:
  """The problems of a task set of any benchmark."""
  benchmark = benchmark_of(task_set)
  if benchmark == "exercises":
    return list(exercises.load(task_set))
  if benchmark == "doctests":
    return list(real_functions.load(task_set))
  if benchmark == "unconventional":
    return list(written.load(task_set))
  if benchmark in ("humaneval+", "mbpp+"):
    return evalplus.load(task_set, folder)
  return humaneval.load() if benchmark == "humaneval" else mbpp.load(task_set, folder)


def problems_of(settings: Mapping[str, Any], folder: str | None) -> list[Problem]:
  """Return the problems that a run's settings name.

  Args:
    settings: task_set, and perhaps `problems` (see `custom`) and `subset` (ids).
    folder: where benchmarks are.

  Raises:
    InputError: the file has changed since the run began.
  """
  file = settings.get("problems")
  if file:
    problems = humaneval.read(storage.parse(file["file"]))
    if digest(problems) != file["digest"]:
      raise InputError(
        f"{file['file']}: other problems than those that the run began with; restore "
        "the file, or begin a run in another --workdir"
      )
  else:
    problems = load_problems(base_name(settings["task_set"]), folder)
  subset = settings.get("subset")
  return [p for p in problems if p.id in subset] if subset else problems


def custom(file: AnyPath) -> dict[str, Any]:
  """Return the settings that name the problems of a user's file."""
  problems = humaneval.read(file)
  stem = file.name.partition(".")[0]
  path = str(_absolute(file))
  return {
    "task_set": f"{CUSTOM}{stem}-{len(problems)}",
    "problems": {"file": path, "digest": digest(problems)},
  }


def style_of(settings: Mapping[str, Any]) -> str:
  """Return the prompt style that suits a user's problems: are they stubs, or texts?"""
  problems = problems_of(settings, None)
  texts = all(problem.examples for problem in problems)
  return "docstring-one-test" if texts else "as-is"


def subset(problems: Sequence[Problem], task_set: str, given: str) -> dict[str, Any]:
  """Return the settings that name a part of a task set.

  Args:
    problems: of the whole task set.
    task_set: its name.
    given: ids with commas between them, or a file with one per line. The part after
      the slash is enough.

  Raises:
    InputError: an id that is not in the task set, or of several problems in it.
  """
  path = Path(given)
  text = path.read_text() if path.is_file() else given.replace(",", "\n")
  known = ids_by_name(problems)
  names = [name.strip() for name in text.splitlines() if name.strip()]
  unknown = [name for name in names if name not in known]
  if unknown or not names:
    raise InputError(
      f"--subset: got {(unknown or [given])[0]!r}, expected ids of {task_set} such as "
      f"{problems[0].id!r}, with commas, or a file of them"
    )
  doubtful = next((name for name in names if len(known[name]) > 1), None)
  if doubtful:
    raise InputError(
      f"--subset: got {doubtful!r}, which may be any of "
      f"{', '.join(known[doubtful][:3])}; expected the whole id"
    )
  chosen = {known[name][0] for name in names}
  ids = [p.id for p in problems if p.id in chosen]
  name = ", ".join(ids) if len(ids) < 4 else f"ids {settings_file.digest(ids)[:8]}"
  return {
    "task_set": f"{task_set}[{len(ids)} of {len(problems)}: {name}]",
    "subset": ids,
  }


def base_name(task_set: str) -> str:
  """Return the name of the task set that a subset is part of."""
  return task_set.partition("[")[0]


def build(folders: Sequence[AnyPath], benchmarks: str | None = None) -> dict[str, Any]:
  """Gathers runs into the data of a report.

  Args:
    folders: work directories that have been executed.
    benchmarks: where MBPP is.

  Raises:
    InputError: a folder that is no finished run.
  """
  if len({_absolute(folder) for folder in folders}) < len(folders):
    raise InputError("report: the same run is named twice")
  runs, results = [], []
  for folder, name in zip(folders, _names(folders), strict=True):
    settings = storage.read_json(folder / workdir.RUN)["settings"]
    name_of_set = base_name(settings["task_set"])
    known = EvaluationConfig(name_of_set, settings["prompt_style"])
    problems = problems_of(settings, benchmarks)
    asked = prompts.build_all(problems, known.task_set, known.prompt_style, benchmarks)
    found = summary.read(folder, problems, asked)
    # It says which scores are wanted, but may be older than the verdicts.
    ks = summary.ks_of(storage.read_json(folder / workdir.SUMMARY))
    results.append(found)
    runs.append(
      {
        "name": name,
        "workdir": str(folder),
        "summary": summary.scored(folder, found, ks),
        "problems": [_problem(p, asked[p.id], found) for p in problems],
      }
    )
  return {
    "format": 1,
    "runs": runs,
    "comparisons": _comparisons(runs, results),
    "points": [point for run in runs for point in _points(run)],
  }


def check_output(output: AnyPath) -> None:
  """Refuses a place where the report would overwrite something else.

  Raises:
    InputError: not an HTML file, or in the work directory of a run.
  """
  if output.suffix != ".html":
    raise InputError(
      f"--output: got {output}, expected a name that ends in .html; the JSON is "
      "written beside it"
    )
  if (_absolute(output).parent / workdir.RUN).exists():
    raise InputError(
      f"--output: {output} lies in the work directory of a run, whose files a report "
      "could overwrite; name another folder"
    )


def write(data: Mapping[str, Any], output: AnyPath) -> list[AnyPath]:
  """Write `output` (HTML) and JSON beside it.

  Returns:
    The files that were written.
  """
  check_output(output)
  json_path = output.with_suffix(".json")
  with _writing(output):
    output.parent.mkdir(parents=True, exist_ok=True)
    storage.write_text(json_path, json.dumps(data, allow_nan=False))
    storage.write_text(output, page.render(data))
  return [json_path, output]


@contextlib.contextmanager
def _writing(output: AnyPath) -> Iterator[None]:
  """Says in a line that a page cannot be written."""
  try:
    yield
  except OSError as error:
    raise InputError(f"--output: cannot write {output} ({error.strerror})") from None


def _names(folders: Sequence[AnyPath]) -> list[str]:
  """Names of the folders, with as much of the path as tells them apart."""
  parts = [_absolute(folder).parts for folder in folders]
  for size in itertools.count(1):
    names = ["/".join(part[-size:]) for part in parts]
    if len(set(names)) == len(names):
      return names
  raise AssertionError


def _absolute(path: AnyPath) -> AnyPath:
  return path if storage.is_remote(path) else Path(path).resolve()


def _problem(
  problem: Problem, prompt: prompts.Prompt, found: summary.Results
) -> dict[str, Any]:
  return {
    "id": problem.id,
    "entry_point": problem.entry_point,
    "prompt": prompt.text,
    "reference": problem.solution,
    "tests": [_shortened(test) for test in (*problem.tests, *problem.plus)],
    "samples": [
      _sample(problem, prompt, row, found) for row in found.completions[problem.id]
    ],
  }


def _shortened(source: str) -> str:
  length = len(source)
  return (
    source if length <= _LONGEST_TEST else f"{source[:2000]}... ({length} characters)"
  )


def _sample(
  problem: Problem,
  prompt: prompts.Prompt,
  row: Mapping[str, Any],
  found: summary.Results,
) -> dict[str, Any]:
  fields = ("sample", "text", "completion", "finish", "tokens", "log_probs", "seconds")
  of_verdict = (
    *("outcome", "detail", "failed_test", "cpu_seconds", "wall_seconds"),
    *("attempts", "flags", "dropped"),
  )
  variants = {}
  for judged in programs.variants(problem, prompt, row):
    verdict = found.verdicts[row["key"], judged.variant]
    variants[judged.variant] = {
      "code": judged.code,
      **{field: verdict[field] for field in of_verdict},
    }
  sample = {field: row.get(field) for field in fields}
  sample["log_probs"] = generate.finite(sample["log_probs"])
  return {**sample, "variants": variants}


def _comparisons(
  runs: Sequence[Mapping[str, Any]], results: Sequence[summary.Results]
) -> list[dict[str, Any]]:
  compared = []
  for (run_a, a), (run_b, b) in itertools.combinations(
    zip(runs, results, strict=True), 2
  ):
    sets = [run["summary"]["settings"]["task_set"] for run in (run_a, run_b)]
    if sets[0] != sets[1]:
      continue
    for variant in VARIANTS:
      solved_a, solved_b = a.correct(variant), b.correct(variant)
      compared.append(
        {
          "a": run_a["name"],
          "b": run_b["name"],
          "variant": variant,
          **dataclasses.asdict(score.compare(solved_a, solved_b)),
          "ids_only_a": [n for n in solved_a if _half(solved_a, n, solved_b)],
          "ids_only_b": [n for n in solved_a if _half(solved_b, n, solved_a)],
        }
      )
  return compared


def _half(
  these: Mapping[str, Sequence[bool]], name: str, those: Mapping[str, Sequence[bool]]
) -> bool:
  def share(run: Mapping[str, Sequence[bool]]) -> float:
    return sum(run[name]) / len(run[name])

  return share(these) >= 0.5 > share(those)


def _points(run: Mapping[str, Any]) -> list[dict[str, Any]]:
  found = run["summary"]
  generated = found["generate"]
  if generated.get("step") is None:
    return []
  return [
    {
      "run": run["name"],
      "task_set": found["settings"]["task_set"],
      "prompt_style": found["settings"]["prompt_style"],
      "variant": variant,
      "step": generated["step"],
      "tokens_seen": generated.get("tokens_seen"),
      **{
        name: found["scores"][variant]["pass@1"][name]
        for name in ("value", "low", "high")
      },
    }
    for variant in VARIANTS
    if "pass@1" in found["scores"][variant]
  ]


def _study(folders: Sequence[AnyPath], output: AnyPath) -> int:
  """Writes the page of a study anew."""
  if len(folders) > 1:
    raise InputError(f"report: {folders[0]} is a study, expected it alone")
  if not (folders[0] / _STUDY).is_file():
    raise InputError(
      f"report: {folders[0]} is a study that has not come to its end; `python -m evals "
      f"study` with --workdir={folders[0]} goes on with it"
    )
  from evals.study import page as study_page  # it needs matplotlib

  data = storage.read_json(folders[0] / _STUDY)
  if data["format"] != study_page.FORMAT:
    raise InputError(
      f"report: {folders[0]} was made by another version of this code (format "
      f"{data['format']}, expected {study_page.FORMAT}), which alone can render it"
    )
  with _writing(output):
    output.parent.mkdir(parents=True, exist_ok=True)
    for path in study_page.write(data, output.parent, output.stem):
      print(f"written to {path}")
  return command.DONE


def add_benchmarks(parser: argparse.ArgumentParser) -> None:
  """Adds the flag that says where MBPP is."""
  parser.add_argument(
    "--benchmarks",
    metavar="FOLDER",
    help="where MBPP's and EvalPlus' files are (default: "
    "$PHI1_JAX_BENCHMARKS, else ~/.cache/phi1_jax/benchmarks, filled when empty)",
  )


def main(about: str, argv: Sequence[str]) -> int:
  """Compares runs: a table on the terminal, JSON and HTML in files."""
  parser = command.Parser(
    "report",
    about,
    "python -m evals report runs/humaneval runs/humaneval_sampled",
  )
  parser.prog = "python -m evals report"
  parser.add_argument("runs", nargs="+", type=storage.parse, metavar="RUN")
  parser.add_argument("--output", type=storage.parse, default=Path("report.html"))
  add_benchmarks(parser)
  arguments = parser.parse(argv)
  check_output(arguments.output)
  if any((arguments.runs[0] / name).is_file() for name in (_BEGUN, _STUDY)):
    return _study(arguments.runs, arguments.output)
  data = build(arguments.runs, arguments.benchmarks)
  print(summary.table([(run["name"], run["summary"]) for run in data["runs"]]))
  for pair in data["comparisons"]:
    print(
      f"{pair['b']} - {pair['a']}, {pair['variant']}: {100 * pair['difference']:+.1f} "
      f"(p = {pair['p_value']:.3f}, {pair['method']})"
    )
  for path in write(data, arguments.output):
    print(f"written to {path}")
  return command.DONE
