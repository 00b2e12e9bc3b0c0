"""Runs the tasks of a stage: on all local cores or on Ray.

A phase is a chain of steps over tasks; task n reads the n-th part of the input and
writes files of its own, so tasks share nothing and a killed run continues with those
that are missing. datatrove's executors run the tasks and mark the complete ones; on
local cores, workers of a `ProcessPoolExecutor` do, which reports a killed worker.
"""

import concurrent.futures
import contextlib
import dataclasses
import gc
import json
import multiprocessing
import os
import pickle
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import loguru

from phi1_jax import InputError, cores, how_to_install, storage
from phi1_jax.curation import folder as folders
from phi1_jax.curation.document import Decision, Tally
from phi1_jax.storage import AnyPath

EXECUTORS = ("local", "ray")
# A bar: made with (total or None, unit, description); a context manager with `update`.
MakeBar = Callable[[int | None, str, str], Any]
Step = Callable[[Any, int, int], Any]
_TICK = 0.5  # seconds between two reports of a task
_TASK_BYTES, _MOST_TASKS = 4 << 20, 2000

loguru.logger.disable("datatrove")  # failures are raised; progress is a bar


class TaskError(RuntimeError):
  """A task failed; the message names the cause."""


@dataclasses.dataclass(frozen=True)
class Engine:
  """Where tasks run.

  Attributes:
    executor: one of `EXECUTORS`.
    tasks: parts that an input is cut into; None chooses by its bytes.
    workers: tasks at the same time; None is all cores of this machine, or of Ray.
    bar: makes a progress bar.
  """

  executor: str = "local"
  tasks: int | None = None
  workers: int | None = None
  bar: MakeBar | None = None

  def __post_init__(self):
    """Refuse wrong settings."""
    if self.executor == "slurm":
      raise InputError(
        "--executor: got 'slurm', which is not tested; use --executor=ray, or local "
        "tasks in a job of your own"
      )
    if self.executor not in EXECUTORS:
      raise InputError(
        f"--executor: got {self.executor!r}, expected one of {', '.join(EXECUTORS)}"
      )
    for name in ("tasks", "workers"):
      value = getattr(self, name)
      if value is not None and value < 1:
        raise InputError(f"--{name}: got {value}, expected at least 1")

  def count(self, size: int, parts: int) -> int:
    """Return the number of tasks for an input of `size` bytes in `parts` parts."""
    wanted = self.tasks or min(-(-size // _TASK_BYTES), _MOST_TASKS)
    return max(1, min(wanted, parts))

  def run(
    self,
    folder: AnyPath,
    phase: str,
    steps: Sequence[Step],
    tasks: int,
    total: int | None = None,
    one_process: bool = False,
  ) -> Tally:
    """Run a phase; tasks that an earlier run completed are not repeated.

    Args:
      folder: the stage's folder.
      phase: its name, one of a kind in the stage.
      steps: the chain; the first gets None, the last returns nothing or a Tally.
      tasks: how many.
      total: documents, for the progress bar.
      one_process: run the tasks in this process, one after the other.

    Returns:
      The sum of the tallies of all tasks.

    Raises:
      InputError: a task refused its input.
      TaskError: a task failed in another way.
    """
    place = folder / folders.ENGINE / phase
    folders.remove_tree(place / "errors")  # of a run that was killed
    chain = [*steps, _Note(place)]
    runner = self._executor(chain, place, tasks, one_process)
    with self._watched(folder, phase, place, total):
      try:
        runner.run()
      except Exception:
        _raise_error(place)
        raise
    if runner.get_incomplete_ranks():
      _raise_error(place)
      raise TaskError(f"{place}: a task did not end; run the same command again")
    tally = Tally()
    for rank in range(tasks):
      tally.merge(storage.read_json(place / "tally" / f"{rank:05d}.json"))
    return tally

  def _executor(
    self, chain: list[Step], place: AnyPath, tasks: int, one_process: bool
  ) -> Any:
    logs = os.fspath(place)
    if self.executor == "ray" and not one_process:
      return self._ray(chain, logs, tasks)
    from datatrove.executor.local import LocalPipelineExecutor

    workers = 1 if one_process else min(tasks, self.workers or cores())
    return _Local(LocalPipelineExecutor(chain, tasks, logging_dir=logs), workers)

  def _ray(self, chain: list[Step], logs: str, tasks: int) -> Any:
    try:
      import ray
    except ImportError:
      raise InputError(f"--executor=ray needs ray: {how_to_install('ray')}") from None
    from datatrove.executor.ray import RayPipelineExecutor

    if not ray.is_initialized():
      ray.init(log_to_driver=False, configure_logging=False)
    workers = self.workers or int(ray.cluster_resources().get("CPU", 1))
    return RayPipelineExecutor(
      chain, tasks, min(tasks, workers), logging_dir=logs, mem_per_cpu_gb=0.1
    )

  @contextlib.contextmanager
  def _watched(
    self, folder: AnyPath, phase: str, place: AnyPath, total: int | None
  ) -> Iterator[None]:
    """Show a progress bar that adds up what the tasks report."""
    if self.bar is None or storage.is_remote(place):
      yield
      return
    ended = threading.Event()

    def watch() -> None:
      assert self.bar
      seen = 0
      with self.bar(total, "documents", f"{folder.name}: {phase}") as bar:
        while True:
          last = ended.wait(_TICK)
          now = _reported(Path(place))
          bar.update(now - seen)
          seen = now
          if last:
            return

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
      yield
    finally:
      ended.set()
      thread.join()


class _Local:
  """datatrove's local executor, in this process or in workers that may be killed.

  datatrove's own pool replaces a killed worker, and waits for its task forever.
  """

  def __init__(self, executor: Any, workers: int):
    self._executor, self._workers = executor, workers
    self.get_incomplete_ranks = executor.get_incomplete_ranks

  def run(self) -> None:
    """Run the incomplete tasks.

    Raises:
      TaskError: a worker was killed.
    """
    ranks = self.get_incomplete_ranks()
    workers = min(self._workers, len(ranks))
    if self._workers == 1 or not ranks:
      for rank in ranks:
        self._executor._run_for_rank(rank)
      return
    context = multiprocessing.get_context("forkserver")
    pool = concurrent.futures.ProcessPoolExecutor(workers, context, _end_with_parent)
    try:
      started = [pool.submit(_run_task, self._executor, rank) for rank in ranks]
      for task in concurrent.futures.as_completed(started):
        task.result()
    except BrokenProcessPool:
      raise TaskError(
        "a worker was killed, perhaps since the memory was full; run the same command "
        "again, with fewer --workers or more --tasks if it is"
      ) from None
    finally:
      pool.shutdown(cancel_futures=True)


def _run_task(executor: Any, rank: int) -> None:
  executor._run_for_rank(rank)


def _end_with_parent() -> None:
  """End this worker with the process that started it, also if that was killed."""
  parent = multiprocessing.parent_process()
  assert parent

  def wait() -> None:
    parent.join()
    os._exit(1)

  threading.Thread(target=wait, daemon=True).start()


@dataclasses.dataclass(frozen=True)
class _Note:
  """The last step: notes the task's tally, or its error."""

  place: AnyPath

  def __call__(self, data: Any, rank: int, world_size: int) -> None:
    """Run the chain."""
    del world_size
    # Syntax trees have no cycles; looking for some took a quarter of the time.
    gc.set_threshold(100_000, 50, 100)
    try:
      tally = Tally()
      for each in data or ():
        tally.merge(each.record())
      _save(self.place / "tally", rank, json.dumps(tally.record()).encode())
    except Exception as error:
      _save(self.place / "errors", rank, _pickled(error))
      raise


def _save(folder: AnyPath, rank: int, content: bytes) -> None:
  folder.mkdir(parents=True, exist_ok=True)
  storage.write_bytes(folder / f"{rank:05d}.json", content)


def _pickled(error: Exception) -> bytes:
  try:
    pickle.loads(content := pickle.dumps(error))
    return content
  except Exception:
    return pickle.dumps(TaskError(f"{type(error).__name__}: {error}"))


def _raise_error(place: AnyPath) -> None:
  """Raise the first error of a task, and forget all of them."""
  found = storage.names(place / "errors")
  if found:
    error = pickle.loads(storage.read_bytes(place / "errors" / found[0]))
    folders.remove_tree(place / "errors")
    raise error


def _reported(place: Path) -> int:
  found = 0
  for file in (place / "progress").glob("*"):
    with contextlib.suppress(OSError, ValueError):
      found += int(file.read_text())
  return found


class Ticker:
  """Reports a task's progress for the bar of the process that started it."""

  def __init__(self, folder: AnyPath, phase: str, rank: int):
    place = folder / folders.ENGINE / phase / "progress"
    self._file = None if storage.is_remote(folder) else Path(place) / f"{rank:05d}"
    self._count, self._next = 0, 0.0

  def __call__(self, count: int) -> None:
    """Add documents."""
    self._count += count
    if self._file and time.monotonic() >= self._next:
      self._next = time.monotonic() + _TICK
      self.flush()

  def flush(self) -> None:
    """Report now."""
    if self._file:
      self._file.parent.mkdir(parents=True, exist_ok=True)
      self._file.write_text(str(self._count))


@dataclasses.dataclass(frozen=True)
class Write:
  """A step: decisions to the task's files of documents.

  Attributes:
    folder: the stage's folder.
    phase: the phase's name.
  """

  folder: AnyPath
  phase: str

  def __call__(
    self, data: Iterable[Decision], rank: int, world_size: int
  ) -> Iterator[Tally]:
    """Write them, and yield their tally."""
    tick = Ticker(self.folder, self.phase, rank)
    yield folders.write(self.folder, data, rank, world_size, tick)
    tick.flush()


@dataclasses.dataclass(frozen=True)
class Each:
  """A step: a function of each decision, with further arguments."""

  function: Callable[..., Any]
  arguments: tuple[Any, ...] = ()

  def __call__(self, data: Iterable[Any], rank: int, world_size: int) -> Iterator[Any]:
    """Map the function."""
    del rank, world_size
    return (self.function(each, *self.arguments) for each in data)
