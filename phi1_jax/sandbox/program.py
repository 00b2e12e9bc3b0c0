"""Input and output of the sandbox: Program, Verdict, and the outcomes."""

import dataclasses

from phi1_jax import InputError

OUTCOMES = {
  "passed": "every statement of the tests ran to its end",
  "wrong": "an assert of the tests failed",
  "raised": "an exception left the code, or the tests could not use its result",
  "syntax_error": "the code is not valid Python",
  "exited": "the code left: sys.exit, os._exit, or it closed its channel to the tests",
  "crashed": "the code's process died of a signal, e.g. SIGSEGV",
  "cpu_limit": "code and tests together used up their CPU time",
  "wall_limit": "the wall limit passed, and passed again when retried alone",
  "memory_limit": "MemoryError, or the kernel killed the process for memory",
  "opaque_result": "a result that is not plain data was compared or computed with",
  "output_limit": "a result is larger than one message may be (16 MiB)",
  "no_entry_point": "the code does not define a name that the tests use",
  "unsupported": "the tests need in_process=True, e.g. they pass a function",
  "broken_tests": "the tests themselves are not valid Python",
  "worker_lost": "the sandbox's own process died, twice, while judging this program",
}


_SOURCE_LENGTH = 1 << 20


@dataclasses.dataclass(frozen=True)
class Program:
  """Untrusted code and the trusted tests that judge it.

  Attributes:
    key: name of the program in its verdict; unique within a run.
    code: untrusted; executed as the source of a module.
    tests: trusted sources, executed in order in one namespace of their own. Names
      that they do not define are looked up in the code; Python's builtins are never
      taken from the code, unless the tests use nothing else of it.
    cpu_seconds: CPU time of code and tests together. The wall limit is four times
      this, at least a few seconds.
    in_process: run the tests inside the code's process. Only for tests that need the
      code's own classes beyond calling them and using attributes (comparing their
      instances, subclassing, catching them); code can forge such a pass.
  """

  key: str
  code: str
  tests: tuple[str, ...]
  cpu_seconds: float = 3.0
  in_process: bool = False

  def __post_init__(self):
    if not 0 < self.cpu_seconds < 86_400:
      raise InputError(
        f"Program {self.key!r}: cpu_seconds is {self.cpu_seconds}, expected a number"
        " above 0 and below 86400."
      )
    if len(self.code) + sum(map(len, self.tests)) > _SOURCE_LENGTH:
      raise InputError(
        f"Program {self.key!r}: code and tests are longer than {_SOURCE_LENGTH}"
        " characters; cut them."
      )
    if isinstance(self.tests, str):
      raise InputError(
        f"Program {self.key!r}: tests is one string, expected a tuple of sources;"
        " write (source,)."
      )


@dataclasses.dataclass(frozen=True)
class Verdict:
  """Result of judging a program.

  Attributes:
    key: the program's.
    outcome: one of OUTCOMES.
    detail: one line, e.g. "AssertionError: f(2) == 3, got 4"; at most 500 characters.
    failed_test: source of the statement of the tests that did not get through.
    cpu_seconds: used by code and tests together.
    wall_seconds: elapsed time.
    attempts: 2 when a wall-time stop or a lost worker was retried alone.
    flags: "overrides_eq" (the code mentions __eq__), "in_process".
  """

  key: str
  outcome: str
  detail: str = ""
  failed_test: str | None = None
  cpu_seconds: float = 0.0
  wall_seconds: float = 0.0
  attempts: int = 1
  flags: tuple[str, ...] = ()

  @property
  def passed(self) -> bool:
    """Whether every test ran to its end."""
    return self.outcome == "passed"
