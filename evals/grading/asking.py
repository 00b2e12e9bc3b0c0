"""Programs of judged runs, and the grades from 0 to 10 that an LLM gives to them.

The paper had GPT-4 grade 50 unconventional problems: first a short verbal evaluation,
then a grade, and no unit tests (section 4). Its prompt is not published; ours is
prompt.txt. Here the grader is itself under test: it does not know whose code it
reads, it is asked several times, programs whose grade is known are mixed in, and its
grades are compared with the unit tests' verdicts (evals/grading/grades.py). The
programs with a known grade are

  reference   the reference solution: a 10
  empty       the reference without a body: a 0
  constant    the reference's signature, and one answer for all inputs: a 0
  misreading  a wrong solution by hand, where the task set has such: a plausible slip,
              so no 0, but what the tests refuse does not belong above the middle

The work directory:

  programs.jsonl  program (its digest), problem, code, runs ([run, sample] of each
                  completion that is this program), planted (its kind)
  grades.jsonl    program, problem, repeat, grade, evaluation (the grader's words),
                  request (the key of the reply in the LLM's journal), reason (why there
                  is not a grade, else null)
  grades.json     the results, see evals/grading/grades.py

Replies are in the LLM's journal: the same command again, with more runs or after an
interruption, sends only new requests.
"""

import ast
import dataclasses
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from evals import report, task_sets, workdir
from phi1_jax import InputError, storage
from phi1_jax.curation import prompt as prompts
from phi1_jax.curation.prompt import Prompt
from phi1_jax.llm.client import Client
from phi1_jax.llm.conversation import Answered, Malformed
from phi1_jax.llm.request import Request, clean
from phi1_jax.problems import written
from phi1_jax.problems.problem import Problem, parse
from phi1_jax.settings import Count, NotNegative, PositiveInt, Settings
from phi1_jax.storage import AnyPath
from phi1_jax.text import settings_file

PROGRAMS, GRADES, RESULT = "programs.jsonl", "grades.jsonl", "grades.json"
KINDS = ("reference", "empty", "constant", "misreading")
VARIANT = "truncated"  # what the model wrote, before it is sanitized
BEST = 10
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
    maximum_characters: of a program that are shown.
  """

  repeats: PositiveInt = 3
  controls: Count = 25
  temperature: NotNegative = 1.0
  max_tokens: PositiveInt = 600
  maximum_characters: PositiveInt = 12_000

  def identity(self) -> dict[str, Any]:
    """Return what decides a single grade; more repeats or controls only add others."""
    names = ("temperature", "max_tokens", "maximum_characters")
    return {name: getattr(self, name) for name in names}


@dataclasses.dataclass(frozen=True)
class Pool:
  """All programs to grade, each once."""

  # key -> problem and whole program, in the order of the keys, which tells nothing
  candidates: Mapping[str, tuple[Problem, str]]
  # whose completions they are: name (of the work directory, made unique), workdir,
  # settings, and samples: problem id -> (key of the program, whether it passed the
  # tests) of each sample
  runs: Sequence[Mapping[str, Any]]
  planted: Mapping[str, str]  # key -> kind of a planted program, one of `KINDS`

  def text(self, repeats: int) -> str:
    """Return a line for a terminal."""
    samples = (found for run in self.runs for found in run["samples"].values())
    return (
      f"{sum(map(len, samples)):,} completions and {len(self.planted):,} planted "
      f"programs: {len(self.candidates):,} different ones, each graded {repeats} times"
    )


def gather(
  folders: Sequence[AnyPath], config: GradeConfig, benchmarks: str | None = None
) -> Pool:
  """Return the programs of finished runs and the planted ones.

  Args:
    folders: work directories of `python -m evals BENCHMARK`.
    config: how many controls.
    benchmarks: where MBPP is.

  Raises:
    InputError: a folder that is not a finished run, or is named twice.
  """
  found: dict[str, tuple[Problem, str]] = {}
  runs, planted = [], {}

  def add(problem: Problem, code: str) -> str:
    """Add a program; blank lines at its end make no other program."""
    code = code.rstrip() + "\n"
    content = {"problem": problem.id, "question": question(problem), "code": code}
    key = settings_file.digest(content)
    found[key] = problem, code
    return key

  for run in report.build(folders, benchmarks)["runs"]:
    settings = run["summary"]["settings"]
    place = workdir.benchmarks_of(run["summary"], benchmarks)
    problems = {p.id: p for p in task_sets.problems_of(settings, place)}
    samples: dict[str, list[tuple[str, bool]]] = defaultdict(list)
    for row in run["problems"]:
      for judged in (sample["variants"][VARIANT] for sample in row["samples"]):
        key = add(problems[row["id"]], judged["code"])
        samples[row["id"]].append((key, judged["outcome"] == "passed"))
    facts = {"name": run["name"], "workdir": run["workdir"], "settings": settings}
    runs.append(facts | {"samples": dict(samples)})
    for kind, problem, code in plant(
      list(problems.values()), settings["task_set"], config.controls
    ):
      planted[add(problem, code)] = kind
  return Pool(dict(sorted(found.items())), runs, dict(sorted(planted.items())))


def plant(
  problems: Sequence[Problem], task_set: str, number: int
) -> Iterator[tuple[str, Problem, str]]:
  """Yield the planted programs of some problems: kind, problem, code.

  Args:
    problems: all of the set.
    task_set: its name, which decides whether there are wrong solutions by hand.
    number: of problems to plant programs of. Their ids alone decide which, and a larger
      number adds to a smaller.
  """
  name = task_set.removeprefix("exercises-")
  wrong = written.wrong_solutions(name) if name in written.TASK_SETS else {}
  ordered = sorted(problems, key=lambda problem: settings_file.digest(problem.id))
  for problem in ordered[:number]:
    yield "reference", problem, problem.solution
    yield "empty", problem, problem.empty_solution()
    yield "constant", problem, _constant_solution(problem)
    for _, code in wrong.get(problem.id, ()):
      yield "misreading", problem, code


def _constant_solution(problem: Problem) -> str:
  """Return the reference with an entry point that gives one answer to everything."""
  tree = parse(problem.solution)
  place = int(settings_file.digest(problem.id), 16) % len(_CONSTANTS)
  for node in tree.body:
    if isinstance(node, ast.FunctionDef) and node.name == problem.entry_point:
      # With the docstring, as completions have it: its absence would give it away.
      kept = node.body[:1] if ast.get_docstring(node) is not None else []
      node.body = [*kept, ast.Return(ast.Constant(_CONSTANTS[place]))]
  return ast.unparse(tree) + "\n"


def question(problem: Problem) -> str:
  """Return a problem as the grader sees it, without reference and hidden tests.

  MBPP's texts name no function, so the first test is shown, as in the prompt that
  models get (docstring-one-test).
  """
  shown = problem.examples[:1]
  return "\n\n".join([problem.prompt.strip(), *(f"Example: {test}" for test in shown)])


def load_prompt() -> Prompt:
  """Return the prompt; its version is the digest of its file."""
  file = Path(__file__).with_name("prompt.txt")
  return prompts.load(str(file), frozenset(("problem", "code")))


def requests(
  pool: Pool, config: GradeConfig, prompt: Prompt
) -> Iterator[tuple[str, int, Request]]:
  """Yield program, repeat and request of everything that is asked.

  A request holds the problem and the code, and not where the code is from. The order
  is that of the digests; a budget that ends early leaves whole repeats.
  """
  for repeat in range(config.repeats):
    for key, (problem, code) in pool.candidates.items():
      places = {
        "problem": clean(question(problem)),
        "code": _shown(code, config.maximum_characters),
      }
      request = prompt.request(places, config.max_tokens, config.temperature, repeat)
      yield key, repeat, request


def _shown(code: str, most: int) -> str:
  text = clean(code).strip("\n")
  if len(text) <= most:
    return text
  return f"{text[:most]}\n# {len(text) - most:,} more characters are not shown"


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
  if int(match[1]) > BEST:
    raise Malformed(f"its grade is {match[1][:9]}, which is not from 0 to {BEST}")
  if not evaluation:
    raise Malformed("there is no evaluation before the grade")
  if "GRADE:" in evaluation:
    raise Malformed("it gives a grade in more than one place")
  return int(match[1]), evaluation


def ask(
  pool: Pool, config: GradeConfig, prompt: Prompt, client: Client
) -> tuple[list[dict[str, Any]], list[str]]:
  """Request all grades.

  Returns:
    The rows of grades.jsonl, and the models that the server says have answered.
  """
  asked = list(requests(pool, config, prompt))
  wanted = [request for _, _, request in asked]
  rows, models = [], set()
  for (key, repeat, _), outcome in zip(
    asked, client.ask(wanted, read_reply, len(wanted)), strict=True
  ):
    grade, evaluation, reason = None, "", None
    if isinstance(outcome, Answered):
      models |= {outcome.reply.model}
      grade, evaluation = outcome.value
      request = outcome.reply.key
    else:
      request, reason = outcome.key, outcome.reason
    problem, _ = pool.candidates[key]
    row = {"program": key, "problem": problem.id, "repeat": repeat}
    row |= {"grade": grade, "evaluation": evaluation, "request": request}
    rows.append({**row, "reason": reason})
  return rows, sorted(filter(None, models))


def write(folder: Path, pool: Pool, rows: Iterable[Mapping[str, Any]]) -> None:
  """Write programs.jsonl and grades.jsonl, each whole or not at all.

  Raises:
    InputError: the folder cannot be written.
  """
  written_by: dict[str, list[tuple[str, int]]] = defaultdict(list)
  for run in pool.runs:
    for found in run["samples"].values():
      for sample, (key, _) in enumerate(found):
        written_by[key].append((run["name"], sample))
  programs = [
    {"program": key, "problem": problem.id, "code": code}
    | {"runs": sorted(written_by[key]), "planted": pool.planted.get(key)}
    for key, (problem, code) in pool.candidates.items()
  ]
  try:
    for name, lines in ((PROGRAMS, programs), (GRADES, rows)):
      text = "".join(json.dumps(row, allow_nan=False) + "\n" for row in lines)
      storage.write_text(folder / name, text)
  except OSError as error:
    raise InputError(f"{folder}: cannot be written ({error.strerror})") from None
