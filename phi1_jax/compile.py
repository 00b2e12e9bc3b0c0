"""Compiles the train step for a machine that is not here.

    python -m phi1_jax.compile --gin_file=gin/pretrain.gin --topology=v5e:4x4

Prints whether it fits, its traffic through memory and between devices, and a bound on
its speed. TPUs of any size come from the compiler in libtpu (the extra `tpu`); GPUs are
simulated (see `planning.topology`).
"""

import dataclasses
import functools
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phi1_jax import InputError
from phi1_jax.cli import command, gin_config

# JAX takes a second to load, which flags that are wrong need not wait for.
if TYPE_CHECKING:
  from phi1_jax.planning.topology import Topology
  from phi1_jax.training.setup import RunConfig


def main(argv: Sequence[str] | None = None) -> int:
  """Read the configuration, compile, print."""
  parser = command.Parser(
    "compile",
    "Compiles the train step for a machine that is not here.",
    "python -m phi1_jax.compile --gin_file=gin/pretrain.gin --topology=v5e:4x4",
  )
  parser.add_argument(
    "--topology",
    metavar="MACHINE",
    help="such as v5e:4x4, v4-8, v5e-16x2 (two slices), h100-8x2 (two nodes), cpu-8",
  )
  parser.add_argument("--json", action="store_true", help="print JSON")
  parser.add_argument(
    "--search",
    action="store_true",
    help="try batch x remat x attention and recommend the fastest that fits",
  )
  parser.add_argument(
    "--table",
    nargs="*",
    metavar="PRESET",
    help="print a Markdown table of these presets, gin files that are named after "
    "their machines (default: all of gin/meshes)",
  )
  arguments = parser.parse(argv)
  if (arguments.table is None) == (arguments.topology is None):
    got = "none" if arguments.table is None else "it and --table"
    raise InputError(
      f"--topology: got {got}, expected a machine, such as v5e:4x4, or --table"
    )
  from phi1_jax.planning import report, topology

  if arguments.table is not None:
    _print_table(arguments)
    return command.DONE
  machine = topology.parse(arguments.topology)
  command.simulate_devices(machine.num_devices if machine.simulated else 1)
  config = _read(arguments.gin_files, arguments.gin_bindings, machine)
  print(f"compiling for {machine.name}, which may take minutes", file=sys.stderr)
  if arguments.search:
    _print_search(config, machine, as_json=arguments.json)
  else:
    found = _measure(machine, config)
    print(json.dumps(found) if arguments.json else report.text(found))
  return command.DONE


def _read(files, bindings, machine: "Topology") -> "RunConfig":
  """Read the run. Simulated devices have no node, so the mesh gets their number."""
  from phi1_jax.training.setup import CONFIGURABLES, RunConfig

  config = RunConfig.from_parts(gin_config.load(files, bindings, CONFIGURABLES))
  across = config.mesh.dcn_data or machine.slices
  if across not in (1, machine.slices):
    raise InputError(
      f"Mesh.dcn_data: got {across}, expected 1 or {machine.slices}, the slices or "
      f"nodes of {machine.name}"
    )
  mesh = dataclasses.replace(config.mesh, dcn_data=across)
  return dataclasses.replace(config, mesh=mesh)


def _measure(machine: "Topology", config: "RunConfig") -> dict[str, Any]:
  """Compile a run's step; return the fields of --json.

  Raises:
    InputError: it does not fit.
  """
  from phi1_jax.parallel import sharding
  from phi1_jax.planning import account, topology
  from phi1_jax.training.setup import make_setup
  from phi1_jax.training.step import make_train_step

  run = make_setup(config, Path(), topology.devices(machine))
  with sharding.layout(run.mesh):
    step: Any = make_train_step(run, document_end=0)
    started = time.perf_counter()
    traced = step.trace(run.abstract_state, run.abstract_batch)
    return account.fields(run, machine, traced, started)


def _print_search(config: "RunConfig", machine: "Topology", *, as_json: bool) -> None:
  """Print the trials of --search and the fastest."""
  from phi1_jax.planning import report, search, topology
  from phi1_jax.training.setup import make_setup

  mesh = make_setup(config, Path(), topology.devices(machine)).mesh.shape
  share = config.train.batch_size // mesh["data"] // mesh["fsdp"]
  shown = sys.stderr if as_json else sys.stdout
  print(report.header(), file=shown)
  trials = []
  for trial in search.search(config, share, functools.partial(_measure, machine)):
    trials.append({"topology": machine.name, **trial})
    print(report.row(machine.name, trial), file=shown, flush=True)
  best = search.fastest(trials)
  if as_json:
    print(json.dumps({"trials": trials, "recommended": best}))
  elif best:
    print(f"recommended: {report.flags(best)}")
  if best is None:
    raise InputError(f"{machine.name}: nothing fits; use more devices")


def _print_table(arguments: Any) -> None:
  """Print a row for each preset of `--table`, or its fields as JSON."""
  from phi1_jax.planning import report, topology

  meshes = (gin_config.RECIPES / "meshes").glob("*_[0-9]*.gin")
  presets = arguments.table or map(str, meshes)
  machines = {
    preset: topology.parse(Path(preset).stem.replace("_", "-")) for preset in presets
  }
  simulated = [m.num_devices for m in machines.values() if m.simulated]
  command.simulate_devices(max(simulated, default=1))
  if not arguments.json:
    print(report.header())
  refused = []
  for preset, machine in sorted(
    machines.items(), key=lambda item: (item[1].chip, item[1].num_devices)
  ):
    topology.devices(machine)  # refuse a missing compiler
    files = [*arguments.gin_files, preset]
    try:
      found = _measure(machine, _read(files, arguments.gin_bindings, machine))
    except InputError as error:
      found = {"refused": str(error)}
      refused.append(error)
    name = Path(preset).stem
    line = {"preset": name, **found}
    print(json.dumps(line) if arguments.json else report.row(name, found), flush=True)
  if len(refused) == len(machines):
    raise refused[0]


if __name__ == "__main__":
  command.run(main)
