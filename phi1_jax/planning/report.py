"""Fields of `compile --json`, and the same as text and as a row of a Markdown table."""

from collections.abc import Mapping
from typing import Any

from phi1_jax.kernels import attention
from phi1_jax.planning.account import GIB
from phi1_jax.planning.topology import Topology
from phi1_jax.telemetry import throughput


def describe(setup: Any, machine: Topology, step: Mapping[str, Any]) -> dict[str, Any]:
  """Return the fields of `compile --json`.

  Args:
    setup: the run (`training.setup.Setup`).
    machine: the machine that its step was compiled for.
    step: from `account.of_program`.
  """
  model, train = setup.config.model, setup.config.train
  flops = setup.flops_per_token * train.tokens_per_step
  found = {
    "topology": machine.name,
    "device_kind": machine.kind,
    "devices": machine.num_devices,
    "slices": machine.slices,
    "simulated": machine.simulated,
    "mesh": dict(setup.mesh.shape),
    "parameters": model.num_parameters(),
    "sequences_per_device": sequences_per_device(setup),
    "accumulation_steps": setup.accumulation_steps,
    "tokens_per_step": train.tokens_per_step,
    "remat": model.remat,
    "attention": _attention(setup, machine),
    "head_chunks": train.head_chunks,
    "flops_per_step": flops,
    **step,
  }
  if bound := found["bound_seconds"]:
    speed = train.tokens_per_step / bound / machine.num_devices
    peak = throughput.DEVICES[machine.kind].peak_flops
    found["bound_tokens_per_second_per_device"] = speed
    found["bound_mfu"] = speed * setup.flops_per_token / peak
  return found


def sequences_per_device(setup: Any) -> int:
  """Return the sequences that a device holds at a time."""
  shards = setup.mesh.shape["data"] * setup.mesh.shape["fsdp"]
  return setup.config.train.batch_size // shards // setup.accumulation_steps


def _attention(setup: Any, machine: Topology) -> str:
  """Return the implementation that the step uses on the machine."""
  model, train = setup.config.model, setup.config.train
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


def text(found: Mapping[str, Any]) -> str:
  """Return the fields of `describe` as text, one aligned line each."""
  simulated, several = found["simulated"], found["slices"] > 1
  unit = "node" if simulated else "slice"
  machine = "{topology}: {devices} x {device_kind}"
  if several:
    machine += f" on {{slices}} {unit}s"
  if simulated:
    machine += ", simulated by the CPU: memory is an upper bound"
  step = "{sequences_per_device} sequences a device, {accumulation_steps} times; "
  step += "remat {remat}, attention {attention}"
  if simulated and found["attention"] != "xla":
    step += " (here xla)"
  memory = "{total_gib:.2f} GiB a device: arguments {argument_gib:.2f}, "
  memory += "temporary {temporary_gib:.2f}"
  if found["hbm_gib"]:
    memory += "; of {hbm_gib:.0f}"
  if found["usable_because"]:
    memory += ", of which JAX may use {usable_gib:.1f} ({usable_because})"
  executed = found["executed_flops"] / found["flops_per_step"]
  lines = {
    "machine": machine,
    "mesh": " x ".join(f"{axis} {size}" for axis, size in found["mesh"].items()),
    "step": f"{step}, head in {found['head_chunks'] or 1} chunks",
    "memory": memory,
    "FLOPs": "{flops_per_step:.4g} a step by formula; it executes "
    f"{executed:.2f} times as many",
  }
  if found["hbm_traffic_gib"]:
    lines["traffic"] = "{hbm_traffic_gib:.1f} GiB through each device's memory"
  shown = [f"{name:<13}{line.format(**found)}" for name, line in lines.items()]
  places = {"inside_slice": f"inside a {unit}", "across_slices": f"across {unit}s"}
  for name, place in places.items():
    shown += [
      f"{kind:<19}{item['count']:,} times, {item['bytes'] / GIB:.3f} GiB from each "
      f"device" + (f", {place}" if several else "")
      for kind, item in found[f"collectives_{name}"].items()
    ]
  if found["bounds"]:
    shown.append(f"{'bound':<13}{_bound(found)}")
  return "\n".join([*shown, f"compiled in  {found['compile_seconds']:.1f} s"])


def _bound(found: Mapping[str, Any]) -> str:
  bounds = found["bounds"]
  parts = ", ".join(f"{name} {seconds:.3g} s" for name, seconds in bounds.items())
  without = "; of FLOPs alone" if found["simulated"] else ""
  if found["slices"] > 1 and not found["simulated"] and "dcn" not in bounds:
    without = "; without the network across slices, whose bandwidth is not published"
  return (
    f"a step takes at least {found['bound_seconds']:.3g} s ({parts}): at most "
    f"{found['bound_tokens_per_second_per_device']:,.0f} tokens/s a device, "
    f"MFU {found['bound_mfu']:.0%}. A bound, not a measurement{without}"
  )


COLUMNS = (
  *("preset", "parameters", "devices", "sequences a device", "remat", "attention"),
  *("GiB a device", "at least, s a step", "bound by", "at most, tokens/s a device"),
)


def header() -> str:
  """Return the first two lines of the table."""
  return f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}"


def row(preset: str, found: Mapping[str, Any]) -> str:
  """Return a row of the table: the fields of `describe`, or those of a refusal."""
  if "refused" in found:
    cells = [f"`{preset}`", *[""] * (len(COLUMNS) - 2), found["refused"]]
    return f"| {' | '.join(cells)} |".replace("\n", "; ")
  cells = [
    f"`{preset}`",
    f"{found['parameters']:,}",
    f"{found['devices']}{' (simulated)' * found['simulated']}",
    str(found["sequences_per_device"]),
    found["remat"],
    found["attention"],
    *[""] * 4,
  ]
  if found["usable_gib"]:  # a CPU has neither limit nor bound
    cells[6] = f"{found['total_gib']:.1f} of {found['usable_gib']:.0f}"
  if bounds := found["bounds"]:
    cells[7] = f"{found['bound_seconds']:.2f}"
    cells[8] = max(bounds, key=bounds.__getitem__)
    cells[9] = f"{found['bound_tokens_per_second_per_device']:,.0f}"
  return f"| {' | '.join(cells)} |"


def trial(found: Mapping[str, Any]) -> str:
  """Return a line of --search: the fields of `describe`, or those of a refusal."""
  line = "{attention:<8}{remat:<12}{sequences_per_device:>3} sequences  "
  if "refused" in found:
    line += "{refused}"
  else:
    line += "{total_gib:6.2f} GiB"
    if found["bound_seconds"]:
      line += ", at least {bound_seconds:.3g} s a step"
  return line.format(**found)


def flags(found: Mapping[str, Any]) -> str:
  """Return a setting as flags of a command."""
  return (
    "--gin.Train.sequences_per_device={sequences_per_device} --gin.Model.remat={remat} "
    "--gin.Model.attention={attention}"
  ).format(**found)
