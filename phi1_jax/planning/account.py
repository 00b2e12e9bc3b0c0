"""Memory, traffic and lower bounds on the time of a compiled program."""

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
) -> dict[str, Any]:
  """Compile a traced program; return its fields of `compile --json`.

  Bytes and traffic are those of one device. `argument_gib` is the state of a step,
  which is updated in place, and `executed_flops` counts recomputation.

  Args:
    traced: the program.
    devices: an array of the devices of `machine`, real or simulated.
    machine: where the program would run.
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
  argument, temporary = analysis.argument_size_in_bytes, analysis.temp_size_in_bytes
  total = (argument + temporary) / GIB
  # A simulated device has the host's memory; the machine's own is what counts.
  hbm, usable, why = memory_of(machine.kind)
  if usable and total > usable:
    raise OutOfMemoryError(
      f"{total:.1f} GiB exceed the {usable:.0f} GiB that a program may use of the "
      f"{hbm:.0f} of one {machine.kind}" + (f" ({why})" if why else "")
    )
  # Simulated nodes follow one another in the mesh.
  size = machine.num_devices // machine.slices
  places = enumerate(devices.flat)
  slices = [getattr(device, "slice_index", n // size) for n, device in places]
  executed = flops.count(traced.jaxpr)
  moved = hlo.traffic(compiled.as_text() or "", slices)
  limits = bounds(machine, executed, moved)
  return {
    "argument_gib": argument / GIB,
    "temporary_gib": temporary / GIB,
    "total_gib": total,
    "hbm_gib": hbm,
    "usable_gib": usable,
    "usable_because": why,
    "executed_flops": executed,
    "hbm_traffic_gib": None if machine.simulated else moved.hbm_bytes / GIB,
    "collectives": hlo.added(moved.inside, moved.across),
    "collectives_inside_slice": hlo.added(moved.inside),
    "collectives_across_slices": hlo.added(moved.across),
    "compile_seconds": time.perf_counter() - started,
    "bound_seconds": max(limits.values(), default=None),
    "bounds": limits,
  }


def bounds(
  machine: Topology, executed_flops: float, moved: hlo.Traffic
) -> dict[str, float]:
  """Return the seconds that each resource alone would take at its peak.

  A run overlaps them, at best completely, so a step takes at least as long as the
  longest: a bound, not a measurement. "compute" is the executed FLOPs at the peak of
  bfloat16, "memory" and "links" (inside a slice) the traffic at full bandwidth, and
  "dcn" the traffic across slices where that bandwidth is published. For a simulated
  machine only "compute" is meaningful; a CPU has no bound.
  """
  device = throughput.DEVICES.get(machine.kind)
  if device is None:
    return {}
  found = {"compute": executed_flops / (machine.num_devices * device.peak_flops)}
  if machine.simulated:
    return found
  inside, across = (
    sum(each["bytes"] for each in part.values())
    for part in (moved.inside, moved.across)
  )
  found["memory"] = moved.hbm_bytes / device.hbm_bytes_per_second
  found["links"] = inside / device.link_bytes_per_second
  if across and machine.kind in _DCN:
    found["dcn"] = across / _DCN[machine.kind]
  return found
