"""Values as JSON, so that reading what untrusted code wrote can build plain data only.

A message is a 4-byte length and that many bytes of JSON. A value is an atom (None,
bool, int, float, str), written as itself, or a reference `[i]` to `nodes[i]`, which is
`[tag, payload]`. So sharing and cycles survive: `a = [1]; (a, a)` is `[0]` with
`nodes = [["tuple", [[1], [1]]], ["list", [1]]]`. Pickle is not used, since even a
restricted unpickler sets attributes of the classes it may name.

A reply reuses the numbers of the request's objects: the list that went out as node 3
and came back changed is refilled in place, and `f(x) is x` stays true.
"""

from __future__ import annotations

import collections
import datetime
import decimal
import fractions
import functools
import json
import os
import re
import struct
import types
from typing import Any

MESSAGE_BYTES = 1 << 24
_ATOMS = {type(None), bool, int, float, str}
_BIG = 1 << 1000  # larger integers travel in hexadecimal: linear time, no digit limit
_VIEWS = {
  type({}.keys()): "keys",
  type({}.values()): "values",
  type({}.items()): "items",
}
_MUTABLE = {
  "list": list,
  "dict": dict,
  "set": set,
  "bytearray": bytearray,
  "deque": collections.deque,
  "Counter": collections.Counter,
  "OrderedDict": collections.OrderedDict,
}
_DATES = {
  "datetime": (datetime.datetime, "year month day hour minute second microsecond"),
  "date": (datetime.date, "year month day"),
  "time": (datetime.time, "hour minute second microsecond"),
  "timedelta": (datetime.timedelta, "days seconds microseconds"),
}
_WRAPPERS = {  # exactly these: subclasses may have methods, and stay objects
  collections.UserList: list,
  collections.UserDict: dict,
  collections.ChainMap: dict,
  types.MappingProxyType: dict,
}
_CONSTANTS = {"Ellipsis": Ellipsis, "NotImplemented": NotImplemented}
_FIELD = re.compile(r"[A-Za-z]\w*", re.ASCII)
BUILTIN_TYPES = {
  t.__name__: t
  for t in (bool, int, float, complex, str, bytes, list, tuple, dict, set, frozenset)
}


class Opaque(Exception):
  """A value that is no plain data."""


class TooLarge(Exception):
  """A message above MESSAGE_BYTES."""


def send(fd: int, message) -> None:
  """Writes one message; TooLarge before anything is written."""
  data = json.dumps(message, separators=(",", ":")).encode()
  if len(data) > MESSAGE_BYTES:
    raise TooLarge(f"{len(data)} bytes, at most {MESSAGE_BYTES}")
  data = memoryview(struct.pack("<I", len(data)) + data)
  while data:
    data = data[os.write(fd, data) :]


def receive(fd: int):
  """Reads one message; EOFError when the other side is gone."""
  (size,) = struct.unpack("<I", read_exactly(fd, 4))
  if size > MESSAGE_BYTES:
    raise TooLarge(f"{size} bytes announced, at most {MESSAGE_BYTES}")
  return json.loads(read_exactly(fd, size))


def read_exactly(fd: int, size: int) -> bytes:
  """Reads `size` bytes and not one more, so that another process can read on."""
  parts = []
  while size:
    part = os.read(fd, min(size, 1 << 20))
    if not part:
      raise EOFError("the other side closed the channel")
    parts.append(part)
    size -= len(part)
  return b"".join(parts)


class Encoder:
  """Turns values into nodes.

  Args:
    special: called with a value that is no plain data; returns its node or raises
      Opaque.
    known: the objects of a request, in its numbering.
  """

  def __init__(self, special, known=()):
    self._special = special
    self.objects = list(known)  # also keeps them alive, so that ids stay unique
    self.nodes: list = [None] * len(self.objects)
    self._index = {id(value): i for i, value in enumerate(self.objects)}

  def value(self, value):
    """An atom, or a reference to a node."""
    kind = type(value)
    if kind in _ATOMS and not (kind is int and not -_BIG < value < _BIG):
      return value
    for atom in (int, float, str):  # subclasses, e.g. IntEnum, become what they extend
      if kind is not atom and isinstance(value, atom):
        return self.value(getattr(atom, _PLAIN[atom])(value))
    if id(value) not in self._index:
      self._index[id(value)] = index = len(self.nodes)
      self.objects.append(value)
      self.nodes.append(None)
      self.nodes[index] = self._node(value)
    return [self._index[id(value)]]

  def refresh(self, count: int) -> None:
    """Writes anew the nodes of the mutable ones among the first `count` objects."""
    for index, value in enumerate(self.objects[:count]):
      if type(value).__name__ in _MUTABLE and type(value) in _MUTABLE.values():
        self.nodes[index] = self._node(value)

  def _many(self, values) -> list:
    values = list(values)
    kinds = set(map(type, values))
    if kinds <= _ATOMS - {int} or (
      kinds == {int} and min(values) > -_BIG and max(values) < _BIG
    ):
      return values
    return [self.value(value) for value in values]

  def _pairs(self, mapping) -> list:
    return self._many(x for pair in dict.items(mapping) for x in pair)

  def _node(self, value) -> list:  # the order matters: subclasses before their bases
    kind = type(value)
    if kind is int:
      return ["int", hex(value)]
    if kind in _WRAPPERS:
      value = _WRAPPERS[kind](value)
    fields = getattr(kind, "_fields", None) if issubclass(kind, tuple) else None
    if fields and all(type(f) is str and _FIELD.fullmatch(f) for f in fields):
      values = self._many(tuple.__iter__(value))
      return ["namedtuple", [kind.__name__, list(fields), values]]
    base: Any
    for base in (tuple, list, set, frozenset, collections.deque):
      if isinstance(value, base):
        return [base.__name__, self._many(base.__iter__(value))]
    for base in (collections.Counter, collections.OrderedDict, dict):
      if isinstance(value, base):
        return [base.__name__, self._pairs(value)]
    if isinstance(value, (bytes, bytearray)):
      base = bytes if isinstance(value, bytes) else bytearray
      return [base.__name__, bytes(value).hex()]
    if isinstance(value, complex):
      return ["complex", [value.real, value.imag]]
    if kind is range:
      return ["range", self._many((value.start, value.stop, value.step))]
    if kind in _VIEWS:
      return [_VIEWS[kind], self._many(value)]
    if isinstance(value, fractions.Fraction):
      return ["Fraction", self._many((value.numerator, value.denominator))]
    if isinstance(value, decimal.Decimal):
      return ["Decimal", decimal.Decimal.__str__(value)]
    for tag, (base, fields) in _DATES.items():
      if isinstance(value, base) and getattr(value, "tzinfo", None) is None:
        return [tag, [getattr(value, field) for field in fields.split()]]
    for name, constant in _CONSTANTS.items():
      if value is constant:
        return ["constant", name]
    if isinstance(value, type) and BUILTIN_TYPES.get(value.__name__) is value:
      return ["type", value.__name__]
    return self._special(value)


@functools.lru_cache(maxsize=64)
def _named_tuple(name: str, fields: tuple):
  """This side's own class of named tuples; nothing but ASCII words gets in."""
  for word in (name, *fields):
    if not _FIELD.fullmatch(word):
      raise Opaque(f"a field {word!r}")
  return collections.namedtuple(name, fields)


_PLAIN = {int: "__int__", float: "__float__", str: "__str__"}


class Decoder:
  """Builds the values of a message; any malformed input raises some Exception.

  Args:
    nodes: of the message.
    special: called with (tag, payload) of a node that is no plain data.
    known: objects that the first nodes stand for; a non-null node refills its object.
  """

  def __init__(self, nodes, special, known=()):
    self._nodes = nodes
    self._special = special
    self._objects = dict(enumerate(known))
    for index, value in enumerate(known):
      if nodes[index] is not None:
        tag, payload = nodes[index]
        if _MUTABLE.get(tag) is not type(value):
          raise Opaque(f"argument {index} came back as {tag!r}")
        self._fill(value, payload)

  def value(self, encoded):
    """The value of an atom or a reference."""
    if type(encoded) in _ATOMS:
      return encoded
    (index,) = encoded
    if index not in self._objects:
      tag, payload = self._nodes[index]
      if tag in _MUTABLE:
        self._objects[index] = _MUTABLE[
          tag
        ]()  # before its contents: it may hold itself
        self._fill(self._objects[index], payload)
      else:
        self._objects[index] = self._build(tag, payload)
    return self._objects[index]

  def objects(self) -> list:
    """All objects of a message in its numbering, once its values were read."""
    return [self.value([index]) for index in range(len(self._nodes))]

  def _many(self, payload) -> list:
    if set(map(type, payload)) <= _ATOMS:
      return payload
    return [self.value(x) for x in payload]

  def _pairs(self, payload):
    values = self._many(payload)
    return [(values[i], values[i + 1]) for i in range(0, len(values), 2)]

  def _fill(self, target, payload) -> None:
    if isinstance(target, bytearray):
      target[:] = bytes.fromhex(payload)
    elif isinstance(target, list):
      target[:] = self._many(payload)
    elif isinstance(target, dict):
      pairs = self._pairs(payload)
      target.clear()
      dict.update(target, pairs)
    else:
      values = self._many(payload)
      target.clear()
      getattr(target, "extend" if isinstance(target, collections.deque) else "update")(
        values
      )

  def _build(self, tag: str, payload):
    if tag == "int":
      return int(payload, 16)
    if tag == "bytes":
      return bytes.fromhex(payload)
    if tag in ("tuple", "frozenset"):
      return (tuple if tag == "tuple" else frozenset)(self._many(payload))
    if tag == "namedtuple":
      name, fields, values = payload
      name = name if _FIELD.fullmatch(name) else "NamedTuple"
      return _named_tuple(name, tuple(fields))._make(self._many(values))
    if tag == "constant":
      return _CONSTANTS[payload]
    if tag == "complex":
      return complex(*map(float, payload))
    if tag == "range":
      return range(*self._many(payload))
    if tag == "keys":
      return dict.fromkeys(self._many(payload)).keys()
    if tag == "values":
      return dict(enumerate(self._many(payload))).values()
    if tag == "items":
      return dict(self._many(payload)).items()
    if tag == "Fraction":
      numerator, denominator = self._many(payload)
      return fractions.Fraction(numerator, denominator)
    if tag == "Decimal":
      return decimal.Decimal(payload)
    if tag in _DATES:
      return _DATES[tag][0](*payload)
    if tag == "type":
      return BUILTIN_TYPES[payload]
    return self._special(tag, payload)
