"""Sandbox: a handful of workers, and the order in which programs go to them."""

import collections
import dataclasses
import logging
import os
import re
import selectors
import time
from collections.abc import Iterable, Iterator, Sequence

from phi1_jax import InputError, cores
from phi1_jax.sandbox import levels
from phi1_jax.sandbox.packages import find as find_packages
from phi1_jax.sandbox.program import OUTCOMES, Program, Verdict
from phi1_jax.sandbox.worker import Lost, Worker

ENVIRONMENT = "PHI1_JAX_ISOLATION"
_START_SECONDS = 30.0
_GRACE_SECONDS = 10.0  # beyond the wall limit, which the worker itself watches
_FAILED_STARTS = 3
_OVERRIDES_EQ = re.compile(r"\b__eq__\b")


@dataclasses.dataclass
class _Seat:
  """A place for one worker, and what it is doing."""

  worker: Worker
  deadline: float
  ready: bool = False
  job: "_Job | None" = None


@dataclasses.dataclass
class _Job:
  program: Program
  attempts: int = 1


class Sandbox:
  """Judges programs in isolated workers. A context manager; one `run` at a time.

  Args:
    workers: processes at work at once; None for one per core.
    require_isolation: raise InputError rather than fall back to the level "rlimits".
    memory_bytes: address space of one program.
    isolation: take this level, one of levels.LEVELS, or raise InputError. None takes
      the one that PHI1_JAX_ISOLATION names, or the best that works.
    minimum_wall_seconds: least wall limit of a program.
    packages: installed distributions that the code and the tests may import.

  Attributes:
    isolation: the level in use.
  """

  def __init__(
    self,
    *,
    workers: int | None = None,
    require_isolation: bool = False,
    memory_bytes: int = 1 << 30,
    isolation: str | None = None,
    minimum_wall_seconds: float = 5.0,
    packages: Sequence[str] = (),
  ):
    if workers is not None and workers < 1:
      raise InputError(f"Sandbox: workers is {workers}, expected at least 1.")
    isolation = isolation or os.environ.get(ENVIRONMENT) or None
    if isolation not in (None, *levels.LEVELS):
      raise InputError(
        f"Sandbox: isolation is {isolation!r}, expected one of {levels.LEVELS}."
      )
    self._memory_bytes = memory_bytes
    self._packages = find_packages(packages)
    self._minimum_wall_seconds = minimum_wall_seconds
    self._workers = workers or cores()
    self._seats: list[_Seat] = []
    self._failed_starts = 0
    self._selector = selectors.DefaultSelector()
    self._launch, self._greeting = self._choose(isolation, require_isolation)
    self.isolation = self._launch.level

  def __enter__(self) -> "Sandbox":
    return self

  def __exit__(self, *_) -> None:
    self.close()

  def close(self) -> None:
    """Ends all workers."""
    for seat in list(self._seats):
      self._replace(seat)
    self._selector.close()

  def record(self) -> dict:
    """What a report should say about how programs were run."""
    return {
      "isolation": self.isolation,
      "detail": self._launch.detail,
      "workers": self._workers,
      "memory_bytes": self._memory_bytes,
      "unavailable": dict(self._unavailable),
      "packages": self._packages.versions,
      **{key: self._greeting[key] for key in ("python", "seccomp", "uid", "files")},
    }

  def describe(self) -> str:
    """One line for people."""
    record = self.record()
    line = (
      f"{record['detail']}, seccomp {record['seccomp']}, uid {record['uid']},"
      f" Python {record['python']}, {self._workers} workers,"
      f" {self._memory_bytes / 2**30:g} GiB each"
    )
    if self.isolation == "rlimits":
      line = f"NOT ISOLATED: {line}"
    for level, reason in self._unavailable.items():
      line += f"; no {level}: {reason}"
    return line

  def run(self, programs: Iterable[Program]) -> Iterator[Verdict]:
    """Judges programs; yields verdicts as they come.

    What a wall limit ended, or lost its worker, is tried once more at the end, alone.

    Raises:
      InputError: two programs have the same key.
    """
    waiting = iter(programs)
    again: collections.deque[_Job] = collections.deque()
    keys: set[str] = set()
    exhausted = False
    try:
      while True:
        while not exhausted and (seat := self._idle_seat()):
          program = next(waiting, None)
          if program is None:
            exhausted = True
            break
          if program.key in keys:
            raise InputError(f"Sandbox.run: two programs have the key {program.key!r}.")
          keys.add(program.key)
          self._give(seat, _Job(program))
        if exhausted and not self._busy():
          if not again:
            return
          if seat := self._idle_seat():
            self._give(seat, again.popleft())
        for job, answer in self._wait():
          verdict = _verdict(job, answer)
          if job.attempts == 1 and verdict.outcome in ("wall_limit", "worker_lost"):
            again.append(_Job(job.program, attempts=2))
          else:
            yield verdict
    finally:
      for seat in [seat for seat in self._seats if seat.job]:
        self._replace(seat)

  def _choose(self, forced: str | None, require_isolation: bool):
    """The first level at which a worker really starts and judges a program."""
    self._unavailable: dict[str, str] = {}
    for level in [forced] if forced else levels.LEVELS:
      try:
        launch = levels.launch(level, self._packages.paths)
        greeting = self._probe(launch)
      except (levels.Unavailable, Lost) as error:
        self._unavailable[level] = str(error)
        continue
      if level == "rlimits" and require_isolation:
        break
      if level == "rlimits" and not forced:
        if greeting["files"] == "open" and greeting["uid"] == os.getuid():
          raise InputError(
            "Sandbox: judged code could overwrite your files here: neither bubblewrap "
            "nor nsjail works, and the kernel lacks Landlock or seccomp.\nInstall one: "
            f"{levels.INSTALL['bubblewrap']}, or {levels.INSTALL['nsjail']}; or accept "
            f"it with --isolation=rlimits or {ENVIRONMENT}=rlimits."
          )
        logging.warning("Code will run without isolation: %s", self._unavailable)
      return launch, greeting
    reasons = "; ".join(f"{k}: {v}" for k, v in self._unavailable.items())
    if require_isolation and forced in (None, "rlimits"):
      raise InputError(
        "Sandbox: isolation is required, and neither bubblewrap nor nsjail works here"
        f" ({reasons or 'rlimits was asked for'}).\nInstall one:"
        f" {levels.INSTALL['bubblewrap']}, or {levels.INSTALL['nsjail']}."
      )
    raise InputError(
      f"Sandbox: no worker can be started ({reasons}). Expected a Python 3.9 or newer"
      " that an unprivileged user can read, e.g. /usr/bin/python3."
    )

  def _probe(self, launch: levels.Launch) -> dict:
    """Judges one right and one wrong program at a level; returns the greeting."""
    worker = self._start(launch)
    try:
      greeting = _receive_within(worker, _START_SECONDS)
      for right in (True, False):
        code = f"def f(x):\n  return x + {int(right)}\n"
        program = Program("probe", code, ("assert f(1) == 2",), cpu_seconds=10.0)
        worker.send(*self._messages(program))
        answer = _receive_within(worker, _START_SECONDS)
        if answer["outcome"] != ("passed" if right else "wrong"):
          raise Lost(f"the probe ended as {answer['outcome']}: {answer['detail']}")
      return greeting
    finally:
      worker.close()

  def _start(self, launch: levels.Launch) -> Worker:
    return Worker(launch, self._memory_bytes, launch.packages)

  def _messages(self, program: Program) -> tuple[dict, dict]:
    wall = max(4 * program.cpu_seconds, self._minimum_wall_seconds)
    limits = {"cpu_seconds": program.cpu_seconds, "wall_seconds": wall}
    body = {
      "code": program.code,
      "tests": program.tests,
      "in_process": program.in_process,
    }
    return limits, body

  def _busy(self) -> bool:
    return any(seat.job for seat in self._seats)

  def _idle_seat(self) -> _Seat | None:
    """A worker that is ready; starts those that are missing."""
    while len(self._seats) < self._workers:
      worker = self._start(self._launch)
      seat = _Seat(worker, time.monotonic() + _START_SECONDS)
      self._seats.append(seat)
      self._selector.register(worker, selectors.EVENT_READ, seat)
    return next((s for s in self._seats if s.ready and not s.job), None)

  def _give(self, seat: _Seat, job: _Job) -> None:
    limits, body = self._messages(job.program)
    seat.job = job
    seat.deadline = time.monotonic() + limits["wall_seconds"] + _GRACE_SECONDS
    seat.worker.send(limits, body)

  def _wait(self) -> Iterator[tuple[_Job, dict]]:
    """Waits for something to happen; yields jobs that ended, with the answer."""
    active = [seat for seat in self._seats if seat.job or not seat.ready]
    if not active:
      return
    patience = min(seat.deadline for seat in active) - time.monotonic()
    for key, _ in self._selector.select(max(0.0, patience)):
      seat: _Seat = key.data
      try:
        answer = seat.worker.receive()
      except Lost as error:
        yield from self._lost(seat, "worker_lost", f"the worker died: {error}")
        continue
      if not seat.ready:
        seat.ready = True
        self._failed_starts = 0
      elif seat.job:
        job, seat.job = seat.job, None
        if answer["recycle"]:
          self._replace(seat)
        yield job, answer
    now = time.monotonic()
    for seat in [s for s in active if s in self._seats and now > s.deadline]:
      if seat.job or not seat.ready:
        yield from self._lost(seat, "wall_limit", "the worker did not answer in time")

  def _lost(self, seat: _Seat, outcome: str, detail: str):
    job = seat.job
    if not seat.ready:
      self._failed_starts += 1
    self._replace(seat)
    if job:
      yield job, {"outcome": outcome, "detail": detail, "failed_test": None}
    if self._failed_starts >= _FAILED_STARTS:
      raise InputError(f"Sandbox: workers no longer start ({detail}).")

  def _replace(self, seat: _Seat) -> None:
    """Ends a worker; the next call for an idle seat starts another."""
    self._selector.unregister(seat.worker)
    seat.worker.close()
    self._seats.remove(seat)


def _receive_within(worker: Worker, seconds: float) -> dict:
  with selectors.DefaultSelector() as selector:
    selector.register(worker, selectors.EVENT_READ)
    if not selector.select(seconds):
      raise Lost(f"no answer within {seconds:g} s")
  return worker.receive()


def _verdict(job: _Job, answer: dict) -> Verdict:
  """A worker's answer as a Verdict; what no worker should say is a lost worker."""
  program = job.program
  outcome = answer["outcome"] if answer["outcome"] in OUTCOMES else "worker_lost"
  flags = ("overrides_eq",) if _OVERRIDES_EQ.search(program.code) else ()
  if program.in_process:
    flags += ("in_process",)
  return Verdict(
    key=program.key,
    outcome=outcome,
    detail=answer["detail"],
    failed_test=answer["failed_test"],
    cpu_seconds=answer.get("cpu_seconds", 0.0),
    wall_seconds=answer.get("wall_seconds", 0.0),
    attempts=job.attempts,
    flags=flags,
  )
