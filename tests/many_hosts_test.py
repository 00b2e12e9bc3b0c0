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
RUN = f"""
Model.vocabulary_size = 320
Model.num_layers = 2
Model.num_heads = 4
Model.head_dim = 8
Model.rotary_dim = 4
Model.embed_dim = 32
Model.mlp_dim = 64
Model.max_length = {LENGTH}
Model.dtype = "float32"
Mesh.data = 2
Train.total_steps = {STEPS}
Train.batch_size = {BATCH}
Train.sequence_length = {LENGTH}
Train.log_every = 1
Train.evaluate_every = 4
Train.sequences_per_device = 1
Optimizer.peak_learning_rate = 1e-2
Optimizer.warmup_steps = 2
Optimizer.weight_decay = 0.1
Data.mixture = "words"
Data.store = "store"
Data.tokenizer = "train"
Data.trained_vocabulary_size = 300
Checkpoint.every = 4
Checkpoint.keep_latest = 9
"""
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
from phi1_jax.training import hooks, loop, setup, workdir

make_mesh = setup.make_mesh
setup.make_mesh = lambda config, _: make_mesh(
  config, jax.devices()[::2] + jax.devices()[1::2]
)
workdir.SHARED_SECONDS = 3
hosts.HEARTBEAT_SECONDS = 20  # Gloo does not always notice that its peer is dead
make_batches = loop.train_batches
fault, _, name = os.environ.get("FAULT", "").partition(":")

class Recorded:
  def __init__(self, store, *, rows, start, **others):
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

loop.train_batches, hooks.held_out_batches = Recorded, struck
command.run(train.main)
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory, words_store):
  """A folder with run.gin and two token stores."""
  place = tmp_path_factory.mktemp("hosts")
  (place / "run.gin").write_text(RUN)
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
      words = [
        "--gin_file=run.gin",
        f"--gin.Runtime.compilation_cache={place}/compiled",
        f"--workdir={workdir}",
        f"--simulated_devices={DEVICES // count}",
        *flags,
      ]
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


def last_line(text):
  return text.rstrip().splitlines()[-1]


@pytest.fixture(scope="module")
def alone(place):
  """One host with all the devices."""
  codes, _ = run(place, "alone", 1)
  assert codes == [0]
  return "alone"


@pytest.fixture(scope="module")
def moved(place):
  """Stopped on 2 hosts by Ctrl-C on the first, on 4 by SIGTERM to the third; then 1."""
  return [
    run(place, "moved", 2, faults={0: "2:SIGINT"}),
    sorted(curve(place, "moved")),
    run(place, "moved", 4, faults={2: "6:SIGTERM"}, saved=4),
    sorted(curve(place, "moved")),
    run(place, "moved", 1),
  ]


def same_curve(place, workdir, other):
  found, expected = curve(place, workdir), curve(place, other)
  assert found.keys() == expected.keys()
  for key, numbers in found.items():
    assert numbers == pytest.approx(expected[key], rel=1e-5), key


def test_a_stop_of_one_stops_all_after_a_save_by_all(moved):
  (codes, texts), _, (codes4, texts4), _, (code1, _) = moved
  assert (codes, codes4, code1) == ([75] * 2, [75] * 4, [0])
  assert "going on from step 4" in texts4[0]
  for first, *others in (texts, texts4):
    assert "stopped after saving" in first
    assert not any("stopped after saving" in text for text in others)


def test_what_was_due_at_the_stop_runs_once_after_the_restart(place, moved):
  """The stops fall on steps 4 and 8, where an evaluation is due."""
  _, after2, _, after4, _ = moved
  trained = [(step, False) for step in range(1, 9)]
  assert after2 == trained[:4]
  assert after4 == sorted([*trained, (4, True)])
  assert [key for key in curve(place, "moved") if key[1]] == [
    (4, True),
    (8, True),
    (12, True),
  ]


def test_a_stop_inside_an_evaluation_ends_it_on_all_hosts(place, alone):
  """SIGTERM reaches the second host in the first batch of the evaluation at step 4."""
  codes, texts = run(place, "evaluating", 2, faults={1: "evaluation:SIGTERM"})
  assert codes == [75, 75], texts
  assert sorted(curve(place, "evaluating")) == [(step, False) for step in range(1, 5)]
  assert (place / "evaluating" / "checkpoints" / "4").is_dir()
  assert run(place, "evaluating", 2)[0] == [0, 0]
  same_curve(place, "evaluating", alone)


def test_other_host_counts_read_the_same_data(place, alone, moved):
  found, expected = batches(place, "moved"), batches(place, alone)
  assert sorted(found) == sorted(expected) == list(range(STEPS))
  for step, batch in expected.items():
    assert batch.shape == (BATCH, LENGTH + 1)
    np.testing.assert_array_equal(found[step], batch)


def test_other_host_counts_give_the_same_losses(place, alone, moved):
  same_curve(place, "moved", alone)


def test_only_the_first_host_speaks(moved):
  _, texts = moved[2]
  assert re.search(r"^model ", texts[0], re.MULTILINE)
  for text in texts[1:]:
    assert not re.search(r"^(model|step|going on|compiled)\b", text, re.MULTILINE)


@pytest.fixture(scope="module")
def killed(place):
  """Two hosts: the second is killed, then the first; then both go on to the end."""
  return [
    run(place, "killed", 2, faults={1: "6:SIGKILL"}, saved=4),
    run(place, "killed", 2, faults={0: "10:SIGKILL"}, saved=8),
    run(place, "killed", 2),
  ]


@pytest.mark.parametrize("start", [0, 1])
def test_a_host_that_dies_ends_the_others_with_one_line(killed, start):
  codes, texts = killed[start]
  survivor = start
  assert codes[1 - survivor] == -signal.SIGKILL
  assert codes[survivor] == 1
  # gRPC may write lines of its own before and after it.
  (line,) = [x for x in texts[survivor].splitlines() if x.startswith("error:")]
  assert line.startswith("error: another host is gone")
  assert line.endswith(GO_ON)
  assert texts[survivor].count(GO_ON) == 1
  assert "Traceback" not in texts[survivor]


def test_the_restart_goes_on_from_the_last_checkpoint(place, alone, killed):
  for start, step in ((1, 4), (2, 8)):
    assert f"going on from step {step}" in killed[start][1][0]
  assert killed[2][0] == [0, 0]
  same_curve(place, "killed", alone)


def test_a_work_directory_that_is_not_shared(place, tmp_path):
  (tmp_path / "run.gin").write_text(RUN)
  codes, texts = run(place, "apart", 2, folders={1: tmp_path})
  assert codes == [2, 2]
  assert f"host 1 has another {tmp_path / 'apart'} than host 0" in last_line(texts[1])
  assert "error: host 1: --workdir: host 1 has another" in last_line(texts[0])


def test_another_token_store(place, tmp_path):
  (tmp_path / "run.gin").write_text(RUN)
  (tmp_path / "store").symlink_to(place / "other")
  (tmp_path / "strange").symlink_to(place / "strange")
  codes, texts = run(place, "strange", 2, folders={1: tmp_path})
  assert codes == [2, 2]
  assert f"Data.store: {tmp_path / 'store'} of host 1 has digest" in last_line(texts[1])
  assert "error: host 1: Data.store:" in last_line(texts[0])


def test_another_configuration(place, tmp_path):
  (tmp_path / "run.gin").write_text(RUN + "Train.seed = 7\n")
  codes, texts = run(place, "unlike", 2, folders={1: tmp_path})
  assert codes == [2, 2]
  assert "host 1 was started with Train.seed = 7, host 0 with Train.seed = 0" in (
    last_line(texts[1])
  )
