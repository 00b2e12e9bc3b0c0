"""Compiles the train step for a machine that is not there.

    python -m phi1_jax.compile --gin_file=gin/pretrain.gin --topology=v5e:4x4

Says whether it fits, what it moves through memory and between devices, and how fast it
can be at most. TPUs of any size come from the compiler in libtpu (the extra `tpu`);
GPUs are simulated (see `parallel.topology`).
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from phi1_jax import InputError
from phi1_jax.cli import command, gin_config
from phi1_jax.parallel import topology as topologies
from phi1_jax.parallel.topology import Topology
from phi1_jax.training import accounts, report, search
from phi1_jax.training.accounts import OutOfMemoryError
from phi1_jax.training.setup import CONFIGURABLES, RunConfig, make_setup


def main(argv: Sequence[str] | None = None) -> int:
  """Reads the configuration, compiles, prints."""
  arguments = _parser().parse(argv)
  if arguments.table:
    return _table(arguments)
  if not arguments.topology:
    raise InputError("--topology: got none, expected a machine, such as v5e:4x4")
  topology = topologies.parse(arguments.topology)
  command.simulate_devices(topology.num_devices if topology.simulated else 1)
  config = _config(arguments.gin_files, arguments.gin_bindings)
  if arguments.search:
    return _search(config, topology, as_json=arguments.json)
  found = _describe(config, topology, sampling=not arguments.step_only)
  print(json.dumps(found) if arguments.json else report.text(found))
  return command.DONE


def _parser() -> command.Parser:
  parser = command.Parser(
    "compile",
    "Compiles the train step for a machine that is not there.",
    "python -m phi1_jax.compile --gin_file=gin/pretrain.gin --topology=v5e:4x4",
  )
  parser.add_argument(
    "--topology", metavar="MACHINE", help="such as v5e:4x4, v4-8, h100-8, cpu-8"
  )
  parser.add_argument("--json", action="store_true", help="print one JSON object")
  parser.add_argument(
    "--search",
    action="store_true",
    help="try batch x remat x attention and recommend the fastest that fits",
  )
  parser.add_argument(
    "--step_only", action="store_true", help="leave prefill and decode out"
  )
  parser.add_argument(
    "--table",
    type=Path,
    metavar="FILE",
    help="compile for every --mesh and --model, and write the table into this file, "
    "between its marks; rows are kept beside it in topologies.jsonl",
  )
  parser.add_argument(
    "--mesh",
    action="append",
    default=[],
    metavar="FILE",
    help="for --table: a preset named after its machine (default: all)",
  )
  parser.add_argument(
    "--model",
    action="append",
    default=[],
    metavar="FILE",
    help="for --table (default: gin/models/phi1.gin and phi1_small.gin)",
  )
  return parser


def _config(files: Sequence[str], bindings: Sequence[tuple[str, str]]) -> RunConfig:
  return RunConfig.from_parts(gin_config.load(files, bindings, CONFIGURABLES))


def _describe(
  config: RunConfig, topology: Topology, *, sampling: bool
) -> dict[str, Any]:
  """What the run needs of the machine.

  Raises:
    InputError: it does not fit; names the nearest setting that does.
  """
  devices = topologies.devices(topology)
  setup = make_setup(config, Path(), devices)
  try:
    step = accounts.of_step(setup, topology.kind)
  except OutOfMemoryError as error:
    size = search.sequences_per_device(setup)
    print(f"{error}\nlooking for the nearest setting that fits", file=sys.stderr)
    measure = search.measure_on(devices, topology.kind)
    found = search.nearest(config, size, measure)
    advice = (
      "no fewer sequences and no stronger Model.remat would help: use more devices"
    )
    if found and found.account:
      advice = (
        f"the nearest that fits: --gin.Train.sequences_per_device={found.sequences} "
        f"--gin.Model.remat='\"{found.remat}\"', with "
        f"{found.account.total_bytes / accounts.GIB:.2f} GiB"
      )
    raise InputError(
      f"{topology.name}, {size} sequences per device, remat {config.model.remat}: "
      f"{error}\n{advice}"
    ) from None
  return report.describe(setup, topology, step, sampling=sampling)


def _search(config: RunConfig, topology: Topology, *, as_json: bool) -> int:
  devices = topologies.devices(topology)
  setup = make_setup(config, Path(), devices)
  share = config.train.batch_size // (setup.mesh.size // setup.mesh.shape["tensor"])
  trials = []
  for trial in search.search(config, share, search.measure_on(devices, topology.kind)):
    trials.append(trial)
    print(
      report.trial_line(trial), file=sys.stderr if as_json else sys.stdout, flush=True
    )
  best = search.fastest(trials)
  if as_json:
    rows = [report.trial(setup, topology, trial) for trial in trials]
    chosen = best and report.trial(setup, topology, best)
    print(json.dumps({"trials": rows, "recommended": chosen}))
  elif best:
    print(
      f"recommended: --gin.Train.sequences_per_device={best.sequences} "
      f"--gin.Model.remat='\"{best.remat}\"' "
      f"--gin.Model.attention='\"{best.attention}\"'"
    )
  if best is None:
    raise InputError(f"{topology.name}: nothing fits; use more devices")
  return command.DONE


def _table(arguments: Any) -> int:
  meshes = arguments.mesh or sorted(map(str, Path("gin/meshes").glob("*_[0-9]*.gin")))
  models = arguments.model or ["gin/models/phi1.gin", "gin/models/phi1_small.gin"]
  machines = {
    mesh: topologies.parse(Path(mesh).stem.replace("_", "-")) for mesh in meshes
  }
  simulated = [m.num_devices for m in machines.values() if m.simulated]
  command.simulate_devices(max(simulated, default=1))
  rows = arguments.table.with_name("topologies.jsonl")
  for model in models:
    for mesh in sorted(
      meshes, key=lambda mesh: (machines[mesh].chip, machines[mesh].grid)
    ):
      files = [*arguments.gin_files, model, mesh]
      config = _config(files, arguments.gin_bindings)
      topologies.devices(machines[mesh])  # a missing compiler is no row

      def compiled(config=config, mesh=mesh) -> dict[str, Any]:
        return _describe(config, machines[mesh], sampling=not arguments.step_only)

      name = Path(model).stem, Path(mesh).stem
      sampling = not arguments.step_only
      row = report.kept_row(rows, name, config, compiled, sampling=sampling)
      print(report.row_line(row), flush=True)
  report.write_table(arguments.table, rows)
  return command.DONE


if __name__ == "__main__":
  command.run(main)
