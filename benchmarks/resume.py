"""Kills training at random moments and compares it with an undisturbed run.

    python benchmarks/resume.py --kills=20 --stops=5 [--cloud]

One run is left alone. Another, with a store and a work directory of its own, is started
again and again: some starts are killed with SIGKILL while the token store is being
built, some at the moment a checkpoint appears half-written on the disk, some at any
time; some are stopped with SIGTERM. In the end both must have the same token store, and
the same loss and gradient norm at every step, to the last bit. A third run changes the
number of devices half-way: its data must be the same, so its losses agree to rounding.

With --cloud the disturbed run has its work directory and its token store in a bucket of
a Cloud Storage server on loopback (tests/gcs_server.py).
"""

import argparse
import functools
import importlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from phi1_jax import InputError, storage
from phi1_jax.data.loader import train_batches
from phi1_jax.data.token_store import TokenStore
from phi1_jax.storage import AnyPath, mirror

LOGS = Path()
STEPS = 600
COMMAND = (
  "--gin_file=gin/quickstart_pretrain.gin",
  "--gin.Data.mixture='code_exercises'",
  "--gin.Data.processes=2",
  "--gin.Model.num_layers=2",
  "--gin.Model.num_heads=2",
  "--gin.Model.embed_dim=64",
  "--gin.Model.mlp_dim=256",
  "--gin.SEQUENCE_LENGTH=64",
  "--gin.BATCH_SIZE=8",
  f"--gin.TOTAL_STEPS={STEPS}",
  "--gin.Train.log_every=1",
  "--gin.Train.evaluate_every=150",
  "--gin.Checkpoint.every=10",
)


def start(workdir: AnyPath, store: AnyPath, *more: str) -> subprocess.Popen:
  """Starts the train command in a process group of its own."""
  command = [sys.executable, "-m", "phi1_jax.train", *COMMAND, *more]
  command += [f"--workdir={workdir}", f"--gin.Data.store='{store}'"]
  log = (LOGS / f"{workdir.name}.log").open("a")
  return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)


def wait_for(condition, process: subprocess.Popen, seconds: float) -> bool:
  """Waits until something is so; False when the process ended or time ran out."""
  deadline = time.monotonic() + seconds
  while process.poll() is None and time.monotonic() < deadline:
    if condition():
      return True
    time.sleep(0.002)
  return False


def half_written(workdir: AnyPath) -> bool:
  """Whether a checkpoint has been begun that is not committed yet."""
  for name in storage.names(workdir / "checkpoints"):
    begun = workdir / "checkpoints" / name
    if "tmp" in name:
      return True
    if storage.is_remote(workdir) and not (begun / "commit_success.txt").exists():
      return True
  return False


def last_step(workdir: AnyPath) -> int:
  """The step of the last row of metrics, of the growing file on this machine."""
  path: AnyPath = workdir / "metrics.jsonl"
  if storage.is_remote(workdir):
    copies = mirror.local_copy(workdir).parent.glob("*/metrics.jsonl")
    path = max(copies, key=lambda copy: copy.stat().st_mtime, default=Path("none"))
  try:
    rows = storage.read_lines(path)
  except InputError:  # a torn row
    rows = []
  return rows[-1]["step"] if rows else 0


def disturb(
  workdir: AnyPath, store: AnyPath, kills: int, stops: int, seed: int
) -> dict[str, int]:
  """Interrupts the run `kills` + `stops` times; counts by kind."""
  chance = random.Random(seed)
  done: dict[str, int] = dict.fromkeys(("store", "save", "any", "term"), 0)
  plan = ["term"] * stops + ["any", "save"] * ((kills - kills // 3) // 2 + 1)
  plan = plan[: stops + kills - kills // 3]
  chance.shuffle(plan)
  share = STEPS / (len(plan) + 2)
  for number, kind in enumerate(["store"] * (kills // 3) + plan):
    begun = last_step(workdir)
    process = start(workdir, store)
    if kind == "store":
      time.sleep(chance.uniform(1.0, 12.0))
    else:
      # Somewhere in this start's share of the run, so that all of them get a turn.
      target = begun + chance.uniform(0.2, 1.0) * share
      wait_for(lambda goal=target: last_step(workdir) >= goal, process, 300)
      if kind == "save" and not wait_for(lambda: half_written(workdir), process, 60):
        kind = "any"
      else:
        time.sleep(chance.uniform(0, 0.05))
    number_sent = signal.SIGTERM if kind == "term" else signal.SIGKILL
    if process.poll() is not None:
      raise SystemExit(f"{kind}: the run ended by itself with {process.returncode}")
    if kind == "term":
      process.send_signal(number_sent)
    else:
      os.killpg(process.pid, number_sent)
    code = process.wait(120)
    if kind == "term" and code != 75:
      raise SystemExit(f"SIGTERM at step {last_step(workdir)}: exit {code}, not 75")
    if kind == "store" and (store / "COMPLETED").exists():
      kind = "any"
    done[kind] += 1
    print(f"{number + 1:3} {kind:5} exit {code:3} at step {last_step(workdir)}")
  return done


def curve(workdir: AnyPath) -> dict[tuple[int, str], float]:
  """(step, name) -> value of what must repeat, refusing what is there twice."""
  rows = storage.read_lines(workdir / "metrics.jsonl")
  values = [
    ((row["step"], name), value)
    for row in rows
    for name, value in row.items()
    if name in ("loss", "grad_norm") or name.startswith("eval/")
  ]
  found = dict(values)
  if len(found) != len(values):
    raise SystemExit(f"{workdir}: a row is written twice")
  if [s for s, name in found if name == "loss"] != list(range(1, STEPS + 1)):
    raise SystemExit(f"{workdir}: steps are missing or out of order")
  return found


def same_data(store: Path) -> bool:
  """Whether 1, 2 and 4 hosts together read the same batches, each from any step."""
  opened = TokenStore.open(store)
  batches = functools.partial(
    train_batches, opened, batch_size=8, sequence_length=64, seed=0
  )
  alone = batches()
  expected = [next(alone) for _ in range(50)]
  for hosts in (1, 2, 4):
    size = 8 // hosts
    for first in (0, 17):
      parts = [
        batches(start=8 * first, rows=np.arange(host * size, (host + 1) * size))
        for host in range(hosts)
      ]
      for batch in expected[first:]:
        if not np.array_equal(batch, np.concatenate([next(part) for part in parts])):
          return False
  return True


def main() -> None:
  """Runs the three runs and compares them."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--kills", type=int, default=20)
  parser.add_argument("--stops", type=int, default=5)
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--folder", type=Path, default=Path("runs/resume"))
  parser.add_argument("--cloud", action="store_true")
  arguments = parser.parse_args()
  global LOGS
  LOGS = folder = arguments.folder.absolute()
  shutil.rmtree(folder, ignore_errors=True)
  folder.mkdir(parents=True)
  alone, other = folder / "alone", folder / "other"
  place: AnyPath = folder
  if arguments.cloud:
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    gcs_server = importlib.import_module("gcs_server")
    os.environ |= gcs_server.Gcs().environment
    os.environ["PHI1_JAX_CACHE"] = str(folder / "cache")
    place = storage.parse("gs://bucket/resume")
  disturbed = place / "disturbed"
  stores = folder / "store_alone", place / "store_disturbed"

  assert start(alone, stores[0]).wait() == 0, "the undisturbed run failed"
  done = disturb(disturbed, stores[1], arguments.kills, arguments.stops, arguments.seed)
  assert start(disturbed, stores[1]).wait() == 0, "the last start failed"

  half = start(other, stores[0], f"--gin.Train.stop_at_step={STEPS // 2}")
  assert half.wait() == 0, "the half run failed"
  assert start(other, stores[0], "--simulated_devices=2").wait() == 0

  digests = [storage.read_text(store / "COMPLETED") for store in stores]
  expected, resumed, moved = curve(alone), curve(disturbed), curve(other)
  different = [key for key in expected if expected[key] != resumed.get(key)]
  rounding = max(
    abs(value - moved[key]) / value for key, value in expected.items() if key in moved
  )
  data = same_data(stores[0])
  print(f"interrupted: {done}")
  print(f"token stores equal: {digests[0] == digests[1]}")
  print(f"losses, norms, evaluations that differ: {len(different)} of {len(expected)}")
  print(f"2 devices from half-way on: values differ by at most {rounding:.1e}")
  print(f"the same batches on 1, 2 and 4 hosts, from any step: {data}")
  unmet = [kind for kind in done if not done[kind]]
  if unmet:
    print(f"no interruption of the kinds {unmet}: run with more --kills and --stops")
  if digests[0] != digests[1] or different or rounding > 1e-3 or not data or unmet:
    sys.exit(1)


if __name__ == "__main__":
  main()
