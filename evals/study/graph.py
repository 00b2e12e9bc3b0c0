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
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from pathlib import Path
from typing import Any

from phi1_jax import InputError, cores, storage
from phi1_jax.cli import child, command
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
  save: Callable[[], object] = lambda: None,
) -> bool:
  """Run the steps that are not done yet; return False if a signal stopped them.

  Args:
    steps: the first that is ready is taken.
    folder: gets `STEPS` and `LOGS`.
    jobs: steps at a time, each on its own share of the cores; 0 is one per core.
    save: called after each step, before its row is added to `STEPS`.

  Raises:
    FailedError: a step failed; those that were running have ended.
  """
  (folder / LOGS).mkdir(parents=True, exist_ok=True)
  done = set(seconds_of_done(steps, folder))
  waiting = [step for step in steps if step.name not in done]
  total = sum(step.seconds for step in steps)
  spent = total - sum(step.seconds for step in waiting)
  wait_for_orphans(waiting)
  jobs = jobs or cores()
  running: dict[futures.Future, Step] = {}
  failed: list[Exception] = []  # the first is raised when the others have ended
  with (
    storage.JsonLines(folder / STEPS) as journal,
    _stopping() as stopping,
    futures.ThreadPoolExecutor(jobs, "", _bind, (_shares_of_cores(jobs),)) as pool,
    Progress(total, "core-seconds", "study", initial=spent, interval=60) as bar,
  ):
    while True:
      for step in tuple(waiting):
        free = len(running) < jobs and not (stopping.is_set() or failed)
        if free and done.issuperset(step.needs):
          waiting.remove(step)
          running[pool.submit(_run, step, folder, stopping)] = step
      if not running:  # what is left waits for what failed or was stopped
        break
      for future in futures.wait(running, return_when=futures.FIRST_COMPLETED).done:
        step = running.pop(future)
        try:
          seconds = future.result()
          if seconds is None:
            waiting.append(step)
            continue
          save()
          row = {"step": step.name, "digest": step.digest, **here()}
          journal.append(row | {"seconds": seconds})
        except Exception as failure:
          failed.append(failure)
          continue
        done.add(step.name)
        names = ", ".join(step.name for step in running.values()) or "-"
        bar.update(step.seconds, steps=f"{len(done)} of {len(steps)}", running=names)
  if failed:
    raise failed[0]
  return not waiting


def _shares_of_cores(jobs: int) -> list[Sequence[int]]:
  """Return the cores of each job; none where no process can be bound to cores."""
  get = getattr(os, "sched_getaffinity", None)
  every = sorted(get(0)) if get else []
  return [every[place::jobs] or every for place in range(jobs)]


def _bind(shares: list[Sequence[int]]) -> None:
  """Bind this thread, and so the children that it starts, to a share of the cores."""
  if share := shares.pop():
    os.sched_setaffinity(0, share)


@contextlib.contextmanager
def _stopping() -> Iterator[threading.Event]:
  """Give an event that the first SIGTERM or SIGINT sets; the second ends this process.

  Then the children save, and a study that is started again waits for them.
  """
  event = threading.Event()

  def stop(number: int, frame: object) -> None:
    del number, frame
    if event.is_set():
      os._exit(command.INTERRUPTED)
    event.set()
    print("\nstopping: the steps that run may save first", file=sys.stderr)

  numbers = (signal.SIGTERM, signal.SIGINT)
  before = {number: signal.signal(number, stop) for number in numbers}
  try:
    yield event
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)


def _run(step: Step, folder: Path, stopping: threading.Event) -> float | None:
  """Run a step; return how many seconds it took, or None if a signal stopped it."""
  started = time.monotonic()
  if step.function:
    try:
      step.function()
    except (InputError, OSError) as error:
      raise FailedError(f"step {step.name}: {error}") from error
  elif not _command(step, folder, stopping):
    return None
  return round(time.monotonic() - started, 2)


def _command(step: Step, folder: Path, stopping: threading.Event) -> bool:
  # The compilation cache: models of one shape need the same programs.
  cache = {"JAX_COMPILATION_CACHE_DIR": str(folder / "compiled")}
  variables = {**_SHARING, **cache, **os.environ}
  path, doing = folder / LOGS / f"{step.name}.log", f"step {step.name}"
  module, *flags = step.words
  try:
    with path.open("ab", buffering=0) as log:
      log.write(f"$ python -m {shlex.join(step.words)}\n".encode())
      where = {"log": log, "environment": variables}
      return child.run(module, flags, stopping.is_set, doing, **where)
  except (RuntimeError, command.PrintedError) as error:
    if stopping.is_set():
      return False
    last = path.read_text(errors="replace").rpartition("\n$ python -m ")[2]
    lines = last.replace("\r", "\n").rstrip().split("\n")[-_SHOWN_LINES:]
    shown = "\n  ".join(lines)
    raise FailedError(f"{error}; {path} ends:\n  {shown}") from None
