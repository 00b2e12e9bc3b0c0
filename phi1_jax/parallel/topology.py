"""Machines by name, there or not: `v5e:4x4`, `v4-8`, `h100-8`, `cpu-8`.

TPUs that are not there come from libtpu, whose compiler needs none: a program compiled
for them is the program they would run. GPUs that are not there are simulated by CPU
devices: meshes and collectives are as they would be, memory is an upper bound, since
the CPU's compiler has no fused attention and computes bfloat16 in float32.
"""

import contextlib
import dataclasses
import math
import os
import re
from collections.abc import Iterator
from typing import Any

from phi1_jax import InputError


@dataclasses.dataclass(frozen=True)
class _TPU:
  """A generation of TPUs.

  Attributes:
    kind: `jax.Device.device_kind`.
    dims: of its network: a plane or a cube.
    counted: what Google's names count: chips, or cores (two a chip).
    devices: `jax.Device`s per chip.
    options: what libtpu needs to be told about it.
  """

  kind: str
  dims: int
  counted: int = 1
  devices: int = 1
  options: tuple[tuple[str, str], ...] = ()


_TPUS = {
  "v2": _TPU("TPU v2", 2, counted=2, devices=2),
  "v3": _TPU("TPU v3", 2, counted=2, devices=2),
  # Both cores of a chip work as one device, as on a TPU VM.
  "v4": _TPU("TPU v4", 3, counted=2, options=(("chip_config_name", "megacore"),)),
  "v5e": _TPU("TPU v5 lite", 2),
  "v5p": _TPU("TPU v5", 3, counted=2),
  "v6e": _TPU("TPU v6 lite", 2),
}
_GPUS = {
  "a100": "NVIDIA A100-SXM4-80GB",
  "h100": "NVIDIA H100 80GB HBM3",
  "h200": "NVIDIA H200",
  "l4": "NVIDIA L4",
}
_EXAMPLES = "v5e:4x4, v4-8, v5p:2x2x1, h100-8 or cpu-8"


@dataclasses.dataclass(frozen=True)
class Topology:
  """A machine.

  Attributes:
    name: as it was asked for.
    chip: "v5e", "h100", "cpu".
    kind: `jax.Device.device_kind` of the real thing.
    grid: chips along each dim of a TPU's network; elsewhere the number of devices.
  """

  name: str
  chip: str
  kind: str
  grid: tuple[int, ...]

  @property
  def simulated(self) -> bool:
    """Whether CPU devices stand in for it."""
    return self.chip not in _TPUS

  @property
  def num_devices(self) -> int:
    """`jax.Device`s."""
    per_chip = 1 if self.simulated else _TPUS[self.chip].devices
    return math.prod(self.grid) * per_chip


def parse(name: str) -> Topology:
  """Reads a machine's name.

  Args:
    name: chip:layout as libtpu names it (`v5e:4x4`), or chip-count as Google does
      (`v4-8`, `v5litepod-16`: cores on v2, v3, v4 and v5p, chips on v5e and v6e).

  Raises:
    InputError: no such chip, or no such number of them.
  """
  found = re.fullmatch(r"([a-z]+\w*?)[-:_](\d+(?:x\d+)*)", name.strip().lower())
  chip, size = found.groups() if found else ("", "")
  chip = "v5e" if chip == "v5litepod" else chip
  kind = "cpu" if chip == "cpu" else _GPUS.get(chip)
  if kind is not None and size.isdigit() and int(size):
    return Topology(name, chip, kind, (int(size),))
  if chip not in _TPUS:
    chips = ", ".join([*_TPUS, *_GPUS, "cpu"])
    raise InputError(
      f"--topology: got {name!r}, expected one of {chips} and a size, such as "
      f"{_EXAMPLES}"
    )
  tpu = _TPUS[chip]
  if size.isdigit():
    grid = _grid(int(size) / tpu.counted, tpu.dims)
  else:
    grid = tuple(int(part) for part in size.split("x"))
  if grid is None or len(grid) not in (2, tpu.dims) or not all(grid):
    shape = "x".join("ABC"[: tpu.dims])
    counted = "cores" if tpu.counted == 2 else "chips"
    raise InputError(
      f"--topology: got {name!r}, expected {chip}:{shape}, or {chip}-N with N "
      f"{counted}, a power of two from {tpu.counted} on"
    )
  grid += (1,) * (tpu.dims - len(grid))
  return Topology(name, chip, tpu.kind, grid)


def _grid(chips: float, dims: int) -> tuple[int, ...] | None:
  """The squarest layout of a power of two, longer dims last: 8 are 2x4, or 2x2x2."""
  if chips != int(chips) or not chips or int(chips) & (int(chips) - 1):
    return None
  doublings = int(chips).bit_length() - 1
  if dims == 3 and doublings < 3:
    return *(2 ** ((doublings + place) // 2) for place in range(2)), 1
  return tuple(2 ** ((doublings + place) // dims) for place in range(dims))


def devices(topology: Topology) -> list[Any]:
  """Its devices, to compile for.

  CPU devices stand in for GPUs: as many as JAX has been told to simulate.

  Raises:
    InputError: libtpu is not installed, or knows no such layout.
  """
  import jax

  if topology.simulated:
    found = jax.devices("cpu")[: topology.num_devices]
    assert len(found) == topology.num_devices  # else another machine would be judged
    return found
  from jax.experimental import topologies

  # No TPU is asked for, so nothing need be looked for, nor kept from other processes.
  os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
  os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
  tpu, chips = _TPUS[topology.chip], math.prod(topology.grid)
  options: dict[str, Any] = dict(tpu.options)
  if chips < 4:  # a host with fewer chips than usual
    options["chips_per_host_bounds"] = (*topology.grid, *(1,) * (3 - tpu.dims))
  layout = "x".join(map(str, topology.grid))
  try:
    with _quiet_stderr():
      found = topologies.get_topology_desc(
        platform="tpu", topology_name=f"{topology.chip}:{layout}", **options
      )
  except (RuntimeError, ValueError) as error:
    if "libtpu" in str(error):
      raise InputError(
        f"--topology={topology.name} needs the TPU compiler: pip install -c "
        "constraints.txt -e '.[tpu]'"
      ) from None
    line = str(error).split("\n")[0][:200]
    raise InputError(f"--topology: got {topology.name!r}: {line}") from None
  return list(found.devices)


@contextlib.contextmanager
def _quiet_stderr() -> Iterator[None]:
  """Keeps libtpu from complaining, line by line, that there is no TPU."""
  kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
  os.dup2(nowhere, 2)
  try:
    yield
  finally:
    os.dup2(kept, 2)
    os.close(kept)
    os.close(nowhere)
