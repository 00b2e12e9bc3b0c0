"""Checks of a teacher's texts: their code is run in the sandbox."""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Sequence

from phi1_jax.curation.document import Decision, Document, Drop, Keep
from phi1_jax.sandbox.program import Program, Verdict
from phi1_jax.sandbox.sandbox import Sandbox

_WINDOW = 1024  # candidates that are run before the next are taken
# Trusted programs that share a process: starting one costs as much as running many.
_TOGETHER = 32
_LONGEST = 100_000  # characters; a longer program is no exercise
# Runs (code, tests) pairs, each in names of its own; tests see the names of their code.
_JOINT = """
programs = {pairs!r}
passed = 0
for code, tests in programs:
  names = {{"__name__": __name__}}
  exec(compile(code, "<code>", "exec", dont_inherit=True), names)
  names = dict(names)
  for test in tests:
    exec(compile(test, "<test>", "exec", dont_inherit=True), names)
  passed += 1
"""


@dataclasses.dataclass(frozen=True)
class Candidate:
  """A teacher's text, and how to check it.

  Attributes:
    document: what is kept if the check passes.
    code: the program to run, without the tests.
    tests: statements that must pass after it; () if running to the end is enough.
  """

  document: Document
  code: str
  tests: tuple[str, ...] = ()

  def length(self) -> int:
    """Return the characters of program and tests."""
    return len(self.code) + sum(map(len, self.tests))


@dataclasses.dataclass(frozen=True)
class Checker:
  """A runner of candidates.

  Attributes:
    sandbox: where.
    stage: the verdict goes into the provenance of this stage.
    together: run many programs in one process, for code that this project wrote.
    mark: keep what fails, marked, rather than drop it.
    cpu_seconds: for code and tests of one candidate.
  """

  sandbox: Sandbox
  stage: str
  together: bool = False
  mark: bool = False
  cpu_seconds: float = 3.0

  def decisions(self, candidates: Iterable[Candidate | Drop]) -> Iterator[Decision]:
    """Yield a decision for each candidate, in order; drops pass."""
    iterator = iter(candidates)
    while window := list(itertools.islice(iterator, _WINDOW)):
      verdicts = self._verdicts([d for d in window if isinstance(d, Candidate)])
      for each in window:
        yield each if isinstance(each, Drop) else self._decide(each, verdicts)

  def _decide(self, candidate: Candidate, verdicts: dict[str, Verdict]) -> Decision:
    document = candidate.document
    verdict = verdicts.get(document.id)
    if verdict is None:
      return Drop(document, "too long to run")
    noted = {**document.provenance.get(self.stage, {}), "verdict": verdict.outcome}
    document = document.noted(self.stage, noted)
    if verdict.passed or self.mark:
      return Keep(document)
    evidence = {"detail": verdict.detail, "failed_test": verdict.failed_test}
    return Drop(document, f"code: {verdict.outcome}", evidence)

  def _verdicts(self, candidates: Sequence[Candidate]) -> dict[str, Verdict]:
    short = {c.document.id: c for c in candidates if c.length() <= _LONGEST}
    alone = list(short.values())
    verdicts: dict[str, Verdict] = {}
    if self.together:
      starts = range(0, len(alone), _TOGETHER)
      groups = {str(n): alone[n : n + _TOGETHER] for n in starts}
      programs = [self._joint(key, group) for key, group in groups.items()]
      for verdict in self.sandbox.run(programs):
        if verdict.passed:
          for candidate in groups[verdict.key]:
            name = candidate.document.id
            verdicts[name] = dataclasses.replace(verdict, key=name)
      alone = [c for c in alone if c.document.id not in verdicts]
    for verdict in self.sandbox.run(map(self._program, alone)):
      verdicts[verdict.key] = verdict
    return verdicts

  def _program(self, each: Candidate) -> Program:
    tests = each.tests or ("pass",)
    return Program(each.document.id, each.code, tests, self.cpu_seconds)

  def _joint(self, key: str, group: Sequence[Candidate]) -> Program:
    code = _JOINT.format(pairs=[(each.code, each.tests) for each in group])
    tests = (f"assert passed == {len(group)}",)
    return Program(key, code, tests, self.cpu_seconds * len(group))
