"""A scheduler for a graph of steps, each a command in a subprocess.

Finished steps are listed in steps.jsonl and never run again. An interrupted step is run
again, and its command resumes. So a study that was killed at any moment is resumed by
the same command.
"""

import contextlib
import dataclasses
import os
import platform
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent import futures
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
  function: Callable[[], object] | None = None
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
    found = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    commit = found.strip() or None
  return {"commit": commit, "machine": f"{platform.machine()}, {cores()} cores"}


def seconds_of_done(steps: Sequence[Step], folder: storage.AnyPath) -> dict[str, float]:
  """Return the seconds that each finished step took, by name."""
  rows = {
    (row["step"], row["digest"]): row["seconds"]
    for row in storage.read_lines(folder / STEPS)
  }
  return {s.name: rows[s.name, s.digest] for s in steps if (s.name, s.digest) in rows}


def wait_for_orphans(steps: Sequence[Step]) -> None:
  """Wait until no process of a killed study saves in the folders of these steps."""
  words = [word for step in steps for word in step.words]
  folders = [w.removeprefix(_WORKDIR) for w in words if w.startswith(_WORKDIR)]
  deadline = time.monotonic() + _ORPHAN_SECONDS
  while any(storage.is_held(Path(folder)) for folder in folders):
    if time.monotonic() > deadline:
      return
    time.sleep(0.1)


def run(
  steps: Sequence[Step],
  folder: Path,
  jobs: int,
  save: Callable[[], object] | None = None,
) -> bool:
  """Run the steps that are not done yet; return False if a signal stopped them.

  Args:
    steps: in an order in which they could run one by one; the first ready one is taken.
    folder: gets `STEPS` and `LOGS`.
    jobs: steps at a time, each on its own share of the cores; 0 is one per core.
    save: called after each step, before its row is added to `STEPS`.

  Raises:
    FailedError: a step failed; those that were running have ended.
  """
  (folder / LOGS).mkdir(parents=True, exist_ok=True)
  done = set(seconds_of_done(steps, folder))
  waiting = [step for step in steps if step.name not in done]
  spent = sum(step.seconds for step in steps if step.name in done)
  total = spent + sum(step.seconds for step in waiting)
  wait_for_orphans(waiting)
  running: dict[futures.Future, Step] = {}
  failed: list[Exception] = []  # the first is raised when the others have ended
  with (
    storage.JsonLines(folder / STEPS) as journal,
    _Children(folder, jobs or cores()) as children,
    futures.ThreadPoolExecutor(jobs or cores()) as pool,
    Progress(total, "core-seconds", "study", initial=spent, interval=60) as bar,
  ):
    while True:
      for step in tuple(waiting):
        free = len(running) < children.most and not (children.stopping or failed)
        if free and done.issuperset(step.needs):
          waiting.remove(step)
          running[pool.submit(children.run, step)] = step
      if not running:  # what is left waits for what failed or was stopped
        break
      for future in futures.wait(running, return_when=futures.FIRST_COMPLETED).done:
        step = running.pop(future)
        try:
          row = future.result()
          if row is None:
            waiting.append(step)
            continue
          if save:
            save()
          journal.append(row)
        except Exception as failure:
          failed.append(failure)
          continue
        done.add(step.name)
        names = ", ".join(step.name for step in running.values()) or "-"
        bar.update(step.seconds, steps=f"{len(done)} of {len(steps)}", running=names)
  if failed:
    raise failed[0]
  return not waiting


def shares_of_cores(jobs: int) -> list[Sequence[int] | None]:
  """Return the cores of each job; None where no process can be bound to cores."""
  get = getattr(os, "sched_getaffinity", None)
  every = sorted(get(0)) if get else []
  return [(every[place::jobs] or every) if get else None for place in range(jobs)]


class _Children:
  """The subprocesses of the steps that run.

  Args:
    folder: see `run`.
    jobs: steps at a time.
  """

  def __init__(self, folder: Path, jobs: int):
    self.stopping = False
    self.most, self._shares = jobs, shares_of_cores(jobs)
    self._folder = folder
    self._processes: list[subprocess.Popen] = []

  def __enter__(self) -> "_Children":
    """Pass the first SIGTERM or SIGINT on to the children; kill them at the second."""
    numbers = (signal.SIGTERM, signal.SIGINT)
    self._before = {number: signal.signal(number, self._stop) for number in numbers}
    # A child stops itself when this pipe closes, even if this process is killed.
    self._pipe = os.pipe()
    return self

  def __exit__(self, *exception: object) -> None:
    for number, handler in self._before.items():
      signal.signal(number, handler)
    for end in self._pipe:
      os.close(end)

  def _stop(self, number: int, frame: object) -> None:
    del number, frame
    again, self.stopping = self.stopping, True
    if not again:
      print("\nstopping: the steps that run may save first", file=sys.stderr)
    for process in tuple(self._processes):
      process.kill() if again else process.terminate()

  def run(self, step: Step) -> dict[str, Any] | None:
    """Run a step; return its row of `STEPS`, or None if a signal stopped it."""
    started = time.monotonic()
    if step.function:
      try:
        step.function()
      except (InputError, OSError) as error:
        raise FailedError(f"step {step.name}: {error}") from error
    elif code := self._command(step):
      if self.stopping or code == command.PREEMPTED:
        return None
      raise self._failure(step, code)
    seconds = round(time.monotonic() - started, 2)
    return {"step": step.name, "digest": step.digest, **here(), "seconds": seconds}

  def _command(self, step: Step) -> int:
    # The compilation cache: models of one shape need the same programs.
    cache = {"JAX_COMPILATION_CACHE_DIR": str(self._folder / "compiled")}
    parent = {command.PARENT: str(self._pipe[0])}
    with self._log(step).open("ab") as output:
      output.write(f"$ python -m {shlex.join(step.words)}\n".encode())
      output.flush()
      # In a process group of its own, so that this process passes a Ctrl-C on.
      process = subprocess.Popen(
        [sys.executable, "-m", *step.words],
        stdout=output,
        stderr=subprocess.STDOUT,
        process_group=0,
        pass_fds=[self._pipe[0]],
        env={**_SHARING, **cache, **os.environ, **parent},
      )
    self._processes.append(process)
    share = self._shares.pop(0)
    try:
      if share:
        os.sched_setaffinity(process.pid, share)
      if self.stopping:  # a signal came while it was being started
        process.terminate()
      return process.wait()
    finally:
      self._shares.append(share)
      self._processes.remove(process)

  def _failure(self, step: Step, code: int) -> FailedError:
    log = self._log(step)
    last = log.read_text(errors="replace").rpartition("\n$ python -m ")[2]
    lines = last.replace("\r", "\n").rstrip().split("\n")[-_SHOWN_LINES:]
    shown = "\n  ".join(lines)
    return FailedError(f"step {step.name} ended with {code}; {log} ends:\n  {shown}")

  def _log(self, step: Step) -> Path:
    return self._folder / LOGS / f"{step.name}.log"
