"""Accounts of compiled programs as JSON, as text, and as the table in tpu/README.md."""

import dataclasses
import hashlib
import importlib.metadata
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from phi1_jax import InputError
from phi1_jax.kernels import attention
from phi1_jax.parallel.topology import Topology
from phi1_jax.sampling import lowering
from phi1_jax.telemetry import throughput
from phi1_jax.training import accounts, search
from phi1_jax.training.accounts import GIB, Account, OutOfMemoryError
from phi1_jax.training.search import Trial
from phi1_jax.training.setup import RunConfig, Setup

# HumanEval's prompts and completions fit into such caches; so many rows on one device.
DECODE_ROWS, DECODE_LENGTH, DECODE_STEPS = 16, 1024, 16

BEGIN, END = "<!-- topologies: begin -->", "<!-- topologies: end -->"


def describe(
  setup: Setup, topology: Topology, step: Account, *, sampling: bool
) -> dict[str, Any]:
  """What `compile --json` prints: the step, and prefill and decode if wanted."""
  train = setup.config.train
  flops = setup.flops_per_token * train.tokens_per_step
  found = {
    "topology": topology.name,
    "device_kind": topology.kind,
    "devices": topology.num_devices,
    "simulated": topology.simulated,
    "mesh": dict(setup.mesh.shape),
    "parameters": setup.config.model.num_parameters(),
    "sequences_per_device": search.sequences_per_device(setup),
    "accumulation_steps": setup.accumulation_steps,
    "tokens_per_step": train.tokens_per_step,
    "remat": setup.config.model.remat,
    "attention": _attention(setup),
    "head_chunks": train.head_chunks,
    "flops_per_step": flops,
    **step.asdict(),
  }
  if bound := found["bound_seconds"]:
    peak = throughput.DEVICES[topology.kind].peak_flops
    found["bound_mfu"] = flops / (bound * topology.num_devices * peak)
    found["bound_tokens_per_second_per_device"] = (
      train.tokens_per_step / bound / topology.num_devices
    )
  if sampling:
    found |= _sampling(setup, topology)
  return found


def _attention(setup: Setup) -> str:
  """The implementation that "auto" has chosen, or what was asked for."""
  model, train = setup.config.model, setup.config.train
  if model.attention != "auto":
    return model.attention
  device = setup.mesh.devices.flat[0]
  case = attention.Case(
    platform=device.platform,
    chip=device.device_kind,
    dtype=model.dtype,
    length=train.sequence_length,
    head_dim=model.head_dim,
    packed=train.document_mask,
    drops=model.attention_dropout_rate > 0,
  )
  return attention.choose(case)


def _sampling(setup: Setup, topology: Topology) -> dict[str, Any]:
  """Prefill and decode of the same model on the same mesh."""
  config, mesh = setup.config.model, setup.mesh
  length = min(DECODE_LENGTH, config.max_length)
  rows = DECODE_ROWS * mesh.size // mesh.shape["tensor"]
  # A loop that may end early counts once.
  trace = {
    "prefill": (1, lambda: lowering.trace_prefill(config, mesh, rows, length)),
    "decode": (
      DECODE_STEPS,
      lambda: lowering.trace_decode(config, mesh, rows, length, DECODE_STEPS),
    ),
  }
  found = {}
  for name, (turns, make) in trace.items():
    started = time.perf_counter()
    try:
      account = accounts.of_program(make(), mesh.devices, topology.kind, started)
      executed = turns * account.executed_flops
      account = dataclasses.replace(account, executed_flops=executed)
      found[name] = {"rows": rows, "length": length, **account.asdict()}
    except OutOfMemoryError as error:
      found[name] = {"rows": rows, "length": length, "refused": str(error)}
  return found


def text(found: dict[str, Any]) -> str:
  """The same for a person, one aligned line each."""
  mesh = " x ".join(f"{axis} {size}" for axis, size in found["mesh"].items())
  hbm = found["hbm_gib"]
  lines = [
    f"machine      {found['topology']}: {found['devices']} x {found['device_kind']}"
    + (
      ", simulated by the CPU: memory is an upper bound" if found["simulated"] else ""
    ),
    f"mesh         {mesh}",
    f"step         {found['sequences_per_device']} sequences a device, "
    f"{found['accumulation_steps']} times; remat {found['remat']}, "
    f"attention {found['attention']}, head in {found['head_chunks'] or 1} chunks",
    f"memory       {found['total_gib']:.2f} GiB a device: arguments "
    f"{found['argument_gib']:.2f}, temporary {found['temporary_gib']:.2f}"
    + (f"; of {hbm:.0f}" if hbm else ""),
    f"FLOPs        {found['flops_per_step']:.4g} a step by formula; it executes "
    f"{found['executed_flops'] / found['flops_per_step']:.2f} times as many",
  ]
  if traffic := found["hbm_traffic_gib"]:
    lines.append(f"traffic      {traffic:.1f} GiB through each device's memory")
  lines += [
    f"{kind:<19}{item['count']:,} times, {item['bytes'] / GIB:.2f} GiB from each device"
    for kind, item in found["collectives"].items()
  ]
  if bounds := found["bounds"]:
    parts = ", ".join(f"{name} {seconds:.3g} s" for name, seconds in bounds.items())
    lines.append(
      f"bound        a step takes at least {found['bound_seconds']:.3g} s ({parts}): "
      f"at most {found['bound_tokens_per_second_per_device']:,.0f} tokens/s a device, "
      f"MFU {found['bound_mfu']:.0%}. A bound, not a measurement"
      + ("; of FLOPs alone" if found["simulated"] else "")
    )
  for name in ("prefill", "decode"):
    if name in found:
      lines.append(f"{name:<13}{_sampling_text(name, found[name])}")
  return "\n".join([*lines, f"compiled in  {found['compile_seconds']:.1f} s"])


def _sampling_text(name: str, found: dict[str, Any]) -> str:
  what = f"{found['rows']} rows of {found['length']} tokens"
  if "refused" in found:
    return f"{what}: {found['refused']}"
  line = f"{what}: {found['total_gib']:.2f} GiB a device"
  if found["bound_seconds"] is None:
    return line
  steps = DECODE_STEPS if name == "decode" else found["length"]
  speed = found["rows"] * steps / found["bound_seconds"]
  return f"{line}; at most {speed:,.0f} tokens/s in all"


def trial(setup: Setup, topology: Topology, trial: Trial) -> dict[str, Any]:
  """One trial of a search, for --json."""
  found = {
    "sequences_per_device": trial.sequences,
    "remat": trial.remat,
    "attention": trial.attention,
  }
  if trial.account is None:
    return {**found, "refused": trial.refusal}
  return {"topology": topology.name, **found, **trial.account.asdict()}


def trial_line(trial: Trial) -> str:
  """One trial of a search, for a person."""
  setting = f"{trial.attention:<8}{trial.remat:<12}{trial.sequences:>3} sequences"
  if trial.account is None:
    return f"{setting}  {trial.refusal}"
  bound = max(trial.account.bounds().values(), default=None)
  time_ = f", at least {bound:.3g} s a step" if bound else ""
  return f"{setting}  {trial.account.total_bytes / GIB:6.2f} GiB{time_}"


def kept_row(
  path: Path,
  name: tuple[str, str],
  config: RunConfig,
  compiled: Callable[[], dict[str, Any]],
  *,
  sampling: bool,
) -> dict[str, Any]:
  """A row of the table: that of an earlier start, if it asked the same.

  A change of the code is not noticed: delete the file to begin anew.

  Args:
    path: rows as JSON lines.
    name: of the model and of the preset.
    config: what is compiled.
    compiled: compiles it.
    sampling: whether prefill and decode are.
  """
  versions = {package: _version(package) for package in ("jax", "libtpu")}
  content = json.dumps([config.asdict(), versions, sampling], sort_keys=True)
  key = hashlib.sha256(content.encode()).hexdigest()[:16]
  rows = _rows(path)
  if rows.get(" ".join(name), {}).get("key") == key:
    return rows[" ".join(name)]
  model, mesh = name
  found = {"model": model, "mesh_file": mesh, "key": key, "versions": versions}
  try:
    found |= compiled()
  except InputError as error:
    found |= {"refused": str(error)}
  rows = {**_rows(path), " ".join(name): found}
  ordered = sorted(rows.values(), key=_place)
  path.write_text("".join(json.dumps(row) + "\n" for row in ordered))
  return found


def _place(row: dict[str, Any]) -> tuple[str, str, int]:
  """By model, chip and size: v5e_8 before v5e_16."""
  chip, _, size = row["mesh_file"].rpartition("_")
  return row["model"], chip, int(size)


def _version(package: str) -> str | None:
  try:
    return importlib.metadata.version(package)
  except importlib.metadata.PackageNotFoundError:
    return None


def _rows(path: Path) -> dict[str, dict[str, Any]]:
  if not path.is_file():
    return {}
  rows = map(json.loads, path.read_text().splitlines())
  return {f"{row['model']} {row['mesh_file']}": row for row in rows}


_COLUMNS = (
  "model",
  "preset",
  "devices",
  "sequences a device",
  "remat",
  "attention",
  "head chunks",
  "GiB a device",
  "at least, s a step",
  "bound by",
  "at most, tokens/s a device",
  "compiled in",
)


def row_line(row: dict[str, Any]) -> str:
  """A row of the table in Markdown."""
  return f"| {' | '.join(_cells(row))} |"


def _cells(row: dict[str, Any]) -> list[str]:
  name = [row["model"].replace("_", "-"), f"`{row['mesh_file']}`"]
  if "refused" in row:
    return [*name, *[""] * (len(_COLUMNS) - 3), row["refused"].replace("\n", "; ")]
  bounds = row["bounds"]
  return [
    *name,
    f"{row['devices']}{' (simulated)' if row['simulated'] else ''}",
    str(row["sequences_per_device"]),
    row["remat"],
    row["attention"],
    str(row["head_chunks"] or 1),
    f"{row['total_gib']:.1f} of {row['hbm_gib']:.0f}" if row["hbm_gib"] else "",
    f"{row['bound_seconds']:.2f}" if bounds else "",
    max(bounds, key=lambda name: bounds[name]) if bounds else "",
    f"{row['bound_tokens_per_second_per_device']:,.0f}" if bounds else "",
    f"{row['compile_seconds']:.0f} s",
  ]


def write_table(path: Path, rows: Path) -> None:
  """Puts the table between its marks in a Markdown file.

  Raises:
    InputError: the file has no such marks.
  """
  content = path.read_text() if path.is_file() else f"{BEGIN}\n{END}\n"
  before, begin, rest = content.partition(BEGIN)
  _, end, after = rest.partition(END)
  if not (begin and end):
    raise InputError(f"{path}: got no lines {BEGIN!r} and {END!r}, expected both")
  head = f"| {' | '.join(_COLUMNS)} |\n|{'---|' * len(_COLUMNS)}"
  lines = "\n".join(row_line(row) for row in _rows(rows).values())
  path.write_text(f"{before}{BEGIN}\n{head}\n{lines}\n{END}{after}")
