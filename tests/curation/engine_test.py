"""Executors: the same documents on local workers, on Ray, and after kills."""

import gzip
import os
import pathlib
import pickle
import random
import signal
import subprocess
import sys
import time

import pytest

from phi1_jax import InputError
from phi1_jax.curation import decontaminate, deduplicate, engine, filtering, folder
from phi1_jax.curation.config import (
  DecontaminateConfig,
  DeduplicateConfig,
  FilterConfig,
)
from phi1_jax.curation.document import Keep
from phi1_jax.curation.engine import Each, Engine, TaskError, Write
from phi1_jax.problems import humaneval
from tests.curation import samples


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
  """Files with near-duplicates, copies, solutions of problems, and settings."""
  place = tmp_path_factory.mktemp("inputs")
  texts = [samples.algorithm(n % 9) for n in range(18)]
  texts += [problem.solution for problem in humaneval.load()[:6]]
  texts += [samples.settings(n) for n in range(6)]
  for part in range(3):
    made = [Keep(samples.document(t, f"s{part}")) for t in texts[part::3]]
    folder.spill(place, f"{part}.parquet", made, schema=folder.KEPT)
  return (str(place / "*.parquet"),)


def run_all(inputs, place, engine):
  """The documents that a chain of stages keeps and drops, sorted by id."""
  places = [place / name for name in ("deduplicate", "filter", "decontaminate")]
  deduplicate.run(DeduplicateConfig(inputs, maximum_loss=1.0), places[0], engine)
  config = FilterConfig((str(places[0]),), classifier=None, licences=())
  filtering.run(config, places[1], engine)
  config = DecontaminateConfig((str(places[1]),), ("humaneval-164",))
  decontaminate.run(config, places[2], engine)
  found = []
  for each in places:
    documents = [(d.id, folder.compact(d.record())) for d in folder.kept(each)]
    drops = [
      (d.document.id, d.reason, folder.compact(d.evidence))
      for d in folder.dropped(each)
    ]
    found.append((sorted(documents), sorted(drops)))
  return found


def test_workers_and_tasks_do_not_matter(inputs, tmp_path):
  one = run_all(inputs, tmp_path / "one", Engine(tasks=1, workers=1))
  two = run_all(inputs, tmp_path / "two", Engine(tasks=3, workers=2))
  assert one == two
  assert len(one[2][0]) > 3


def test_ray_keeps_the_same(inputs, tmp_path):
  ray = pytest.importorskip("ray")
  local = run_all(inputs, tmp_path / "local", Engine(tasks=2, workers=1))
  ray.init(num_cpus=2, log_to_driver=False, configure_logging=False)
  try:
    found = run_all(inputs, tmp_path / "ray", Engine("ray", tasks=2, workers=2))
  finally:
    ray.shutdown()
  assert found == local


def fail(decision, error):
  raise error


def test_the_error_of_a_task_is_that_of_the_stage(tmp_path):
  for error in (InputError("x.jsonl: not readable"), KeyError("inside")):
    steps = [_Documents(), Each(fail, (error,)), Write(tmp_path, "phase")]
    with pytest.raises(type(error), match=str(error).strip("'")):
      Engine(workers=1).run(tmp_path, "phase", steps, tasks=2)


def test_an_input_that_ends_early_is_refused_by_name(tmp_path):
  for name in "ab":
    torn = gzip.compress(b'{"text": "x = 1"}\n' * 99)[:-9]
    (tmp_path / f"{name}.jsonl.gz").write_bytes(torn)
  config = DeduplicateConfig((str(tmp_path / "*.gz"),))
  with pytest.raises(InputError, match=r"jsonl\.gz: not readable after line"):
    deduplicate.run(config, tmp_path / "out", Engine(tasks=2, workers=2))


class _Documents:
  def __call__(self, data, rank, world_size):
    yield Keep(samples.document(f"text {rank}"))


class _Counted(_Documents):
  """Counts the tasks that run, in files, and fails once in the last."""

  def __init__(self, place):
    self.place = place

  def __call__(self, data, rank, world_size):
    (self.place / f"{rank}-{time.monotonic_ns()}").touch()
    if rank == world_size - 1 and len(list(self.place.glob(f"{rank}-*"))) == 1:
      raise TaskError("the first time")
    yield from super().__call__(data, rank, world_size)


def test_complete_tasks_are_not_repeated(tmp_path):
  seen, out = tmp_path / "seen", tmp_path / "out"
  seen.mkdir()
  steps = [_Counted(seen), Write(out, "phase")]
  with pytest.raises(TaskError, match="the first time"):
    Engine(workers=1).run(out, "phase", steps, tasks=4)
  tally = Engine(workers=1).run(out, "phase", steps, tasks=4)
  assert sorted(name.name[0] for name in seen.iterdir()) == ["0", "1", "2", "3", "3"]
  assert tally.stats()["kept"] == 4


class _Bar:
  def __init__(self, seen, *arguments):
    self.seen, self.arguments = seen, arguments

  def __enter__(self):
    self.seen.append(self.arguments)
    return self

  def __exit__(self, *exception):
    pass

  def update(self, count):
    self.seen.append(count)


def test_progress_adds_up(tmp_path, monkeypatch):
  monkeypatch.setattr(engine, "_TICK", 0.0)
  seen = []
  made = Engine(workers=1, bar=lambda *arguments: _Bar(seen, *arguments))
  made.run(tmp_path, "phase", [_Documents(), Write(tmp_path, "phase")], 5, total=5)
  assert seen[0] == (5, "documents", f"{tmp_path.name}: phase")
  assert sum(seen[1:]) == 5


FLAGS = (
  "deduplicate",
  "--tasks=6",
  "--workers=2",
  "--gin.Deduplicate.maximum_loss=1.0",
)


def start(inputs, place):
  words = [sys.executable, "-m", "phi1_jax.curate", *FLAGS, f"--workdir={place}"]
  words.append(f"--gin.Deduplicate.inputs={inputs!r}")
  return subprocess.Popen(
    words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
  )


def outcome(place):
  files = sorted(place.glob("*.parquet"))
  return {file.name: file.read_bytes() for file in files}


def test_a_killed_stage_goes_on_to_the_same_files(inputs, tmp_path):
  alone = start(inputs, tmp_path / "alone")
  began = time.monotonic()
  assert alone.wait() == 0
  seconds = time.monotonic() - began
  chance = random.Random(1)
  for _ in range(3):
    killed = start(inputs, tmp_path / "killed")
    time.sleep(chance.uniform(0.4, 1.0) * seconds)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
  last = start(inputs, tmp_path / "killed")
  assert last.wait() == 0, last.stderr.read()
  assert outcome(tmp_path / "killed") == outcome(tmp_path / "alone")


class _Killed(_Documents):
  """Ends its worker once, as the kernel does when the memory is full."""

  def __init__(self, place):
    self.place = place

  def __call__(self, data, rank, world_size):
    if rank == 1 and not (self.place / "killed").exists():
      (self.place / "killed").touch()
      os.kill(os.getpid(), signal.SIGKILL)
    yield from super().__call__(data, rank, world_size)


def test_a_killed_worker_ends_the_stage_and_the_next_run_goes_on(tmp_path):
  steps = [_Killed(tmp_path), Write(tmp_path / "out", "phase")]
  with pytest.raises(TaskError, match="a worker was killed"):
    Engine(workers=2).run(tmp_path / "out", "phase", steps, tasks=3)
  tally = Engine(workers=2).run(tmp_path / "out", "phase", steps, tasks=3)
  assert tally.stats()["kept"] == 3


class _Waits(_Documents):
  def __init__(self, place):
    self.place = place

  def __call__(self, data, rank, world_size):
    (self.place / str(rank)).write_text(str(os.getpid()))
    time.sleep(60)
    yield from ()


def wait_for(condition, seconds=30):
  end = time.monotonic() + seconds
  while not condition() and time.monotonic() < end:
    time.sleep(0.05)
  return condition()


def test_workers_end_with_a_killed_stage(tmp_path):
  code = (
    "import pathlib\n"
    "from phi1_jax.curation.engine import Engine\n"
    "from tests.curation import engine_test\n"
    f"place = pathlib.Path({str(tmp_path)!r})\n"
    "if __name__ == '__main__':\n"
    "  steps = [engine_test._Waits(place)]\n"
    "  Engine(workers=2).run(place / 'out', 'phase', steps, 2)\n"
  )
  (tmp_path / "main.py").write_text(code)
  root = pathlib.Path(__file__).parents[2]
  environment = {**os.environ, "PYTHONPATH": str(root)}
  started = subprocess.Popen([sys.executable, tmp_path / "main.py"], env=environment)
  files = [tmp_path / "0", tmp_path / "1"]
  try:
    assert wait_for(lambda: all(f.exists() and f.read_text() for f in files))
  finally:
    started.kill()
    started.wait()
  for file in files:
    proc = pathlib.Path("/proc", file.read_text())
    assert wait_for(lambda proc=proc: not proc.exists(), 10)


def test_errors_of_a_killed_run_are_forgotten(tmp_path):
  place = tmp_path / folder.ENGINE / "phase" / "errors"
  place.mkdir(parents=True)
  (place / "00000.json").write_bytes(pickle.dumps(InputError("of a killed run")))
  steps = [_Counted(tmp_path), Write(tmp_path, "phase")]
  with pytest.raises(TaskError, match="the first time"):
    Engine(workers=1).run(tmp_path, "phase", steps, tasks=2)


def test_systems_without_affinity_have_cores_too(tmp_path, monkeypatch):
  monkeypatch.delattr(os, "sched_getaffinity", raising=False)
  steps = [_Documents(), Write(tmp_path, "phase")]
  assert Engine().run(tmp_path, "phase", steps, tasks=1).stats()["kept"] == 1


def test_memory_is_counted_in_the_unit_of_the_system(monkeypatch):
  found = {}
  for system in ("linux", "darwin"):
    monkeypatch.setattr(sys, "platform", system)
    facts = {}
    with folder.measured(facts):
      pass
    found[system] = facts["run"]["peak_memory_mib"]
  assert found["linux"] == pytest.approx(1024 * found["darwin"], rel=0.5)
