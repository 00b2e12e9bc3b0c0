"""Sandbox: a handful of workers, and the order in which programs go to them."""

import collections
import logging
import os
import re
import selectors
import sys
import time
from collections.abc import Iterable, Iterator, Sequence

from phi1_jax import InputError, cores
from phi1_jax.sandbox import levels
from phi1_jax.sandbox.packages import find as find_packages
from phi1_jax.sandbox.program import OUTCOMES, Program, Verdict
from phi1_jax.sandbox.worker import START_SECONDS, Lost, Worker

ENVIRONMENT = "PHI1_JAX_ISOLATION"
_GRACE_SECONDS = 10.0  # beyond the wall limit, which the worker itself watches
_FAILED_STARTS = 3
_OVERRIDES_EQ = re.compile(r"\b__eq__\b")


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
    self._cores = _own_cores(self._workers)
    self._pool: list[Worker] = []
    self._failed_starts = 0
    self._selector = selectors.DefaultSelector()
    try:
      self._greeting = self._choose(isolation, require_isolation)
    except BaseException:
      self.close()
      raise
    self.isolation = self._launch.level

  def __enter__(self) -> "Sandbox":
    return self

  def __exit__(self, *_) -> None:
    self.close()

  def close(self) -> None:
    """End all workers."""
    for worker in list(self._pool):
      self._end(worker)
    self._selector.close()

  def record(self) -> dict:
    """Return facts of how programs are run, for reports."""
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
    """Return a line for people."""
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
    """Judge programs; yield verdicts as they come.

    A program that reached the wall limit or lost its worker is run again, alone, at
    the end.

    Raises:
      InputError: two programs have the same key.
    """
    waiting, keys, retried = iter(programs), set(), set()
    again: collections.deque[Program] = collections.deque()
    exhausted = False
    try:
      while True:
        while not exhausted and (worker := self._idle_worker()):
          program = next(waiting, None)
          if program is None:
            exhausted = True
          elif program.key in keys:
            raise InputError(f"Sandbox.run: two programs have the key {program.key!r}.")
          else:
            keys.add(program.key)
            self._give(worker, program)
        if exhausted and not any(worker.program for worker in self._pool):
          if not again:
            return
          if worker := self._idle_worker():
            self._give(worker, again.popleft())
        for program, answer in self._wait():
          attempts = 1 + (program.key in retried)
          verdict = _verdict(program, answer, attempts)
          if attempts == 1 and verdict.outcome in ("wall_limit", "worker_lost"):
            retried.add(program.key)
            again.append(program)
          else:
            yield verdict
    finally:
      for worker in [worker for worker in self._pool if worker.program]:
        self._end(worker)

  def _choose(self, forced: str | None, require_isolation: bool) -> dict:
    """Start a worker at the first level where it judges right; return its greeting.

    Raises:
      InputError: there is no such level, or it is not isolated enough.
    """
    self._unavailable: dict[str, str] = {}
    for level in [forced] if forced else levels.LEVELS:
      try:
        self._launch = levels.launch(level, self._packages.paths)
        greeting = self._probe()
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
      return greeting
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

  def _probe(self) -> dict:
    """Judge a right and a wrong program with the first worker; return its greeting."""
    worker = self._start()
    try:
      greeting = _receive_within(worker, START_SECONDS)
      for right in (True, False):
        code = f"def f(x):\n  return x + {int(right)}\n"
        program = Program("probe", code, ("assert f(1) == 2",), cpu_seconds=10.0)
        worker.send(self._limits(program), _body(program))
        answer = _receive_within(worker, START_SECONDS)
        if answer["outcome"] != ("passed" if right else "wrong"):
          raise Lost(f"the probe ended as {answer['outcome']}: {answer['detail']}")
    except BaseException:
      self._end(worker)
      raise
    worker.ready = True
    return greeting

  def _limits(self, program: Program) -> dict[str, float]:
    wall = max(4 * program.cpu_seconds, self._minimum_wall_seconds)
    return {"cpu_seconds": program.cpu_seconds, "wall_seconds": wall}

  def _idle_worker(self) -> Worker | None:
    """Return a worker that is ready; start those that are missing."""
    while len(self._pool) < self._workers:
      self._start()
    return next((w for w in self._pool if w.ready and not w.program), None)

  def _start(self) -> Worker:
    taken = {worker.core for worker in self._pool}
    core = next((core for core in self._cores if core not in taken), None)
    worker = Worker(self._launch, self._memory_bytes, core)
    self._pool.append(worker)
    self._selector.register(worker, selectors.EVENT_READ, worker)
    return worker

  def _give(self, worker: Worker, program: Program) -> None:
    limits = self._limits(program)
    worker.program = program
    worker.deadline = time.monotonic() + limits["wall_seconds"] + _GRACE_SECONDS
    worker.send(limits, _body(program))

  def _wait(self) -> Iterator[tuple[Program, dict]]:
    """Wait for something to happen; yield programs that ended, with the answer."""
    active = [worker for worker in self._pool if worker.program or not worker.ready]
    if not active:
      return
    patience = min(worker.deadline for worker in active) - time.monotonic()
    for key, _ in self._selector.select(max(0.0, patience)):
      worker: Worker = key.data
      try:
        answer = worker.receive()
      except Lost as error:
        yield from self._lost(worker, "worker_lost", f"the worker died: {error}")
        continue
      if not worker.ready:
        worker.ready = True
        self._failed_starts = 0
      elif program := worker.program:
        worker.program = None
        if answer["recycle"]:
          self._end(worker)
        yield program, answer
    now = time.monotonic()
    for worker in active:
      waits = worker.program or not worker.ready
      if worker in self._pool and waits and now > worker.deadline:
        yield from self._lost(worker, "wall_limit", "the worker did not answer in time")

  def _lost(self, worker: Worker, outcome: str, detail: str):
    if not worker.ready:
      self._failed_starts += 1
    self._end(worker)
    if worker.program:
      yield worker.program, {"outcome": outcome, "detail": detail, "failed_test": None}
    if self._failed_starts >= _FAILED_STARTS:
      raise InputError(f"Sandbox: workers no longer start ({detail}).")

  def _end(self, worker: Worker) -> None:
    """End a worker; the next call for an idle one starts another."""
    self._selector.unregister(worker)
    worker.close()
    self._pool.remove(worker)


def _own_cores(workers: int) -> list[int]:
  """Return a core for each worker, if there is one for each and none is left over.

  The processes of a worker take turns, which takes less time on one core than on two.
  But a worker that is tied to a core cannot move to another one that is free.
  """
  if sys.platform != "linux" or len(found := os.sched_getaffinity(0)) != workers:
    return []
  return sorted(found)


def _body(program: Program) -> dict:
  names = ("code", "tests", "in_process")
  return {name: getattr(program, name) for name in names}


def _receive_within(worker: Worker, seconds: float) -> dict:
  with selectors.DefaultSelector() as selector:
    selector.register(worker, selectors.EVENT_READ)
    if not selector.select(seconds):
      raise Lost(f"no answer within {seconds:g} s")
  return worker.receive()


def _verdict(program: Program, answer: dict, attempts: int) -> Verdict:
  """Return a worker's answer as a Verdict; an unknown outcome is a lost worker."""
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
    attempts=attempts,
    flags=flags,
  )
