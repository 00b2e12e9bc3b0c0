"""Executors: the same documents on workers, Ray and Slurm, and after kills.

A stand-in for sbatch runs the tasks in order.
"""

import contextlib
import os
import pathlib
import pickle
import signal
import subprocess
import sys
import time
import types

import pytest

from phi1_jax import InputError
from phi1_jax.curation import decontaminate, filtering, folder
from phi1_jax.curation.config import DecontaminateConfig, FilterConfig
from phi1_jax.curation.document import Keep
from phi1_jax.curation.engine import Job, TaskError
from phi1_jax.problems import humaneval
from tests.curation import samples

# Runs the array that a script asks for; notes the options.
SBATCH = """#!/bin/bash
script="${@: -1}"
cat "$script" >> "$NOTES"
last=$(sed -n 's/.*--array=0-\\([0-9]*\\).*/\\1/p' "$script")
for task in $(seq 0 "$last"); do
  SLURM_ARRAY_TASK_ID=$task SLURM_NODELIST=here bash "$script" &> /dev/null || code=$?
done
echo "Submitted batch job 7"
exit ${code:-0}
"""
SRUN = """#!/bin/sh
while [ "$1" != launch_pickled_pipeline ]; do shift; done
exec "$@"
"""
SCONTROL = "#!/bin/sh\necho $3\n"  # show hostnames LIST


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


def found(out):
  """The documents that a stage kept and dropped, sorted by id."""
  kept = [(d.id, folder.compact(d.record())) for d in folder.kept(out)]
  drops = [
    (d.document.id, d.reason, folder.compact(d.evidence)) for d in folder.dropped(out)
  ]
  return sorted(kept), sorted(drops)


def filtered(inputs, place, **engine):
  config = FilterConfig(inputs, classifier=None, licences=())
  filtering.run(samples.job(config, place, **engine))
  return found(place)


def test_tasks_and_workers_do_not_matter(inputs, tmp_path):
  """Those of deduplicate are in its own tests."""
  config = DecontaminateConfig(inputs, ("humaneval-164",))
  results = []
  for sizes in ({"tasks": 1}, {"tasks": 3, "workers": 2}):
    out = tmp_path / str(len(results))
    decontaminate.run(samples.job(config, out, **sizes))
    results.append(found(out))
  assert results[0] == results[1]
  assert len(results[0][0]) == 24


@pytest.fixture
def slurm(tmp_path, monkeypatch):
  """A folder of stand-ins on the path, and the scripts that were submitted to them."""
  notes, bin = tmp_path / "notes", tmp_path / "bin"
  bin.mkdir()
  for name, text in {"sbatch": SBATCH, "srun": SRUN, "scontrol": SCONTROL}.items():
    (bin / name).write_text(text)
    (bin / name).chmod(0o755)
  monkeypatch.setenv("NOTES", str(notes))
  monkeypatch.setenv("PATH", f"{bin}:{os.environ['PATH']}")
  return bin, notes


@pytest.mark.parametrize("executor", ["ray", "slurm"])
def test_executors_find_the_same(inputs, tmp_path, slurm, executor):
  if executor == "ray":
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=2, log_to_driver=False, configure_logging=False)
  try:
    kept, drops = filtered(inputs, tmp_path / "out", workers=2, executor=executor)
  finally:
    if executor == "ray":
      ray.shutdown()
  assert (kept, drops) == filtered(inputs, tmp_path / "local")
  assert len(kept) == 30
  if executor == "slurm":
    assert "--array=0-1%2" in slurm[1].read_text()
    assert "--partition" not in slurm[1].read_text()  # Slurm's, or of the environment


def test_what_fails_on_slurm_is_named(inputs, tmp_path, slurm, monkeypatch):
  (tmp_path / "rows.parquet").write_bytes(b"PAR1 of something else PAR1")
  with pytest.raises(InputError, match=r"rows\.parquet"):  # the error of a task
    filtered((f"{tmp_path}/rows.parquet",), tmp_path / "out", executor="slurm", tasks=1)
  (slurm[0] / "sbatch").write_text("#!/bin/sh\nexit 1\n")
  with pytest.raises(InputError, match="sbatch refused the jobs with exit code 1"):
    filtered(inputs, tmp_path / "refused", executor="slurm")
  monkeypatch.setenv("PATH", str(tmp_path))
  with pytest.raises(InputError, match="found no sbatch"):
    filtered(inputs, tmp_path / "absent", executor="slurm")


def write(place, task):
  """Write one document; fail or die once where a file says so."""
  (place / f"seen-{task.rank}-{time.monotonic_ns()}").touch()
  for name in ("fails", "dies"):
    told = place / f"{name}-{task.rank}"
    if told.exists():
      told.unlink()
      if name == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
      raise TaskError("the first time")
  return task.write([Keep(samples.document(f"text {task.rank}"))])


def run(place, tasks, shown=None, **settings):
  job = Job(None, place / "out", **settings)
  return job.phase("phase", write, place, tasks=tasks, **shown or {})


def fail(error, task):
  raise error


@pytest.mark.parametrize("error", [InputError("x: not readable"), KeyError("inside")])
def test_the_error_of_a_task_is_that_of_the_stage(tmp_path, error):
  place = tmp_path / folder.ENGINE / "phase" / "errors"
  place.mkdir(parents=True)
  (place / "00000.json").write_bytes(pickle.dumps(InputError("of a killed run")))
  with pytest.raises(type(error), match=str(error).strip("'")):
    samples.job(None, tmp_path).phase("phase", fail, error, tasks=2)


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


@pytest.mark.parametrize("unit", ["documents", "tasks"])
def test_progress_adds_up(tmp_path, unit):
  seen = []

  @contextlib.contextmanager
  def bar(*arguments):
    seen.append(arguments)
    yield types.SimpleNamespace(update=seen.append)

  run(tmp_path, 5, {"total": 5, "unit": unit}, workers=1, bar=bar)
  assert seen[0] == (5, unit, "out: phase")
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
    done = tmp_path / "killed" / folder.ENGINE / phase / "tally"
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


SLEEPING = """
import os, pathlib, sys, time
from phi1_jax.curation.engine import Job

def sleep(place, task):
  (place / f"worker-{task.rank}").write_text(str(os.getpid()))
  time.sleep(600)

if __name__ == "__main__":
  place = pathlib.Path(sys.argv[1])
  Job(None, place / "out", workers=2).phase("phase", sleep, place, tasks=2)
"""


def test_workers_end_with_a_killed_stage(tmp_path):
  (tmp_path / "main.py").write_text(SLEEPING)
  words = [sys.executable, tmp_path / "main.py", tmp_path]
  environment = {**os.environ, "PYTHONPATH": str(pathlib.Path(__file__).parents[2])}
  started = subprocess.Popen(words, env=environment)
  files = [tmp_path / "worker-0", tmp_path / "worker-1"]
  try:
    assert wait_for(lambda: all(file.exists() and file.read_text() for file in files))
  finally:
    started.kill()
    started.wait()
  for file in files:
    proc = pathlib.Path("/proc", file.read_text())
    assert wait_for(lambda proc=proc: not proc.exists())
