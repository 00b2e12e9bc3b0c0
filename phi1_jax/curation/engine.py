"""Runs a stage: its settings, its phases, and their tasks on local cores, Ray or Slurm.

A phase is a function that is called once per task. Task n reads the n-th part of the
input and writes files of its own, so tasks share nothing. A task is complete when the
file with its counts is there; a killed run continues with the others. On Ray and Slurm
datatrove runs the tasks; on local cores a `ProcessPoolExecutor`, which reports a killed
worker.
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
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Literal

import loguru

from phi1_jax import InputError, cores, how_to_install, storage
from phi1_jax.curation import folder as folders
from phi1_jax.curation import read
from phi1_jax.curation.config import EXECUTORS
from phi1_jax.curation.document import Decision, Tally
from phi1_jax.settings import PositiveInt, checked
from phi1_jax.storage import AnyPath

# Between two looks at what is done, for the bar; in a bucket.
_LOOK_SECONDS, _REMOTE_SECONDS = 0.5, 20.0
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
  count: Callable[[Iterable[Decision]], Iterator[Decision]] = iter  # for the bar

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
    return self.count(read.of_task(self.work / "plan", self.rank))

  def write(self, decisions: Iterable[Decision]) -> Tally:
    """Write the task's files of the stage; return the counts."""
    return folders.write(self.folder, self.count(decisions), self.rank, self.tasks)


class _Counter:
  """Writes into a file, now and then, how many documents a task has read or written."""

  def __init__(self, path: AnyPath):
    self._path, self._most, self._next = path, 0, 0.0
    path.parent.mkdir(parents=True, exist_ok=True)

  def __call__(self, decisions: Iterable[Decision]) -> Iterator[Decision]:
    """Yield decisions; count each once it was used."""
    for number, decision in enumerate(decisions, 1):
      yield decision
      self._most = max(self._most, number)
      if time.monotonic() >= self._next:
        self._write()
    self._write()

  def _write(self) -> None:
    self._next = time.monotonic() + _LOOK_SECONDS
    self._path.write_text(str(self._most))


@dataclasses.dataclass(frozen=True)
class _Step:
  """A datatrove step: runs a task, and writes down its counts or its error."""

  folder: AnyPath
  place: AnyPath  # of the phase
  function: Callable[[Task], Tally | None]

  def __call__(self, data: Any, rank: int, world_size: int) -> None:
    """Run a task."""
    if storage.exists(self.place / "tally" / f"{rank:05d}.json"):
      return
    # Syntax trees have no cycles; looking for some took a quarter of the time.
    gc.set_threshold(100_000, 50, 100)
    task = Task(self.folder, rank, world_size)
    if not storage.is_remote(self.place):
      counter = _Counter(self.place / "progress" / task.name)
      task = dataclasses.replace(task, count=counter)
    try:
      tally = self.function(task) or Tally()
    except Exception as error:
      try:
        pickle.loads(content := pickle.dumps(error))
      except Exception:
        content = pickle.dumps(TaskError(f"{type(error).__name__}: {error}"))
      self._write("errors", rank, content)
      raise
    self._write("tally", rank, json.dumps(tally.record()).encode())

  def _write(self, kind: str, rank: int, content: bytes) -> None:
    (self.place / kind).mkdir(parents=True, exist_ok=True)
    storage.write_bytes(self.place / kind / f"{rank:05d}.json", content)

  def complete(self) -> set[int]:
    """Return the complete tasks."""
    names = storage.names(self.place / "tally")
    return {int(name[:-5]) for name in names if name.endswith(".json")}

  def documents(self) -> int:
    """Return how many documents the tasks have read or written."""
    done = 0
    for file in (self.place / "progress").glob("*"):
      with contextlib.suppress(OSError, ValueError):  # it is being written
        done += int(file.read_text())
    return done

  def tally(self, tasks: int) -> Tally:
    """Return the sum of the counts of all tasks."""
    sums = Tally()
    for rank in range(tasks):
      sums.merge(
        json.loads(storage.read_text(self.place / "tally" / f"{rank:05d}.json"))
      )
    return sums

  def raise_error(self) -> None:
    """Raise the first error of a task, and forget all of them."""
    errors = self.place / "errors"
    if found := storage.names(errors):
      error = pickle.loads(storage.read_bytes(errors / found[0]))
      folders.remove_tree(errors)
      raise error


def _run_locally(step: _Step, tasks: int, workers: int) -> None:
  """Run incomplete tasks in this process, or in workers that may be killed."""
  ranks = sorted(set(range(tasks)) - step.complete())
  if min(workers, len(ranks)) <= 1:
    for rank in ranks:
      step(None, rank, tasks)
    return
  context = multiprocessing.get_context("forkserver")
  workers = min(workers, len(ranks))
  pool = concurrent.futures.ProcessPoolExecutor(workers, context, _end_with_parent)
  try:
    started = [pool.submit(step, None, rank, tasks) for rank in ranks]
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
  """End this worker with the process that started it, also if that was killed.

  Ctrl-C, which reaches all of them, ends it without a traceback.
  """
  signal.signal(signal.SIGINT, signal.SIG_DFL)
  parent = multiprocessing.parent_process()
  assert parent

  def wait() -> None:
    parent.join()
    os._exit(1)

  threading.Thread(target=wait, daemon=True).start()


@dataclasses.dataclass(frozen=True)
class Job:
  """A run of a stage."""

  config: Any  # the stage's settings
  folder: AnyPath  # the stage's folder, which every worker can write to
  executor: str = "local"  # one of `EXECUTORS`
  tasks: int | None = None  # parts of an input; None chooses by its bytes
  # Tasks at the same time; None is all cores of this machine or of Ray.
  workers: int | None = None
  # Makes a progress bar of total, unit and description; None shows none.
  bar: Callable[[int | None, str, str], Any] | None = None
  client: Any = None  # opens a client of an LLM; a stage that needs none never does

  def __post_init__(self):
    """Refuse wrong settings."""
    checked("--executor", self.executor, Literal[EXECUTORS])
    checked("--tasks", self.tasks, PositiveInt | None)
    checked("--workers", self.workers, PositiveInt | None)

  def count(self, size: int, parts: int) -> int:
    """Return the number of tasks for an input of `size` bytes in `parts` parts."""
    wanted = self.tasks or min(-(-size // _TASK_BYTES), _MOST_TASKS)
    return max(1, min(wanted, parts))

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

  def plan(self) -> int:
    """Cut the inputs into tasks, once; return how many."""
    if not storage.exists(self.work / "plan" / "plan.json"):
      places = read.plan(self._inputs, self.config.inputs)
      read.save(self.work / "plan", read.cut(places, self.count))
    return storage.read_json(self.work / "plan" / "plan.json")["tasks"]

  @property
  def documents(self) -> int | None:
    """Documents of `plan`, if their number is known before they are read."""
    return storage.read_json(self.work / "plan" / "plan.json").get("documents")

  def phase(
    self,
    name: str,
    function: Callable[..., Tally | None],
    *arguments: Any,
    tasks: int | None = None,
    total: int | None = None,
    unit: Literal["documents", "tasks"] = "documents",
    one_process: bool = False,
  ) -> Tally:
    """Run a phase; return the sum of the counts of its tasks.

    Tasks that an earlier run completed are not repeated.

    Args:
      name: of the phase, one of a kind in the stage.
      function: called with the arguments and a `Task`; is pickled.
      arguments: the first ones of the function.
      tasks: how many; None cuts the inputs, see `plan`.
      total: documents, for the progress bar; None is not known.
      unit: what the bar counts; in a bucket always tasks.
      one_process: run the tasks in this process, one after the other.

    Raises:
      InputError: a task refused its input.
      TaskError: a task failed in another way.
    """
    place = self.work / name
    if tasks is None:
      tasks, total = self.plan(), self.documents
    folders.remove_tree(place / "errors")  # of a run that was killed
    step = _Step(self.folder, place, functools.partial(function, *arguments))
    if unit == "tasks" or storage.is_remote(self.folder):
      unit, total = "tasks", tasks
    with self._watched(f"{self.folder.name}: {name}", step, total, unit):
      try:
        self._run(step, tasks, one_process)
      except Exception:
        step.raise_error()
        raise
    step.raise_error()
    if len(step.complete()) < tasks:
      raise TaskError(f"{place}: a task did not end; run the same command again")
    return step.tally(tasks)

  def _run(self, step: _Step, tasks: int, one_process: bool) -> None:
    """Run the tasks that are not complete."""
    executor = "local" if one_process else self.executor
    if executor == "local":
      return _run_locally(step, tasks, 1 if one_process else self.workers or cores())
    if executor == "slurm":
      from phi1_jax.curation import slurm

      return slurm.run(step, step.place, tasks, self.workers)
    try:
      import ray
    except ImportError:
      raise InputError(f"--executor=ray needs ray: {how_to_install('ray')}") from None
    from datatrove.executor.ray import RayPipelineExecutor

    if not ray.is_initialized():
      ray.init(log_to_driver=False, configure_logging=False)
    workers = min(tasks, self.workers or int(ray.cluster_resources().get("CPU", 1)))
    options: Any = {"logging_dir": os.fspath(step.place), "mem_per_cpu_gb": 0.1}
    RayPipelineExecutor([step], tasks, workers, **options).run()

  @contextlib.contextmanager
  def _watched(
    self, title: str, step: _Step, total: int | None, unit: str
  ) -> Iterator[None]:
    """Show a progress bar of the documents or tasks that are done."""
    if self.bar is None:
      yield
      return
    ended = threading.Event()
    pause = _REMOTE_SECONDS if storage.is_remote(self.folder) else _LOOK_SECONDS

    def watch(make: Callable[..., Any]) -> None:
      seen, last = 0, False
      with make(total, unit, title) as bar:
        while not last:
          last = ended.wait(pause)
          now = len(step.complete()) if unit == "tasks" else step.documents()
          now = min(now, total or now)  # files without a document are not in the total
          bar.update(now - seen)
          seen = now

    thread = threading.Thread(target=watch, args=(self.bar,), daemon=True)
    thread.start()
    try:
      yield
    finally:
      ended.set()
      thread.join()
