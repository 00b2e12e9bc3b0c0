"""Executors: the same documents on local workers, on Ray, and after kills."""

import os
import pathlib
import pickle
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
from phi1_jax.curation.engine import Engine, Job, TaskError
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
    folder.spill(place / f"{part}.parquet", made, folder.KEPT)
  return (str(place / "*.parquet"),)


def run_all(inputs, place, engine):
  """The documents that a chain of stages keeps and drops, sorted by id."""
  places = [place / name for name in ("deduplicate", "filter", "decontaminate")]
  config = DeduplicateConfig(inputs, maximum_loss=1.0)
  deduplicate.run(Job(config, places[0], engine))
  config = FilterConfig((str(places[0]),), classifier=None, licences=())
  filtering.run(Job(config, places[1], engine))
  config = DecontaminateConfig((str(places[1]),), ("humaneval-164",))
  decontaminate.run(Job(config, places[2], engine))
  found = []
  for each in places:
    kept = [(d.id, folder.compact(d.record())) for d in folder.kept(each)]
    drops = [
      (d.document.id, d.reason, folder.compact(d.evidence))
      for d in folder.dropped(each)
    ]
    found.append((sorted(kept), sorted(drops)))
  return found


def test_tasks_workers_and_executors_do_not_matter(inputs, tmp_path):
  one = run_all(inputs, tmp_path / "one", Engine(tasks=1, workers=1))
  two = run_all(inputs, tmp_path / "two", Engine(tasks=3, workers=2))
  assert one == two
  assert len(one[2][0]) > 3
  ray = pytest.importorskip("ray")
  ray.init(num_cpus=2, log_to_driver=False, configure_logging=False)
  try:
    found = run_all(inputs, tmp_path / "ray", Engine("ray", tasks=2, workers=2))
  finally:
    ray.shutdown()
  assert found == one


def write(place, task):
  """Write one document; fail or die once, or wait, where a file says so."""
  (place / f"seen-{task.rank}-{time.monotonic_ns()}").touch()
  for name in ("fails", "dies", "sleeps"):
    told = place / f"{name}-{task.rank}"
    if told.exists() and name == "sleeps":
      told.write_text(str(os.getpid()))
      time.sleep(60)
    elif told.exists():
      told.unlink()
      if name == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
      raise TaskError("the first time")
  return task.write([Keep(samples.document(f"text {task.rank}"))])


def run(place, tasks, **settings):
  job = Job(None, place / "out", Engine(**settings))
  return job.phase("phase", write, place, tasks=tasks, total=tasks)


def fail(error, task):
  raise error


@pytest.mark.parametrize("error", [InputError("x: not readable"), KeyError("inside")])
def test_the_error_of_a_task_is_that_of_the_stage(tmp_path, error):
  place = tmp_path / folder.ENGINE / "phase" / "errors"
  place.mkdir(parents=True)
  (place / "00000.json").write_bytes(pickle.dumps(InputError("of a killed run")))
  job = Job(None, tmp_path, Engine(workers=1))
  with pytest.raises(type(error), match=str(error).strip("'")):
    job.phase("phase", fail, error, tasks=2)


@pytest.mark.parametrize(
  ("told", "says", "workers"),
  [("fails-3", "the first time", 1), ("dies-1", "a worker was killed", 2)],
)
def test_complete_tasks_are_not_repeated(tmp_path, told, says, workers):
  (tmp_path / told).touch()
  with pytest.raises(TaskError, match=says):
    run(tmp_path, 4, workers=workers)
  assert run(tmp_path, 4, workers=workers).stats()["kept"] == 4
  seen = sorted(path.name.split("-")[1] for path in tmp_path.glob("seen-*"))
  assert workers == 2 or seen == ["0", "1", "2", "3", "3"]


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
  run(tmp_path, 5, workers=1, bar=lambda *arguments: _Bar(seen, *arguments))
  assert seen[0] == (5, "documents", "out: phase")
  assert sum(seen[1:]) == 5


def start(inputs, place):
  words = [sys.executable, "-m", "phi1_jax.curate", "deduplicate", "--tasks=6"]
  words += ["--workers=2", "--gin.Deduplicate.maximum_loss=1.0", f"--workdir={place}"]
  words.append(f"--gin.Deduplicate.inputs={inputs!r}")
  return subprocess.Popen(
    words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
  )


def test_a_killed_stage_goes_on_to_the_same_files(inputs, tmp_path):
  assert start(inputs, tmp_path / "alone").wait() == 0
  for phase in ("read", "compare"):
    killed = start(inputs, tmp_path / "killed")
    done = tmp_path / "killed" / folder.ENGINE / phase / "completions"
    wait_for(lambda run=killed, done=done: run.poll() is not None or done.is_dir())
    killed.kill()
    killed.wait()
  last = start(inputs, tmp_path / "killed")
  assert last.wait() == 0, last.stderr.read()
  one, other = (
    {file.name: file.read_bytes() for file in place.glob("*.parquet")}
    for place in (tmp_path / "alone", tmp_path / "killed")
  )
  assert one == other


def wait_for(condition, seconds=300):
  end = time.monotonic() + seconds
  while not condition() and time.monotonic() < end:
    time.sleep(0.05)
  return condition()


def test_workers_end_with_a_killed_stage(tmp_path):
  code = (
    "import pathlib\n"
    "from tests.curation import engine_test\n"
    "if __name__ == '__main__':\n"
    f"  engine_test.run(pathlib.Path({str(tmp_path)!r}), 2, workers=2)\n"
  )
  (tmp_path / "main.py").write_text(code)
  files = [tmp_path / "sleeps-0", tmp_path / "sleeps-1"]
  for file in files:
    file.touch()
  root = pathlib.Path(__file__).parents[2]
  environment = {**os.environ, "PYTHONPATH": str(root)}
  started = subprocess.Popen([sys.executable, tmp_path / "main.py"], env=environment)
  try:
    assert wait_for(lambda: all(file.read_text() for file in files))
  finally:
    started.kill()
    started.wait()
  for file in files:
    proc = pathlib.Path("/proc", file.read_text())
    assert wait_for(lambda proc=proc: not proc.exists())
