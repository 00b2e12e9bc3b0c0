"""Trains a phi model.

    python -m phi1_jax.train --gin_file=gin/quickstart.gin

Builds the token store first if it is missing, and trains the run that it starts from if
that is named by its gin file; goes on from the work directory's last
checkpoint if there is one, and leaves in it: config.gin, metrics.jsonl, checkpoints/,
tensorboard/, tokenizer.json, loss.png and summary.json.
"""

import argparse
import contextlib
import dataclasses
import importlib.metadata
import importlib.util
import itertools
import logging
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax

from phi1_jax import InputError, storage
from phi1_jax.cli import child, command, gin_config
from phi1_jax.cli.progress import Progress
from phi1_jax.data.config import DataConfig
from phi1_jax.data.token_store import TokenStore
from phi1_jax.parallel import hosts, sharding
from phi1_jax.storage import AnyPath
from phi1_jax.telemetry import goodput, plot, writers
from phi1_jax.text import tokenizer
from phi1_jax.training import describe, hooks, loop, memory, preflight, setup
from phi1_jax.training.metrics import DivergedError
from phi1_jax.training.preemption import StopSignal
from phi1_jax.training.step import make_train_step

log = logging.getLogger("phi1_jax.train")

# Runs in progress, passed to child processes to detect cycles in `init_from`.
_TRAINED_FIRST = "PHI1_JAX_TRAINED_FIRST"
# Timeout of other hosts while host 0 builds the token store.
_BUILD_SECONDS = 24 * 3600


def main(argv: Sequence[str] | None = None) -> int:
  """Reads the configuration, prepares what is missing, trains, sums up."""
  arguments = _parser().parse(argv)
  command.simulate_devices(arguments.simulated_devices)
  with command.joined(arguments):
    return _run(arguments)


def _run(arguments: argparse.Namespace) -> int:
  """What every host does."""
  with hosts.agreed("reading the configuration"):
    files, bindings = arguments.gin_files, arguments.gin_bindings
    parts = gin_config.load(files, bindings, setup.CONFIGURABLES)
    config = setup.RunConfig.from_parts(parts)
    workdir = arguments.workdir or command.default_workdir(arguments.gin_files)
  text = gin_config.text(parts)
  _check_same_config(text)
  with hosts.agreed("training what this run starts from"):
    config = _train_first(config, arguments)
  if config is None:
    return command.PREEMPTED
  with hosts.agreed("laying the run out"):
    run = setup.make_setup(config, storage.parse(workdir))
  if hosts.is_first():
    print(describe.describe(run), flush=True)
  if arguments.dry_run:
    return dry_run(run)
  with StopSignal() as stop, contextlib.ExitStack() as opened:
    run = _open_workdir(run, stop, opened)
    _use_cache(run)
    memory.keep_freed_memory()
    with hosts.agreed("looking for checkpoints"):
      preflight.check_start(run)
    store = open_store(run, stop)
    if store is None or stop.agreed():
      return command.PREEMPTED
    with hosts.agreed("what the token store was built from"):
      preflight.check_current(store, run)
    with hosts.agreed("writing config.gin"):
      if hosts.is_first():
        tokens = (store.directory / tokenizer.FILE_NAME).read_text("utf-8")
        opened.enter_context(_written(run.workdir, text, tokens))
    return _train(run, store, stop)


def _open_workdir(
  run: setup.Setup, stop: StopSignal, opened: contextlib.ExitStack
) -> setup.Setup:
  """Lock the work directory, and open the files in it that grow.

  Args:
    run: the run.
    stop: notes signals.
    opened: closes the files, uploads them, and gives the lock back.
  """
  mirror = token = None
  with hosts.agreed("opening the work directory"):
    if hosts.is_first():
      lock = opened.enter_context(_lock(run.workdir, stop))
      token = lock.token
      mirror = storage.Mirror(run.workdir)
      mirror.fetch("metrics.jsonl", goodput.FILE_NAME)
      opened.callback(mirror.upload)
      opened.enter_context(goodput.StartLog(mirror.local).start())
      mirror.upload()
  preflight.check_shared(run.workdir, token)
  return dataclasses.replace(run, mirror=mirror, stop_requested=stop.requested)


def _lock(workdir: AnyPath, stop: StopSignal) -> storage.Lease:
  """Make the work directory and lock it; name early what cannot be written."""
  lost = f"error: {workdir}: another process goes on with this run"
  lock = storage.Lease(
    workdir,
    "training",
    stopping=lambda: stop.received,
    on_lost=lambda: hosts.end(lost, command.PREEMPTED),
  )
  try:
    if not storage.is_remote(workdir):
      for folder in ("checkpoints", "tensorboard"):
        (workdir / folder).mkdir(parents=True, exist_ok=True)
  except OSError as error:
    lock.close()
    raise InputError(
      f"--workdir: cannot write to {workdir} ({error.strerror}); name another folder"
    ) from None
  return lock


def _check_same_config(text: str) -> None:
  """Refuses a host that was started with another configuration than host 0."""
  first = hosts.exchange("comparing configurations", text)[0].splitlines()
  with hosts.agreed("the configuration"):
    for ours, theirs in itertools.zip_longest(text.splitlines(), first):
      if ours != theirs:
        raise InputError(
          f"host {hosts.index()} was started with {ours}, host 0 with {theirs}; "
          "expected the same gin files and flags on all hosts"
        )


def _parser() -> command.Parser:
  parser = command.Parser(
    "train",
    "Trains a phi model; the same command on the same --workdir goes on.",
    "python -m phi1_jax.train --gin_file=gin/quickstart.gin --workdir=runs/quickstart",
  )
  parser.add_argument(
    "--workdir",
    help="where the run lives, local or gs:// (default: runs/<names of the gin files>)",
  )
  parser.add_argument(
    "--dry_run",
    action="store_true",
    help="check everything, compile one step, say what the run needs, and stop",
  )
  command.add_simulated_devices(parser)
  command.add_hosts(parser)
  return parser


def dry_run(run: setup.Setup) -> int:
  """Says what a run would need without taking it."""
  data = run.config.data
  started = time.perf_counter()
  store = None
  with hosts.agreed("the dry run", limit=loop.COMPILE_SECONDS):
    preflight.check_start(run)
    if (storage.parse(data.store) / "COMPLETED").exists():
      store = TokenStore.open(data.store, verify=data.verify)
      preflight.check_store(store, run.config)
      preflight.check_current(store, run)
    with sharding.layout(run.mesh):
      step = make_train_step(run, document_end=0)
    compiled = memory.compile_step(step, run)
  if not hosts.is_first():
    return command.DONE
  need = memory.step_memory(compiled, run)
  print(describe.describe_memory(need, memory.device_memory()))
  print(describe.estimate(run))
  state = f"{store.manifest['tokens']:,} tokens" if store else "not there yet"
  print(f"store    {data.store}: {state} ({data.mixture})")
  print(f"one step compiled in {time.perf_counter() - started:.1f} s; nothing was run")
  return command.DONE


def open_store(run: setup.Setup, stop: StopSignal) -> TokenStore | None:
  """Open the run's token store; host 0 builds it first if it is missing there.

  A child process builds it and loads TensorFlow; this process never does. Host 0
  hashes the shards, once for all hosts and for all later starts of the run. A store on
  cloud storage is copied to each host, which hashes its own copy once.

  Returns:
    The store, or None after a stop signal while it was being built.

  Raises:
    InputError: it cannot be built, is damaged, does not suit the model, or is another
      one than that of host 0.
  """
  data = run.config.data
  place = storage.parse(data.store)
  built = True
  with hosts.agreed(
    "building the token store", limit=_BUILD_SECONDS, waiting=stop.heard
  ):
    if hosts.is_first() and not (place / "COMPLETED").exists():
      built = _build_store(data, stop)
  if not hosts.exchange("the token store is built", built)[0]:
    return None
  with hosts.agreed("opening the token store"):
    verify = data.verify and (hosts.is_first() or storage.is_remote(place))
    note = run.workdir / "verified_store.json"
    store = TokenStore.open(place, verify=verify, verified=note)
    preflight.check_store(store, run.config)
  first = hosts.exchange("comparing token stores", store.digest)[0]
  with hosts.agreed("the token store"):
    if store.digest != first:
      raise InputError(
        f"Data.store: {storage.full(place)} of host {hosts.index()} has digest "
        f"{store.digest[:16]}, that of host 0 {first[:16]}; expected the same tokens "
        "on all hosts: copy host 0's, or share it"
      )
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
  doing = f"building the token store {data.store}"
  return child.run("phi1_jax.prepare", flags, stop.heard, doing)


def _train_first(
  config: setup.RunConfig, arguments: argparse.Namespace
) -> setup.RunConfig | None:
  """Replace an `init_from` that is a gin file by the work directory of its run.

  A child process trains it, before this one has touched a device, unless its work
  directory holds a finished run; a dry run takes its absence for a start from scratch.

  Returns:
    The config, or None when the machine was taken away meanwhile.
  """
  name = config.checkpoint.init_from
  if name is None or not name.endswith(".gin"):
    return config
  place: str | None = str(command.default_workdir([name]))
  begun = os.environ.get(_TRAINED_FIRST, "").split(os.pathsep)
  if place in begun or name in arguments.gin_files:
    raise InputError(
      f"Checkpoint.init_from: {name} starts from itself, by way of "
      f"{', '.join(filter(None, begun)) or name}; expected another run's gin file"
    )
  if not _is_trained(Path(place), name):
    if arguments.dry_run:
      place = None
    elif arguments.coordinator_address or arguments.distributed:
      raise InputError(
        f"Checkpoint.init_from: {name} has not been trained; with many hosts train it "
        f"first: python -m phi1_jax.train --gin_file={name} (same flags)"
      )
    else:
      print(f"this run starts from {place}, which is trained first", flush=True)
      flags = [f"--gin_file={name}", f"--workdir={place}"]
      if arguments.simulated_devices:
        flags.append(f"--simulated_devices={arguments.simulated_devices}")
      os.environ[_TRAINED_FIRST] = os.pathsep.join([*begun, place])
      with StopSignal() as stop:
        if not child.run("phi1_jax.train", flags, stop.heard, f"training {name}"):
          return None
  checkpoint = dataclasses.replace(config.checkpoint, init_from=place)
  return dataclasses.replace(config, checkpoint=checkpoint)


def _is_trained(workdir: Path, gin_file: str) -> bool:
  """Return whether the run of a gin file has come to its end in a work directory.

  Raises:
    InputError: another run was trained there, such as a longer one.
  """
  try:
    config = (workdir / "config.gin").read_text()
  except FileNotFoundError:
    return False
  parts = gin_config.load([gin_file], [], setup.CONFIGURABLES)
  theirs, ours = (
    dict(line.split(" = ", 1) for line in text.splitlines() if " = " in line)
    for text in (config, gin_config.text(parts))
  )
  for name in sorted(theirs.keys() & ours.keys()):
    decides = name.partition(".")[0] in ("Data", "Model", "Optimizer", "Train")
    if decides and theirs[name] != ours[name]:
      raise InputError(
        f"Checkpoint.init_from: {workdir} was trained with {name} = {theirs[name]}, "
        f"{gin_file} has {ours[name]}; to start from it as it is, give "
        f"--gin.Checkpoint.init_from={workdir}; or move it away to train it anew"
      )
  return (workdir / "summary.json").is_file()


def _use_cache(run: setup.Setup) -> None:
  """Keep compiled steps; in the work directory, hosts and later machines share them."""
  folder = run.config.runtime.compilation_cache
  if folder:
    path = storage.parse(folder)
    absolute = storage.is_remote(path) or Path(path).is_absolute()
    place = storage.full(path if absolute else run.workdir / folder)
    jax.config.update("jax_compilation_cache_dir", os.fspath(place))


@contextlib.contextmanager
def _written(workdir: AnyPath, config: str, tokens: str) -> Iterator[None]:
  """Writes config.gin and tokenizer.json; says what has changed since the last start.

  A run that is refused inside leaves what belongs to the checkpoints that are there.
  """
  new = {workdir / "config.gin": config, workdir / tokenizer.FILE_NAME: tokens}
  before = {path: storage.read_text(path) for path in new if path.exists()}
  if (old := before.get(workdir / "config.gin")) is not None:
    for line in config.splitlines():
      if line not in old.splitlines():
        log.warning("changed since this run was last started: %s", line)
  for path, text in new.items():
    if text != before.get(path):
      storage.write_text(path, text)
  try:
    yield
  except InputError:
    for path, text in before.items():
      storage.write_text(path, text)
    raise


def _train(run: setup.Setup, store: TokenStore, stop: StopSignal) -> int:
  started = time.perf_counter()
  last = run.config.train.last_step
  was_done = _is_done(run)
  with contextlib.ExitStack() as shown:
    stream = sys.stderr
    if not hosts.is_first():
      stream = shown.enter_context(open(os.devnull, "w"))
    # Rows of metrics are lines enough where there is no terminal.
    progress = shown.enter_context(
      Progress(last, "steps", "training", interval=None, stream=stream)
    )
    with hosts.agreed("making hooks"):
      periodic = [hooks.held_out_loss(run, store), *hooks.named(run, store)]
      periodic.append(hooks.profile(run))
    try:
      done = loop.train(run, store, periodic, stop, progress)
    except DivergedError as error:
      print(f"error: {error}", file=sys.stderr)
      return 1
  if hosts.is_first():
    if not done:
      print(f"stopped after saving; run the same command to go on ({run.workdir})")
    elif was_done:
      print(f"was done already, at step {last}; see {run.workdir}/summary.json")
    else:
      _sum_up(run, store, time.perf_counter() - started)
  return command.DONE if done else command.PREEMPTED


def _is_done(run: setup.Setup) -> bool:
  """Whether an earlier start went to the last step and summed it up."""
  try:
    summary = storage.read_json(run.workdir / "summary.json")
    return summary["step"] == run.config.train.last_step
  except (InputError, KeyError):
    return False


def _sum_up(run: setup.Setup, store: TokenStore, seconds: float) -> None:
  """Leaves loss.png and summary.json behind and says where."""
  metrics = run.local / "metrics.jsonl"
  final: dict[str, Any] = {}
  held_out: dict[AnyPath, float] = {}  # of the checkpoints that have been kept
  for row in writers.read_metrics(metrics):
    final.update(row)
    checkpoint = run.workdir / "checkpoints" / str(row["step"])
    if "eval/loss" in row and checkpoint.is_dir():
      held_out[checkpoint] = row["eval/loss"]
  best = min(held_out, key=lambda path: held_out[path], default=None)
  parameters = run.config.model.num_parameters()
  if final:
    picture, name = run.local / "loss.png", run.workdir.name
    plot.plot_loss(metrics, picture, name=name, num_parameters=parameters)
  events = goodput.read_events(run.local / goodput.FILE_NAME)
  spent = goodput.measure(events, now=time.time())
  wall = spent.total_seconds if spent else seconds
  versions = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
  writers.write_summary(
    run.workdir / "summary.json",
    {
      **final,
      "parameters": parameters,
      "flops_per_token": run.flops_per_token,
      "wall_seconds": wall,
      "last_start_seconds": seconds,
      "goodput": spent and dataclasses.asdict(spent),
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
  shown.append(f"{wall:.0f} s")
  if spent and spent.starts > 1:
    shown.append(f"goodput {spent.goodput:.1%} over {spent.starts} starts")
  print(
    f"done: {', '.join(shown)}; see {run.workdir}/loss.png and "
    f"{run.workdir}/summary.json"
  )
  if best and len(held_out) > 1:
    print(f"lowest held-out loss of the kept checkpoints: {held_out[best]:.4f}, {best}")


if __name__ == "__main__":
  command.run(main)
