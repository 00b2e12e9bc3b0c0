"""Compiles the train step for a machine that is not here: the work of `compile`."""

import dataclasses
import functools
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from phi1_jax import InputError
from phi1_jax.cli import command, gin_config
from phi1_jax.parallel import sharding
from phi1_jax.planning import account, report, search
from phi1_jax.planning import topology as topologies
from phi1_jax.planning.account import OutOfMemoryError
from phi1_jax.planning.topology import Topology
from phi1_jax.training.setup import CONFIGURABLES, RunConfig, make_setup
from phi1_jax.training.step import make_train_step


def _config(files, bindings, machine: Topology) -> RunConfig:
  """Read the run. Simulated devices have no node, so the mesh gets their number."""
  config = RunConfig.from_parts(gin_config.load(files, bindings, CONFIGURABLES))
  across = config.mesh.dcn_data or machine.slices
  if across not in (1, machine.slices):
    raise InputError(
      f"Mesh.dcn_data: got {across}, expected 1 or {machine.slices}, the slices or "
      f"nodes of {machine.name}"
    )
  return dataclasses.replace(
    config, mesh=dataclasses.replace(config.mesh, dcn_data=across)
  )


def _measure(
  machine: Topology, devices: Sequence[Any], config: RunConfig
) -> dict[str, Any]:
  """Compile a run's step; return the fields of --json."""
  setup = make_setup(config, Path(), devices)
  with sharding.layout(setup.mesh):
    step: Any = make_train_step(setup, document_end=0)
    started = time.perf_counter()
    traced = step.trace(setup.abstract_state, setup.abstract_batch)
    found = account.of_program(traced, setup.mesh.devices, machine, started)
  return report.describe(setup, machine, found)


def _describe(config: RunConfig, machine: Topology) -> dict[str, Any]:
  """Return the fields of --json.

  Raises:
    InputError: it does not fit; names the nearest setting that does.
  """
  devices = topologies.devices(machine)
  measure = functools.partial(_measure, machine, devices)
  try:
    return measure(config)
  except OutOfMemoryError as error:
    print(f"{error}\nlooking for the nearest setting that fits", file=sys.stderr)
    size = report.sequences_per_device(make_setup(config, Path(), devices))
    advice = (
      "no fewer sequences and no stronger Model.remat would help: use more devices"
    )
    if found := search.nearest(config, size, measure):
      gib = found["total_gib"]
      advice = f"the nearest that fits: {report.flags(found)}, with {gib:.2f} GiB"
    raise InputError(
      f"{machine.name}, {size} sequences per device, remat {config.model.remat}: "
      f"{error}\n{advice}"
    ) from None


def print_one(arguments: Any) -> None:
  """Print what the step needs on `--topology`, or the trials of `--search`.

  Raises:
    InputError: it does not fit; names the nearest setting that does.
  """
  machine = topologies.parse(arguments.topology)
  command.simulate_devices(machine.num_devices if machine.simulated else 1)
  config = _config(arguments.gin_files, arguments.gin_bindings, machine)
  if arguments.search:
    _search(config, machine, as_json=arguments.json)
  else:
    found = _describe(config, machine)
    print(json.dumps(found) if arguments.json else report.text(found))


def _search(config: RunConfig, machine: Topology, *, as_json: bool) -> None:
  devices = topologies.devices(machine)
  setup = make_setup(config, Path(), devices)
  share = report.sequences_per_device(setup) * setup.accumulation_steps
  trials = []
  for trial in search.search(
    config, share, functools.partial(_measure, machine, devices)
  ):
    trials.append({"topology": machine.name, **trial})
    print(report.trial(trial), file=sys.stderr if as_json else sys.stdout, flush=True)
  best = search.fastest(trials)
  if as_json:
    print(json.dumps({"trials": trials, "recommended": best}))
  elif best:
    print(f"recommended: {report.flags(best)}")
  if best is None:
    raise InputError(f"{machine.name}: nothing fits; use more devices")


def print_table(arguments: Any) -> None:
  """Print a row for each preset of `--table`, or its fields as JSON."""
  meshes = (gin_config.RECIPES / "meshes").glob("*_[0-9]*.gin")
  presets = arguments.table or map(str, meshes)
  machines = {
    preset: topologies.parse(Path(preset).stem.replace("_", "-")) for preset in presets
  }
  simulated = [m.num_devices for m in machines.values() if m.simulated]
  command.simulate_devices(max(simulated, default=1))
  if not arguments.json:
    print(report.header())
  for preset, machine in sorted(
    machines.items(), key=lambda item: (item[1].chip, item[1].num_devices)
  ):
    topologies.devices(machine)  # refuse a missing compiler
    files = [*arguments.gin_files, preset]
    try:
      found = _describe(_config(files, arguments.gin_bindings, machine), machine)
    except InputError as error:
      found = {"refused": str(error)}
    name = Path(preset).stem
    line = {"preset": name, **found}
    print(json.dumps(line) if arguments.json else report.row(name, found), flush=True)
