"""Runs a stage: its settings, its phases, and their tasks on local cores, Ray or Slurm.

A phase is a function that is called once per task. Task n reads the n-th part of the
input and writes files of its own, so tasks share nothing and a killed run continues
with those that are missing. datatrove's executors run the tasks and mark the complete
ones; on local cores, workers of a `ProcessPoolExecutor` do, which reports a killed one.
"""

import concurrent.futures
import contextlib
import dataclasses
import functools
import gc
import json
import multiprocessing
import os
import pickle
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, Literal

import loguru
from datatrove.executor.local import LocalPipelineExecutor

from phi1_jax import InputError, cores, how_to_install, storage
from phi1_jax.curation import folder as folders
from phi1_jax.curation import read
from phi1_jax.curation.config import EXECUTORS
from phi1_jax.curation.document import Decision, Tally
from phi1_jax.settings import PositiveInt, checked
from phi1_jax.storage import AnyPath

_TICK = 0.5  # seconds between two reports of a task
_TASK_BYTES, _MOST_TASKS = 4 << 20, 2000

loguru.logger.disable("datatrove")  # failures are raised; progress is a bar


class TaskError(RuntimeError):
  """A task failed; the message names the cause."""


@dataclasses.dataclass(frozen=True)
class Task:
  """One part of a phase."""

  folder: AnyPath  # the stage's
  rank: int  # which part
  tasks: int  # how many there are
  tick: Callable[[int], None]  # reports that so many more documents are done

  @property
  def work(self) -> AnyPath:
    """Folder of unfinished work of all tasks."""
    return self.folder / folders.ENGINE

  @property
  def name(self) -> str:
    """Name of the task for files."""
    return f"{self.rank:05d}"

  def read(self) -> Iterator[Decision]:
    """Yield the decisions of the task's part of the inputs."""
    return read.of_task(self.work / "plan", self.rank)

  def ticked(self, decisions: Iterable[Decision]) -> Iterator[Decision]:
    """Yield decisions; report each once it was used."""
    for decision in decisions:
      yield decision
      self.tick(1)

  def write(self, decisions: Iterable[Decision]) -> Tally:
    """Write the task's files of the stage; return the counts."""
    return folders.write(self.folder, self.ticked(decisions), self.rank, self.tasks)


# A phase's function; its first arguments are bound.
Function = Callable[..., Tally | None]


@dataclasses.dataclass(frozen=True)
class Engine:
  """Where tasks run."""

  executor: str = "local"  # one of `EXECUTORS`
  tasks: int | None = None  # parts of an input; None chooses by its bytes
  # Tasks at the same time; None is all cores of this machine or of Ray.
  workers: int | None = None
  # Makes a progress bar of total, unit and description; None shows none.
  bar: Callable[[int | None, str, str], Any] | None = None

  def __post_init__(self):
    """Refuse wrong settings."""
    checked("--executor", self.executor, Literal[EXECUTORS])
    checked("--tasks", self.tasks, PositiveInt | None)
    checked("--workers", self.workers, PositiveInt | None)

  def count(self, size: int, parts: int) -> int:
    """Return the number of tasks for an input of `size` bytes in `parts` parts."""
    wanted = self.tasks or min(-(-size // _TASK_BYTES), _MOST_TASKS)
    return max(1, min(wanted, parts))

  def run(self, step: "_Step", tasks: int, one_process: bool) -> bool:
    """Run the tasks that are not complete; return whether all are complete now."""
    logs = os.fspath(step.place)
    if self.executor == "slurm" and not one_process:
      from phi1_jax.curation import slurm

      return slurm.run(step, step.place, tasks, self.workers)
    if self.executor == "local" or one_process:
      executor = LocalPipelineExecutor([step], tasks, logging_dir=logs)
      _run_locally(executor, 1 if one_process else self.workers or cores())
      return not executor.get_incomplete_ranks()
    try:
      import ray
    except ImportError:
      raise InputError(f"--executor=ray needs ray: {how_to_install('ray')}") from None
    from datatrove.executor.ray import RayPipelineExecutor

    if not ray.is_initialized():
      ray.init(log_to_driver=False, configure_logging=False)
    workers = min(tasks, self.workers or int(ray.cluster_resources().get("CPU", 1)))
    executor = RayPipelineExecutor(
      [step], tasks, workers, logging_dir=logs, mem_per_cpu_gb=0.1
    )
    executor.run()
    return not executor.get_incomplete_ranks()

  @contextlib.contextmanager
  def watched(self, title: str, place: AnyPath, total: int | None) -> Iterator[None]:
    """Show a progress bar that adds up what the tasks report."""
    if self.bar is None or storage.is_remote(place):
      yield
      return
    ended = threading.Event()

    def watch() -> None:
      assert self.bar
      seen, last = 0, False
      with self.bar(total, "documents", title) as bar:
        while not last:
          last, now = ended.wait(_TICK), 0
          for file in (Path(place) / "progress").glob("*"):
            with contextlib.suppress(OSError, ValueError):
              now += int(file.read_text())
          bar.update(now - seen)
          seen = now

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
      yield
    finally:
      ended.set()
      thread.join()


def _run_locally(executor: LocalPipelineExecutor, workers: int) -> None:
  """Run a local executor's incomplete tasks, in workers that may be killed.

  datatrove's own pool replaces a killed worker, and waits for its task forever.

  Raises:
    TaskError: a worker was killed.
  """
  ranks = executor.get_incomplete_ranks()
  workers = min(workers, len(ranks))
  if workers <= 1:
    for rank in ranks:
      executor._run_for_rank(rank)
    return
  context = multiprocessing.get_context("forkserver")
  pool = concurrent.futures.ProcessPoolExecutor(workers, context, _end_with_parent)
  try:
    started = [pool.submit(executor._run_for_rank, rank) for rank in ranks]
    for task in concurrent.futures.as_completed(started):
      task.result()
  except BrokenProcessPool:
    raise TaskError(
      "a worker was killed, perhaps since the memory was full; run the same command "
      "again, with fewer --workers or more --tasks if it is"
    ) from None
  finally:
    pool.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
  """End this worker with the process that started it, also if that was killed."""
  parent = multiprocessing.parent_process()
  assert parent

  def wait() -> None:
    parent.join()
    os._exit(1)

  threading.Thread(target=wait, daemon=True).start()


@dataclasses.dataclass(frozen=True)
class _Step:
  """A datatrove step: runs a task, and notes its progress, its counts or its error."""

  folder: AnyPath
  place: AnyPath
  function: Function

  def __call__(self, data: Any, rank: int, world_size: int) -> None:
    """Run a task."""
    # Syntax trees have no cycles; looking for some took a quarter of the time.
    gc.set_threshold(100_000, 50, 100)
    count, next_report = 0, 0.0
    shown = None if storage.is_remote(self.place) else self._file("progress", rank)

    def tick(more: int) -> None:
      nonlocal count, next_report
      count += more
      if shown and time.monotonic() >= next_report:
        next_report = time.monotonic() + _TICK
        Path(shown).write_text(str(count))

    try:
      tally = self.function(Task(self.folder, rank, world_size, tick)) or Tally()
      next_report = 0.0
      tick(0)
      storage.write_text(self._file("tally", rank), json.dumps(tally.record()))
    except Exception as error:
      try:
        pickle.loads(content := pickle.dumps(error))
      except Exception:
        content = pickle.dumps(TaskError(f"{type(error).__name__}: {error}"))
      storage.write_bytes(self._file("errors", rank), content)
      raise

  def _file(self, kind: str, rank: int) -> AnyPath:
    (self.place / kind).mkdir(parents=True, exist_ok=True)
    return self.place / kind / f"{rank:05d}.json"

  def tally(self, tasks: int) -> Tally:
    """Return the sum of the counts of all tasks."""
    sums = Tally()
    for rank in range(tasks):
      sums.merge(json.loads(storage.read_text(self._file("tally", rank))))
    return sums

  def raise_error(self) -> None:
    """Raise the first error of a task, and forget all of them."""
    errors = self.place / "errors"
    if found := storage.names(errors):
      error = pickle.loads(storage.read_bytes(errors / found[0]))
      folders.remove_tree(errors)
      raise error


@dataclasses.dataclass(frozen=True)
class Job:
  """A run of a stage."""

  config: Any  # the stage's settings
  folder: AnyPath  # the stage's folder, which every worker can write to
  engine: Engine = Engine()
  client: Any = None  # opens a client of an LLM; a stage that needs none never does

  @property
  def work(self) -> AnyPath:
    """Folder of unfinished work."""
    return self.folder / folders.ENGINE

  @property
  def needs_llm(self) -> bool:
    """Whether the stage asks an LLM."""
    return "llm" in (getattr(self.config, n, None) for n in ("judge", "teacher"))

  @property
  def _inputs(self) -> str:
    return f"{self.config.gin_name}.inputs"

  def run(
    self,
    stage: str,
    settings: dict[str, Any],
    work: Callable[[], tuple[dict[str, Any], dict[str, Any]]],
    ignored: tuple[str, ...] = (),
  ) -> dict[str, Any]:
    """Run a stage, or find it complete; return its stats.

    Args:
      stage: its name.
      settings: what decides the outcome beside `config` and the inputs.
      work: does the work; returns counts (`Tally.stats`) and other facts.
      ignored: settings of `config` that do not decide the outcome.

    Raises:
      InputError: an input is not there, or the folder was begun with other settings.
      EmptyError: nothing was kept.
    """
    inputs = getattr(self.config, "inputs", ())
    settings = {**dataclasses.asdict(self.config), **settings}
    settings = {name: settings[name] for name in settings if name not in ignored}
    if inputs:
      settings["read"] = read.identity(self._inputs, inputs)
    if folders.begin(self.folder, stage, settings):
      return folders.read_stats(self.folder)
    started = time.monotonic()
    counts, facts = work()
    if inputs:
      facts["lineage"] = read.lineage(inputs)
    # Peak memory of this process and its workers, in MiB.
    who = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    unit = 1 if sys.platform == "darwin" else 1024  # bytes of ru_maxrss
    peak = max(resource.getrusage(each).ru_maxrss for each in who) * unit / (1 << 20)
    seconds = time.monotonic() - started
    facts["run"] = {"seconds": round(seconds, 3), "peak_memory_mib": round(peak, 1)}
    return folders.finish(self.folder, stage, counts, facts)

  def plan(self) -> tuple[int, int | None]:
    """Cut the inputs into tasks, once; return how many, and the number of documents."""
    if not storage.exists(self.work / "plan" / "plan.json"):
      places = read.plan(self._inputs, self.config.inputs)
      read.save(self.work / "plan", read.cut(places, self.engine.count))
    made = storage.read_json(self.work / "plan" / "plan.json")
    return made["tasks"], made["documents"]

  def phase(
    self,
    name: str,
    function: Function,
    *arguments: Any,
    tasks: int | None = None,
    total: int | None = None,
    one_process: bool = False,
  ) -> Tally:
    """Run a phase; return the sum of the counts of its tasks.

    Tasks that an earlier run completed are not repeated.

    Args:
      name: of the phase, one of a kind in the stage.
      function: called with the arguments and a `Task`; is pickled.
      arguments: its first arguments.
      tasks: how many; None cuts the inputs, see `plan`.
      total: documents, for the progress bar.
      one_process: run the tasks in this process, one after the other.

    Raises:
      InputError: a task refused its input.
      TaskError: a task failed in another way.
    """
    if tasks is None:
      tasks, total = self.plan()
    place = self.work / name
    folders.remove_tree(place / "errors")  # of a run that was killed
    step = _Step(self.folder, place, functools.partial(function, *arguments))
    with self.engine.watched(f"{self.folder.name}: {name}", place, total):
      try:
        complete = self.engine.run(step, tasks, one_process)
      except Exception:
        step.raise_error()
        raise
    if not complete:
      step.raise_error()
      raise TaskError(f"{place}: a task did not end; run the same command again")
    return step.tally(tasks)
