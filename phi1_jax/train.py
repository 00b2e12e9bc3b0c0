"""Trains a phi model.

    python -m phi1_jax.train --gin_file=gin/quickstart.gin

Builds the token store first if it is missing, and trains the run of
`Checkpoint.init_from` first if that is a gin file. Continues from the last checkpoint
in the work directory, and writes config.gin, metrics.jsonl, checkpoints/, tensorboard/,
tokenizer.json, loss.png and summary.json there.
"""

import argparse
import contextlib
import dataclasses
import importlib.util
import itertools
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from phi1_jax import InputError, storage
from phi1_jax.cli import child, command, gin_config
from phi1_jax.cli.progress import Progress
from phi1_jax.data.config import DataConfig
from phi1_jax.data.token_store import TokenStore
from phi1_jax.parallel import hosts, sharding
from phi1_jax.training import describe, hooks, loop, memory, preflight, setup, summary
from phi1_jax.training import workdir as workdirs
from phi1_jax.training.metrics import DivergedError
from phi1_jax.training.preemption import StopSignal
from phi1_jax.training.step import make_train_step

# Runs in progress, passed to child processes to detect cycles in `init_from`.
_TRAINED_FIRST = "PHI1_JAX_TRAINED_FIRST"
# Timeout of other hosts while host 0 builds the token store.
_BUILD_SECONDS = 24 * 3600


def main(argv: Sequence[str] | None = None) -> int:
  """Read the configuration, prepare what is missing, train, write the summary."""
  arguments = _parser().parse(argv)
  command.simulate_devices(arguments.simulated_devices)
  with command.joined(arguments):
    return _run(arguments)


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


def _run(arguments: argparse.Namespace) -> int:
  """Run the command on this host; every host does the same."""
  with hosts.agreed("reading the configuration"):
    files, bindings = arguments.gin_files, arguments.gin_bindings
    parts = gin_config.load(files, bindings, setup.CONFIGURABLES)
    config = setup.RunConfig.from_parts(parts)
    workdir = storage.parse(arguments.workdir or command.default_workdir(files))
  text = gin_config.text(parts)
  _check_same_config(text)
  with hosts.agreed("training what this run starts from"):
    config = _train_first(config, arguments)
  if config is None:
    return command.PREEMPTED
  with hosts.agreed("laying the run out"):
    run = setup.make_setup(config, workdir)
  if hosts.is_first():
    print(describe.describe(run), flush=True)
  if arguments.dry_run:
    return _dry_run(run)
  with StopSignal() as stop, workdirs.opened(run, stop) as run:
    workdirs.use_compilation_cache(run)
    memory.keep_freed_memory()
    with hosts.agreed("looking for checkpoints"):
      preflight.check_start(run)
    store = _open_store(run, stop)
    if store is None or stop.agreed():
      return command.PREEMPTED
    with hosts.agreed("the origin of the token store"):
      preflight.check_current(store, run)
    with workdirs.described(run, text, store):
      return _train(run, store, stop)


def _check_same_config(text: str) -> None:
  """Refuse a host that was started with another configuration than host 0."""
  first = hosts.exchange("comparing configurations", text)[0].splitlines()
  with hosts.agreed("the configuration"):
    for ours, theirs in itertools.zip_longest(text.splitlines(), first):
      if ours != theirs:
        raise InputError(
          f"host {hosts.index()} was started with {ours}, host 0 with {theirs}; "
          "expected the same gin files and flags on all hosts"
        )


def _dry_run(run: setup.Setup) -> int:
  """Print what a run needs, without training."""
  data = run.config.data
  started = time.perf_counter()
  store = None
  with hosts.agreed("the dry run", limit=loop.COMPILE_SECONDS):
    preflight.check_start(run)
    if storage.exists(storage.parse(data.store) / "COMPLETED"):
      store = TokenStore.open(data.store, verify=data.verify)
      preflight.check_store(store, run.config)
      preflight.check_current(store, run)
    with sharding.layout(run.mesh):
      step = make_train_step(run, document_end=0)
    compiled = memory.compile_step(step, run)
  if hosts.is_first():
    need = memory.step_memory(compiled, run)
    print(describe.describe_memory(need, memory.device_memory()))
    print(describe.estimate(run))
    state = f"{store.manifest['tokens']:,} tokens" if store else "not there yet"
    print(f"store    {data.store}: {state} ({data.mixture})")
    print(
      f"one step compiled in {time.perf_counter() - started:.1f} s; nothing was run"
    )
  return command.DONE


def _open_store(run: setup.Setup, stop: StopSignal) -> TokenStore | None:
  """Open the run's token store; host 0 builds it first if it is missing.

  Host 0 verifies the files once, for all hosts and for later starts of the run. A store
  on cloud storage is copied to each host, which verifies its copy once.

  Returns:
    The store, or None if a stop signal ended the build.

  Raises:
    InputError: the store cannot be built, is damaged, does not suit the model, or
      differs from that of host 0.
  """
  data = run.config.data
  place = storage.parse(data.store)
  built = True
  with hosts.agreed(
    "building the token store", limit=_BUILD_SECONDS, waiting=stop.heard
  ):
    if hosts.is_first() and not storage.exists(place / "COMPLETED"):
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
  """Build the token store in a child, so that this process never loads TensorFlow."""
  if importlib.util.find_spec("seqio") is None:
    raise InputError(
      f"Data.store: {data.store} is not built, and building it needs seqio: "
      "pip install -c constraints.txt -e '.[data]', or copy a store here"
    )
  bindings = gin_config.text({"Data": data}).splitlines()
  flags = [f"--gin.{line.replace(' = ', '=', 1)}" for line in bindings]
  doing = f"building the token store {data.store}"
  print(f"{doing} from {data.mixture}", flush=True)
  return child.run("phi1_jax.prepare", flags, stop.heard, doing)


def _train_first(
  config: setup.RunConfig, arguments: argparse.Namespace
) -> setup.RunConfig | None:
  """Replace an `init_from` that is a gin file by the work directory of its run.

  A child trains that run unless it is finished, before this process uses a device. A
  dry run without it starts from scratch.

  Returns:
    The config, or None if a stop signal ended the child.
  """
  name = config.checkpoint.init_from
  if name is None or not name.endswith(".gin"):
    return config
  place: str | None = str(command.default_workdir([name]))
  file = command.local_gin_file(name)
  begun = os.environ.get(_TRAINED_FIRST, "").split(os.pathsep)
  if place in begun or file in arguments.gin_files:
    raise InputError(
      f"Checkpoint.init_from: {name} starts from itself, by way of "
      f"{', '.join(filter(None, begun)) or name}; expected another run's gin file"
    )
  if not _is_trained(Path(place), file):
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
  """Return whether a work directory holds the finished run of a gin file.

  Raises:
    InputError: it holds another run, such as a longer one.
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


def _train(run: setup.Setup, store: TokenStore, stop: StopSignal) -> int:
  started = time.perf_counter()
  was_done = summary.is_written(run)
  with contextlib.ExitStack() as stack:
    stream = sys.stderr
    if not hosts.is_first():
      stream = stack.enter_context(open(os.devnull, "w"))
    last = run.config.train.last_step
    # Without a terminal the rows of metrics show the progress.
    bar = Progress(last, "steps", "training", interval=None, stream=stream)
    stack.enter_context(bar)
    with hosts.agreed("making hooks"):
      periodic = [hooks.held_out_loss(run, store), *hooks.named(run, store)]
      periodic.append(hooks.profile(run))
    try:
      done = loop.train(run, store, periodic, stop, bar)
    except DivergedError as error:
      print(f"error: {error}", file=sys.stderr)
      return 1
  if hosts.is_first():
    if not done:
      print(f"stopped after saving; run the same command to go on ({run.workdir})")
    elif was_done:
      print(f"was done already, at step {last}; see {run.workdir}/summary.json")
    else:
      print(summary.write(run, store, time.perf_counter() - started))
  return command.DONE if done else command.PREEMPTED


if __name__ == "__main__":
  command.run(main)
