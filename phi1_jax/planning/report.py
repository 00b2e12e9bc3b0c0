"""The fields of `compile --json` as text and as a row of a Markdown table."""

from collections.abc import Mapping
from typing import Any

from phi1_jax.planning.account import GIB


def text(found: Mapping[str, Any]) -> str:
  """Return the fields as text, one aligned line each, and what to know about them."""
  shown = {name: value for name, value in found.items() if value not in (None, "", {})}
  lines = [f"{name.replace('_', ' '):<36}{_value(x)}" for name, x in shown.items()]
  if found["simulated"]:
    lines.append(
      "CPU devices simulate it: memory is an upper bound, with xla attention"
    )
  if bounds := found["bounds"]:
    known = ", ".join(bounds)
    lines.append(f"a step takes at least that long: a bound by {known}, no measurement")
    if found["slices"] > 1 and "dcn" not in bounds:
      lines.append("without the network across slices or nodes: no bandwidth is known")
  return "\n".join(lines)


def _value(value: Any) -> str:
  """Return a field as text; a collective as its number and GiB from each device."""
  if isinstance(value, Mapping) and "bytes" in value:
    return f"{value['count']:,} times, {value['bytes'] / GIB:.3f} GiB"
  if isinstance(value, Mapping):
    return "; ".join(f"{name} {_value(item)}" for name, item in value.items())
  return f"{value:,.4g}" if isinstance(value, float) else str(value)


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
