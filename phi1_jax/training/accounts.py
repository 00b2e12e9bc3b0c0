"""What a compiled program needs of a machine, and a bound on how fast it can be."""

import dataclasses
import time
from typing import Any

import jax

from phi1_jax import InputError
from phi1_jax.parallel import compiler, sharding
from phi1_jax.telemetry import flops, hlo, throughput
from phi1_jax.training.memory import GIB
from phi1_jax.training.setup import Setup
from phi1_jax.training.step import make_train_step


class OutOfMemoryError(Exception):
  """The compiler says, in its own words, that a program does not fit."""


@dataclasses.dataclass(frozen=True)
class Account:
  """One program on one machine; bytes and traffic are those of one device.

  Attributes:
    kind: `jax.Device.device_kind` of the machine.
    devices: how many of them.
    simulated: CPU devices stand in for them.
    argument_bytes: what it is given: for a step the state, updated in place.
    temporary_bytes: what it needs beside that.
    executed_flops: of the matrix products that it runs, those it runs again included,
      on all devices.
    traffic: through memory and between devices, of the program as compiled.
    compile_seconds: tracing and compiling, on this machine.
  """

  kind: str
  devices: int
  simulated: bool
  argument_bytes: int
  temporary_bytes: int
  executed_flops: float
  traffic: hlo.Traffic
  compile_seconds: float

  @property
  def total_bytes(self) -> int:
    """All memory that one device needs."""
    return self.argument_bytes + self.temporary_bytes

  @property
  def hbm_bytes(self) -> float | None:
    """What one device has; None where that is not known."""
    device = throughput.DEVICES.get(self.kind)
    return device and device.hbm_gib * GIB

  def bounds(self) -> dict[str, float]:
    """Seconds that each resource alone would take at its peak.

    "compute" is the executed FLOPs at the peak of bfloat16; "memory" and "links" are
    the traffic of the program as compiled at full bandwidth. A run overlaps them, at
    best completely, so it takes at least as long as the longest: a bound, not a
    measurement. Of what the CPU's compiler makes for a simulated machine only the FLOPs
    say something; a CPU has no bound.
    """
    device = throughput.DEVICES.get(self.kind)
    if device is None:
      return {}
    compute = self.executed_flops / (self.devices * device.peak_flops)
    if self.simulated:
      return {"compute": compute}
    return {
      "compute": compute,
      "memory": self.traffic.hbm_bytes / device.hbm_bytes_per_second,
      "links": self.traffic.link_bytes / device.link_bytes_per_second,
    }

  def asdict(self) -> dict[str, Any]:
    """For --json."""
    bounds = self.bounds()
    return {
      "argument_gib": self.argument_bytes / GIB,
      "temporary_gib": self.temporary_bytes / GIB,
      "total_gib": self.total_bytes / GIB,
      "hbm_gib": self.hbm_bytes and self.hbm_bytes / GIB,
      "executed_flops": self.executed_flops,
      "hbm_traffic_gib": None if self.simulated else self.traffic.hbm_bytes / GIB,
      "collectives": {
        kind: {"count": count, "bytes": sent}
        for kind, (count, sent) in sorted(self.traffic.collectives.items())
      },
      "compile_seconds": self.compile_seconds,
      "bound_seconds": max(bounds.values(), default=None),
      "bounds": bounds,
    }


def of_step(setup: Setup, kind: str) -> Account:
  """Compiles the real train step of a run.

  Args:
    setup: the run, laid out on the machine's devices or on what stands in for them.
    kind: `jax.Device.device_kind` of the machine.

  Raises:
    OutOfMemoryError: it does not fit.
  """
  with sharding.layout(setup.mesh):
    step: Any = make_train_step(setup, document_end=0)
    started = time.perf_counter()
    traced = step.trace(setup.abstract_state, setup.abstract_batch)
    return of_program(traced, setup.mesh.devices, kind, started)


def of_program(traced: Any, devices: Any, kind: str, started: float) -> Account:
  """Compiles a traced program.

  Args:
    traced: the program, a `jax.stages.Traced`.
    devices: an array of the devices that it is for.
    kind: as for `of_step`.
    started: `time.perf_counter()` before tracing.
  """
  try:
    compiled = traced.lower().compile(compiler.options(devices.flat[0].platform))
  except jax.errors.JaxRuntimeError as error:
    message = str(error).split("\n")[0]
    if "RESOURCE_EXHAUSTED" in message:
      raise OutOfMemoryError(message) from None
    raise InputError(f"{kind}: the compiler refuses the program: {message}") from None
  analysis: Any = compiled.memory_analysis()
  account = Account(
    kind=kind,
    devices=devices.size,
    simulated=devices.flat[0].device_kind != kind,
    argument_bytes=analysis.argument_size_in_bytes,
    temporary_bytes=analysis.temp_size_in_bytes,
    executed_flops=flops.count(traced.jaxpr),
    traffic=hlo.traffic(compiled.as_text() or "", devices.size),
    compile_seconds=time.perf_counter() - started,
  )
  # A simulated device has the host's memory; the machine's own is what counts.
  if account.hbm_bytes and account.total_bytes > account.hbm_bytes:
    raise OutOfMemoryError(
      f"{account.total_bytes / GIB:.1f} GiB exceed the {account.hbm_bytes / GIB:.0f} "
      f"GiB of one {kind}"
    )
  return account
