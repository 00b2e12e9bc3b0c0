"""The second stage: runs completions against their tests. Needs no model and no JAX.

Each completion has two programs; the difference of their scores shows the effect of
sanitizing:

  truncated  the code before the completion, and the completion, cut at its first stop
             string; of a chat answer its code block
  sanitized  the part of the raw text that `extraction` finds: the entry point and its
             needs

It begins with the self-test (evals/selftest.py) and scores nothing on a machine that
fails it. A verdict is kept with the judge that gave it (isolation, Python, limits), so
another judge judges again, and the same judge resumes.
"""

import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from evals import extraction, workdir
from evals.extraction import Extraction
from evals.prompts import Prompt
from phi1_jax import InputError, storage
from phi1_jax.cli.progress import Progress
from phi1_jax.problems.problem import Problem, digest
from phi1_jax.sandbox import sandbox as sandboxes
from phi1_jax.sandbox.program import Program, Verdict
from phi1_jax.sandbox.sandbox import Sandbox
from phi1_jax.storage import AnyPath
from phi1_jax.text import settings_file

VARIANTS = ("truncated", "sanitized")
PLUS = "plus"
TOO_LONG = "too_long"  # the one outcome that is not the sandbox's
KEY = ("key", "variant", "program", "judge")  # fields that identify a verdict
_PYTHON = platform.python_version()  # parses and sanitizes


def variants(prompt: Prompt, row: Mapping[str, Any]) -> dict[str, Extraction]:
  """Return the programs of a line of completions.jsonl, by variant."""
  prefix = "" if row.get("whole") else prompt.prefix
  whole = prefix + row.get("text", row["completion"])
  code = prefix + row["completion"]
  code = extraction.futures_first(code) if prompt.chat else code
  truncated = Extraction(code, (), bool(row["completion"].strip()))
  entry, also = prompt.problem.entry_point, prompt.problem.names()
  try:
    found = extraction.extract(whole, entry, also, len(prefix), prompt.chat)
  except RecursionError:
    found = Extraction(code, ("nothing: nested too deeply to sanitize",))
  return {"truncated": truncated, "sanitized": found}


def program(
  problem: Problem, code: str, plus: bool = False
) -> tuple[str, Program | None]:
  """Return the key of a program, and the program; None if it is too long to judge.

  The key is a digest of code, tests and limits. So a program that several samples have
  in common is judged once, blank lines at the end aside. `plus` takes the further
  tests.
  """
  content = {
    "code": code.rstrip() + "\n",
    "tests": problem.plus if plus else problem.tests,
    "cpu_seconds": problem.cpu_seconds,
    "in_process": problem.in_process,
  }
  key = settings_file.digest(content)
  try:
    return key, Program(key=key, **content)
  except InputError:
    return key, None


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
  known = {name: record.get(name) for name in names}
  return known | {"parser": _PYTHON, "inside": settings_file.digest(sources)}


def execute(
  folder: Path,
  asked: Mapping[str, Prompt],
  judge: Sandbox,
  ready: Callable[[], None],
) -> int:
  """Add the missing lines of verdicts.jsonl, for both variants of every completion.

  `ready` is the self-test, called if there is something to run; it raises `UnfitError`.

  Returns:
    The number of programs that were run; equal ones are run once.
  """
  started, identity = time.monotonic(), judge_identity(judge)
  facts: dict[str, Any] = {"judge": settings_file.digest(identity)}
  rows, total = completions(folder, asked), 0
  waiting: dict[str, tuple[Program, list[dict[str, Any]]]] = {}
  with storage.JsonLines(folder / workdir.VERDICTS, every=1.0) as journal:
    done = {tuple(verdict[name] for name in KEY) for verdict in journal.rows}
    for _, made, verdict in wanted(rows, asked):
      verdict["judge"], total = facts["judge"], total + 1
      if tuple(verdict[name] for name in KEY) in done:
        continue
      if made:
        waiting.setdefault(made.key, (made, []))[1].append(verdict)
      else:
        journal.append(verdict | _facts(Verdict(verdict["program"], TOO_LONG)))
    if waiting:
      ready()
    left = sum(len(verdicts) for _, verdicts in waiting.values())
    with Progress(total, "verdicts", "executing", initial=total - left) as bar:
      passed, made = 0, [made for made, _ in waiting.values()]
      for found in judge.run(made) if made else ():
        for verdict in waiting[found.key][1]:
          journal.append(verdict | _facts(found))
          passed += found.passed
          bar.update(1, passed=str(passed))
  facts |= {"identity": identity, "problems": digest(p.problem for p in asked.values())}
  facts["seconds"] = time.monotonic() - started if waiting else 0.0
  workdir.note(folder, "execute", facts)
  return len(waiting)


def wanted(
  rows: Sequence[Mapping[str, Any]], asked: Mapping[str, Prompt]
) -> Iterator[tuple[Extraction, Program | None, dict[str, Any]]]:
  """Yield both programs of every completion, each with the beginning of its verdict.

  With `plus` tests there are two programs each, the second marked "suite": "plus".
  A program that is too long for the sandbox is None.
  """
  for row in rows:
    prompt = asked[row["task_id"]]
    for variant, judged in variants(prompt, row).items():
      verdict = {"key": row["key"], "variant": variant, "task_id": row["task_id"]}
      verdict |= {"sample": row["sample"], "answered": judged.answered}
      for plus in (False, True)[: 2 if prompt.problem.plus else 1]:
        key, made = program(prompt.problem, judged.code, plus)
        suite = {"suite": PLUS} if plus else {"dropped": list(judged.dropped)}
        yield judged, made, verdict | {"program": key} | suite


def completions(folder: AnyPath, asked: Mapping[str, Prompt]) -> list[dict[str, Any]]:
  """Return the completions that count: of these problems, at most `samples` each."""
  generated = storage.read_json(folder / workdir.RUN).get("generate", {})
  samples = generated.get("samples") or float("inf")  # a file's count as they are
  return [
    row
    for row in storage.read_lines(folder / workdir.COMPLETIONS)
    if row.get("task_id") in asked and row["sample"] < samples
  ]


def _facts(verdict: Verdict) -> dict[str, Any]:
  names = ("outcome", "detail", "failed_test", "attempts")
  return {name: getattr(verdict, name) for name in names} | {
    "cpu_seconds": round(verdict.cpu_seconds, 4),
    "wall_seconds": round(verdict.wall_seconds, 4),
    "flags": list(verdict.flags),
  }
