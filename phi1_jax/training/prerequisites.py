"""Prerequisites of a run: the run that it starts from, and its token store."""

import argparse
import dataclasses
import importlib.util
import os
from pathlib import Path

from phi1_jax import InputError, how_to_install, storage
from phi1_jax.cli import child, command, gin_config
from phi1_jax.data.config import DataConfig
from phi1_jax.data.token_store import TokenStore
from phi1_jax.parallel import hosts
from phi1_jax.training import preflight, setup
from phi1_jax.training import workdir as workdirs
from phi1_jax.training.preemption import StopSignal

# Runs in progress, passed to child processes to detect cycles in `init_from`.
TRAINED_FIRST = "PHI1_JAX_TRAINED_FIRST"
# Timeout of other hosts while host 0 builds the token store.
_BUILD_SECONDS = 24 * 3600


def train_first(
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
  begun = os.environ.get(TRAINED_FIRST, "").split(os.pathsep)
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
      os.environ[TRAINED_FIRST] = os.pathsep.join([*begun, place])
      with StopSignal() as stop:
        if not child.run("phi1_jax.train", flags, stop.noticed, f"training {name}"):
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
  theirs, ours = workdirs.values(config), workdirs.values(gin_config.text(parts))
  for name in sorted(theirs.keys() & ours.keys()):
    decides = name.partition(".")[0] in ("Data", "Model", "Optimizer", "Train")
    if decides and theirs[name] != ours[name]:
      raise InputError(
        f"Checkpoint.init_from: {workdir} was trained with {name} = {theirs[name]}, "
        f"{gin_file} has {ours[name]}; to start from it as it is, give "
        f"--gin.Checkpoint.init_from={workdir}; or move it away to train it anew"
      )
  return (workdir / "summary.json").is_file()


def open_store(run: setup.Setup, stop: StopSignal) -> TokenStore | None:
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
  with hosts.shared_errors(
    "building the token store", limit=_BUILD_SECONDS, waiting=stop.noticed
  ):
    if hosts.is_first() and not storage.exists(place / "COMPLETED"):
      built = _build_store(data, stop)
  if not hosts.exchange("the token store is built", built)[0]:
    return None
  with hosts.shared_errors("opening the token store"):
    verify = data.verify and (hosts.is_first() or storage.is_remote(place))
    note = run.workdir / "verified_store.json"
    store = TokenStore.open(place, verify=verify, verified=note)
    preflight.check_store(store, run.config)
  first = hosts.exchange("comparing token stores", store.digest)[0]
  with hosts.shared_errors("the token store"):
    if store.digest != first:
      raise InputError(
        f"Data.store: {storage.full(place)} of host {hosts.index()} has digest "
        f"{store.digest[:16]}, that of host 0 {first[:16]}; expected the same tokens "
        "on all hosts: copy host 0's, or share it"
      )
  return store


def _build_store(data: DataConfig, stop: StopSignal) -> bool:
  """Build the token store in a child, so that this process never loads TensorFlow."""
  if data.needs_seqio and importlib.util.find_spec("seqio") is None:
    raise InputError(
      f"Data.store: {data.store} is not built, and building it needs seqio: "
      f"{how_to_install('data')}, or copy a store here"
    )
  bindings = gin_config.text({"Data": data}).splitlines()
  flags = [f"--gin.{line.replace(' = ', '=', 1)}" for line in bindings]
  doing = f"building the token store {data.store}"
  print(f"{doing} from {data.origin}", flush=True)
  return child.run("phi1_jax.prepare", flags, stop.noticed, doing)
