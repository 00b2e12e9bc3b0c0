"""Drafts to decisions: their code is run in the sandbox."""

from __future__ import annotations

import ast
import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence

from phi1_jax.curation.document import Decision, Drop, Keep
from phi1_jax.curation.draft import Draft
from phi1_jax.sandbox.program import Program, Verdict
from phi1_jax.sandbox.sandbox import Sandbox
from phi1_jax.text import source

# Drafts that are judged before the next are asked for; only the order depends on it.
_WINDOW = 1024
# Trusted programs that share a process: starting one costs as much as running many.
_TOGETHER = 32
_LONGEST = 100_000  # characters; a longer program is no exercise


@dataclasses.dataclass(frozen=True)
class Judge:
  """Runs drafts.

  Attributes:
    sandbox: where.
    stage: whose provenance gets the verdict.
    together: many programs in one process, for code that this project wrote.
    mark: keep what fails, marked, rather than drop it.
    cpu_seconds: for code and tests of one draft.
    on_decision: called after each.
  """

  sandbox: Sandbox
  stage: str
  together: bool = False
  mark: bool = False
  cpu_seconds: float = 3.0
  on_decision: Callable[[], None] | None = None

  def decisions(self, drafts: Iterable[Draft | Drop]) -> Iterator[Decision]:
    """A decision for each draft, in their order."""
    iterator = iter(drafts)
    while window := list(itertools.islice(iterator, _WINDOW)):
      verdicts = self._verdicts([d for d in window if isinstance(d, Draft)])
      for draft in window:
        yield draft if isinstance(draft, Drop) else self._decide(draft, verdicts)
        if self.on_decision:
          self.on_decision()

  def _decide(self, draft: Draft, verdicts: dict[str, Verdict]) -> Decision:
    document = draft.document
    verdict = verdicts.get(document.id)
    if verdict is None:
      return Drop(document, "too long to run")
    noted = {**document.provenance.get(self.stage, {}), "verdict": verdict.outcome}
    document = document.noted(self.stage, noted)
    if verdict.passed or self.mark:
      return Keep(document)
    evidence = {"detail": verdict.detail, "failed_test": verdict.failed_test}
    return Drop(document, f"code: {verdict.outcome}", evidence)

  def _verdicts(self, drafts: Sequence[Draft]) -> dict[str, Verdict]:
    short = {d.document.id: d for d in drafts if _length(d) <= _LONGEST}
    alone = list(short.values())
    verdicts: dict[str, Verdict] = {}
    if self.together:
      groups = {str(n): group for n, group in enumerate(_groups(alone))}
      programs = [self._joint(key, group) for key, group in groups.items()]
      for verdict in self.sandbox.run(programs):
        if verdict.passed:
          for draft in groups[verdict.key]:
            name = draft.document.id
            verdicts[name] = dataclasses.replace(verdict, key=name)
      alone = [draft for draft in alone if draft.document.id not in verdicts]
    for verdict in self.sandbox.run(map(self._program, alone)):
      verdicts[verdict.key] = verdict
    return verdicts

  def _program(self, draft: Draft) -> Program:
    return Program(
      draft.document.id, draft.code, draft.tests or ("pass",), self.cpu_seconds
    )

  def _joint(self, key: str, group: Sequence[Draft]) -> Program:
    code = "\n\n".join(draft.code for draft in group)
    tests = tuple(test for draft in group for test in draft.tests) or ("pass",)
    return Program(key, code, tests, self.cpu_seconds * len(group))


def _groups(drafts: Iterable[Draft]) -> Iterator[list[Draft]]:
  """Groups whose programs define no name twice."""
  group: list[Draft] = []
  defined: set[str] = set()
  for draft in drafts:
    names = _defined(draft.code)
    if len(group) == _TOGETHER or names & defined:
      yield group
      group, defined = [], set()
    group.append(draft)
    defined |= names
  if group:
    yield group


def _defined(code: str) -> set[str]:
  tree = source.parse(code)
  body = tree.body if tree else []
  kinds = (ast.FunctionDef, ast.ClassDef)
  return {node.name for node in body if isinstance(node, kinds)}


def _length(draft: Draft) -> int:
  return len(draft.code) + sum(map(len, draft.tests))
