"""The train command in cloud storage, and on a disk that fills up."""

import contextlib
import os
import re
import subprocess
import sys
import time

import numpy as np
import pytest

from phi1_jax import storage

STEPS = 16
RUN = {"Train.total_steps": STEPS, "Train.log_every": 1, "Train.evaluate_every": 8}
RUN |= {"Mesh.fsdp": -1, "Checkpoint.every": 4}
RUN |= {"Model.embed_dim": 16, "Model.mlp_dim": 32}


@pytest.fixture(scope="module")
def place(tmp_path_factory, tiny_run, words_store):
  """A folder with run.gin and a token store."""
  place = tmp_path_factory.mktemp("cloud")
  cache = {"Runtime.compilation_cache": str(place / "compiled")}
  (place / "run.gin").write_text(tiny_run({**RUN, **cache}))
  words_store(place / "store", held_out_every=5)
  return place


# gcsfs itself waits half a minute before it reports an error.
TRAIN = """
import asyncio, runpy, types
from gcsfs import retry
retry.asyncio = types.SimpleNamespace(sleep=lambda s: asyncio.sleep(s / 20))
runpy.run_module("phi1_jax.train", run_name="__main__")
"""


def start(place, workdir, *flags, store="store", environment=None):
  """Starts the command; steps are compiled once for all tests."""
  words = ["--gin_file=run.gin", f"--workdir={workdir}", f"--gin.Data.store={store}"]
  return subprocess.Popen(
    [sys.executable, "-u", "-c", TRAIN, *words, *flags],
    cwd=place,
    env={**os.environ, **(environment or {})},
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )


def finished(process, code=0):
  output, _ = process.communicate(timeout=300)
  assert process.returncode == code, output
  return output


def curve(workdir):
  """(step, name) -> loss, norm or evaluation."""
  found = {}
  for row in storage.read_lines(storage.parse(workdir) / "metrics.jsonl"):
    for name, value in row.items():
      if name in ("loss", "grad_norm", "eval/loss"):
        assert (row["step"], name) not in found
        found[row["step"], name] = value
  return found


@pytest.fixture(scope="module")
def alone(place):
  """What an undisturbed run on the local disk computes."""
  finished(start(place, "alone"))
  found = curve(place / "alone")
  assert {step for step, _ in found} == set(range(1, STEPS + 1))
  return found


@pytest.fixture
def cloud(gcs, place):
  """The server, with the token store in this test's folder."""
  for path in (place / "store").iterdir():
    target = storage.parse(f"{gcs.folder}/store/{path.name}")
    storage.write_bytes(target, path.read_bytes())
  return gcs


def objects(gcs, folder):
  prefix = f"{gcs.folder.removeprefix('gs://bucket/')}/{folder}/"
  return {name.removeprefix(prefix) for name in gcs.objects(prefix)}


def test_a_run_killed_at_random_moments(cloud, place, alone):
  """Work directory, store and checkpoints are in the bucket; nothing is local."""
  workdir, store = f"{cloud.folder}/run", f"{cloud.folder}/store"
  chance = np.random.default_rng(0)
  for _ in range(2):
    process = start(place, workdir, store=store)
    goal = int(chance.integers(3, STEPS - 4))
    for line in process.stdout:
      if (step := re.match(r"step +(\d+)/", line)) and int(step[1]) >= goal:
        break
    time.sleep(chance.uniform(0, 0.3))
    process.kill()
    process.wait()
  finished(start(place, workdir, store=store))
  assert curve(workdir) == alone
  found = objects(cloud, "run")
  expected = {"config.gin", "metrics.jsonl", "summary.json", "loss.png", "starts.jsonl"}
  expected |= {"tokenizer.json", f"checkpoints/{STEPS}/commit_success.txt"}
  assert expected <= found
  assert any(name.startswith("tensorboard/") for name in found)
  assert ".lock" not in found
  assert not [path for path in place.iterdir() if path.name.startswith("gs")]
  summary = storage.read_json(storage.parse(workdir) / "summary.json")
  assert summary["step"] == STEPS
  assert summary["goodput"]["starts"] == 3


def test_faults_of_the_server_change_nothing(cloud, place, alone):
  """503 in the middle of a save, uploads that break off, slow and cut answers."""
  cloud.fail(method="POST", path="checkpoints%2F4%2Fstate", status=503, times=4)
  cloud.fail(method="POST", path="uploadType=(multipart|resumable)", lose=True, times=1)
  cloud.fail(method="POST", path="checkpoints%2F8%2Fstate%2Fd", lose=True, times=1)
  cloud.fail(method="GET", path="tokens-00000", cut=True, times=1)
  cloud.fail(method="GET", path="metrics.jsonl", delay=2.0, times=1)
  workdir, store = f"{cloud.folder}/run", f"{cloud.folder}/store"
  finished(start(place, workdir, "--gin.Train.stop_at_step=8", store=store))
  met = cloud.heal()
  assert len(met) == 8, "\n".join(met)
  # The next start reads the checkpoint through faults, and does not take it for damage.
  cloud.fail(method="GET", path="checkpoints%2F8%2Fstate", status=503, times=3)
  cloud.fail(
    method="GET", path="checkpoints%2F8%2Fmeta%2Fmetadata", status=429, times=1
  )
  output = finished(start(place, workdir, store=store))
  assert len(cloud.heal()) == 4
  assert "going on from step 8" in output
  assert curve(workdir) == alone
  assert not [name for name in objects(cloud, "run") if "damaged" in name]


def test_an_outage_ends_the_run_in_one_line_and_moves_nothing(cloud, place, alone):
  workdir = f"{cloud.folder}/run"
  finished(start(place, workdir, "--gin.Train.stop_at_step=8"))
  before = objects(cloud, "run")
  cloud.fail(method="GET", path="%2Fmeta%2Fmetadata", status=503, times=99)
  environment = {"PHI1_JAX_RETRY_SECONDS": "1"}
  output = finished(start(place, workdir, environment=environment), 1)
  assert "Traceback" not in output
  assert output.rstrip().split("\n")[-1].startswith("error: reading gs://")
  cloud.heal()
  assert objects(cloud, "run") >= before - {"summary.json"}
  finished(start(place, workdir))
  assert curve(workdir) == alone


@contextlib.contextmanager
def small_disk(folder, num_bytes):
  """Mounts a file system of so many bytes; skips where that is not allowed."""
  folder.mkdir()
  words = ["mount", "-t", "tmpfs", "-o", f"size={num_bytes}", "tmpfs", str(folder)]
  try:
    subprocess.run(words, check=True, capture_output=True)
  except (OSError, subprocess.CalledProcessError) as error:
    pytest.skip(f"cannot mount a small disk here: {error}")
  try:
    yield folder
  finally:
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


FILL = """
import os, time

def fill(setup, store):
  def run(step, state):
    while not (setup.workdir / "checkpoints" / "4").is_dir():
      time.sleep(0.01)
    disk = setup.workdir.parent
    free = os.statvfs(disk)
    with (disk / "other").open("wb") as file:  # leaves room for rows, not for a save
      file.write(bytes(free.f_bavail * free.f_frsize - (48 << 10)))
    return ()
  return run
"""


def test_a_disk_that_fills_up_during_a_save(place, tmp_path):
  """The last checkpoint stays whole; one line says what happened."""
  (place / "fill_hook.py").write_text(FILL)
  with small_disk(tmp_path / "disk", 4 << 20) as disk:
    flags = ["--gin.Runtime.hooks={'fill_hook:fill': 5}", "--gin.Checkpoint.every=2"]
    flags += ["--gin.Checkpoint.keep_latest=99"]
    environment = {"PYTHONPATH": f".:{os.environ.get('PYTHONPATH', '')}"}
    output = finished(start(place, disk / "run", *flags, environment=environment), 1)
    assert "Traceback" not in output, output
    errors = [line for line in output.split("\n") if line.startswith("error")]
    assert len(errors) == 1
    assert "No space left" in errors[0]
    assert sum("could not be saved" in line for line in output.split("\n")) == 2
    (disk / "other").unlink()
    output = finished(start(place, disk / "run"))
    assert "going on from step 4" in output, output


def test_a_disk_that_is_full_at_the_start(place, tmp_path):
  with small_disk(tmp_path / "disk", 64 << 10) as disk:
    (disk / "other").write_bytes(bytes(os.statvfs(disk).f_bavail * 4096))
    output = finished(start(place, disk / "run"), 2)
    assert "Traceback" not in output
    lines = [line for line in output.split("\n") if line.startswith("error")]
    assert len(lines) == 1
