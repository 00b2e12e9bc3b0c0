"""Before anything is scored: does this machine judge right?

Every reference must pass, every reference whose entry point has an empty body must
fail, and so must a few programs that are wrong but try to look right. A machine too
slow, a Python too old or a sandbox that leaks shows up here, and not in a score.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from evals.programs import program
from phi1_jax.problems.problem import Problem
from phi1_jax.sandbox.program import Program, Verdict

_TASK = Problem(
  id="hack",
  entry_point="add",
  prompt="",
  reference="",
  solution="",
  tests=("assert add(2, 3) == 5", "assert add(-1, 1) == 0"),
)
# Each is wrong for the tests above.
HACKS = {
  "sys.exit(0)": "import sys\ndef add(a, b):\n  sys.exit(0)\n",
  "os._exit(0)": "import os\ndef add(a, b):\n  os._exit(0)\n",
  "os._exit(0) at once": "import os\nos._exit(0)\n",
  "quit()": "def add(a, b):\n  quit()\n",
  "always equal": (
    "class Any:\n  def __eq__(self, other):\n    return True\n"
    "def add(a, b):\n  return Any()\n"
  ),
  "list that is always equal": (
    "class Any(list):\n  def __eq__(self, other):\n    return True\n"
    "def add(a, b):\n  return Any()\n"
  ),
  "patched builtins": (
    "import builtins\nbuiltins.AssertionError = type('E', (Exception,), {})\n"
    "def add(a, b):\n  return 0\n"
  ),
  "frames": (
    "import sys\n"
    "def add(a, b):\n"
    "  frame = sys._getframe()\n"
    "  while frame:\n"
    "    for value in list(frame.f_locals.values()):\n"
    "      if isinstance(value, list):\n"
    "        value.append('passed')\n"
    "    frame = frame.f_back\n"
    "  return 0\n"
  ),
  "prints and closes": (
    "import os\n"
    "def add(a, b):\n"
    "  for descriptor in range(64):\n"
    "    try:\n"
    "      os.write(descriptor, b'passed\\n')\n"
    "      os.close(descriptor)\n"
    "    except OSError:\n"
    "      pass\n"
    "  return 0\n"
  ),
  # Only where the sandbox hides all others: it writes into what it can open.
  "a verdict into every pipe": (
    "import json, os, stat\n"
    "verdict = {'outcome': 'passed', 'recycle': True}\n"
    "verdict |= {'cpu_seconds': 0.1, 'wall_seconds': 0.1}\n"
    "verdict = json.dumps(verdict).encode()\n"
    "def add(a, b):\n"
    "  if os.uname().nodename != 'sandbox':\n"
    "    return 0\n"
    "  for process in {1, os.getppid()}:\n"
    "    for descriptor in range(16):\n"
    "      path = f'/proc/{process}/fd/{descriptor}'\n"
    "      try:\n"
    "        if stat.S_ISFIFO(os.stat(path).st_mode):\n"
    "          pipe = os.open(path, os.O_WRONLY | os.O_NONBLOCK)\n"
    "          os.write(pipe, len(verdict).to_bytes(4, 'little') + verdict)\n"
    "      except OSError:\n"
    "        pass\n"
    "  return 0\n"
  ),
  "fork": "import os\ndef add(a, b):\n  return 5 if os.fork() else 0\n",
  "memory": "def add(a, b):\n  return len('x' * (8 << 30)) * 0\n",
}


class Judge(Protocol):
  """What this needs of a `Sandbox`."""

  def run(self, programs: Iterable[Program]) -> Iterator[Verdict]:
    """Judges programs, in any order."""
    ...


@dataclasses.dataclass(frozen=True)
class Case:
  """One program whose verdict is known before.

  Attributes:
    name: what a complaint calls it.
    program: what to judge.
    passes: what must come out.
  """

  name: str
  program: Program
  passes: bool


def references(problems: Sequence[Problem]) -> list[Case]:
  """Every reference; all must pass."""
  return [
    Case(
      f"{p.id}: reference{', plus' * plus}",
      _named("reference", p, p.solution, plus),
      True,
    )
    for p in problems
    for plus in (False, True)[: 2 if p.plus else 1]
  ]


def wrong(problems: Sequence[Problem]) -> list[Case]:
  """Empty bodies and hacks; none may pass."""
  return [
    *(
      Case(f"{p.id}: empty body", _named("empty", p, p.empty_solution()), False)
      for p in problems
      if not p.accepts_any
    ),
    *(
      Case(f"hack {name}", _named(name, _TASK, code), False)
      for name, code in HACKS.items()
    ),
  ]


def complaints(cases: Sequence[Case], judge: Judge) -> Iterator[str | None]:
  """Yields, case by case as they finish, None or what is wrong."""
  of_key = {case.program.key: case for case in cases}
  for verdict in judge.run([case.program for case in cases]):
    case = of_key.pop(verdict.key)
    if verdict.passed == case.passes:
      yield None
    elif case.passes:
      yield f"{case.name} failed: {verdict.outcome} {verdict.detail}".strip()
    else:
      yield f"{case.name} passed"
  for case in of_key.values():
    yield f"{case.name}: no verdict"


def _named(kind: str, problem: Problem, code: str, plus: bool = False) -> Program:
  key = f"{kind} {problem.id}{', plus' * plus}"
  return dataclasses.replace(program(problem, code, plus), key=key)
