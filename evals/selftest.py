"""Self-test: whether this machine judges right, before anything is scored.

Every reference must pass, every reference whose entry point has an empty body must
fail, and so must a few programs that are wrong but try to look right. This finds a
machine that is too slow, a Python that is too old and a sandbox that leaks.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from evals import execute
from phi1_jax import InputError
from phi1_jax.cli.progress import Progress
from phi1_jax.problems.problem import Problem
from phi1_jax.sandbox.program import Program
from phi1_jax.sandbox.sandbox import Sandbox

_TASK = Problem(
  id="hack",
  entry_point="add",
  prompt="",
  reference="",
  solution="",
  tests=("assert add(2, 3) == 5", "assert add(-1, 1) == 0"),
)


def _hacks() -> dict[str, str]:
  text = (Path(__file__).parent / "assets/hacks.txt").read_text(encoding="utf-8")
  parts = re.split(r"^=== (.*)\n", text, flags=re.MULTILINE)[1:]
  return dict(zip(parts[::2], parts[1::2], strict=True))


HACKS = _hacks()  # by name: programs that are wrong for the tests above


class UnfitError(RuntimeError):
  """This machine does not judge right; the message names the programs."""


def failures(
  problems: Sequence[Problem],
  judge: Sandbox,
  hacks: Mapping[str, str] = HACKS,
  description: str = "self-test",
) -> list[tuple[str | None, bool, str]]:
  """Judge references, empty bodies and hacks; return those that are judged wrong.

  Returns:
    Id of the problem (None for a hack), whether it should pass, and a message.
  """
  cases: dict[str, tuple[str | None, bool, str]] = {}
  programs: list[Program] = []

  def add(kind: str, problem: Problem, code: str, plus: bool, passes: bool) -> None:
    _, made = execute.program(problem, code, plus)
    if made is None:
      raise InputError(f"{problem.id}: its {kind} is longer than the sandbox takes")
    key, hack = f"{kind} {problem.id}{', plus' * plus}", problem is _TASK
    name = kind if hack else f"{problem.id}: {kind}{', plus' * plus}"
    cases[key] = None if hack else problem.id, passes, name
    programs.append(dataclasses.replace(made, key=key))

  for problem in problems:
    add("reference", problem, problem.solution, False, True)
    if problem.plus:
      add("reference", problem, problem.solution, True, True)
    empty = None if problem.accepts_any else problem.empty_solution()
    if empty is not None:
      add("empty body", problem, empty, False, False)
  for name, code in hacks.items():
    add(f"hack {name}", _TASK, code, False, False)
  found = []
  with Progress(len(cases), "programs", description) as bar:
    for verdict in judge.run(programs):
      of, passes, name = cases.pop(verdict.key)
      if verdict.passed != passes:
        got = f"failed: {verdict.outcome} {verdict.detail}" if passes else "passed"
        if missing := re.search(r"No module named '(\w+)", got):
          got += f" (--packages={missing[1]} lets the code and the tests import it)"
        found.append((of, passes, f"{name} {got}".strip()))
      bar.update(1)
  found += [(of, right, f"{name}: no verdict") for of, right, name in cases.values()]
  return sorted(found, key=lambda failure: failure[-1])


def check(problems: Sequence[Problem], judge: Sandbox, file: str | None = None) -> None:
  """Run the self-test; `file` is the user's, if the problems are from there.

  Raises:
    InputError: a problem of the user's file is wrong.
    UnfitError: a reference fails, or a program that is wrong passes.
  """
  found = failures(problems, judge)
  if file:
    refuse(file, found)
  if found:
    lines = "\n  ".join(message for *_, message in found[:20])
    raise UnfitError(
      f"the self-test found {len(found)} programs judged wrong on this machine, so "
      f"nothing is scored:\n  {lines}"
    )


def refuse(file: str, found: Sequence[tuple[str | None, bool, str]]) -> None:
  """Refuse a user's file in which a reference fails, or an empty body passes."""
  if own := [message for of, _, message in found if of]:
    raise InputError(
      f"{file}: {f'{chr(10)}  '.join(own)}; expected tests that canonical_solution "
      "passes and an empty body fails"
    )
