"""Machines by name, present or not: `v5e:4x4`, `v4-8`, `v5e-16x2`, `h100-8`, `cpu-8`.

TPUs that are not here come from libtpu, whose compiler needs none: a program compiled
for them is the program they would run. CPU devices simulate GPUs that are not here. The
mesh is then the real one, and memory an upper bound, because the CPU's compiler has no
fused attention and computes bfloat16 in float32. The GPU's compiler may also combine
collectives or move them out of loops.
"""

import dataclasses
import math
import os
import re
from typing import Any, NamedTuple

from phi1_jax import InputError, how_to_install


class _TPU(NamedTuple):
  """A generation of TPUs."""

  kind: str  # jax.Device.device_kind
  dims: int  # of its network
  cores: bool = False  # Google's names count cores, of which a chip has two
  devices: int = 1  # jax.Devices per chip
  options: tuple[tuple[str, str], ...] = ()  # of libtpu


_TPUS = {
  "v2": _TPU("TPU v2", 2, cores=True, devices=2),
  "v3": _TPU("TPU v3", 2, cores=True, devices=2),
  # Both cores of a chip work as one device, as on a TPU VM.
  "v4": _TPU("TPU v4", 3, cores=True, options=(("chip_config_name", "megacore"),)),
  "v5e": _TPU("TPU v5 lite", 2),
  "v5p": _TPU("TPU v5", 3, cores=True),
  "v6e": _TPU("TPU v6 lite", 2),
}
_GPUS = {
  "a100": "NVIDIA A100-SXM4-80GB",
  "h100": "NVIDIA H100 80GB HBM3",
  "h200": "NVIDIA H200",
  "l4": "NVIDIA L4",
  "cpu": "cpu",
}
# No TPU is needed: libtpu looks for none, other processes may load it too, and it does
# not complain that this host is not part of a TPU. The topology does not depend on it.
_LIBTPU = {
  "TPU_SKIP_MDS_QUERY": "1",
  "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
  "TPU_ACCELERATOR_TYPE": "v5e-8",
  "TPU_WORKER_HOSTNAMES": "localhost",
}


@dataclasses.dataclass(frozen=True)
class Topology:
  """A machine."""

  name: str  # that the user gave
  chip: str  # "v5e", "h100", "cpu"
  kind: str  # `jax.Device.device_kind` of the real machine
  # Chips along each dimension of a TPU slice's network; elsewhere the number of devices
  # of a node.
  grid: tuple[int, ...]
  slices: int = 1  # TPU slices or GPU nodes

  @property
  def platform(self) -> str:
    """`jax.Device.platform` of the real machine."""
    return "tpu" if self.chip in _TPUS else "cpu" if self.chip == "cpu" else "gpu"

  @property
  def simulated(self) -> bool:
    """Whether CPU devices simulate it."""
    return self.platform != "tpu"

  @property
  def num_devices(self) -> int:
    """Number of `jax.Device`s on all slices."""
    per_chip = 1 if self.simulated else _TPUS[self.chip].devices
    return math.prod(self.grid) * per_chip * self.slices


def parse(name: str) -> Topology:
  """Read a machine's name.

  Args:
    name: chip:layout as libtpu names it (`v5e:4x4`), or chip-count as Google does
      (`v4-8`, `v5litepod-16`: cores on v2, v3, v4 and v5p, chips on v5e and v6e). A
      number of slices or nodes may follow: `v5e:4x4:2`, `v5e-16x2`, `h100-8x2`.

  Raises:
    InputError: no such chip, or no such number of them.
  """
  found = re.fullmatch(
    r"([a-z]+\w*?)(?::(\d+(?:x\d+)*)(?::(\d+))?|[-_](\d+)(?:x(\d+))?)",
    name.strip().lower(),
  )
  chip, layout, layouts, count, counts = found.groups() if found else ("",) * 5
  chip = "v5e" if chip == "v5litepod" else chip
  size, slices = count or layout, int(layouts or counts or 1)
  grid: tuple[int, ...] = tuple(map(int, filter(None, size.split("x"))))
  if chip in _GPUS and len(grid) == 1 and grid[0] and slices:
    return Topology(name, chip, _GPUS[chip], grid, slices)
  tpu = _TPUS.get(chip)
  if tpu and count:
    grid = _grid(grid[0], tpu)
  if not tpu or len(grid) not in (2, tpu.dims) or not all((*grid, slices)):
    raise InputError(
      f"--topology: got {name!r}, expected one of {', '.join([*_TPUS, *_GPUS])} and a "
      "size: v5e:4x4 or v4:2x2x4 (chips), v5e-16 (chips) or v4-8 (cores; also v2, v3, "
      "v5p) with a power of two, h100-8, cpu-8; v5e-16x2 are two slices or nodes"
    )
  return Topology(name, chip, tpu.kind, grid + (1,) * (tpu.dims - len(grid)), slices)


def _grid(count: int, tpu: _TPU) -> tuple[int, ...]:
  """Return the squarest layout of a power of two, longer dims last, or ()."""
  chips, odd = divmod(count, 1 + tpu.cores)
  if odd or chips.bit_count() != 1:
    return ()
  doublings = chips.bit_length() - 1
  dims = 2 if doublings < 3 else tpu.dims
  return tuple(2 ** ((doublings + place) // dims) for place in range(dims))


def devices(topology: Topology) -> list[Any]:
  """Return its devices, to compile for.

  CPU devices simulate GPUs; JAX must have been set to simulate enough of them.

  Raises:
    InputError: libtpu is not installed, or knows no such layout.
  """
  import jax

  if topology.simulated:
    found = jax.devices("cpu")[: topology.num_devices]
    assert len(found) == topology.num_devices
    return found
  from jax.experimental import topologies

  for name, value in _LIBTPU.items():
    os.environ.setdefault(name, value)
  tpu, layout = _TPUS[topology.chip], "x".join(map(str, topology.grid))
  options: dict[str, Any] = dict(tpu.options)
  if math.prod(topology.grid) < 4:  # a host with fewer chips than usual
    options["chips_per_host_bounds"] = (*topology.grid, *(1,) * (3 - tpu.dims))
  if topology.slices > 1:
    options["num_slices"] = topology.slices
  try:
    found = topologies.get_topology_desc(
      platform="tpu", topology_name=f"{topology.chip}:{layout}", **options
    )
  except (RuntimeError, ValueError) as error:
    if "libtpu" in str(error) or "TPU support not installed" in str(error):
      raise InputError(
        f"--topology={topology.name} needs the TPU compiler: {how_to_install('tpu')}"
      ) from None
    line = str(error).split("\n")[0][:200]
    raise InputError(f"--topology: got {topology.name!r}: {line}") from None
  return list(found.devices)
