"""Trains a phi model.

    python -m phi1_jax.train --gin_file=gin/quickstart.gin

Builds the token store first if it is missing, goes on from the work directory's last
checkpoint if there is one, and leaves in it: config.gin, metrics.jsonl, checkpoints/,
tensorboard/, tokenizer.json, loss.png and summary.json.
"""

import contextlib
import errno
import importlib.metadata
import importlib.util
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax

from phi1_jax import InputError
from phi1_jax.checkpoint.manager import CheckpointConfig
from phi1_jax.cli import command, gin_config
from phi1_jax.cli import workdir as workdirs
from phi1_jax.cli.progress import Progress
from phi1_jax.data.config import DataConfig
from phi1_jax.data.token_store import TokenStore
from phi1_jax.model.config import ModelConfig
from phi1_jax.optim.config import OptimizerConfig
from phi1_jax.parallel import sharding
from phi1_jax.parallel.mesh import MeshConfig
from phi1_jax.telemetry import plot, writers
from phi1_jax.text import tokenizer
from phi1_jax.training import describe, hooks, loop, memory, preflight, setup
from phi1_jax.training.config import RuntimeConfig, TrainConfig
from phi1_jax.training.metrics import DivergedError
from phi1_jax.training.preemption import StopSignal
from phi1_jax.training.step import make_train_step

log = logging.getLogger("phi1_jax.train")

CONFIGURABLES = {
  "Checkpoint": CheckpointConfig,
  "Data": DataConfig,
  "Mesh": MeshConfig,
  "Model": ModelConfig,
  "Optimizer": OptimizerConfig,
  "Runtime": RuntimeConfig,
  "Train": TrainConfig,
}


def main(argv: Sequence[str] | None = None) -> int:
  """Reads the configuration, prepares what is missing, trains, sums up."""
  arguments = _parser().parse(argv)
  parts = gin_config.load(arguments.gin_files, arguments.gin_bindings, CONFIGURABLES)
  config = setup.RunConfig(**{name.lower(): part for name, part in parts.items()})
  workdir = arguments.workdir or command.default_workdir(arguments.gin_files)
  command.simulate_devices(arguments.simulated_devices)
  run = setup.make_setup(config, workdir)
  print(describe.describe(run), flush=True)
  if arguments.dry_run:
    return dry_run(run)
  with StopSignal() as stop, workdirs.held(workdir, "training"):
    _make_folders(workdir)
    _use_cache(config.runtime)
    memory.keep_freed_memory()
    preflight.check_start(run)
    store = open_store(config, stop)
    if store is None or stop.received:
      return command.PREEMPTED
    with _written_config(workdir, gin_config.text(parts)):
      tokens = store.directory / tokenizer.FILE_NAME
      (workdir / tokenizer.FILE_NAME).write_bytes(tokens.read_bytes())
      return _train(run, store, stop)


def _parser() -> command.Parser:
  parser = command.Parser(
    "train",
    "Trains a phi model; the same command on the same --workdir goes on.",
    "python -m phi1_jax.train --gin_file=gin/quickstart.gin --workdir=runs/quickstart",
  )
  parser.add_argument(
    "--workdir",
    type=Path,
    help="where the run lives (default: runs/<name of the gin file>)",
  )
  parser.add_argument(
    "--dry_run",
    action="store_true",
    help="check everything, compile one step, say what the run needs, and stop",
  )
  command.add_simulated_devices(parser)
  return parser


def dry_run(run: setup.Setup) -> int:
  """Says what a run would need without taking it."""
  data = run.config.data
  started = time.perf_counter()
  preflight.check_start(run)
  store = None
  if (Path(data.store) / "COMPLETED").exists():
    store = TokenStore.open(data.store, verify=data.verify)
    preflight.check_store(store, run.config)
  with sharding.layout(run.mesh):
    step = make_train_step(run, document_end=0)
  compiled = memory.compile_step(step, run)
  need = memory.step_memory(compiled, run)
  print(describe.describe_memory(need, memory.device_memory()))
  print(describe.estimate(run))
  state = f"{store.manifest['tokens']:,} tokens" if store else "not there yet"
  print(f"store    {data.store}: {state} ({data.mixture})")
  print(f"one step compiled in {time.perf_counter() - started:.1f} s; nothing was run")
  return command.DONE


def open_store(config: setup.RunConfig, stop: StopSignal) -> TokenStore | None:
  """Opens the run's token store, which a child process builds if it is missing.

  The child is what loads TensorFlow; this process never does.

  Returns:
    The store, or None when the machine was taken away while it was being built.

  Raises:
    InputError: it cannot be built, is damaged, or does not suit the model.
  """
  data = config.data
  if not (Path(data.store) / "COMPLETED").exists() and not _build_store(data, stop):
    return None
  store = TokenStore.open(data.store, verify=data.verify)
  preflight.check_store(store, config)
  return store


def _build_store(data: DataConfig, stop: StopSignal) -> bool:
  if importlib.util.find_spec("seqio") is None:
    raise InputError(
      f"Data.store: {data.store} is not built, and building it needs seqio: "
      "pip install -c constraints.txt -e '.[data]', or copy a store here"
    )
  bindings = gin_config.text({"Data": data}).split("\n")
  flags = [f"--gin.{line.replace(' = ', '=', 1)}" for line in bindings if line]
  print(f"building the token store {data.store} from {data.mixture}", flush=True)
  child = subprocess.Popen([sys.executable, "-m", "phi1_jax.prepare", *flags])
  while True:
    try:
      code = child.wait(timeout=0.2)
      break
    except subprocess.TimeoutExpired:
      if stop.received:
        child.terminate()
  if stop.received and code:
    return False
  if code == command.WRONG_INPUT:
    raise InputError(f"the token store {data.store} cannot be built (see above)")
  if code:
    raise RuntimeError(f"building the token store {data.store} failed: exit {code}")
  return True


def _make_folders(workdir: Path) -> None:
  """Makes what a run writes into, so that a folder that refuses is named early."""
  try:
    for folder in ("checkpoints", "tensorboard"):
      (workdir / folder).mkdir(parents=True, exist_ok=True)
    if (workdir / "config.gin").is_dir():
      raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
  except OSError as error:
    raise workdirs.unwritable(workdir, error) from None


def _use_cache(runtime: RuntimeConfig) -> None:
  if runtime.compilation_cache:
    path = os.path.expanduser(runtime.compilation_cache)
    jax.config.update("jax_compilation_cache_dir", path)


@contextlib.contextmanager
def _written_config(workdir: Path, text: str) -> Iterator[None]:
  """Writes config.gin; says what has changed since the run was last started.

  A run that is refused inside leaves the config of what the directory holds.
  """
  path = workdir / "config.gin"
  before = path.read_text() if path.exists() else None
  if before is not None:
    for line in text.splitlines():
      if line not in before.splitlines():
        log.warning("changed since this run was last started: %s", line)
  path.write_text(text)
  try:
    yield
  except InputError:
    if before is not None:
      path.write_text(before)
    raise


def _train(run: setup.Setup, store: TokenStore, stop: StopSignal) -> int:
  started = time.perf_counter()
  last = run.config.train.last_step
  was_done = _is_done(run)
  # Rows of metrics are lines enough where there is no terminal.
  with Progress(last, "steps", "training", interval=None) as progress:
    try:
      done = loop.train(
        run,
        store,
        [
          hooks.held_out_loss(run, store),
          *hooks.named(run, store),
          hooks.profile(run),
        ],
        stop,
        progress,
      )
    except DivergedError as error:
      print(f"error: {error}", file=sys.stderr)
      return 1
  if not done:
    print(f"stopped after saving; run the same command to go on ({run.workdir})")
    return command.PREEMPTED
  if was_done:
    print(f"was done already, at step {last}; see {run.workdir}/summary.json")
  elif jax.process_index() == 0:
    _sum_up(run, store, time.perf_counter() - started)
  return command.DONE


def _is_done(run: setup.Setup) -> bool:
  """Whether an earlier start went to the last step and summed it up."""
  try:
    summary = json.loads((run.workdir / "summary.json").read_text())
    return summary["step"] == run.config.train.last_step
  except (OSError, ValueError, KeyError, TypeError):
    return False


def _sum_up(run: setup.Setup, store: TokenStore, seconds: float) -> None:
  """Leaves loss.png and summary.json behind and says where."""
  metrics = run.workdir / "metrics.jsonl"
  final: dict[str, Any] = {}
  held_out: dict[Path, float] = {}  # of the checkpoints that have been kept
  for row in writers.read_metrics(metrics):
    final.update(row)
    checkpoint = run.workdir / "checkpoints" / str(row["step"])
    if "eval/loss" in row and checkpoint.is_dir():
      held_out[checkpoint] = row["eval/loss"]
  best = min(held_out, key=lambda path: held_out[path], default=None)
  parameters = run.config.model.num_parameters()
  if final:
    picture, name = run.workdir / "loss.png", run.workdir.name
    plot.plot_loss(metrics, picture, name=name, num_parameters=parameters)
  versions = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")
  writers.write_summary(
    run.workdir / "summary.json",
    {
      **final,
      "parameters": parameters,
      "wall_seconds": seconds,
      "best_checkpoint": best and str(best),
      "store": store.digest,
      **describe.devices(),
      "versions": {name: importlib.metadata.version(name) for name in versions},
      "python": sys.version.split()[0],
    },
  )
  figures = {"loss": final.get("loss"), "held out": final.get("eval/loss")}
  shown = [
    f"{name} {value:.4f}" for name, value in figures.items() if value is not None
  ]
  print(
    f"done: {', '.join([*shown, f'{seconds:.0f} s'])}; see {run.workdir}/loss.png "
    f"and {run.workdir}/summary.json"
  )
  if best and len(held_out) > 1:
    print(f"lowest held-out loss of the kept checkpoints: {held_out[best]:.4f}, {best}")


if __name__ == "__main__":
  command.run(main)
