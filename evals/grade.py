"""python -m evals grade: an LLM grades completions from 0 to 10.

The paper had GPT-4 grade 50 unconventional problems: first a short verbal evaluation,
then a grade, and no unit tests (section 4). Its prompt is not published; ours is
assets/grade_prompt.txt. Here the grader is itself under test: it does not know whose
code it reads, it is asked several times, programs whose grade is known are mixed in,
and its grades are compared with the unit tests' verdicts. Planted are

  reference   the reference solution: a 10
  empty       the reference without a body: a 0
  constant    the reference's signature, and one answer for all inputs: a 0
  misreading  a wrong solution by hand, where the task set has such: a plausible slip,
              so no 0, but what the tests refuse does not belong above the middle

The work directory:

  programs.jsonl  program (its digest), problem, question, code, runs ([run, sample] of
                  each completion that is this program), planted (its kind)
  grades.jsonl    program, problem, repeat, grade, evaluation (the grader's words),
                  request (the key of the reply in the LLM's journal), reason (why there
                  is not a grade, else null)
  grades.json     prompt, models (by the names that the server gave), unparsed (answers
                  without a grade), planted (kind -> programs, graded, mean), cost,
                  complaints (why the grader cannot be trusted), and runs, each with
    understanding_score  value, low, high (a 95% interval over problems), method: the
                       mean grade in percent, of a mean per completion and then problem
    problems, completions, unparsed   that have a grade; answers that gave none
    spread             between two repeats of a completion: mean absolute difference
    agreement          with the unit tests, of the mean grade of each completion: passed
                       and failed (completions), mean_passed, mean_failed, and auc: how
                       often a passed one has the higher grade than a failed one; a tie
                       counts half; 0.5 is chance

Unknown values are null. Replies are in the LLM's journal: the same command again, with
more runs or after an interruption, sends only new requests.
"""

import ast
import collections
import dataclasses
import itertools
import json
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats
from scipy.spatial import distance

from evals import report, score, task_sets, workdir
from phi1_jax import storage
from phi1_jax.cli import command
from phi1_jax.cli.progress import Progress
from phi1_jax.curation.prompt import Prompt
from phi1_jax.llm.client import Client
from phi1_jax.llm.config import LlmConfig
from phi1_jax.llm.conversation import Answered, Malformed
from phi1_jax.llm.request import Request, clean
from phi1_jax.problems import written
from phi1_jax.problems.problem import Problem, definitions, parse
from phi1_jax.settings import Count, NotNegative, PositiveInt, Settings
from phi1_jax.storage import AnyPath
from phi1_jax.text import settings_file

PROGRAMS, GRADES, RESULT = "programs.jsonl", "grades.jsonl", "grades.json"
# Kind of a planted program -> its name, and the mean grades that a grader to be trusted
# gives to them.
_KINDS = {
  "reference": ("references", "8 up", lambda mean: mean >= 8),
  "empty": ("empty bodies", "3 at most", lambda mean: mean <= 3),
  "constant": ("constants", "3 at most", lambda mean: mean <= 3),
  "misreading": ("misreadings", "less than 5", lambda mean: mean < 5),
}
_VARIANT = "truncated"  # what the model wrote, before it is sanitized
_BEST = 10
# The answer of a constant program, chosen by the id of its problem.
_CONSTANTS = (0, 1, True, "", "a", None)
_LAST_LINE = re.compile(r"GRADE: (\d+)")


@dataclasses.dataclass(frozen=True)
class GradeConfig(Settings):
  """How the grader is asked (gin name: `Grade`); `Llm` says which model it is.

  Attributes:
    repeats: how often each program is graded.
    controls: problems per task set of which solutions are planted; with 0 nothing says
      whether the grades can be trusted.
    temperature: of the grader. At 0 repeats would measure the server, not the grader.
    max_tokens: of a reply; one that is cut off is asked for with twice as many.
  """

  repeats: PositiveInt = 3
  controls: Count = 25
  temperature: NotNegative = 1.0
  max_tokens: PositiveInt = 600


def gather(
  folders: Sequence[AnyPath], config: GradeConfig, benchmarks: str | None = None
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
  """Return the rows of programs.jsonl, and the runs whose completions they are.

  A run has name, workdir, settings, and samples: problem id -> (key of the program,
  whether it passed the tests) of each sample.

  Raises:
    InputError: a folder that is not a finished run, or is named twice.
  """
  programs: dict[str, dict[str, Any]] = {}
  runs = []

  def add(problem: Problem, code: str) -> dict[str, Any]:
    """Add a program; blank lines at its end make no other program."""
    content = {"problem": problem.id, "question": question(problem)}
    content["code"] = code.rstrip() + "\n"
    key = settings_file.digest(content)
    return programs.setdefault(
      key, {"program": key, **content, "runs": [], "planted": None}
    )

  for run in report.build(folders, benchmarks)["runs"]:
    settings = run["summary"]["settings"]
    place = workdir.benchmarks_of(run["summary"], benchmarks)
    problems = {p.id: p for p in task_sets.problems_of(settings, place)}
    samples: dict[str, list[tuple[str, bool]]] = defaultdict(list)
    for row in run["problems"]:
      for sample in row["samples"]:
        judged = sample["variants"][_VARIANT]
        program = add(problems[row["id"]], judged["code"])
        program["runs"].append((run["name"], sample["sample"]))
        passed = judged["outcome"] == "passed"
        samples[row["id"]].append((program["program"], passed))
    runs.append({n: run[n] for n in ("name", "workdir")} | {"settings": settings})
    runs[-1]["samples"] = dict(sorted(samples.items()))
    every = list(problems.values())
    for kind, problem, code in plant(every, settings["task_set"], config.controls):
      add(problem, code)["planted"] = kind
  # In the order of the keys, which tells nothing.
  return [programs[key] for key in sorted(programs)], runs


def plant(
  problems: Sequence[Problem], task_set: str, number: int
) -> Iterator[tuple[str, Problem, str]]:
  """Yield the planted programs of so many problems: kind, problem, code.

  Their ids alone decide which problems, and a larger number adds to a smaller. The task
  set decides whether there are wrong solutions by hand.
  """
  name = task_set.removeprefix("exercises-")
  wrong = written.wrong_solutions(name) if name in written.TASK_SETS else {}
  ordered = sorted(problems, key=lambda problem: settings_file.digest(problem.id))
  for problem in ordered[:number]:
    yield "reference", problem, problem.solution
    made = {"empty": problem.empty_solution(), "constant": _constant_solution(problem)}
    yield from ((kind, problem, code) for kind, code in made.items() if code)
    for _, code in wrong.get(problem.id, ()):
      yield "misreading", problem, code


def _constant_solution(problem: Problem) -> str | None:
  """Return the reference with a function that gives one answer to all, or None."""
  tree = parse(problem.solution)
  place = int(settings_file.digest(problem.id), 16) % len(_CONSTANTS)
  functions = [
    node
    for node in definitions(tree, problem.entry_point)
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
  ]
  for node in functions:
    # With the docstring, as completions have it: its absence would give it away.
    kept = node.body[:1] if ast.get_docstring(node) is not None else []
    node.body = [*kept, ast.Return(ast.Constant(_CONSTANTS[place]))]
  return ast.unparse(tree) + "\n" if functions else None


def question(problem: Problem) -> str:
  """Return a problem as the grader sees it, without reference and hidden tests.

  MBPP's texts name no function, so the first test is shown, as in the prompt that
  models get (docstring-one-test).
  """
  shown = problem.examples[:1]
  return "\n\n".join([problem.prompt.strip(), *(f"Example: {test}" for test in shown)])


def load_prompt() -> Prompt:
  """Return the prompt; its version is the digest of its file."""
  file = Path(__file__).parent / "assets/grade_prompt.txt"
  return Prompt("prompt", file.read_text(encoding="utf-8"))


def requests(
  programs: Sequence[Mapping[str, Any]], config: GradeConfig, prompt: Prompt
) -> Iterator[Request]:
  """Yield all requests: every program once, then all again for the next repeat.

  A request holds the problem and the code, and not where the code is from. A budget
  that ends early leaves whole repeats.
  """
  for repeat in range(config.repeats):
    for row in programs:
      code = clean(row["code"]).strip("\n")
      places = {"problem": clean(row["question"]), "code": code}
      yield prompt.request(places, config.max_tokens, config.temperature, repeat)


def read_reply(text: str) -> tuple[int, str]:
  """Return grade and evaluation of a reply.

  Raises:
    Malformed: it is not an evaluation and then, on the last line, a grade.
  """
  *before, last = text.strip().split("\n")
  match = _LAST_LINE.fullmatch(last.strip())
  evaluation = "\n".join(before).strip()
  if match is None:
    raise Malformed('its last line is not "GRADE: " and a whole number')
  if int(match[1]) > _BEST:
    raise Malformed(f"its grade is {match[1][:9]}, which is not from 0 to {_BEST}")
  if not evaluation:
    raise Malformed("there is no evaluation before the grade")
  if "GRADE:" in evaluation:
    raise Malformed("it gives a grade in more than one place")
  return int(match[1]), evaluation


def make(
  folder: Path,
  programs: Sequence[dict[str, Any]],
  runs: Sequence[Mapping[str, Any]],
  config: GradeConfig,
  llm: LlmConfig,
) -> dict[str, Any]:
  """Have programs graded, and write the files of a work directory.

  Returns:
    The content of grades.json.

  Raises:
    InputError: the folder was begun with another grader; or see `Client`.
    BudgetError, RequestError: see `Client.ask`.
  """
  prompt, seen, rows, models = load_prompt(), 0, [], set()
  total = len(programs) * config.repeats
  with Progress(total, "grades", "grading") as bar:

    def show(now: Any) -> None:
      nonlocal seen
      bar.update(now.done - seen, **now.budget.figures())
      seen = now.done

    with Client(llm, show) as client:
      settings = {**client.identity(), "prompt": prompt.version}
      settings |= {n: getattr(config, n) for n in ("temperature", "max_tokens")}
      begun = settings_file.begin(folder / RESULT, settings)
      answers = client.ask(requests(programs, config, prompt), read_reply, total)
      asked = itertools.product(range(config.repeats), programs)
      for (repeat, program), answer in zip(asked, answers, strict=True):
        row = {n: program[n] for n in ("program", "problem")} | {"repeat": repeat}
        if isinstance(answer, Answered):
          models |= {answer.reply.model} - {""}
          (grade, evaluation), request, reason = answer.value, answer.reply.key, None
        else:
          (grade, evaluation), request = (None, ""), answer.key
          reason = answer.reason
        row |= {"grade": grade, "evaluation": evaluation, "request": request}
        rows.append(row | {"reason": reason})
      cost = client.facts()["cost"]
  for name, lines in ((PROGRAMS, programs), (GRADES, rows)):
    text = "".join(json.dumps(row, allow_nan=False) + "\n" for row in lines)
    storage.write_text(folder / name, text)
  data = {name: begun[name] for name in ("format", "settings")}
  data |= {"prompt": prompt.record(), "models": sorted(filter(None, models))}
  data |= {**results(programs, runs, rows), "cost": cost}
  storage.write_json(folder / RESULT, data)
  return data


def results(
  programs: Sequence[Mapping[str, Any]],
  runs: Sequence[Mapping[str, Any]],
  rows: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
  """Return the numbers of grades.json; `rows` are the lines of grades.jsonl."""
  grades: dict[str, list[int]] = defaultdict(list)
  for row in rows:
    if row["grade"] is not None:
      grades[row["program"]].append(row["grade"])
  unparsed = collections.Counter(r["program"] for r in rows if r["grade"] is None)
  means = {key: math.fsum(found) / len(found) for key, found in grades.items()}
  judged = []
  for run in runs:
    by_problem = [
      [means[key] for key, _ in samples if key in means]
      for samples in run["samples"].values()
    ]
    of_problems = [math.fsum(each) / len(each) for each in by_problem if each]
    samples = [each for found in run["samples"].values() for each in found]
    good, bad = (
      [means[key] for key, passed in samples if key in means and passed is kind]
      for kind in (True, False)
    )
    agreement = {"passed": len(good), "failed": len(bad), "mean_passed": _mean(good)}
    agreement |= {"mean_failed": _mean(bad), "auc": auc(good, bad)}
    facts = {name: run[name] for name in ("name", "workdir", "settings")}
    judged.append(
      facts
      | {
        "understanding_score": _understanding(of_problems),
        "problems": len(of_problems),
        "completions": len(good) + len(bad),
        "unparsed": sum(unparsed[key] for key, _ in samples),
        "spread": spread(grades.get(key, ()) for key, _ in samples),
        "agreement": agreement,
      }
    )
  planted = {}
  for kind in _KINDS:
    keys = [row["program"] for row in programs if row["planted"] == kind]
    found = [means[key] for key in keys if key in means]
    if keys:
      facts = {"programs": len(keys), "graded": len(found)}
      planted[kind] = facts | {"mean": _mean(found)}
  return {
    "repeats": 1 + max((row["repeat"] for row in rows), default=-1),
    "programs": len(programs),
    "unparsed": unparsed.total(),
    "runs": judged,
    "planted": planted,
    "complaints": complaints({kind: facts["mean"] for kind, facts in planted.items()}),
  }


def complaints(means: Mapping[str, float | None]) -> list[str]:
  """Return why a grader that gives planted programs such grades cannot be trusted."""
  found = []
  for kind, mean in means.items():
    name, expected, right = _KINDS[kind]
    if mean is None:
      found.append(f"no grade of the planted {name} could be read")
    elif not right(mean):
      found.append(f"{name} get {mean:.1f} on average, expected {expected}")
  nothing = "nothing was planted, so nobody knows what its grades mean"
  return found if means else [nothing]


def auc(higher: Sequence[float], lower: Sequence[float]) -> float | None:
  """Return how often a value of `higher` exceeds one of `lower`, ties half."""
  if not len(higher) or not len(lower):
    return None
  u = stats.mannwhitneyu(higher, lower).statistic
  return float(u) / (len(higher) * len(lower))


def spread(repeats: Iterable[Sequence[float]]) -> float | None:
  """Return the mean absolute difference of two grades of a program, over programs."""
  several = (np.reshape(grades, (-1, 1)) for grades in repeats if len(grades) > 1)
  return _mean([float(distance.pdist(grades).mean()) for grades in several])


def _mean(values: Sequence[float]) -> float | None:
  return math.fsum(values) / len(values) if values else None


def _understanding(of_problems: Sequence[float]) -> dict[str, Any] | None:
  if not of_problems:
    return None
  found = score.mean_of([grade / _BEST for grade in of_problems])
  names = ("value", "low", "high")
  return {n: 100 * getattr(found, n) for n in names} | {"method": found.method}


def table(data: Mapping[str, Any]) -> str:
  """Return what a terminal shows of grades.json."""
  header = ("run", "task set", "understanding", "spread", "passed", "failed", "AUC")
  lines: list[tuple[str, ...]] = [(*header, "unparsed")]
  for run in data["runs"]:
    found, agreement = run["understanding_score"], run["agreement"]
    value = found and f"{found['value']:.1f} [{found['low']:.1f}, {found['high']:.1f}]"
    cells = (run["name"], run["settings"]["task_set"], value or "-")
    cells += (_text(run["spread"]),)
    for kind in ("passed", "failed"):
      cells += (f"{_text(agreement[f'mean_{kind}'])} ({agreement[kind]})",)
    lines.append((*cells, _text(agreement["auc"]), str(run["unparsed"])))
  text = workdir.columns(lines)
  for kind, facts in data["planted"].items():
    mean = f"mean {_text(facts['mean'])} of {facts['programs']}"
    text.append(f"planted {_KINDS[kind][0]}: {mean}")
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
  programs, runs = gather(arguments.runs, config, arguments.benchmarks)
  completions = sum(len(row["runs"]) for row in programs)
  planted = sum(row["planted"] is not None for row in programs)
  print(
    f"{completions:,} completions and {planted:,} planted programs: {len(programs):,} "
    f"different ones, each graded {config.repeats} times",
    flush=True,
  )
  if arguments.estimate:
    with Client(llm) as client:
      print(client.estimate(requests(programs, config, load_prompt())).text())
    return command.DONE
  with workdir.opened(arguments.workdir, "grading") as mirror:
    print(table(make(mirror.local, programs, runs, config, llm)))
  print(f"written to {arguments.workdir / RESULT}")
  return command.DONE
