"""The fields of `compile --json` as text and as a row of a Markdown table."""

from collections.abc import Mapping
from typing import Any

from phi1_jax.planning.account import GIB


def text(found: Mapping[str, Any]) -> str:
  """Return the fields as text, one aligned line each."""
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


def row(name: str, found: Mapping[str, Any]) -> str:
  """Return a row of the table: the fields, or those of a refused setting."""
  cells = [f"`{name}`", *[""] * (len(COLUMNS) - 1)]
  for place, field in enumerate(("sequences_per_device", "remat", "attention"), 3):
    cells[place] = str(found.get(field, ""))
  if "refused" in found:
    cells[-1] = found["refused"].replace("\n", "; ")
    return f"| {' | '.join(cells)} |"
  cells[1] = f"{found['parameters']:,}"
  cells[2] = f"{found['devices']}{' (simulated)' * found['simulated']}"
  if found["usable_gib"]:  # a CPU has neither limit nor bound
    cells[6] = f"{found['total_gib']:.1f} of {found['usable_gib']:.0f}"
  if bounds := found["bounds"]:
    cells[7] = f"{found['bound_seconds']:.2f}"
    cells[8] = max(bounds, key=bounds.__getitem__)
    cells[9] = f"{found['bound_tokens_per_second_per_device']:,.0f}"
  return f"| {' | '.join(cells)} |"


def flags(found: Mapping[str, Any]) -> str:
  """Return a setting as flags of a command."""
  return (
    "--gin.Train.sequences_per_device={sequences_per_device} --gin.Model.remat={remat} "
    "--gin.Model.attention={attention}"
  ).format(**found)
