"""The problem of a benchmark."""

import ast
import dataclasses
import hashlib
import json
import warnings
from collections.abc import Iterable, Iterator

CPU_SECONDS = 3.0  # hundreds of times what nearly every reference takes
_Block = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@dataclasses.dataclass(frozen=True)
class Problem:
  """A task and what decides whether a program solves it.

  Attributes:
    id: name in the benchmark, e.g. "HumanEval/0" or "Mbpp/2".
    entry_point: name of the function or class that the tests call.
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

  def empty_solution(self) -> str | None:
    """Return the reference with an entry point that does nothing.

    A function or a class has `pass` for its body, and a name that is assigned is a
    function that returns None. None where the reference defines it in another way.
    """
    tree = parse(self.solution)
    found = list(definitions(tree, self.entry_point))
    for node in found:
      if isinstance(node, ast.Assign):
        node.value = ast.parse("lambda *_, **__: None", mode="eval").body
      else:
        node.body = [ast.Pass()]
    return ast.unparse(tree) + "\n" if found else None

  def names(self) -> frozenset[str]:
    """Return the names in the tests, among them all that they use of the code."""
    return frozenset(
      node.id
      for test in self.tests
      for node in ast.walk(parse(test))
      if isinstance(node, ast.Name)
    )


def definitions(scope: ast.AST, name: str) -> Iterator[_Block | ast.Assign]:
  """Yield the statements of a scope that define a name, those in an `if` too."""
  for node in ast.iter_child_nodes(scope):
    if isinstance(node, _Block):
      if node.name == name:
        yield node
    elif isinstance(node, ast.Assign):
      if any(isinstance(each, ast.Name) and each.id == name for each in node.targets):
        yield node
    else:
      yield from definitions(node, name)


def parse(source: str) -> ast.Module:
  r"""Return `ast.parse(source)`, without warnings as of "\d" in a string."""
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    return ast.parse(source)


def digest(problems: Iterable[Problem]) -> str:
  """Return the sha256 of everything that the problems say."""
  text = json.dumps([dataclasses.asdict(problem) for problem in problems])
  return hashlib.sha256(text.encode()).hexdigest()
