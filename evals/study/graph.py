"""A scheduler for a graph of steps, each a command in a subprocess.

Finished steps are listed in steps.jsonl and never run again. An interrupted step is run
again, and its command resumes. So a study that was killed at any moment is resumed by
the same command.
"""

import concurrent.futures
import contextlib
import dataclasses
import os
import platform
import queue
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from phi1_jax import InputError, cores, storage
from phi1_jax.cli import command
from phi1_jax.cli.progress import Progress
from phi1_jax.text import settings_file

STEPS, LOGS = "steps.jsonl", "logs"
# Several steps may share one accelerator, so none may take all of its memory at once.
_SHARING = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
_WORKDIR = "--workdir="
_ORPHAN_SECONDS = 60.0  # afterwards the step's own lock refuses its folder
_SHOWN_LINES = 15  # of the log of a step that failed


class FailedError(RuntimeError):
  """A step failed; the message names its log and shows its end."""


@dataclasses.dataclass(frozen=True)
class Step:
  """A step of a study."""

  name: str  # a unique name
  needs: tuple[str, ...] = ()  # names of the steps that must be done before
  words: tuple[str, ...] = ()  # arguments of `python -m`; () if the step is a function
  # called in this process instead; quick, and safe to call again
  function: Callable[[], None] | None = None
  about: Any = None  # settings that decide a function's outcome
  seconds: int = 10  # estimate for one core, for the time left
  # a folder that is left out of the digest: the local copy of a study's folder
  root: str = ""

  @property
  def digest(self) -> str:
    """Digest of what it does."""
    words = [w.replace(self.root, "") if self.root else w for w in self.words]
    return settings_file.digest({"words": words, "about": self.about})


def here() -> dict[str, str | None]:
  """Return commit ("-dirty" if files differ from it) and machine, for each step."""
  words = ("git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty")
  commit = None
  with contextlib.suppress(OSError, subprocess.CalledProcessError):
    told = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    commit = told.strip() or None
  return {"commit": commit, "machine": f"{platform.machine()}, {cores()} cores"}


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
  (folder / LOGS).mkdir(parents=True, exist_ok=True)
  with storage.JsonLines(folder / STEPS) as journal:
    done = {(row["step"], row["digest"]) for row in journal.rows}
    waiting = [s for s in steps if (s.name, s.digest) not in done]
    total = sum(s.seconds for s in steps)
    spent = total - sum(s.seconds for s in waiting)
    with (
      _Runner(steps, waiting, folder, jobs or cores()) as runner,
      Progress(total, "core-seconds", "study", initial=spent, interval=60) as bar,
    ):
      runner.run(journal, bar, save or (lambda: None))
  return not waiting


class _Runner:
  """Runs steps in worker threads, and passes signals on to their subprocesses.

  Args:
    steps: all steps.
    waiting: those to run; those left are in it afterwards.
    folder: see `run`.
    jobs: steps at a time.
  """

  def __init__(
    self, steps: Sequence[Step], waiting: list[Step], folder: Path, jobs: int
  ):
    self.waiting, self.folder, self.jobs = waiting, folder, jobs
    self.total, self.stopping = len(steps), False
    self.done = {s.name for s in steps} - {s.name for s in waiting}
    self.children: dict[str, subprocess.Popen] = {}
    # One function at a time: they parse Python, which two threads may not do at once
    # in CPython 3.11.7 ("AST constructor recursion depth mismatch").
    self.functions = threading.Lock()
    # The cores of each job; None where a process cannot be bound to cores.
    self.shares: queue.SimpleQueue[set[int] | None] = queue.SimpleQueue()
    for place in range(jobs):
      self.shares.put(_share(place, jobs))

  def __enter__(self) -> "_Runner":
    """Pass the first SIGTERM or SIGINT on to the running steps; kill at the second."""
    numbers = (signal.SIGTERM, signal.SIGINT)
    self._before = {number: signal.signal(number, self._stop) for number in numbers}
    # A child stops itself when this pipe closes, even if this process is killed.
    self._reading, self._writing = os.pipe()
    return self

  def __exit__(self, *exception: object) -> None:
    for number, handler in self._before.items():
      signal.signal(number, handler)
    os.close(self._reading)
    os.close(self._writing)

  def _stop(self, number: int, frame: object) -> None:
    del number, frame
    again, self.stopping = self.stopping, True
    if self.children and not again:
      print(f"\nstopping: {', '.join(self.children)} may save first", file=sys.stderr)
    for child in list(self.children.values()):
      child.kill() if again else child.terminate()

  def run(
    self, journal: storage.JsonLines, bar: Progress, save: Callable[[], None]
  ) -> None:
    """Start steps until none is left, a step fails, or a signal comes."""
    failed: list[Exception] = []
    futures: dict[concurrent.futures.Future, Step] = {}
    with concurrent.futures.ThreadPoolExecutor(self.jobs) as pool:
      while True:
        if not self.stopping and not failed:
          ready = [s for s in self.waiting if self.done.issuperset(s.needs)]
          for step in ready[: self.jobs - len(futures)]:
            self.waiting.remove(step)
            futures[pool.submit(self._step, step)] = step
        if not futures:
          break
        ended, _ = concurrent.futures.wait(
          futures, timeout=1.0, return_when=concurrent.futures.FIRST_COMPLETED
        )
        for future in ended:
          step, row = futures.pop(future), None
          try:
            if (row := future.result()) is not None:
              save()
          except Exception as error:  # raised when the others have ended
            failed.append(error)
            row = None
          if row is None:
            self.waiting.insert(0, step)
          else:
            self.done.add(step.name)
            journal.append(row)
            bar.update(step.seconds, **self._figures(futures))
        bar.update(0, **self._figures(futures))
    if failed:
      raise failed[0]

  def _figures(self, running: dict[Any, Step]) -> dict[str, str]:
    names = ", ".join(step.name for step in running.values())
    return {"steps": f"{len(self.done)} of {self.total}", "running": names or "-"}

  def _step(self, step: Step) -> dict[str, Any] | None:
    """Run a step; return its row of `STEPS`, or None if it was stopped."""
    row = {"step": step.name, "digest": step.digest, **here()}
    try:
      with self.functions if step.function else contextlib.nullcontext():
        started = time.monotonic()
        code = step.function() if step.function else self._command(step)
    except (InputError, OSError) as error:
      raise FailedError(f"step {step.name}: {error}") from error
    if not code:
      return {**row, "seconds": round(time.monotonic() - started, 2)}
    if self.stopping or code == command.PREEMPTED:
      return None
    log = self._log(step)
    last = log.read_text(errors="replace").rpartition("\n$ python -m ")[2]
    lines = last.replace("\r", "\n").rstrip().split("\n")[-_SHOWN_LINES:]
    shown = "\n  ".join(lines)
    raise FailedError(f"step {step.name} ended with {code}; {log} ends:\n  {shown}")

  def _log(self, step: Step) -> Path:
    return self.folder / LOGS / f"{step.name}.log"

  def _command(self, step: Step) -> int:
    """Run `python -m words` with its output in a log; return its exit code."""
    share = self.shares.get()
    try:
      wait_for_orphans([step], lambda: self.stopping)
      return command.PREEMPTED if self.stopping else self._child(step, share)
    finally:
      self.children.pop(step.name, None)
      self.shares.put(share)

  def _child(self, step: Step, share: set[int] | None) -> int:
    # The compilation cache: models of one shape need the same programs.
    cache = {"JAX_COMPILATION_CACHE_DIR": str(self.folder / "compiled")}
    parent = {command.PARENT: str(self._reading)}
    with self._log(step).open("ab") as output:
      output.write(f"$ python -m {shlex.join(step.words)}\n".encode())
      output.flush()
      # In a process group of its own, so that this process passes a Ctrl-C on.
      child = subprocess.Popen(
        [sys.executable, "-m", *step.words],
        stdout=output,
        stderr=subprocess.STDOUT,
        process_group=0,
        pass_fds=[self._reading],
        env={**_SHARING, **cache, **os.environ, **parent},
      )
    self.children[step.name] = child
    if share is not None:
      os.sched_setaffinity(child.pid, share)
    if self.stopping:  # a signal came while it was being started
      child.terminate()
    return child.wait()


def _share(place: int, jobs: int) -> set[int] | None:
  """Return the cores of a job; None where a process cannot be bound to cores."""
  if not hasattr(os, "sched_getaffinity"):
    return None
  every = sorted(os.sched_getaffinity(0))
  return set(every[place::jobs]) or set(every)


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
