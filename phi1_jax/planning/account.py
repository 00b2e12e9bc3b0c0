"""Fields of `compile --json`: memory, traffic and lower bounds on a step's time."""

import os
import time
from typing import Any

import jax

from phi1_jax import InputError
from phi1_jax.kernels import attention
from phi1_jax.parallel import compiler
from phi1_jax.planning import flops, hlo
from phi1_jax.planning.topology import Topology
from phi1_jax.telemetry import throughput

GIB = 2**30

# Bytes per second that a chip may send to other slices, its share of a pod's network:
# cloud.google.com/tpu/docs/v5e gives 6.4 Tbit/s for 256 chips. No such number is
# published for the others, and a GPU node's network is the user's choice.
_DCN = {"TPU v5 lite": 6.4e12 / 8 / 256}

_ADVICE = "find settings that fit with --search, or use more devices"


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


def fields(
  run: Any, machine: Topology, traced: jax.stages.Traced, started: float
) -> dict[str, Any]:
  """Compile a traced train step; return the fields of `compile --json`.

  Bytes and traffic are those of one device. `argument_gib` is the state of a step,
  which is updated in place, and `executed_flops` counts recomputation.

  Args:
    run: its `training.setup.Setup`, on the devices of `machine`, real or simulated.
    machine: where the program would run.
    traced: the program.
    started: `time.perf_counter()` before tracing.

  Raises:
    InputError: it does not fit, or the compiler refuses it.
  """
  model, train = run.config.model, run.config.train
  shards = run.mesh.shape["data"] * run.mesh.shape["fsdp"]
  size = train.batch_size // shards // run.accumulation_steps
  try:
    compiled, memory = _compile(traced, run.mesh.devices, machine)
  except InputError as error:
    raise InputError(
      f"{machine.name}, {size} sequences per device, remat {model.remat}: {error}"
    ) from None
  return {
    "topology": machine.name,
    "device_kind": machine.kind,
    "devices": machine.num_devices,
    "slices": machine.slices,
    "simulated": machine.simulated,
    "mesh": dict(run.mesh.shape),
    "parameters": model.num_parameters(),
    "sequences_per_device": size,
    "accumulation_steps": run.accumulation_steps,
    "tokens_per_step": train.tokens_per_step,
    "remat": model.remat,
    "attention": _attention(run, machine),
    "head_chunks": train.head_chunks,
    "flops_per_step": run.flops_per_token * train.tokens_per_step,
    **memory,
    **_work(run, machine, hlo_text=compiled.as_text() or "", jaxpr=traced.jaxpr),
    "compile_seconds": time.perf_counter() - started,
  }


def _work(run: Any, machine: Topology, *, hlo_text: str, jaxpr: Any) -> dict[str, Any]:
  """Return the fields for what a step computes and moves, and bounds on its speed."""
  # Simulated nodes follow one another in the mesh.
  per_slice, places = machine.num_devices // machine.slices, run.mesh.devices.flat
  slices = [getattr(x, "slice_index", n // per_slice) for n, x in enumerate(places)]
  moved, executed = hlo.traffic(hlo_text, slices), flops.count(jaxpr)
  limits = bounds(machine, executed, moved)
  bound = max(limits.values(), default=None)
  found = {
    "executed_flops": executed,
    "hbm_traffic_gib": None if machine.simulated else moved.hbm_bytes / GIB,
    "collectives": hlo.added(moved.inside, moved.across),
    "collectives_inside_slice": moved.inside,
    "collectives_across_slices": moved.across,
    "bound_seconds": bound,
    "bounds": limits,
  }
  if bound:
    speed = run.config.train.tokens_per_step / bound / machine.num_devices
    peak = throughput.DEVICES[machine.kind].peak_flops
    found["bound_tokens_per_second_per_device"] = speed
    found["bound_mfu"] = speed * run.flops_per_token / peak
  return found


def _attention(run: Any, machine: Topology) -> str:
  """Return the implementation that the step uses on the machine."""
  model, train = run.config.model, run.config.train
  if model.attention != "auto":
    return model.attention
  case = attention.Case(
    platform=machine.platform,
    chip=machine.kind,
    dtype=model.dtype,
    length=train.sequence_length,
    head_dim=model.head_dim,
    packed=train.document_mask,
    drops=model.attention_dropout_rate > 0,
  )
  return attention.choose(case)


def _compile(
  traced: jax.stages.Traced, devices: Any, machine: Topology
) -> tuple[jax.stages.Compiled, dict[str, Any]]:
  """Compile a program for an array of devices; return it and the memory it needs."""
  options = compiler.options(devices.flat[0].platform, devices.size)
  try:
    compiled = traced.lower().compile(options)
  except jax.errors.JaxRuntimeError as error:
    message = str(error).split("\n")[0]
    advice = f"; {_ADVICE}" * ("RESOURCE_EXHAUSTED" in message)
    raise InputError(f"the compiler says: {message}{advice}") from None
  analysis: Any = compiled.memory_analysis()
  argument, temporary = analysis.argument_size_in_bytes, analysis.temp_size_in_bytes
  total = (argument + temporary) / GIB
  # A simulated device has the host's memory; the machine's own is what counts.
  hbm, usable, why = memory_of(machine.kind)
  if usable and total > usable:
    raise InputError(
      f"{total:.1f} GiB exceed the {usable:.0f} GiB that a program may use of the "
      f"{hbm:.0f} of one {machine.kind}{f' ({why})' if why else ''}; {_ADVICE}"
    )
  return compiled, {
    "argument_gib": argument / GIB,
    "temporary_gib": temporary / GIB,
    "total_gib": total,
    "hbm_gib": hbm,
    "usable_gib": usable,
    "usable_because": why,
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
  inside, across = (sum(each["bytes"] for each in part.values()) for part in moved[1:])
  found["memory"] = moved.hbm_bytes / device.hbm_bytes_per_second
  found["links"] = inside / device.link_bytes_per_second
  if across and machine.kind in _DCN:
    found["dcn"] = across / _DCN[machine.kind]
  return found
