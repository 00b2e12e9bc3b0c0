"""Traffic of a compiled program, read from its HLO text.

XLA's own `cost_analysis` counts the body of a loop once; here a loop counts as often as
it turns. Bytes are those of one device, as the compiled program requests them: a fusion
reads its operands and writes its results once, reads only the slice of an array that it
slices, and arrays in on-chip memory are not counted.
"""

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

_BITS = {"pred": 8, "bf16": 16, "token": 0, "opaque": 0}

# Bytes that leave a device in a ring of g devices, per byte of its operand.
_SENT = {
  "all-gather": lambda g: g - 1,
  "all-reduce": lambda g: 2 * (g - 1) / g,
  "all-to-all": lambda g: (g - 1) / g,
  "collective-permute": lambda g: 1,
  "reduce-scatter": lambda g: (g - 1) / g,
}

# Names for parts of other values, and control flow, whose bodies are counted.
_FREE = {
  *("after-all", "bitcast", "call", "conditional", "constant", "get-tuple-element"),
  *("parameter", "partition-id", "replica-id", "tuple", "while", "opt-barrier"),
}

# These read only as much as they return.
_SLICES = ("dynamic-slice", "gather", "slice")

_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (.*)$")
_NAME = re.compile(r"%([\w.\-]+)")
_OPCODE = re.compile(r" ([a-z][\w\-]*)\(")
_ARRAY = re.compile(r"\b([a-z]\w*)\[([\d,]*)\](\{[^}]*\})?")
_CALLED = re.compile(
  r"(?:calls|to_apply|body|condition|branch_computations|called_computations)="
  r"(%[\w.\-]+|\{[^}]*\})"
)

# Kind -> {"count": how often it runs, "bytes": that a device sends}.
Collectives = dict[str, dict[str, float]]


class Traffic(NamedTuple):
  """What one device moves while a program runs once.

  A ring over several devices of each slice sends only part of its bytes across slices;
  the rest counts in `inside`.
  """

  hbm_bytes: float  # through its memory
  inside: Collectives  # inside a slice or node
  across: Collectives  # across slices or nodes


class _Instruction(NamedTuple):
  name: str
  opcode: str
  shape: str
  operands: tuple[str, ...]
  inputs: tuple[str, ...]  # shapes of the operands
  rest: str

  def called(self) -> list[str]:
    """Return the computations that it names."""
    names = " ".join(match[1] for match in _CALLED.finditer(self.rest))
    return _NAME.findall(names)


_Computations = dict[str, list[_Instruction]]


def traffic(text: str, slices: Sequence[int]) -> Traffic:
  """Add up a program's traffic.

  Args:
    text: `jax.stages.Compiled.as_text()`.
    slices: the slice or node of each device, in the order of the mesh.
  """
  computations, entry = _parse(text)
  hbm = 0.0
  # The compiler may spread a collective over several fusions, to overlap it with their
  # work. It then stands in each of them under the same channel.
  found: dict[tuple[str, str], tuple[int, float, float]] = {}
  # In a program for several TPU slices, groups are of devices of one slice.
  several = len(set(slices))
  places = [0] * len(slices) if "_xla_megascale" in text else slices
  waiting = [(entry, 1, False)]  # computation, how often it runs, whether in a fusion
  while waiting:
    name, times, fused = waiting.pop()
    for item in computations[name]:
      if sent := _sent(item, name, places, several):
        channel = re.search(r"channel_id=\d+", item.rest)
        key = sent[0], f"{item.opcode} {channel[0] if channel else item.name}"
        found[key] = min(times, found.get(key, (times, 0, 0))[0]), sent[1], sent[2]
      if not fused and item.opcode not in _FREE:
        hbm += times * _moved(item, computations)
      inner = fused or item.opcode not in ("while", "conditional", "call")
      turns = times * _turns(item, computations)
      called = (called for called in item.called() if called in computations)
      waiting += [(each, turns, inner) for each in called]
  inside, across = {}, {}
  for (kind, _), (times, near, far) in sorted(found.items()):
    _add(across if far else inside, kind, times, times * (far or near))
    if near and far:
      _add(inside, kind, 0, times * near)
  return Traffic(hbm, inside, across)


def added(*parts: Collectives) -> Collectives:
  """Return the sum of collectives, sorted by kind."""
  total: Collectives = {}
  for kind, entry in sorted(
    (item for part in parts for item in part.items()), key=lambda item: item[0]
  ):
    _add(total, kind, entry["count"], entry["bytes"])
  return total


def _add(total: Collectives, kind: str, count: float, sent: float) -> None:
  entry = total.setdefault(kind, {"count": 0, "bytes": 0.0})
  entry["count"] += count
  entry["bytes"] += sent


def _parse(text: str) -> tuple[_Computations, str]:
  """Return every computation's instructions, and the name of the entry."""
  computations: _Computations = {}
  current, shapes, entry = [], {}, ""
  for line in text.splitlines():
    if header := _COMPUTATION.match(line):
      current, shapes = computations.setdefault(header[2], []), {}
      entry = header[2] if header[1] else entry
    elif (found := _INSTRUCTION.match(line)) and (opcode := _OPCODE.search(found[2])):
      name, shape, rest = found[1], found[2][: opcode.start()], found[2][opcode.end() :]
      operands = tuple(_NAME.findall(rest[: rest.find(")")]))
      inputs = tuple(shapes[operand] for operand in operands if operand in shapes)
      shapes[name] = shape
      current.append(_Instruction(name, opcode[1], shape, operands, inputs, rest))
  return computations, entry


def _turns(instruction: _Instruction, computations: _Computations) -> int:
  """Return a loop's turns: the bound of its counter, which starts at 0."""
  if instruction.opcode != "while":
    return 1
  if known := re.search(r'known_trip_count":\{"n":"(\d+)"', instruction.rest):
    return int(known[1])
  condition = re.search(r"condition=%?([\w.\-]+)", instruction.rest)
  items = computations.get(condition[1], []) if condition else []
  bounds = (re.match(r"\d+\)", x.rest) for x in items if x.opcode == "constant")
  return max([1, *(int(bound[0][:-1]) for bound in bounds if bound)])


def _moved(item: _Instruction, computations: _Computations) -> float:
  """Return the bytes that an instruction reads from and writes to memory."""
  opcode, arrays = item.opcode, _arrays(item.shape)
  if opcode.endswith(("-done", "-update")):
    return 0.0  # its start has been counted
  if opcode in ("send", "recv"):  # (array, context, token), from or to the host
    return arrays[0]
  if opcode == "copy-start":  # (to, from, context)
    return sum(arrays[:2])
  if opcode == "slice-start":  # (from, to, context); it reads as much as it writes
    return _arrays(item.shape, everywhere=True)[1] + arrays[1]
  if opcode in _SLICES:
    return 2.0 * sum(arrays)
  inputs = [sum(_arrays(shape)) for shape in item.inputs]
  if opcode == "dynamic-update-slice":
    return 2.0 * inputs[1]
  if opcode != "fusion":
    return sum(arrays) + sum(inputs)
  body = computations.get(next(iter(item.called()), ""), [])
  written = sum(arrays)
  for update in body:  # of an array that it updates in place, it writes the update
    if update.opcode == "dynamic-update-slice":
      part, whole = (
        sum(_arrays(shape, everywhere=True))
        for shape in (update.inputs[1], update.shape)
      )
      written -= sum(_arrays(update.shape)) * (1 - part / whole)
  read = (min(size, _read(number, body)) for number, size in enumerate(inputs))
  return max(written, 0.0) + sum(read)


def _read(number: int, body: list[_Instruction]) -> float:
  """Return the bytes of slices that a fusion reads of an operand; infinity for all."""
  names, total = set(), 0.0
  for item in body:
    ours = names & set(item.operands)
    is_operand = item.opcode == "parameter" and item.rest.startswith(f"{number})")
    if is_operand or (ours and item.opcode in ("bitcast", "copy")):
      names.add(item.name)
    elif ours and item.opcode in _SLICES:
      total += sum(_arrays(item.shape))
    elif ours and (
      item.opcode != "dynamic-update-slice" or item.operands[0] not in names
    ):
      return math.inf
  return total


def _sent(
  item: _Instruction, computation: str, places: Sequence[int], several: int
) -> tuple[str, float, float] | None:
  """Return a collective's (kind, bytes sent inside a slice, bytes sent across)."""
  kind = item.opcode.removesuffix("-start")
  size = sum(sum(_arrays(shape, everywhere=True)) for shape in item.inputs)
  # A program for several TPU slices hands arrays to the host, which sends them on.
  if transfer := re.search(r'_xla_megascale_transfer_type="(\w+)"', item.rest):
    kind = transfer[1].lower().replace("_", "-")
    sent = size * _SENT.get(kind, _SENT["collective-permute"])(several)
    return (kind, 0.0, sent) if item.opcode == "send" else None
  if kind not in _SENT:
    return None
  if computation.startswith("all-reduce-scatter"):
    kind = "reduce-scatter"  # the TPU's compiler writes it as an all-reduce and a slice
  groups = _groups(item.rest, len(places))
  sent = size * _SENT[kind](max(map(len, groups)))
  # A ring that visits slice after slice leaves each slice once. Pairs of a permute are
  # messages of their own.
  counts = [(len({places[device] for device in ids}), len(ids)) for ids in groups]
  shares = [count / ring if count > 1 else 0.0 for count, ring in counts]
  own = kind == "collective-permute"
  share = sum(shares) / len(shares) if own else max(shares)
  return kind, sent * (1 - share), sent * share


def _groups(rest: str, num_devices: int) -> list[list[int]]:
  """Return the groups of devices, by their places in the mesh, that communicate."""
  if listed := re.search(r"(?:replica_groups|source_target_pairs)=\{(\{.*?\})\}", rest):
    groups = re.findall(r"\{([\d,]+)\}", listed[1])
    return [[int(number) for number in group.split(",")] for group in groups]
  if tiled := re.search(r"replica_groups=\[\d+,(\d+)\]<=(\[\S+)", rest):
    return _ids(tiled[2]).reshape(-1, int(tiled[1])).tolist()
  mesh = re.search(
    r"replica_groups=mesh\[(.*?)\](?:, device_ids=\((.*?)\))? \{(.*?)\}", rest
  )
  if not mesh:
    return [[*range(num_devices)]]
  # An axis, or the part of it 'axis':(what is before the part)(the part).
  parts = re.findall(r"'([^']+)'(?::\((\d+)\)(\d+))?", mesh[3])
  chosen = {axis: (int(before or 1), int(size or 0)) for axis, before, size in parts}
  dims, own = [], []
  for axis, size in re.findall(r"'([^']+)'=(\d+)", mesh[1]):
    before, part = chosen.get(axis, (int(size), 1))
    own.append(part or int(size))
    dims += [before, own[-1], int(size) // before // own[-1]]
  ids = (_ids(mesh[2]) if mesh[2] else np.arange(num_devices)).reshape(dims)
  last = np.moveaxis(ids, range(1, len(dims), 3), range(-len(own), 0))
  return last.reshape(-1, math.prod(own)).tolist()


def _ids(text: str) -> np.ndarray:
  """Read 0,2,1,3 or its short form [2,2]T(1,0), a transposed range."""
  iota = re.match(r"\[([\d,]+)\](?:T\(([\d,]+)\))?", text)
  if not iota:
    return np.array(text.split(","), int)
  shape = [int(size) for size in iota[1].split(",")]
  ids = np.arange(math.prod(shape)).reshape(shape)
  return ids.transpose([int(axis) for axis in iota[2].split(",")]) if iota[2] else ids


def _arrays(shape: str, *, everywhere: bool = False) -> list[float]:
  """Return the bytes of each array; 0 for those on chip (memory space S(n))."""
  sizes = []
  for dtype, dims, layout in _ARRAY.findall(shape):
    bits = _BITS.get(dtype) or int(re.sub(r"\D.*", "", dtype[1:]) or 0)
    count = math.prod(int(size) for size in dims.split(",") if size)
    sizes.append(0.0 if "S(" in layout and not everywhere else bits / 8 * count)
  return sizes
