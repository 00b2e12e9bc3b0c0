"""U: executes the untrusted code and answers requests of T.

Nothing here decides anything. Whatever the code does to this process (patching these
functions, walking their frames, writing to the channel) changes only which values T
gets, as if the code's functions had returned them. U never holds the tests: it is
forked before they are read.
"""

from __future__ import annotations

import builtins
import collections
import collections.abc
import gc
import os
import sys
import types
from time import perf_counter  # the code may patch the module
from typing import Any

from . import asserts, wire

MODULE_NAME = "solution"
READY = "ready"  # the first message: nothing failed on the way to the code
_BATCH_SECONDS = 0.005  # slower iterators are asked for one item at a time
_SHORT = 1000
_NUMBERS = {int, float, bool, type(None)}
_FUNCTIONS = (types.FunctionType, types.BuiltinFunctionType, types.MethodType)


class Code:
  """The code's module, and the objects of it that T holds stand-ins for."""

  def __init__(self):
    self.module = types.ModuleType(MODULE_NAME)
    self.handles: list = []
    self.held: list = []  # objects whose copies in T follow what the code does to them
    self._numbers: dict[int, int] = {}

  def handle(self, value) -> int:
    """Return the number by which T names `value`."""
    if id(value) not in self._numbers:
      self._numbers[id(value)] = len(self.handles)
      self.handles.append(value)
    return self._numbers[id(value)]

  def special(self, value) -> list:
    """Return the node of a value that stays here."""
    if isinstance(value, type):
      return ["class", [self.handle(value), value.__name__]]
    if isinstance(value, _FUNCTIONS):
      return ["function", [self.handle(value), getattr(value, "__name__", "?")]]
    if isinstance(value, collections.abc.Iterator):
      return ["iterator", [self.handle(value), type(value).__name__]]
    if callable(value):  # e.g. a partial, or an instance of a decorator class
      own = type(value).__module__ == MODULE_NAME
      tag = "callable" if own else "function"
      return [tag, [self.handle(value), type(value).__name__]]
    return ["object", [self.handle(value), type(value).__name__]]

  def revive(self, tag: str, payload):
    """Return the object that a node of T stands for."""
    if tag == "remote":
      return self.handles[payload]
    if tag == "iterator":
      return iter(payload)
    if tag == "builtin":
      return getattr(builtins, payload)
    raise wire.Opaque(tag)

  def execute(self, source: str, names) -> dict:
    """Execute the code; return those of `names` that it defines."""
    sys.modules[MODULE_NAME] = self.module
    try:
      compiled = compile(source, f"<{MODULE_NAME}>", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
      raise asserts.Stop("syntax_error", asserts.one_line(error)) from None
    exec(compiled, self.module.__dict__)
    there = self.module.__dict__
    return {name: there[name] for name in names if name in there}


def serve(requests: int, replies: int) -> None:
  """Answer requests until T is gone; never return.

  Args:
    requests: descriptor that T's messages come from.
    replies: descriptor that the answers go to.
  """
  code = Code()
  _make_room_for_recursion()
  wire.send(replies, READY)
  while True:
    try:
      request = wire.receive(requests)
    except (EOFError, OSError):
      os._exit(0)
    reply: dict
    objects: Any = []
    try:
      reply, objects = answer(code, request, requests)
    except asserts.Stop as stop:
      reply = {"stop": [stop.outcome, str(stop)]}
    except wire.Opaque as error:
      reply = {"stop": ["opaque_result", str(error)]}
    except BaseException as error:
      reply = {"raised": _describe(error)}
    if "value" in reply:
      reply["held"] = held(objects)
      code.held = [objects[i] for i in reply["held"]]
    try:
      wire.send(replies, reply)
    except wire.TooLarge as error:
      wire.send(replies, {"stop": ["output_limit", f"a result of {error}"]})
    except OSError:
      os._exit(70)


def _make_room_for_recursion() -> None:
  """Let code recurse as deep as without the frames of this module."""
  frame, depth = sys._getframe(), 0
  while frame:
    frame, depth = frame.f_back, depth + 1
  sys.setrecursionlimit(sys.getrecursionlimit() + depth)


def answer(code: Code, request: dict, requests: int) -> tuple:
  """Return the reply to a request and its objects; raise what the code raises."""
  kind = request["do"]
  if kind == "load":
    defined = code.execute(request["code"], request["names"])
    modules = [n for n, v in defined.items() if isinstance(v, types.ModuleType)]
    values = {n: v for n, v in defined.items() if n not in modules}
    reply, objects = _reply(code, values, (), ())
    return {**reply, "modules": modules}, objects  # T has its own modules
  if kind == "run_tests":  # in_process: the secret is still unread in the channel
    verdict = asserts.run(request["tests"], code.module.__dict__, request["names"])
    return {"verdict": verdict, "secret": wire.receive(requests)}, ()
  decoder = wire.Decoder(request["nodes"], code.revive, code.held)
  target = code.handles[request["handle"]]
  arguments = decoder.value(request["arguments"])
  objects = decoder.objects()
  before = [wire.contents(x) for x in objects]
  try:
    if kind == "next":
      items, ending = _take(target, arguments)
      reply, objects = _reply(code, items, objects, before)
      return {**reply, "then": ending}, objects
    return _reply(code, _perform(kind, target, arguments), objects, before)
  except (MemoryError, wire.Opaque):
    raise
  except BaseException as error:  # what was done to the arguments is done
    reply, objects = _reply(code, None, objects, before)
    return {**({} if "stop" in reply else reply), "raised": _describe(error)}, objects


def _perform(kind: str, target, arguments):
  if kind == "call":
    positional, keywords = arguments
    return target(*positional, **keywords)
  if kind == "iter":
    return (item for item in target)  # fails here, and now, if it is not iterable
  if kind == "len":
    return len(target)
  if kind == "getattr":
    return getattr(target, arguments)
  if kind == "bool":
    return bool(target)
  return setattr(target, *arguments)


def _take(iterator, most: int):
  """Return up to `most` items, and what comes after them if that is known.

  Only items that cannot change later, and that come fast, let a batch go on.
  """
  items, deadline = [], perf_counter() + _BATCH_SECONDS
  try:
    while len(items) < most:
      items.append(next(iterator))
      if not _settled(items[-1]) or perf_counter() > deadline:
        break
  except StopIteration:
    return items, {"end": True}
  except MemoryError:
    raise
  except BaseException as error:
    return items, {"raised": _describe(error)}
  return items, None


def _settled(value) -> bool:
  if type(value) is str:
    return len(value) < _SHORT
  if type(value) is tuple:
    return len(value) < _SHORT and all(type(x) in _NUMBERS for x in value)
  return type(value) in _NUMBERS


def _reply(code: Code, value, objects, before) -> tuple:
  """Return a reply and its objects, given the request's and their contents before."""
  encoder = wire.Encoder(code.special, objects)
  try:
    encoded = encoder.value(value)
    encoder.refresh(before)
  except RecursionError:
    return {"stop": ["opaque_result", "a result is nested too deeply"]}, ()
  return {"value": encoded, "nodes": encoder.nodes}, encoder.objects


def held(objects) -> list:
  """Return indices of the mutable objects that the code holds and may change later.

  More refer to those than `objects` and each other; or they are inside of such.
  """
  mutable = {
    i for i, x in enumerate(objects) if isinstance(x, wire.MUTABLE) or wire.is_array(x)
  }
  if not mutable:
    return []
  counts = collections.Counter(map(id, gc.get_referents(*objects)))
  index = {id(x): i for i, x in enumerate(objects)}
  waiting = [
    i for i in index.values() if _references(objects, i) > counts[id(objects[i])]
  ]
  found = set(waiting)
  while waiting:
    inside = gc.get_referents(objects[waiting.pop()])
    more = {index[id(x)] for x in inside if id(x) in index} - found
    found |= more
    waiting += more
  return sorted(found & mutable)


def _references(objects, index: int) -> int:
  """Return how many references to an object there are besides the list's."""
  return sys.getrefcount(objects[index]) - _NO_OTHERS


_NO_OTHERS = 0
_NO_OTHERS = _references([[]], 0)


def _describe(error: BaseException) -> list:
  """Return names of the built-in classes, nearest first, arguments, and one line."""
  names = [
    base.__name__
    for base in type(error).__mro__
    if getattr(builtins, base.__name__, None) is base
  ]
  arguments = [x for x in error.args if type(x) in (str, int, float, bool, type(None))]
  if len(arguments) != len(error.args):
    arguments = []
  line = asserts.one_line(error)
  return [names, arguments if len(str(arguments)) < 4000 else [], line]
