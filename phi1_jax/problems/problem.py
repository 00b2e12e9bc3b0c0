"""The problem of a benchmark."""

import ast
import dataclasses
import hashlib
import json
import warnings
from collections.abc import Iterable

CPU_SECONDS = 3.0  # hundreds of times what nearly every reference takes


@dataclasses.dataclass(frozen=True)
class Problem:
  """A task and what decides whether a program solves it.

  Attributes:
    id: name in the benchmark, e.g. "HumanEval/0" or "Mbpp/2".
    entry_point: name of the function that the tests call.
    prompt: HumanEval: the stub as published. MBPP: the text of the task.
    reference: HumanEval: the body that continues the prompt. MBPP: a whole program.
    solution: the reference as a whole program.
    tests: sources that run in order in one namespace; none may raise.
    examples: the tests as a prompt may show them, one assert each (MBPP only).
    setup: source that stands before the completion.
    cpu_seconds: CPU time that code and tests together may take.
    in_process: the tests need more of the code than plain data.
    plus: further tests, scored apart: a program passes these only if it passes `tests`.
    accepts_any: the tests accept any result.
  """

  id: str
  entry_point: str
  prompt: str
  reference: str
  solution: str
  tests: tuple[str, ...]
  examples: tuple[str, ...] = ()
  setup: str = ""
  cpu_seconds: float = CPU_SECONDS
  in_process: bool = False
  plus: tuple[str, ...] = ()
  accepts_any: bool = False

  def empty_solution(self) -> str:
    """Return the reference with `pass` for the body of its entry point."""
    tree = parse(self.solution)
    for node in tree.body:
      if isinstance(node, ast.FunctionDef) and node.name == self.entry_point:
        node.body = [ast.Pass()]
    return ast.unparse(tree) + "\n"

  def names(self) -> frozenset[str]:
    """Return the names in the tests, among them all that they use of the code."""
    return frozenset(
      node.id
      for test in self.tests
      for node in ast.walk(parse(test))
      if isinstance(node, ast.Name)
    )


def parse(source: str) -> ast.Module:
  r"""Return `ast.parse(source)`, without warnings as of "\d" in a string."""
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    return ast.parse(source)


def digest(problems: Iterable[Problem]) -> str:
  """Return the sha256 of everything that the problems say."""
  text = json.dumps([dataclasses.asdict(problem) for problem in problems])
  return hashlib.sha256(text.encode()).hexdigest()
