"""The second stage: runs completions against their tests. Needs no model and no JAX.

It begins with the self-test (evals/selftest.py) and scores nothing on a machine that
fails it. A verdict is kept with the judge that gave it (isolation, Python, limits), so
another judge judges again, and the same judge resumes.
"""

import functools
import platform
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from evals import programs, selftest, workdir
from evals.programs import VARIANTS
from evals.prompts import Prompt
from phi1_jax import InputError, storage
from phi1_jax.cli.progress import Progress
from phi1_jax.problems.problem import Problem, digest
from phi1_jax.sandbox import sandbox as sandboxes
from phi1_jax.sandbox.program import Program, Verdict
from phi1_jax.sandbox.sandbox import Sandbox
from phi1_jax.storage import AnyPath
from phi1_jax.text import settings_file

PLUS = "plus"
_PYTHON = platform.python_version()  # parses and sanitizes
TOO_LONG = "too_long"  # the one outcome that is not the sandbox's


def judge_identity(sandbox: Sandbox) -> dict[str, Any]:
  """Return everything that a sandbox's verdicts depend on beside the program."""
  record = sandbox.record()
  own, judge = (".".join(v.split(".")[:2]) for v in (_PYTHON, record["python"]))
  if own != judge:
    raise InputError(
      f"Python {own} would parse the programs, and Python {judge} judge them: run this "
      f"with Python {judge}, or install Python {own} where other users can read it"
    )
  names = ("isolation", "python", "seccomp", "memory_bytes", "packages")
  inside = Path(sandboxes.__file__).with_name("inside").glob("*.py")
  sources = {path.name: path.read_text() for path in inside}
  # A record without packages has the same digest as before there were any.
  known = {n: record[n] for n in names if n != "packages" or record.get(n)}
  return known | {"parser": _PYTHON, "inside": settings_file.digest(sources)}


def execute(
  folder: Path,
  problems: Sequence[Problem],
  asked: Mapping[str, Prompt],
  judge: Sandbox,
  identity: Mapping[str, Any],
  ready: Callable[[], None] | None = None,
) -> int:
  """Add the missing lines of verdicts.jsonl, for both variants of every completion.

  Args:
    folder: the work directory.
    problems: with the tests.
    asked: prompts by problem id.
    judge: the sandbox.
    identity: of the judge (see `judge_identity`).
    ready: the self-test, called if there is something to run; None for the usual.

  Returns:
    The number of programs that were run; equal ones are run once.

  Raises:
    UnfitError: the self-test failed.
  """
  started = time.monotonic()
  judge_digest = settings_file.digest(identity)
  rows = completions(folder, problems)
  with storage.JsonLines(folder / workdir.VERDICTS, every=1.0) as journal:
    done = {(v["key"], v["variant"], v["program"], v["judge"]) for v in journal.rows}
    to_run: dict[str, Program] = {}
    waiting: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for program, verdict in wanted(rows, problems, asked):
      key = verdict["program"]
      if (verdict["key"], verdict["variant"], key, judge_digest) in done:
        continue
      verdict["judge"] = judge_digest
      if program is None:
        journal.append(verdict | _facts(Verdict(key, TOO_LONG)))
      else:
        to_run[key] = program
        waiting[key].append(verdict)
    if to_run:
      (ready or functools.partial(selftest.check, problems, judge))()
    suites = sum(2 if problem.plus else 1 for problem in problems) / len(problems)
    total = round(len(VARIANTS) * len(rows) * suites)
    left = sum(map(len, waiting.values()))
    with Progress(total, "verdicts", "executing", initial=total - left) as bar:
      passed = 0
      for verdict in judge.run(list(to_run.values())) if to_run else ():
        for row in waiting.pop(verdict.key):
          journal.append(row | _facts(verdict))
          passed += verdict.passed
          bar.update(1, passed=str(passed))
  seconds = time.monotonic() - started if to_run else 0.0
  facts = {"judge": judge_digest, "identity": dict(identity), "seconds": seconds}
  facts["problems"] = digest(problems)
  workdir.note(folder, "execute", facts)
  return len(to_run)


def wanted(
  rows: Sequence[Mapping[str, Any]],
  problems: Sequence[Problem],
  asked: Mapping[str, Prompt],
) -> Iterator[tuple[Program | None, dict[str, Any]]]:
  """Yield both programs of every completion, each with the beginning of its verdict.

  With `plus` tests there are two programs each, the second marked "suite": "plus".
  A program that is too long for the sandbox is None.
  """
  of_id = {problem.id: problem for problem in problems}
  for row in rows:
    problem = of_id[row["task_id"]]
    found = programs.variants(problem, asked[problem.id], row)
    for variant, judged in found.items():
      verdict = {
        "key": row["key"],
        "variant": variant,
        "task_id": problem.id,
        "sample": row["sample"],
        "answered": judged.answered,
      }
      for plus in (False, True)[: 2 if problem.plus else 1]:
        digest, program = programs.program(problem, judged.code, plus)
        suite = {"suite": PLUS} if plus else {"dropped": list(judged.dropped)}
        yield program, verdict | {"program": digest} | suite


def completions(folder: AnyPath, problems: Sequence[Problem]) -> list[dict[str, Any]]:
  """Return the completions that count: of these problems, at most `samples` each."""
  known = {problem.id for problem in problems}
  generated = storage.read_json(folder / workdir.RUN).get("generate", {})
  samples = generated.get("samples") or float("inf")  # a file's count as they are
  return [
    row
    for row in storage.read_lines(folder / workdir.COMPLETIONS)
    if row.get("task_id") in known and row["sample"] < samples
  ]


def _facts(verdict: Verdict) -> dict[str, Any]:
  names = ("outcome", "detail", "failed_test", "attempts")
  return {name: getattr(verdict, name) for name in names} | {
    "cpu_seconds": round(verdict.cpu_seconds, 4),
    "wall_seconds": round(verdict.wall_seconds, 4),
    "flags": list(verdict.flags),
  }
