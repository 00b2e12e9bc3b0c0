"""One report of several runs: JSON, and a page of HTML made of it.

The JSON, which evals/assets/report.html shows:

  format       1
  runs         name (of the work directory, made unique), workdir, summary (its
               summary.json), and problems: id, entry_point, prompt (as the model saw
               it), reference (a whole program), tests (sources), and samples:
                 sample, text (raw), completion (cut), finish, tokens, log_probs,
                 seconds, and variants, "truncated" and "sanitized": code (as it was
                 executed), outcome, detail, failed_test, cpu_seconds, wall_seconds,
                 attempts, flags, dropped (what sanitizing left out)
  comparisons  of the first run of a task set with each other run of it, for both
               variants: a, b (names), variant, difference (of pass@1, b - a), p_value,
               method, only_a, only_b, low, high (see score.Comparison), ids_only_a and
               ids_only_b: problems that at least half of the samples of one run solve,
               and less than half of the other's
  points       of runs whose checkpoint says its step, for a plot of learning: run,
               task_set, prompt_style, variant, step, tokens_seen, value, low, high

Unknown numbers are null.
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from evals import prompts, score, summary, task_sets, workdir
from evals.execute import VARIANTS
from phi1_jax import InputError, storage
from phi1_jax.cli import command
from phi1_jax.storage import AnyPath

_OF_SAMPLE = ("sample", "text", "completion", "finish", "tokens", "seconds")
_OF_VARIANT = (
  *("code", "outcome", "detail", "failed_test", "cpu_seconds", "wall_seconds"),
  *("attempts", "flags", "dropped"),
)
_LONGEST_TEST = 20_000  # characters of a test's source in a report


def build(folders: Sequence[AnyPath], benchmarks: str | None = None) -> dict[str, Any]:
  """Gather runs that have been executed into the data of a report.

  `benchmarks` is where the files of MBPP and EvalPlus are; None: where they were when
  the run was judged, else in the usual places.

  Raises:
    InputError: a folder that is not a finished run.
  """
  if len(set(map(_absolute, folders))) < len(folders):
    raise InputError("report: the same run is named twice")
  runs, results = [], []
  for folder, name in zip(folders, _names(folders), strict=True):
    if not storage.exists(folder / workdir.RUN):
      raise InputError(
        f"report: got {folder}, expected the work directory of a run of `python -m "
        f"evals`, with {workdir.RUN} in it"
      )
    run = storage.read_json(folder / workdir.RUN)
    settings, place = run["settings"], workdir.benchmarks_of(run, benchmarks)
    problems = task_sets.problems_of(settings, place)
    known = task_sets.base_name(settings["task_set"])
    asked = prompts.build_all(problems, known, settings["prompt_style"], place)
    samples = summary.read(folder, asked)
    # It says which scores are wanted, but may be older than the verdicts.
    wanted = storage.read_json(folder / workdir.SUMMARY)["difference"]
    ks = [int(n.removeprefix("pass@")) for n in wanted if n.startswith("pass@")]
    results.append(samples)
    found: dict[str, Any] = {"name": name, "workdir": str(folder)}
    found["summary"] = summary.scored(folder, samples, ks)
    found["problems"] = [_problem(asked[n], of) for n, of in samples.items()]
    runs.append(found)
  return {
    "format": 1,
    "runs": runs,
    "comparisons": list(_comparisons(runs, results)),
    "points": [point for run in runs for point in _points(run)],
  }


def render(template: str, filters: dict[str, Any] | None = None, **values: Any) -> str:
  """Return a page that needs no server, no network and no other file.

  `template` is its file name in evals/assets; `values` are its variables.
  """
  environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent / "assets"),
    autoescape=True,  # completions may hold HTML
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
  )
  environment.policies["json.dumps_kwargs"] = {"allow_nan": False}
  environment.filters |= filters or {}
  return environment.get_template(template).render(values)


def _names(folders: Sequence[AnyPath]) -> list[str]:
  """Return the folders' own names, or their paths if two have the same name."""
  names = [_absolute(folder).name for folder in folders]
  return names if len({*names}) == len(names) else [str(folder) for folder in folders]


def _absolute(path: AnyPath) -> AnyPath:
  return path if storage.is_remote(path) else Path(path).resolve()


def _problem(
  prompt: prompts.Prompt, samples: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
  problem = prompt.problem
  tests = [
    test if len(test) <= _LONGEST_TEST else f"{test[:2000]}... ({len(test)} characters)"
    for test in (*problem.tests, *problem.plus)
  ]
  return {
    "id": problem.id,
    "entry_point": problem.entry_point,
    "prompt": prompt.text,
    "reference": problem.solution,
    "tests": tests,
    "samples": [
      {name: row.get(name) for name in _OF_SAMPLE}
      | {"log_probs": workdir.finite(row.get("log_probs"))}
      | {"variants": {v: {n: of[n] for n in _OF_VARIANT} for v, of in variants}}
      for row in samples
      for variants in [row["variants"].items()]
    ],
  }


def _comparisons(
  runs: Sequence[Mapping[str, Any]], results: Sequence[summary.Samples]
) -> Iterator[dict[str, Any]]:
  first: dict[str, tuple[str, summary.Samples]] = {}
  for run, found in zip(runs, results, strict=True):
    task_set = run["summary"]["settings"]["task_set"]
    name, other = first.setdefault(task_set, (run["name"], found))
    for variant in VARIANTS if other is not found else ():
      a, b = summary.correct(other, variant), summary.correct(found, variant)
      most = {n: (2 * sum(a[n]) >= len(a[n]), 2 * sum(b[n]) >= len(b[n])) for n in a}
      yield {
        "a": name,
        "b": run["name"],
        "variant": variant,
        **dataclasses.asdict(score.compare(a, b)),
        "ids_only_a": [n for n in a if most[n] == (True, False)],
        "ids_only_b": [n for n in a if most[n] == (False, True)],
      }


def _points(run: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
  settings, generated = run["summary"]["settings"], run["summary"]["generate"]
  shared = {"run": run["name"], "step": generated.get("step")}
  shared |= {"tokens_seen": generated.get("tokens_seen")}
  shared |= {name: settings[name] for name in ("task_set", "prompt_style")}
  for variant, scores in run["summary"]["scores"].items():
    if "pass@1" in scores and shared["step"] is not None:
      ends = {name: scores["pass@1"][name] for name in ("value", "low", "high")}
      yield {**shared, "variant": variant, **ends}


def main(parser: command.Parser, argv: Sequence[str]) -> int:
  """Compare runs: a table on the terminal, JSON and HTML in files."""
  parser.add_argument("runs", nargs="+", type=storage.parse, metavar="RUN")
  page = Path("report.html")
  words = f"the page (default: {page} in this folder); the JSON goes beside it"
  parser.add_argument("--output", type=storage.parse, default=page, help=words)
  workdir.add_benchmarks(parser)
  arguments = parser.parse(argv)
  output = storage.full(arguments.output)
  if output.suffix != ".html":
    raise InputError(
      f"--output: got {output}, expected a name that ends in .html; the JSON is "
      "written beside it"
    )
  if (output.parent / workdir.RUN).exists():
    raise InputError(
      f"--output: {output} lies in the work directory of a run, whose files a report "
      "could overwrite; name another folder"
    )
  data = build(arguments.runs, arguments.benchmarks)
  print(summary.table([(run["name"], run["summary"]) for run in data["runs"]]))
  for pair in data["comparisons"]:
    print(
      f"{pair['b']} - {pair['a']}, {pair['variant']}: {100 * pair['difference']:+.1f} "
      f"(p = {pair['p_value']:.3f}, {pair['method']})"
    )
  content = json.dumps(data, allow_nan=False)
  html = render("report.html", data=data)
  for path, text in ((output.with_suffix(".json"), content), (output, html)):
    try:
      path.parent.mkdir(parents=True, exist_ok=True)
      storage.write_text(path, text)
    except OSError as error:
      raise InputError(f"--output: cannot write {path} ({error.strerror})") from None
    print(f"written to {path}")
  return command.DONE
