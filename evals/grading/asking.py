"""Grades from 0 to 10 that an LLM gives to judged completions, in place of tests.

The paper had GPT-4 grade 50 unconventional problems: first a short verbal evaluation,
then a grade, and no unit tests (section 4). Its prompt is not published; ours is
prompt.txt. Here the grader is itself under test: it does not know whose code it
reads, it is asked several times, programs whose grade is known are mixed in, and its
grades are compared with the unit tests' verdicts (evals/grading/grades.py).

The work directory:

  programs.jsonl  program (its digest), problem, code, runs ([run, sample] of each
                  completion that is this program), planted (as what)
  grades.jsonl    program, problem, repeat, grade, evaluation (the grader's words),
                  request (the key of the reply in the LLM's journal), reason (why there
                  is no grade, else null)
  grades.json     what they come to, see evals/grading/grades.py

Replies are in the LLM's journal, paid for once: the same command again, with more runs
or after an interruption, asks only what is new.
"""

import dataclasses
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from evals import report
from evals.grading import planting
from phi1_jax import InputError, storage
from phi1_jax.curation import prompt as prompts
from phi1_jax.curation.prompt import Prompt
from phi1_jax.curation.replies import Replies
from phi1_jax.llm.conversation import Answered, Malformed
from phi1_jax.llm.request import Request, clean
from phi1_jax.problems.problem import Problem
from phi1_jax.settings import Count, NotNegative, PositiveInt, Settings
from phi1_jax.storage import AnyPath
from phi1_jax.text import settings_file

PROGRAMS, GRADES, RESULT = "programs.jsonl", "grades.jsonl", "grades.json"
PROMPT = Path(__file__).with_name("prompt.txt")
PLACES = frozenset(("problem", "code"))
VARIANT = "truncated"  # what the model wrote, before anything cleans it up
BEST = 10
_LAST_LINE = re.compile(r"GRADE: (\d+)")


@dataclasses.dataclass(frozen=True)
class GradeConfig(Settings):
  """How the grader is asked (gin name: `Grade`); `Llm` says who it is.

  Attributes:
    repeats: how often each program is graded.
    controls: problems per task set of which solutions are planted; 0 plants none, and
      then nothing says whether the grades can be trusted.
    temperature: of the grader. At 0 the repeats would say how far the server repeats
      itself, and nothing of how sure the grader is.
    max_tokens: of a reply; one that is cut off is asked for with twice as many.
    maximum_characters: of a program that are shown.
  """

  repeats: PositiveInt = 3
  controls: Count = 25
  temperature: NotNegative = 1.0
  max_tokens: PositiveInt = 600
  maximum_characters: PositiveInt = 12_000

  def identity(self) -> dict[str, Any]:
    """What decides a single grade; more repeats or controls only add to the others."""
    names = ("temperature", "max_tokens", "maximum_characters")
    return {name: getattr(self, name) for name in names}


@dataclasses.dataclass(frozen=True)
class Candidate:
  """One program to grade.

  Attributes:
    problem: id of its problem.
    question: the problem as the grader sees it.
    code: the whole program.
  """

  problem: str
  question: str
  code: str

  @property
  def key(self) -> str:
    """A digest of all of it: equal programs are graded once."""
    return settings_file.digest(dataclasses.asdict(self))


@dataclasses.dataclass(frozen=True)
class GradedRun:
  """The completions of one run.

  Attributes:
    name: of its work directory, made unique.
    facts: its path and settings.
    samples: problem id -> (key of the program, whether it passed the tests) of each
      sample.
  """

  name: str
  facts: Mapping[str, Any]
  samples: Mapping[str, Sequence[tuple[str, bool]]]


@dataclasses.dataclass(frozen=True)
class Pool:
  """All that is graded, without doubles.

  Attributes:
    candidates: key -> program, in the order of the keys, which is no order at all.
    runs: whose completions they are.
    planted: key -> as what it was planted, a name of `planting.KINDS`.
  """

  candidates: Mapping[str, Candidate]
  runs: Sequence[GradedRun]
  planted: Mapping[str, str]

  def text(self, repeats: int) -> str:
    """One line for people."""
    completions = sum(len(found) for run in self.runs for found in run.samples.values())
    return (
      f"{completions:,} completions and {len(self.planted):,} planted programs: "
      f"{len(self.candidates):,} different ones, each graded {repeats} times"
    )


@dataclasses.dataclass(frozen=True)
class Answer:
  """What the grader says of a program."""

  grade: int
  evaluation: str


def gather(
  folders: Sequence[AnyPath], config: GradeConfig, benchmarks: str | None = None
) -> Pool:
  """Pools the programs of finished runs and the planted ones.

  Args:
    folders: work directories of `python -m evals BENCHMARK`.
    config: how many controls.
    benchmarks: where MBPP is.

  Raises:
    InputError: a folder that is no finished run, or is named twice.
  """
  found: dict[str, Candidate] = {}
  runs, planted = [], {}
  for run in report.build(folders, benchmarks)["runs"]:
    settings = run["summary"]["settings"]
    problems = {p.id: p for p in report.problems_of(settings, benchmarks)}
    samples: dict[str, list[tuple[str, bool]]] = defaultdict(list)
    for row in run["problems"]:
      for sample in row["samples"]:
        judged = sample["variants"][VARIANT]
        key = _add(found, problems[row["id"]], judged["code"])
        samples[row["id"]].append((key, judged["outcome"] == "passed"))
    facts = {"workdir": run["workdir"], "settings": settings}
    runs.append(GradedRun(run["name"], facts, dict(samples)))
    for each in planting.plant(
      list(problems.values()), settings["task_set"], config.controls
    ):
      planted[_add(found, problems[each.problem], each.code)] = each.kind
  return Pool(dict(sorted(found.items())), runs, dict(sorted(planted.items())))


def question(problem: Problem) -> str:
  """A problem as the grader sees it: never the reference, nor tests that are hidden.

  MBPP's texts name no function, so the first test goes with them, as it does in the
  prompt that models get (docstring-one-test).
  """
  shown = problem.examples[:1]
  return "\n\n".join([problem.prompt.strip(), *(f"Example: {test}" for test in shown)])


def load_prompt() -> Prompt:
  """The question; its version is the digest of its file."""
  return prompts.load(str(PROMPT), PLACES)


def requests(
  pool: Pool, config: GradeConfig, prompt: Prompt
) -> Iterator[tuple[str, int, Request]]:
  """Program, repeat and request of everything that is asked.

  A request holds the problem and the code and nothing of where the code is from. The
  order is that of the digests, whatever the runs; a budget that ends early leaves whole
  repeats.
  """
  for repeat in range(config.repeats):
    for key, candidate in pool.candidates.items():
      places = {
        "problem": clean(candidate.question),
        "code": _shown(candidate.code, config.maximum_characters),
      }
      request = prompt.request(places, config.max_tokens, config.temperature, repeat)
      yield key, repeat, request


def read_reply(text: str) -> Answer:
  """Evaluation and grade of a reply.

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
  return Answer(int(match[1]), evaluation)


def ask(
  pool: Pool, config: GradeConfig, prompt: Prompt, replies: Replies
) -> tuple[list[dict[str, Any]], list[str]]:
  """Asks for all grades.

  Returns:
    The rows of grades.jsonl, and the models that the server says have answered.
  """
  asked = list(requests(pool, config, prompt))
  wanted = [request for _, _, request in asked]
  rows, models = [], set()
  for (key, repeat, _), outcome in zip(
    asked, replies.ask(wanted, read_reply, len(wanted)), strict=True
  ):
    row = {"program": key, "problem": pool.candidates[key].problem, "repeat": repeat}
    if isinstance(outcome, Answered):
      models |= {outcome.reply.model}
      row |= {**dataclasses.asdict(outcome.value), "request": outcome.reply.key}
      rows.append({**row, "reason": None})
    else:
      row |= {"grade": None, "evaluation": "", "request": outcome.key}
      rows.append({**row, "reason": outcome.reason})
  return rows, sorted(filter(None, models))


def settings(config: GradeConfig, prompt: Prompt, replies: Replies) -> dict[str, Any]:
  """What decides a grade beside the program."""
  return {**replies.identity(), "prompt": prompt.version, **config.identity()}


def write(folder: Path, pool: Pool, rows: Iterable[Mapping[str, Any]]) -> None:
  """Writes programs.jsonl and grades.jsonl, each whole or not at all.

  Raises:
    InputError: the folder cannot be written.
  """
  try:
    storage.write_text(folder / PROGRAMS, _lines(_programs(pool)))
    storage.write_text(folder / GRADES, _lines(rows))
  except OSError as error:
    raise InputError(f"{folder}: cannot be written ({error.strerror})") from None


def _programs(pool: Pool) -> Iterator[dict[str, Any]]:
  written_by: dict[str, list[tuple[str, int]]] = defaultdict(list)
  for run in pool.runs:
    for found in run.samples.values():
      for sample, (key, _) in enumerate(found):
        written_by[key].append((run.name, sample))
  for key, candidate in pool.candidates.items():
    yield {
      "program": key,
      "problem": candidate.problem,
      "code": candidate.code,
      "runs": sorted(written_by[key]),
      "planted": pool.planted.get(key),
    }


def _lines(rows: Iterable[Mapping[str, Any]]) -> str:
  return "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows)


def _add(found: dict[str, Candidate], problem: Problem, code: str) -> str:
  """Takes a program in; blank lines at its end make no other one."""
  candidate = Candidate(problem.id, question(problem), code.rstrip() + "\n")
  return found.setdefault(candidate.key, candidate).key


def _shown(code: str, most: int) -> str:
  text = clean(code).strip("\n")
  if len(text) <= most:
    return text
  return f"{text[:most]}\n# {len(text) - most:,} more characters are not shown"
