"""Reads a compiled program's text: what it moves through memory and between devices.

XLA's own `cost_analysis` counts the body of a loop once; here a loop counts as often as
it turns. Bytes are those of one device. They are what the program as compiled asks for:
a fusion reads its operands and writes its results once, of an array that it only slices
it reads the slice, and what the compiler keeps in on-chip memory is not counted.
"""

import dataclasses
import math
import re
from collections.abc import Iterator

_BITS = {"pred": 8, "bf16": 16, "token": 0, "opaque": 0}

# Collectives, by what they are called in asynchronous halves too.
_COLLECTIVES = (
  "all-gather",
  "all-reduce",
  "all-to-all",
  "collective-permute",
  "reduce-scatter",
)

# What moves nothing by itself: names for parts of other values, and control flow, whose
# bodies are counted.
_FREE = {
  *("after-all", "bitcast", "call", "conditional", "constant", "get-tuple-element"),
  *("parameter", "partition-id", "replica-id", "tuple", "while", "opt-barrier"),
}

# What reads only what it gives.
_SLICES = ("dynamic-slice", "gather", "slice")

_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (.*)$")
_OPCODE = re.compile(r" ([a-z][\w\-]*)\(")
_ARRAY = re.compile(r"\b([a-z]\w*)\[([\d,]*)\](\{[^}]*\})?")
_CALLED = re.compile(
  r"(?:calls|to_apply|body|condition|branch_computations|called_computations)="
  r"(%[\w.\-]+|\{[^}]*\})"
)


@dataclasses.dataclass(frozen=True)
class Traffic:
  """What one device moves while a program runs once.

  Attributes:
    hbm_bytes: through its memory.
    collectives: kind -> (how often, bytes that leave this device).
  """

  hbm_bytes: float
  collectives: dict[str, tuple[int, float]]

  @property
  def link_bytes(self) -> float:
    """Bytes that leave this device in all."""
    return sum(moved for _, moved in self.collectives.values())


@dataclasses.dataclass(frozen=True)
class _Instruction:
  name: str
  opcode: str
  shape: str
  operands: tuple[str, ...]
  rest: str
  root: bool

  def called(self) -> Iterator[str]:
    """The computations that it names."""
    for match in _CALLED.finditer(self.rest):
      yield from re.findall(r"%([\w.\-]+)", match[1])


def traffic(text: str, num_devices: int) -> Traffic:
  """Adds up a program's traffic.

  Args:
    text: `jax.stages.Compiled.as_text()`.
    num_devices: what it is compiled for.
  """
  computations, entry = _parse(text)
  hbm = 0.0
  # A collective that the compiler spreads over several fusions, to hide it behind their
  # work, stands in each of them under the same channel.
  found: dict[str, tuple[str, int, float]] = {}
  for name, times, fused in _runs(computations, entry):
    by_name = {instruction.name: instruction for instruction in computations[name]}
    for instruction in by_name.values():
      kind = instruction.opcode.removesuffix("-start")
      if kind in _COLLECTIVES:
        if name.startswith("all-reduce-scatter"):
          kind = "reduce-scatter"  # so the TPU's compiler writes it: reduced, then cut
        channel = re.search(r"channel_id=\d+", instruction.rest)
        key = channel[0] if channel else instruction.name
        before = found.get(key, (kind, times, 0.0))[1]
        sent = _sent(kind, instruction, by_name, num_devices)
        found[key] = kind, min(times, before), sent
      if not fused and instruction.opcode not in _FREE:
        hbm += times * _moved(instruction, by_name, computations)
  collectives: dict[str, tuple[int, float]] = {}
  for kind, times, sent in found.values():
    count, moved = collectives.get(kind, (0, 0.0))
    collectives[kind] = count + times, moved + times * sent
  return Traffic(hbm, collectives)


def _parse(text: str) -> tuple[dict[str, list[_Instruction]], str]:
  """Every computation's instructions, and the name of the one that is run."""
  computations: dict[str, list[_Instruction]] = {}
  current, entry = [], ""
  for line in text.splitlines():
    if header := _COMPUTATION.match(line):
      current = computations[header[2]] = []
      entry = header[2] if header[1] else entry
    elif found := _INSTRUCTION.match(line):
      root, name, rest = found.groups()
      if opcode := _OPCODE.search(rest):
        shape, after = rest[: opcode.start()], rest[opcode.end() - 1 :]
        inside = after[: after.find(")")]
        operands = tuple(re.findall(r"%([\w.\-]+)", inside))
        current.append(
          _Instruction(name, opcode[1], shape, operands, after, root is not None)
        )
  return computations, entry


def _runs(computations, entry) -> Iterator[tuple[str, int, bool]]:
  """(computation, how often it runs, whether it is inside a fusion)."""
  waiting = [(entry, 1, False)]
  while waiting:
    name, times, fused = waiting.pop()
    yield name, times, fused
    for instruction in computations[name]:
      turns = _turns(instruction, computations)
      inside = fused or instruction.opcode not in ("while", "conditional", "call")
      for called in instruction.called():
        if called in computations:
          waiting.append((called, times * turns, inside))


def _turns(instruction: _Instruction, computations) -> int:
  """How often a loop turns: what its counter, which starts at 0, is compared with."""
  if instruction.opcode != "while":
    return 1
  if known := re.search(r'known_trip_count":\{"n":"(\d+)"', instruction.rest):
    return int(known[1])
  condition = re.search(r"condition=%?([\w.\-]+)", instruction.rest)
  bounds = [1]
  for item in computations.get(condition[1], ()) if condition else ():
    if item.opcode == "constant" and (number := re.match(r"\((\d+)\)", item.rest)):
      bounds.append(int(number[1]))
  return max(bounds)


def _moved(instruction: _Instruction, by_name, computations) -> float:
  """Bytes that an instruction reads from and writes to memory."""
  opcode = instruction.opcode
  if opcode.endswith(("-done", "-update")):
    return 0.0  # its start has been counted
  if opcode == "copy-start":
    return sum(_arrays(instruction.shape)[:2])  # (to, from, context)
  if opcode == "slice-start":  # (from, to, context), of which it reads what it gives
    whole = _arrays(instruction.shape, everywhere=True)
    return whole[1] + _arrays(instruction.shape)[1]
  operands = [by_name[name].shape for name in instruction.operands if name in by_name]
  if opcode in _SLICES:
    return 2.0 * _bytes(instruction.shape)
  if opcode == "dynamic-update-slice":
    return 2.0 * _bytes(operands[1])
  if opcode != "fusion":
    return _bytes(instruction.shape) + sum(map(_bytes, operands))
  body = computations.get(next(instruction.called(), ""), [])
  return _written(instruction, body) + sum(
    min(_bytes(shape), _read(number, body)) for number, shape in enumerate(operands)
  )


def _read(number: int, body: list[_Instruction]) -> float:
  """Bytes that a fusion reads of one operand: just slices, or (infinity) all of it."""
  names = {
    item.name
    for item in body
    if item.opcode == "parameter" and item.rest.startswith(f"({number})")
  }
  total = 0.0
  for item in body:
    if item.opcode in ("bitcast", "copy") and names & set(item.operands):
      names.add(item.name)
    elif names & set(item.operands):
      if item.opcode in _SLICES:
        total += _bytes(item.shape)
      elif item.opcode != "dynamic-update-slice" or item.operands[0] not in names:
        return math.inf
  return total


def _written(instruction: _Instruction, body: list[_Instruction]) -> float:
  """Bytes that a fusion writes: an array updated in place, just the update."""
  by_name = {item.name: item for item in body}
  total = _bytes(instruction.shape)
  for item in body:
    if item.opcode == "dynamic-update-slice" and item.operands[1] in by_name:
      update = _elements(by_name[item.operands[1]].shape)
      whole = _elements(item.shape)
      if whole:
        total -= _bytes(item.shape) * (1 - update / whole)
  return max(total, 0.0)


def _sent(kind: str, instruction: _Instruction, by_name, num_devices: int) -> float:
  """Bytes that leave a device in a ring, the best that links can do."""
  operands = [by_name[name].shape for name in instruction.operands if name in by_name]
  size = sum(sum(_arrays(shape, everywhere=True)) for shape in operands)
  group = _group(instruction.rest, num_devices)
  share = (group - 1) / group
  return {
    "all-gather": size * (group - 1),
    "all-reduce": 2 * size * share,
    "reduce-scatter": size * share,
    "all-to-all": size * share,
    "collective-permute": size,
  }[kind]


def _group(rest: str, num_devices: int) -> int:
  """How many devices take part together."""
  if mesh := re.search(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}", rest):
    sizes = dict(re.findall(r"'([^']+)'=(\d+)", mesh[1]))
    return math.prod(int(sizes[axis]) for axis in re.findall(r"'([^']+)'", mesh[2]))
  if tiled := re.search(r"replica_groups=\[\d+,(\d+)\]", rest):
    return int(tiled[1])
  if listed := re.search(r"replica_groups=\{\{([\d,]+)\}", rest):
    return listed[1].count(",") + 1
  return num_devices


def _bytes(shape: str) -> float:
  """Bytes in main memory of all arrays in a shape."""
  return sum(_arrays(shape))


def _arrays(shape: str, *, everywhere: bool = False) -> list[float]:
  """Bytes of each array in a shape; on-chip (memory space S(n)) they count nothing."""
  sizes = []
  for dtype, dims, layout in _ARRAY.findall(shape):
    bits = _BITS.get(dtype) or int(re.sub(r"\D.*", "", dtype[1:]) or 0)
    on_chip = not everywhere and "S(" in layout
    sizes.append(0.0 if on_chip else bits / 8 * _product(dims))
  return sizes


def _elements(shape: str) -> int:
  found = _ARRAY.search(shape)
  return _product(found[2]) if found else 0


def _product(dims: str) -> int:
  return math.prod(int(size) for size in dims.split(",") if size)
