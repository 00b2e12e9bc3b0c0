"""Everything before a run opens its work directory: its origin, its checks, a dry run.

What would fail in the middle of the work is refused here.
"""

import argparse
import dataclasses
import itertools
import os
import time
from pathlib import Path

import jax

from phi1_jax import InputError, storage
from phi1_jax.checkpoint import description, manager
from phi1_jax.cli import child, command, gin_config
from phi1_jax.data import files
from phi1_jax.data.token_store import TokenStore
from phi1_jax.grammar import rows
from phi1_jax.parallel import hosts, sharding
from phi1_jax.training import loop, memory, setup, store, workdir
from phi1_jax.training.memory import GIB
from phi1_jax.training.preemption import StopSignal
from phi1_jax.training.setup import RunConfig, Setup
from phi1_jax.training.state import bytes_per_device
from phi1_jax.training.step import make_train_step

# Runs in progress, passed to child processes to detect cycles in `init_from`.
TRAINED_FIRST = "PHI1_JAX_TRAINED_FIRST"


def check_same_config(text: str) -> None:
  """Refuse a host that was started with another configuration than host 0."""
  first = hosts.exchange("comparing configurations", text)[0].splitlines()
  with hosts.shared_errors("the configuration"):
    for ours, theirs in itertools.zip_longest(text.splitlines(), first):
      if ours != theirs:
        raise InputError(
          f"host {hosts.index()} was started with {ours}, host 0 with {theirs}; "
          "expected the same gin files and flags on all hosts"
        )


def train_first(config: RunConfig, arguments: argparse.Namespace) -> RunConfig | None:
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


def _is_trained(place: Path, gin_file: str) -> bool:
  """Return whether a work directory holds the finished run of a gin file.

  Raises:
    InputError: it holds another run, such as a longer one.
  """
  try:
    theirs = workdir.values((place / "config.gin").read_text())
  except FileNotFoundError:
    return False
  parts = gin_config.load([gin_file], [], setup.CONFIGURABLES)
  ours = workdir.values(gin_config.text(parts))
  for name in sorted(theirs.keys() & ours.keys()):
    decides = name.partition(".")[0] in ("Data", "Model", "Optimizer", "Train")
    if decides and theirs[name] != ours[name]:
      raise InputError(
        f"Checkpoint.init_from: {place} was trained with {name} = {theirs[name]}, "
        f"{gin_file} has {ours[name]}; to start from it as it is, give "
        f"--gin.Checkpoint.init_from={place}; or move it away to train it anew"
      )
  return (place / workdir.SUMMARY).is_file()


def check_start(run: Setup) -> None:
  """Refuse a `resume_from` or `init_from` that holds no checkpoint of this model.

  A run that goes on from its own work directory needs neither any more.
  """
  config = run.config.checkpoint
  if not manager.holds_checkpoint(run.workdir):
    for place in filter(None, (config.resume_from, config.init_from)):
      found = manager.find(place)
      wanted = {"model_shape": run.config.model.shape()}
      manager.check_meta(found, description.read_meta(found), wanted)


def describe(run: Setup) -> str:
  """Return model, mesh and batch arithmetic of a run, one aligned line each."""
  model, train, parts = run.config.model, run.config.train, run.accumulation_steps
  mesh = " x ".join(f"{axis} {size}" for axis, size in run.mesh.shape.items())
  at_once = train.batch_size // sharding.batch_shards(run.mesh) // parts
  state, params = map(bytes_per_device, (run.abstract_state, run.abstract_state.params))
  return "\n".join(
    [
      f"model    {model.num_parameters():,} parameters: {model.num_layers} layers, "
      f"{model.embed_dim} wide, {model.num_heads} heads, "
      f"{model.vocabulary_size:,} tokens; {model.dtype}, {model.attention} attention",
      f"mesh     {mesh} on {run.mesh.size} x {run.mesh.devices.flat[0].device_kind}",
      f"step     {train.batch_size:,} sequences x {train.sequence_length:,} = "
      f"{train.tokens_per_step:,} tokens per step; {at_once} sequences a device at a "
      f"time, {parts} times",
      f"run      {train.last_step:,} steps = "
      f"{train.tokens_per_step * train.last_step:,} tokens, "
      f"{run.flops_per_token * train.tokens_per_step:.3g} FLOPs a step",
      f"state    {state:,} bytes per device ({state / GIB:.2f} GiB), of which "
      f"parameters {params:,}",
    ]
  )


def dry_run(run: Setup) -> str:
  """Check everything, compile one step, and return what the run needs.

  Raises:
    InputError: as a start of the run would.
  """
  data = run.config.data
  started = time.perf_counter()
  found = "not there yet"
  with hosts.shared_errors("the dry run", limit=loop.COMPILE_SECONDS):
    check_start(run)
    if storage.exists(storage.parse(data.store) / "COMPLETED"):
      tokens = TokenStore.open(data.store, verify=data.verify)
      store.check(tokens, run.config)
      store.check_current(tokens, run)
      found = f"{tokens.manifest['tokens']:,} tokens"
    else:  # what the build would read
      data.refuse_unknown_mixture()
      rows.load(data.grammar_tables)
      store.check_vocabulary(run.config)
      if data.files:
        files.FileSource(data.files, data.columns).check()
    compiled = memory.compile_step(make_train_step(run, document_end=0), run)
  state, batch, temporary = memory.step_memory(compiled, run)
  need, have = state + batch + temporary, memory.device_memory()
  fits = ""
  if have is not None:
    verdict = "fits" if need <= have else "does NOT fit"
    fits = f"; {verdict} in the {have / GIB:.2f} GiB of this one"
    if jax.default_backend() == "cpu" and jax.local_device_count() > 1:
      fits += f", its share of the host's (of {jax.local_device_count()} simulated)"
  return "\n".join(
    [
      f"memory   {need / GIB:.2f} GiB per device: state {state / GIB:.2f}, "
      f"temporary {temporary / GIB:.2f}{fits}",
      f"store    {data.store}: {found} ({data.origin})",
      f"one step compiled in {time.perf_counter() - started:.1f} s; nothing was run",
    ]
  )
