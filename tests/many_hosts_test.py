"""The train command on many hosts: real processes that meet on this machine."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from phi1_jax.telemetry.writers import read_metrics

DEVICES, STEPS, BATCH, LENGTH = 4, 12, 8, 16
RUN = {"Model.num_heads": 4, "Model.embed_dim": 16, "Mesh.data": 2}
RUN |= {"Train.total_steps": STEPS, "Train.batch_size": BATCH, "Train.log_every": 1}
RUN |= {"Train.evaluate_every": 4, "Train.sequences_per_device": 1}
RUN |= {"Checkpoint.every": 4, "Checkpoint.keep_latest": 9}
GO_ON = "run the same command on all hosts to go on from the last checkpoint"
SECONDS = 240  # for any wait

# The command, but for three things: devices of a host lie apart on the mesh, as on TPU
# slices; each host's rows are recorded as `rows/STEP.FIRST`; and a signal may strike
# when a batch is asked for (FAULT=STEP:SIGNAL).
PROGRAM = """
import os, pathlib, signal, time
import jax
import numpy as np
from phi1_jax import train
from phi1_jax.cli import command
from phi1_jax.parallel import hosts
from phi1_jax.training import hooks, setup, store, workdir

make_mesh = setup.make_mesh
setup.make_mesh = lambda config, _: make_mesh(
  config, jax.devices()[::2] + jax.devices()[1::2]
)
workdir.SHARED_SECONDS = 3
hosts.HEARTBEAT_SECONDS = 20  # Gloo does not always notice that its peer is dead
make_batches = store.train_batches
fault, _, name = os.environ.get("FAULT", "").partition(":")

class Recorded:
  def __init__(self, store, *, rows=None, start=0, **others):
    self.batches = make_batches(store, rows=rows, start=start, **others)
    self.step = start // others["batch_size"]
    self.numbers, self.close = rows, self.batches.close

  def __next__(self):
    if fault.isdigit() and self.step == int(fault):
      saved = pathlib.Path(os.environ["SAVED"])
      while not saved.is_dir():
        time.sleep(0.01)
      os.kill(os.getpid(), getattr(signal, name))
    rows = next(self.batches)
    path = f"{os.environ['ROWS']}/{self.step:02}.{self.numbers[0]}.npz"
    np.savez(path, numbers=self.numbers, rows=rows)
    self.step += 1
    return rows

held_out_batches = hooks.held_out_batches

def struck(*arguments, **named):
  global fault
  for batch in held_out_batches(*arguments, **named):
    if fault == "evaluation":
      fault = ""  # a second signal would kill
      os.kill(os.getpid(), getattr(signal, name))
    yield batch

store.train_batches, hooks.held_out_batches = Recorded, struck
command.run(train.main)
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory, tiny_run, words_store):
  """A folder with run.gin and two token stores."""
  place = tmp_path_factory.mktemp("hosts")
  cache = {"Runtime.compilation_cache": str(place / "compiled")}
  (place / "run.gin").write_text(tiny_run({**RUN, **cache}))
  for seed, name in enumerate(("store", "other")):
    words_store(place / name, seed=seed)
  return place


def free_port():
  with socket.create_server(("", 0)) as server:
    return server.getsockname()[1]


@contextlib.contextmanager
def started(place, workdir, count, *flags, faults=None, saved="", folders=None):
  """The command on `count` hosts; `folders` are where some of them run instead."""
  rows = place / workdir / "rows"
  rows.mkdir(parents=True, exist_ok=True)
  port, running = free_port(), []
  try:
    for host in range(count):
      words = ["--gin_file=run.gin", f"--workdir={workdir}"]
      words += [f"--simulated_devices={DEVICES // count}", *flags]
      if count > 1:
        words += [f"--coordinator_address=localhost:{port}"]
        words += [f"--num_processes={count}", f"--process_id={host}"]
      environment = {
        **os.environ,
        "ROWS": str(rows),
        "SAVED": f"{place / workdir}/checkpoints/{saved}",
        "FAULT": (faults or {}).get(host, ""),
      }
      running.append(
        subprocess.Popen(
          [sys.executable, "-u", "-c", PROGRAM, *words],
          cwd=(folders or {}).get(host, place),
          env=environment,
          stdout=(rows.parent / f"output.{host}").open("w"),
          stderr=subprocess.STDOUT,
        )
      )
    yield running
  finally:
    for process in running:
      process.kill()
      process.wait(SECONDS)


def run(place, workdir, count, *flags, **options):
  """Exit codes and outputs of the hosts of one start."""
  deadline = time.monotonic() + SECONDS
  with started(place, workdir, count, *flags, **options) as running:
    with contextlib.suppress(subprocess.TimeoutExpired):
      for process in running:
        process.wait(max(0, deadline - time.monotonic()))
    codes = [process.poll() for process in running]
  texts = [(place / workdir / f"output.{host}").read_text() for host in range(count)]
  for host, text in enumerate(texts):  # pytest shows them if the test fails
    print(f"---- {workdir}, host {host} of {count}: exit {codes[host]}\n{text}")
  return codes, texts


def curve(place, workdir):
  """(step, what) -> numbers; fails if a row is there twice."""
  found = {}
  for row in read_metrics(place / workdir / "metrics.jsonl"):
    key = row["step"], "eval/loss" in row
    assert key not in found
    names = ("loss", "grad_norm", "eval/loss", "tokens_seen")
    found[key] = [row[name] for name in names if name in row]
  return found


def batches(place, workdir):
  """The global batch of every step, from the rows of all hosts."""
  found = {}
  for path in (place / workdir / "rows").iterdir():
    part, step = np.load(path), int(path.stem.split(".")[0])
    batch = found.setdefault(step, np.full((BATCH, LENGTH + 1), -1, np.int32))
    batch[part["numbers"]] = part["rows"]
  return found


def same_curve(place, workdir, other):
  found, expected = curve(place, workdir), curve(place, other)
  assert found.keys() == expected.keys()
  for key, numbers in found.items():
    assert numbers == pytest.approx(expected[key], rel=1e-5), key


def test_a_stop_inside_an_evaluation_ends_it_on_all_hosts(place, alone):
  """SIGTERM reaches the second host in the first batch of the evaluation at step 4."""
  codes, texts = run(place, "evaluating", 2, faults={1: "evaluation:SIGTERM"})
  assert codes == [75, 75], texts
  assert sorted(curve(place, "evaluating")) == [(step, False) for step in range(1, 5)]
  assert (place / "evaluating" / "checkpoints" / "4").is_dir()
  assert run(place, "evaluating", 2)[0] == [0, 0]
  same_curve(place, "evaluating", alone)


@pytest.fixture(scope="module")
def alone(place):
  """One host with all the devices."""
  codes, _ = run(place, "alone", 1)
  assert codes == [0]
  return "alone"


def test_other_host_counts_go_on_with_the_same_data_and_losses(place, alone):
  """Stopped on 2 hosts by Ctrl-C on the first, on 4 by SIGTERM to the third; then 1.

  A stop of one stops all after a save by all. The stops fall on steps 4 and 8, where an
  evaluation is due, which runs once, after the restart. Only the first host prints.
  """
  trained = [(step, False) for step in range(1, 9)]
  codes, texts = run(place, "moved", 2, faults={0: "2:SIGINT"})
  assert codes == [75] * 2
  assert sorted(curve(place, "moved")) == trained[:4]
  codes, more = run(place, "moved", 4, faults={2: "6:SIGTERM"}, saved=4)
  assert codes == [75] * 4
  assert "going on from step 4" in more[0]
  assert sorted(curve(place, "moved")) == sorted([*trained, (4, True)])
  for first, *others in (texts, more):
    assert "stopped after saving" in first
    for text in others:
      speaks = r"^(model|step|going on|compiled|stopped after)\b"
      assert not re.search(speaks, text, re.MULTILINE)
  assert run(place, "moved", 1)[0] == [0]
  same_curve(place, "moved", alone)
  found, expected = batches(place, "moved"), batches(place, alone)
  assert sorted(found) == sorted(expected) == list(range(STEPS))
  for step, batch in expected.items():
    assert batch.shape == (BATCH, LENGTH + 1)
    np.testing.assert_array_equal(found[step], batch)


def test_a_host_that_dies_ends_the_others_with_one_line(place, alone):
  """The second of two is killed, then the first; then both go on to the end."""
  for survivor, step, saved in ((0, 6, 4), (1, 10, 8)):
    faults = {1 - survivor: f"{step}:SIGKILL"}
    codes, texts = run(place, "killed", 2, faults=faults, saved=saved)
    assert codes[1 - survivor] == -signal.SIGKILL
    assert codes[survivor] == 1
    assert saved == 4 or "going on from step 4" in texts[0]
    # gRPC may write lines of its own before and after it.
    (line,) = [x for x in texts[survivor].splitlines() if x.startswith("error:")]
    assert line.startswith("error: another host is gone")
    assert line.endswith(GO_ON)
    assert texts[survivor].count(GO_ON) == 1
    assert "Traceback" not in texts[survivor]
  codes, texts = run(place, "killed", 2)
  assert codes == [0, 0]
  assert "going on from step 8" in texts[0]
  same_curve(place, "killed", alone)


@pytest.mark.parametrize(
  ("kind", "named"),
  [
    ("workdir", "--workdir: host 1 has another {}/unlike_workdir than host 0"),
    ("store", "Data.store: {}/store of host 1 has digest"),
    ("seed", "host 1 was started with Train.seed = 7, host 0 with Train.seed = 0"),
  ],
)
def test_hosts_that_differ_are_refused(place, tmp_path, tiny_run, kind, named):
  """The second host runs in another folder."""
  changes = {"Runtime.compilation_cache": str(place / "compiled")}
  if kind == "seed":
    changes["Train.seed"] = 7
  (tmp_path / "run.gin").write_text(tiny_run({**RUN, **changes}))
  if kind == "store":
    (tmp_path / "store").symlink_to(place / "other")
    (tmp_path / "unlike_store").symlink_to(place / "unlike_store")
  codes, texts = run(place, f"unlike_{kind}", 2, folders={1: tmp_path})
  assert codes == [2, 2]
  first, own = (text.rstrip().splitlines()[-1] for text in texts)
  assert named.format(tmp_path) in own
  if kind != "seed":
    setting = named.partition(" ")[0]
    assert own.startswith(f"error: {setting}")
    assert f"error: host 1: {setting}" in first
