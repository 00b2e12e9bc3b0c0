"""A scheduler for a graph of steps, each a command in a subprocess.

Finished steps are listed in steps.jsonl and never run again. An interrupted step is run
again, and its command resumes. So a study that was killed at any moment is resumed by
the same command.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import ctypes
import dataclasses
import os
import queue
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from evals.study import provenance
from phi1_jax import InputError, cores, storage
from phi1_jax.cli import command
from phi1_jax.cli.progress import Progress
from phi1_jax.text import settings_file

STEPS, LOGS = "steps.jsonl", "logs"
# The compilation cache: models of one shape need the same programs.
_COMPILED = "compiled"
# Several steps may share one accelerator, so none may take all of its memory at once.
_SHARING = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
# Linux can signal a child when its parent ends, even if it was killed.
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
_PR_SET_PDEATHSIG = 1
_WORKDIR = "--workdir="
_ORPHAN_SECONDS = 60.0  # afterwards the step's own lock refuses its folder
_SHOWN_LINES = 15  # of the log of a step that failed


class FailedError(RuntimeError):
  """A step failed; the message names its log and shows its end."""


@dataclasses.dataclass(frozen=True)
class Step:
  """A step of a study.

  Attributes:
    name: a unique name.
    needs: names of the steps that must be done before.
    words: arguments of `python -m`; () if the step is a function.
    function: called in this process instead; quick, and safe to call again.
    about: settings that decide a function's outcome.
    seconds: estimate for one core, for the time left.
    root: a folder that is left out of the digest: the local copy of a study's folder.
  """

  name: str
  needs: tuple[str, ...] = ()
  words: tuple[str, ...] = ()
  function: Callable[[], None] | None = None
  about: Any = None
  seconds: int = 10
  root: str = ""

  @property
  def digest(self) -> str:
    """Digest of what it does."""
    words = [w.replace(self.root, "") if self.root else w for w in self.words]
    return settings_file.digest({"words": words, "about": self.about})


def check(steps: Sequence[Step]) -> None:
  """Refuse a step that needs a later one, and equal names."""
  seen: set[str] = set()
  for step in steps:
    if step.name in seen:
      raise ValueError(f"two steps are called {step.name}")
    missing = [name for name in step.needs if name not in seen]
    if missing:
      raise ValueError(f"{step.name} needs {missing[0]}, which does not come before it")
    seen.add(step.name)


@dataclasses.dataclass
class _State:
  """State shared by the worker threads, guarded by `lock`."""

  total: int
  waiting: list[Step]
  done: set[str]
  children: dict[str, subprocess.Popen]
  lock: threading.Lock = dataclasses.field(default_factory=threading.Lock)
  # One function at a time: they parse Python, which two threads may not do at once
  # in CPython 3.11.7 ("AST constructor recursion depth mismatch").
  functions: threading.Lock = dataclasses.field(default_factory=threading.Lock)
  stopping: bool = False

  def ready(self) -> Iterator[Step]:
    """Return the steps that may begin, in the order of the graph."""
    return (s for s in self.waiting if self.done.issuperset(s.needs))

  def figures(self, running: Iterable[Step]) -> dict[str, str]:
    """Return the figures of the progress line."""
    names = ", ".join(step.name for step in running)
    return {"steps": f"{len(self.done)} of {self.total}", "running": names or "-"}


def seconds_of_done(steps: Sequence[Step], folder: storage.AnyPath) -> dict[str, float]:
  """Return the seconds that each finished step took, by name."""
  rows = {
    (row["step"], row["digest"]): row["seconds"]
    for row in storage.read_lines(folder / STEPS)
  }
  return {s.name: rows[s.name, s.digest] for s in steps if (s.name, s.digest) in rows}


def run(
  steps: Sequence[Step], folder: Path, jobs: int, save: Callable[[], None] | None = None
) -> bool:
  """Run the steps that are not done yet.

  Args:
    steps: in an order in which they could run one by one; the first ready one is taken.
    folder: gets `STEPS` and `LOGS`.
    jobs: steps at a time, each on its own share of the cores; 0 is one per core.
    save: called after each step, before its row is added to `STEPS`; other steps may
      be running.

  Returns:
    True if all are done; False if SIGTERM or SIGINT stopped them.

  Raises:
    FailedError: a step failed. Those that were running have ended.
  """
  check(steps)
  jobs = jobs or cores()
  (folder / LOGS).mkdir(parents=True, exist_ok=True)
  with storage.JsonLines(folder / STEPS) as journal:
    done = {(row["step"], row["digest"]) for row in journal.rows}
    finished = {s.name for s in steps if (s.name, s.digest) in done}
    waiting = [s for s in steps if s.name not in finished]
    state = _State(len(steps), waiting, set(finished), {})
    total = sum(s.seconds for s in steps)
    spent = total - sum(s.seconds for s in waiting)
    with (
      _stop_on_signals(state),
      Progress(total, "core-seconds", "study", initial=spent, interval=60) as bar,
    ):
      _work(state, folder, jobs, journal, bar, save or (lambda: None))
  return not state.waiting


def _shares(jobs: int) -> list[set[int] | None]:
  """Return the cores of each job; None where a process cannot be bound to cores."""
  if not hasattr(os, "sched_getaffinity"):
    return [None] * jobs
  cores = sorted(os.sched_getaffinity(0))
  return [set(cores[place::jobs]) or set(cores) for place in range(jobs)]


def _work(
  state: _State,
  folder: Path,
  jobs: int,
  journal: storage.JsonLines,
  bar: Progress,
  save: Callable[[], None],
) -> None:
  """Start steps until none is left, a step fails, or a signal comes."""
  free: queue.SimpleQueue[set[int] | None] = queue.SimpleQueue()
  for share in _shares(jobs):
    free.put(share)
  failed: list[Exception] = []
  with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
    futures: dict[concurrent.futures.Future, Step] = {}
    while True:
      with state.lock:
        if not state.stopping and not failed:
          for step in list(state.ready())[: jobs - len(futures)]:
            state.waiting.remove(step)
            futures[pool.submit(_one, step, folder, state, free)] = step
      if not futures:
        break
      ended, _ = concurrent.futures.wait(
        futures, timeout=1.0, return_when=concurrent.futures.FIRST_COMPLETED
      )
      bar.update(0, **state.figures(futures.values()))
      for future in ended:
        step = futures.pop(future)
        try:
          if (row := future.result()) is not None:
            save()
        except Exception as error:  # raised when the others have ended
          failed.append(error)
          row = None
        if row is None:
          state.waiting.insert(0, step)
          continue
        state.done.add(step.name)
        journal.append(row)
        bar.update(step.seconds, **state.figures(futures.values()))
  if failed:
    raise failed[0]


def _one(
  step: Step,
  folder: Path,
  state: _State,
  free: queue.SimpleQueue[set[int] | None],
) -> dict[str, Any] | None:
  """Run a step; return its row of `STEPS`, or None if it was stopped."""
  row = {"step": step.name, "digest": step.digest, **provenance.here()}
  try:
    if step.function is not None:
      with state.functions:
        started = time.monotonic()
        step.function()
        return {**row, "seconds": round(time.monotonic() - started, 2)}
    log = _log(step, folder)
    share = free.get()
    try:
      wait_for_orphans([step], lambda: state.stopping)
      started = time.monotonic()
      code = _child(step, folder, state, share)
    finally:
      free.put(share)
    if code == 0:
      return {**row, "seconds": round(time.monotonic() - started, 2)}
    if state.stopping or code == command.PREEMPTED:
      return None
    last = log.read_text(errors="replace").rpartition("\n$ python -m ")[2]
    text = last.replace("\r", "\n").rstrip().split("\n")
  except (InputError, OSError) as error:
    raise FailedError(f"step {step.name}: {error}") from error
  shown = "\n  ".join(text[-_SHOWN_LINES:])
  raise FailedError(f"step {step.name} ended with {code}; {log} ends:\n  {shown}")


def wait_for_orphans(
  steps: Sequence[Step], stopping: Callable[[], bool] = lambda: False
) -> None:
  """Wait until no process of a killed study saves in the folders of these steps."""
  words = [word for step in steps for word in step.words]
  folders = [w.removeprefix(_WORKDIR) for w in words if w.startswith(_WORKDIR)]
  deadline = time.monotonic() + _ORPHAN_SECONDS
  while (
    any(storage.is_held(Path(folder)) for folder in folders)
    and not stopping()
    and time.monotonic() < deadline
  ):
    time.sleep(0.1)


def _log(step: Step, folder: Path) -> Path:
  return folder / LOGS / f"{step.name}.log"


def _child(step: Step, folder: Path, state: _State, share: set[int] | None) -> int:
  """Run `python -m words` with its output in a log; return its exit code."""
  words = [sys.executable, "-m", *step.words]
  cache = {"JAX_COMPILATION_CACHE_DIR": str(folder / _COMPILED)}
  with _log(step, folder).open("ab") as output:
    output.write(f"$ python -m {shlex.join(step.words)}\n".encode())
    output.flush()
    with state.lock:
      if state.stopping:
        return command.PREEMPTED
      # In a process group of its own, so that this process passes a Ctrl-C on.
      child = subprocess.Popen(
        words,
        stdout=output,
        stderr=subprocess.STDOUT,
        process_group=0,
        preexec_fn=_die_with_parent if _LIBC else None,
        env={**_SHARING, **cache, **os.environ},
      )
      if share is not None:
        os.sched_setaffinity(child.pid, share)
      state.children[step.name] = child
      if state.stopping:  # a signal came while it was being started
        child.terminate()
    try:
      return child.wait()
    finally:
      with state.lock:
        del state.children[step.name]


def _die_with_parent() -> None:
  """Have the kernel send SIGTERM when the parent ends: a training saves first."""
  assert _LIBC
  _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


@contextlib.contextmanager
def _stop_on_signals(state: _State) -> Iterator[None]:
  """Pass the first SIGTERM or SIGINT on to the running steps; kill at the second."""

  def stop(number: int, frame: object) -> None:
    del number, frame
    again, state.stopping = state.stopping, True
    if state.children and not again:
      print(f"\nstopping: {', '.join(state.children)} may save first", file=sys.stderr)
    for child in list(state.children.values()):
      child.kill() if again else child.terminate()

  numbers = (signal.SIGTERM, signal.SIGINT)
  before = {number: signal.signal(number, stop) for number in numbers}
  try:
    yield
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)
