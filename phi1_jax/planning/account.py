"""What a compiled program needs of a machine, and a bound on how fast it can be."""

import dataclasses
import os
import time
from typing import Any

import jax

from phi1_jax import InputError
from phi1_jax.parallel import compiler
from phi1_jax.planning import flops, hlo
from phi1_jax.planning.topology import Topology
from phi1_jax.telemetry import throughput

GIB = 2**30

# Bytes per second that a chip may send to other slices, its share of a pod's network:
# cloud.google.com/tpu/docs/v5e gives 6.4 Tbit/s for 256 chips. No such number is
# published for the others, and a GPU node's network is the user's choice.
_DCN = {"TPU v5 lite": 6.4e12 / 8 / 256}


class OutOfMemoryError(Exception):
  """A program does not fit, in the compiler's words or by its size."""


@dataclasses.dataclass(frozen=True)
class Account:
  """One program on one machine; bytes and traffic are those of one device.

  Attributes:
    machine: where it would run.
    argument_bytes: its arguments: for a step the state, updated in place.
    temporary_bytes: what it needs beside them.
    executed_flops: FLOPs of its matrix products on all devices, recomputation included.
    traffic: through memory and between devices.
    compile_seconds: tracing and compiling, on this machine.
  """

  machine: Topology
  argument_bytes: int
  temporary_bytes: int
  executed_flops: float
  traffic: hlo.Traffic
  compile_seconds: float

  @property
  def total_bytes(self) -> int:
    """All memory that one device needs."""
    return self.argument_bytes + self.temporary_bytes

  def bounds(self) -> dict[str, float]:
    """Return the seconds that each resource alone would take at its peak.

    A run overlaps them, at best completely, so a step takes at least as long as the
    longest: a bound, not a measurement. "compute" is the executed FLOPs at the peak of
    bfloat16, "memory" and "links" (inside a slice) the traffic at full bandwidth, and
    "dcn" the traffic across slices where that bandwidth is published. For a simulated
    machine only "compute" is meaningful; a CPU has no bound.
    """
    device = throughput.DEVICES.get(self.machine.kind)
    if device is None:
      return {}
    bounds = {
      "compute": self.executed_flops / (self.machine.num_devices * device.peak_flops)
    }
    if self.machine.simulated:
      return bounds
    bounds["memory"] = self.traffic.hbm_bytes / device.hbm_bytes_per_second
    bounds["links"] = _sent(self.traffic.inside) / device.link_bytes_per_second
    if self.traffic.across and self.machine.kind in _DCN:
      bounds["dcn"] = _sent(self.traffic.across) / _DCN[self.machine.kind]
    return bounds

  def asdict(self) -> dict[str, Any]:
    """Return the fields of --json."""
    bounds, simulated = self.bounds(), self.machine.simulated
    hbm, usable, why = memory_of(self.machine.kind)
    return {
      "argument_gib": self.argument_bytes / GIB,
      "temporary_gib": self.temporary_bytes / GIB,
      "total_gib": self.total_bytes / GIB,
      "hbm_gib": hbm,
      "usable_gib": usable,
      "usable_because": why,
      "executed_flops": self.executed_flops,
      "hbm_traffic_gib": None if simulated else self.traffic.hbm_bytes / GIB,
      "collectives": _counted(self.traffic.inside, self.traffic.across),
      "collectives_inside_slice": _counted(self.traffic.inside),
      "collectives_across_slices": _counted(self.traffic.across),
      "compile_seconds": self.compile_seconds,
      "bound_seconds": max(bounds.values(), default=None),
      "bounds": bounds,
    }


def memory_of(kind: str) -> tuple[float | None, float | None, str]:
  """Return (GiB of one device, GiB that a program may use, the reason).

  On a GPU, JAX's allocator takes three quarters of the memory unless the environment
  says otherwise. The fraction is also the limit with PREALLOCATE=false, which only lets
  the allocator grow up to it; ALLOCATOR=platform has no limit. A TPU's compiler knows
  its own limit.

  Raises:
    InputError: a fraction that is not a number.
  """
  device = throughput.DEVICES.get(kind)
  hbm = device.hbm_gib if device else None
  if hbm is None or kind.startswith("TPU"):
    return hbm, hbm, ""
  name = "XLA_PYTHON_CLIENT_ALLOCATOR"
  if os.environ.get(name, "").lower() == "platform":
    return hbm, hbm, f"{name}=platform"
  for name in ("XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION"):
    if text := os.environ.get(name):
      try:
        return hbm, hbm * float(text), f"{name}={text}"
      except ValueError:
        raise InputError(f"{name}: got {text!r}, expected a number") from None
  return hbm, hbm * 0.75, f"JAX's default, {name}=.75"


def of_program(
  traced: jax.stages.Traced, devices: Any, machine: Topology, started: float
) -> Account:
  """Compile a traced program.

  Args:
    traced: the program.
    devices: an array of the devices that it is for, real or simulated.
    machine: what the devices are.
    started: `time.perf_counter()` before tracing.

  Raises:
    OutOfMemoryError: it does not fit.
    InputError: the compiler refuses it.
  """
  options = compiler.options(devices.flat[0].platform, devices.size)
  try:
    compiled = traced.lower().compile(options)
  except jax.errors.JaxRuntimeError as error:
    message = str(error).split("\n")[0]
    if "RESOURCE_EXHAUSTED" in message:
      raise OutOfMemoryError(message) from None
    raise InputError(f"{machine.kind}: the compiler says: {message}") from None
  analysis: Any = compiled.memory_analysis()
  # Simulated nodes follow one another in the mesh.
  size = machine.num_devices // machine.slices
  slices = [
    getattr(device, "slice_index", place // size)
    for place, device in enumerate(devices.flat)
  ]
  account = Account(
    machine=machine,
    argument_bytes=analysis.argument_size_in_bytes,
    temporary_bytes=analysis.temp_size_in_bytes,
    executed_flops=flops.count(traced.jaxpr),
    traffic=hlo.traffic(compiled.as_text() or "", slices),
    compile_seconds=time.perf_counter() - started,
  )
  # A simulated device has the host's memory; the machine's own is what counts.
  hbm, usable, why = memory_of(machine.kind)
  if usable and account.total_bytes > usable * GIB:
    raise OutOfMemoryError(
      f"{account.total_bytes / GIB:.1f} GiB exceed the {usable:.0f} GiB that a program "
      f"may use of the {hbm:.0f} of one {machine.kind}" + (f" ({why})" if why else "")
    )
  return account


def _sent(collectives: hlo.Collectives) -> float:
  return sum(sent for _, sent in collectives.values())


def _counted(*parts: hlo.Collectives) -> dict[str, dict[str, float]]:
  """Return the count and the bytes of each kind, added up over the parts."""
  total: dict[str, dict[str, float]] = {}
  for kind, (count, sent) in (item for part in parts for item in part.items()):
    entry = total.setdefault(kind, {"count": 0, "bytes": 0.0})
    entry["count"] += count
    entry["bytes"] += sent
  return dict(sorted(total.items()))
