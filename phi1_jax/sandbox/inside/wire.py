"""Values as JSON, so that reading what untrusted code wrote can build plain data only.

A message is a 4-byte length and that many bytes of JSON. A value is an atom (None,
bool, int, float, str), written as itself, or a reference `[i]` to `nodes[i]`, which is
`[tag, payload]`. So sharing and cycles survive: `a = [1]; (a, a)` is `[0]` with
`nodes = [["tuple", [[1], [1]]], ["list", [1]]]`. Pickle is not used, since even a
restricted unpickler sets attributes of the classes it may name.

A message begins with the numbers of objects that both sides know: those of the request,
and those that the code still holds. The list that went out as node 3 and came back
changed is refilled in place, and `f(x) is x` stays true; what did not change is null.
So is an array of numpy. Copies share no memory, so a change of an array that shares its
own with another known one cannot be repeated, nor can one of its shape or type.

Only exact types travel as data. An instance of a subclass is sent as "derived": its
contents as the built-in base has them, and the handle of its owner for the rest.
"""

from __future__ import annotations

import collections
import datetime
import decimal
import fractions
import functools
import json
import operator
import os
import re
import struct
import sys
import types
from typing import Any

from . import sets
from .sets import Opaque

MESSAGE_BYTES = 1 << 24
_ATOMS = {type(None), bool, int, float, str}
_BIG = 1 << 1000  # larger integers travel in hexadecimal: linear time, no digit limit
_MUTABLE = {
  kind.__name__: kind
  for kind in (
    *(list, dict, set, bytearray, collections.deque, collections.Counter),
    *(collections.OrderedDict, collections.defaultdict),
  )
}
_WRAPPERS = {  # exactly these: subclasses may have methods, and stay objects
  collections.UserList: list,
  collections.UserDict: dict,
  collections.ChainMap: dict,
  types.MappingProxyType: dict,
}
_CONSTANTS = {"Ellipsis": Ellipsis, "NotImplemented": NotImplemented}
MUTABLE = (list, dict, set, collections.deque, bytearray)  # and what extends them
_PURE = (int, float, complex, str, bytes, tuple, frozenset)
_BASES = {*_MUTABLE.values(), *_PURE}
_ARRAY = re.compile(r"[<>|=][biufc]\d{1,2}", re.ASCII)  # dtypes of numbers
_FIELD = re.compile(r"[A-Za-z]\w*", re.ASCII)
_OF_NAMED_TUPLES = {
  *vars(collections.namedtuple("P", "")),
  *("__annotations__", "__orig_bases__", "__annotate_func__", "__annotations_cache__"),
}
# What a class may define without a difference to how its instances behave as data.
_HARMLESS = {
  *("__module__", "__doc__", "__dict__", "__weakref__", "__slots__", "__init__"),
  *("__new__", "__annotations__", "__orig_bases__", "__parameters__", "__getattr__"),
  *("__init_subclass__", "__reduce__", "__reduce_ex__", "__qualname__", "__dir__"),
  *("__static_attributes__", "__firstlineno__", "__abstractmethods__", "__copy__"),
  *("__deepcopy__", "__getnewargs__", "__class_getitem__", "__annotate_func__"),
}
BUILTIN_TYPES = {
  t.__name__: t
  for t in (bool, int, float, complex, str, bytes, list, tuple, dict, set, frozenset)
}


_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


class TooLarge(Exception):
  """A message above MESSAGE_BYTES."""


def send(fd: int, message) -> None:
  """Write a message; TooLarge before anything is written."""
  data = _encode(message).encode(errors="surrogatepass")  # two surrogates stay two
  if len(data) > MESSAGE_BYTES:
    raise TooLarge(f"{len(data)} bytes, at most {MESSAGE_BYTES}")
  data = memoryview(struct.pack("<I", len(data)) + data)
  while data:
    data = data[os.write(fd, data) :]


def receive(fd: int):
  """Read a message; EOFError when the other side is gone."""
  (size,) = struct.unpack("<I", read_exactly(fd, 4))
  if size > MESSAGE_BYTES:
    raise TooLarge(f"{size} bytes announced, at most {MESSAGE_BYTES}")
  return json.loads(read_exactly(fd, size).decode(errors="surrogatepass"))


def read_exactly(fd: int, size: int) -> bytes:
  """Read exactly `size` bytes, so that another process can read the next ones."""
  parts = []
  while size:
    part = os.read(fd, min(size, 1 << 20))
    if not part:
      raise EOFError("the other side closed the channel")
    parts.append(part)
    size -= len(part)
  return b"".join(parts)


def contents(value):
  """Return the contents of a mutable value, to notice changes; None of any other."""
  if type(value) is list:
    return value[:]
  if is_array(value):
    return _dtype(value), value.shape, value.tobytes()
  if isinstance(value, dict):
    return _items(value)
  if isinstance(value, MUTABLE):
    return [*_base(value).__iter__(value)]
  return None


def is_array(value) -> bool:
  """Return whether a value is numpy's array of numbers, not of a subclass."""
  kind = getattr(sys.modules.get("numpy"), "ndarray", None)
  return type(value) is kind and bool(_ARRAY.fullmatch(_dtype(value)))


def _items(mapping) -> list:
  ordered = isinstance(mapping, collections.OrderedDict)
  items = collections.OrderedDict.items if ordered else dict.items
  return [x for pair in items(mapping) for x in pair]


def _base(value) -> Any:
  return next((base for base in type(value).__mro__ if base in _BASES), None)


def _changed(before, now) -> bool:
  if type(before) is tuple:  # of an array
    return before != now
  return len(before) != len(now) or not all(map(operator.is_, before, now))


class Encoder:
  """Encoder of values as nodes.

  Args:
    special: called with a value that is not plain data; returns its node or raises
      Opaque.
    known: the objects that both sides know, in their numbering.
  """

  def __init__(self, special, known=()):
    self._special = special
    self.objects = list(known)  # also keeps them alive, so that ids stay unique
    self.nodes: list = [None] * len(self.objects)
    self._index = {id(value): i for i, value in enumerate(self.objects)}

  def value(self, value):
    """Return an atom, or a reference to a node."""
    kind = type(value)
    if kind in _ATOMS and not (
      (kind is int and not -_BIG < value < _BIG) or value != value
    ):
      return value
    if id(value) not in self._index:
      self._index[id(value)] = index = len(self.nodes)
      self.objects.append(value)
      self.nodes.append(None)
      self.nodes[index] = self._node(value)
    return [self._index[id(value)]]

  def refresh(self, before) -> None:
    """Write the nodes of those of the first objects that have changed.

    Args:
      before: the `contents` of these objects when both sides agreed.
    """
    for index, held in enumerate(before):
      value = self.objects[index]
      if held is None or not _changed(held, contents(value)):
        continue
      base = _base(value)  # of what stays on the other side, only the contents
      self.nodes[index] = (
        [base.__name__, self._many(_PARTS[base](value))] if base else self._node(value)
      )

  def _many(self, values) -> list:
    values = list(values)
    kinds = set(map(type, values))
    if int not in kinds and kinds <= _ATOMS:
      if float not in kinds or all(map(operator.eq, values, values)):
        return values
    elif kinds == {int} and min(values) > -_BIG and max(values) < _BIG:
      return values
    return [self.value(value) for value in values]

  def _node(self, value) -> list:
    kind = type(value)
    scalar = kind.__module__ == "numpy" and bool(_ARRAY.fullmatch(_dtype(value)))
    scalar = scalar and getattr(value, "shape", None) == ()
    if is_array(value) or scalar:  # no subclass of arrays
      data = value.tobytes().hex()
      return ["array", [_dtype(value), data, scalar, *value.shape]]
    if kind in _WRAPPERS:
      kind, value = _WRAPPERS[kind], _WRAPPERS[kind](value)
    # A time with a zone, or one that occurs twice, is none of these.
    if kind in _PARTS and not (
      getattr(value, "tzinfo", 0) or getattr(value, "fold", 0)
    ):
      return [kind.__name__, self._many(_PARTS[kind](value))]
    if kind.__mro__[1:2] == (tuple,) and _is_named_tuple(kind):
      values = tuple.__iter__(value)
      parts = [kind.__name__, " ".join(kind._fields), *values]
      return ["namedtuple", self._many(parts)]
    for name, constant in _CONSTANTS.items():
      if value is constant:
        return ["constant", [name]]
    if isinstance(value, type) and BUILTIN_TYPES.get(value.__name__) is value:
      return ["type", [value.__name__]]
    return self._derived(value, _base(value))

  def _derived(self, value, base) -> list:
    """Return the node of what stays here, with the contents of its built-in base."""
    node = self._special(value)
    if base is None or node[0] == "remote":
      return node
    kinds = type(value).__mro__
    own = {name for kind in kinds[: kinds.index(base)] for name in vars(kind)}
    own = own.union(getattr(value, "__dict__", ())) - _HARMLESS
    own = sorted(n for n in own if n.startswith("__") or hasattr(base, n))
    parts = self._many(_PARTS[base](value))
    return ["derived", [node, base.__name__, parts, own]]


def _getter(names: str):
  return operator.attrgetter(*names.split())


# Type -> what a value of it, or of a type that extends it, is made of.
_PARTS = {
  int: lambda value: [hex(int.__int__(value))],
  float: lambda value: [float.__repr__(value)],
  complex: lambda value: [float.__repr__(x) for x in (value.real, value.imag)],
  str: lambda value: [str.__str__(value)],
  bytes: lambda value: [bytes.hex(value)],
  bytearray: lambda value: [bytearray.hex(value)],
  tuple: tuple.__iter__,
  list: list.__iter__,
  set: functools.partial(sets.plan, set),
  frozenset: functools.partial(sets.plan, frozenset),
  collections.deque: lambda value: [value.maxlen, *collections.deque.__iter__(value)],
  dict: _items,
  collections.Counter: _items,
  collections.OrderedDict: _items,
  collections.defaultdict: lambda value: [value.default_factory, *_items(value)],
  range: _getter("start stop step"),
  fractions.Fraction: _getter("numerator denominator"),
  decimal.Decimal: lambda value: [str(value)],
  datetime.date: _getter("year month day"),
  datetime.datetime: _getter("year month day hour minute second microsecond"),
  datetime.time: _getter("hour minute second microsecond"),
  datetime.timedelta: _getter("days seconds microseconds"),
  type({}.keys()): iter,
  type({}.values()): iter,
  type({}.items()): iter,
}


def _is_named_tuple(kind) -> bool:
  """Return whether a class has only what all classes of named tuples have."""
  fields = getattr(kind, "_fields", None)
  return (
    type(fields) is tuple
    and all(type(f) is str and _FIELD.fullmatch(f) for f in fields)
    and vars(kind).keys() <= _OF_NAMED_TUPLES.union(fields)
  )


@functools.lru_cache(maxsize=64)
def _named_tuple(name: str, fields: str):
  """Return a class of named tuples of this side; names are ASCII words."""
  if not all(map(_FIELD.fullmatch, fields.split())):
    raise Opaque(f"the fields {fields!r}")
  name = name if _FIELD.fullmatch(name) else "NamedTuple"
  return collections.namedtuple(name, fields)


def _array(dtype: str, data: str, scalar: bool, *shape: int):
  """Return a numpy array or number; only where the sandbox was given numpy."""
  if not _ARRAY.fullmatch(dtype) or "numpy" not in sys.modules:
    raise Opaque("an array")
  flat = sys.modules["numpy"].frombuffer(bytes.fromhex(data), dtype)
  made = flat.reshape(shape).copy()
  return made[()] if scalar else made


def _fill_array(target, made, known) -> None:
  """Give an array the numbers of another, if that changes no other known one."""
  shares = sys.modules["numpy"].shares_memory
  if any(x is not target and is_array(x) and shares(x, target) for x in known):
    raise Opaque("a change of an array that shares its memory with another")
  if made.shape != target.shape or made.dtype != target.dtype:
    raise Opaque("an array whose shape or type was changed in place")
  target[...] = made


# Tag -> the value that its parts make, of those that are made at once.
_MAKE: dict[str, Any] = {
  "int": lambda text: int(text, 16),
  "float": float,
  "complex": lambda real, imaginary: complex(float(real), float(imaginary)),
  "str": str,
  "bytes": bytes.fromhex,
  "tuple": lambda *parts: parts,
  "frozenset": lambda *parts: sets.build(frozenset, parts),
  "namedtuple": lambda name, fields, *parts: _named_tuple(name, fields)(*parts),
  "range": range,
  "Fraction": fractions.Fraction,
  "Decimal": decimal.Decimal,
  "date": datetime.date,
  "datetime": datetime.datetime,
  "time": datetime.time,
  "timedelta": datetime.timedelta,
  "dict_keys": lambda *parts: dict.fromkeys(parts).keys(),
  "dict_values": lambda *parts: dict(enumerate(parts)).values(),
  "dict_items": lambda *parts: dict(parts).items(),
  "array": _array,
  "constant": _CONSTANTS.__getitem__,
  "type": BUILTIN_TYPES.__getitem__,
}


class Decoder:
  """Decoder of the values of a message; malformed input raises some Exception.

  Args:
    nodes: of the message.
    special: called with (tag, payload) of a node that is not plain data; for "derived"
      with [node, the base, own methods, contents or None], see `Encoder`.
    known: objects that the first nodes stand for; a non-null node refills its object.
  """

  def __init__(self, nodes, special, known=()):
    self._nodes = nodes
    self._special = special
    self._objects = dict(enumerate(known))
    for index, value in enumerate(known):
      if nodes[index] is not None:
        tag, payload = nodes[index]
        if tag == "derived":
          _, tag, payload, _ = payload
        if (tag == "array") != is_array(value) or _MUTABLE.get(tag) is not _base(value):
          raise Opaque(f"argument {index} came back as {tag!r}")
        if tag == "array":
          _fill_array(value, _array(*payload), known)
        else:
          self._fill(value, payload)

  def value(self, encoded):
    """Return the value of an atom or a reference."""
    if type(encoded) in _ATOMS:
      return encoded
    (index,) = encoded
    if index not in self._objects:
      tag, payload = self._nodes[index]
      node = own = None
      if tag == "derived":
        node, tag, payload, own = payload
      if tag in _MUTABLE:
        arguments = ((), payload[0]) if tag == "deque" else ()
        made = self._derive(node, _MUTABLE[tag], own, arguments)
        self._objects[index] = made  # before its contents: it may hold itself
        self._fill(made, payload)
      elif tag in _MAKE:
        made = _MAKE[tag](*self._many(payload))
        if node and type(made) not in _BASES:
          raise Opaque(f"an object that extends {tag!r}")
        self._objects[index] = (
          self._derive(node, type(made), own, (made,)) if node else made
        )
      elif node:
        raise Opaque(f"an object that extends {tag!r}")
      else:
        self._objects[index] = self._special(tag, payload)
    return self._objects[index]

  def _derive(self, node, base, own, arguments):
    if not node:
      return base(*arguments)
    return self._special("derived", [node, base, own, arguments])

  def objects(self) -> list:
    """Return all objects of a message in its numbering, after its values."""
    return [self.value([index]) for index in range(len(self._nodes))]

  def _many(self, payload) -> list:
    if set(map(type, payload)) <= _ATOMS:
      return payload
    return [self.value(x) for x in payload]

  def _fill(self, target, payload) -> None:
    base: Any = _base(target)
    parts = self._many(payload)
    if base is bytearray:
      bytearray.__setitem__(target, slice(None), bytes.fromhex(*parts))
    elif base is list:
      list.__setitem__(target, slice(None), parts)
    elif base is set:
      sets.fill(target, parts)
    elif base is collections.deque:
      base.clear(target)
      base.extend(target, parts[1:])
    else:
      if base is collections.defaultdict:
        object.__setattr__(target, "default_factory", parts[0])
        parts = parts[1:]
      base.clear(target)
      pairs = zip(parts[::2], parts[1::2])  # noqa: B905 (Python 3.9)
      if base is collections.OrderedDict:  # its update calls overridden methods
        for key, value in pairs:
          base.__setitem__(target, key, value)
      else:
        dict.update(target, pairs)


def _dtype(value) -> str:
  return getattr(getattr(value, "dtype", None), "str", "")
