"""U: executes the untrusted code and answers T's requests.

Nothing here decides anything. Whatever the code does to this process (patching these
functions, walking their frames, writing to the channel) changes only which values T
gets, as if the code's functions had returned them. U never holds the tests: it is
forked before they are read.
"""

from __future__ import annotations

import builtins
import collections.abc
import os
import sys
import types

from . import asserts, wire

MODULE_NAME = "solution"
_FUNCTIONS = (types.FunctionType, types.BuiltinFunctionType, types.MethodType)


class Code:
  """The code's module, and the objects of it that T holds stand-ins for."""

  def __init__(self):
    self.module = types.ModuleType(MODULE_NAME)
    self.handles: list = []
    self._numbers: dict[int, int] = {}

  def handle(self, value) -> int:
    """The number under which T may ask for `value`."""
    if id(value) not in self._numbers:
      self._numbers[id(value)] = len(self.handles)
      self.handles.append(value)
    return self._numbers[id(value)]

  def special(self, value) -> list:
    """The node of a value that stays here."""
    if isinstance(value, type):
      return ["class", [self.handle(value), value.__name__]]
    if isinstance(value, _FUNCTIONS):
      return ["function", [self.handle(value), getattr(value, "__name__", "?")]]
    if isinstance(value, collections.abc.Iterator):
      return ["iterator", [self.handle(value), type(value).__name__]]
    if callable(value) and type(value).__module__ != MODULE_NAME:
      return ["function", [self.handle(value), type(value).__name__]]  # e.g. partial
    return ["object", [self.handle(value), type(value).__name__]]

  def revive(self, tag: str, payload):
    """What a node of T's stands for here."""
    if tag == "remote":
      return self.handles[payload]
    if tag == "iterator":
      return iter(payload)
    if tag == "builtin":
      return getattr(builtins, payload)
    raise wire.Opaque(tag)

  def execute(self, source: str, names) -> dict:
    """Executes the code; returns those of `names` that it defines."""
    sys.modules[MODULE_NAME] = self.module
    try:
      compiled = compile(source, f"<{MODULE_NAME}>", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
      raise asserts.Stop("syntax_error", asserts.one_line(error)) from None
    exec(compiled, self.module.__dict__)
    there = self.module.__dict__
    return {name: there[name] for name in names if name in there}


def serve(requests: int, replies: int) -> None:
  """Answers requests until T is gone; never returns.

  Args:
    requests: descriptor that T's messages come from.
    replies: descriptor that the answers go to.
  """
  code = Code()
  while True:
    try:
      request = wire.receive(requests)
    except (EOFError, OSError):
      os._exit(0)
    try:
      reply = answer(code, request, requests)
    except asserts.Stop as stop:
      reply = {"stop": [stop.outcome, str(stop)]}
    except BaseException as error:
      reply = {"raised": _describe(error)}
    try:
      wire.send(replies, reply)
    except wire.TooLarge as error:
      wire.send(replies, {"stop": ["output_limit", f"a result of {error}"]})
    except OSError:
      os._exit(70)


def answer(code: Code, request: dict, requests: int) -> dict:
  """The reply to a request; raises what the code raises."""
  kind = request["do"]
  if kind == "load":
    defined = code.execute(request["code"], request["names"])
    modules = [n for n, v in defined.items() if isinstance(v, types.ModuleType)]
    values = {n: v for n, v in defined.items() if n not in modules}
    return {**_reply(code, values, []), "modules": modules}  # T has its own modules
  if kind == "run_tests":  # in_process: the secret is still unread in the channel
    verdict = asserts.run(request["tests"], code.module.__dict__, request["names"])
    return {"verdict": verdict, "secret": wire.receive(requests)}
  decoder = wire.Decoder(request["nodes"], code.revive)
  target = code.handles[request["handle"]]
  arguments = decoder.value(request["arguments"])
  objects = decoder.objects()
  if kind == "call":
    positional, keywords = arguments
    return _reply(code, target(*positional, **keywords), objects)
  if kind == "next":
    try:
      return _reply(code, next(target), objects)
    except StopIteration:
      return {"end": True}
  if kind == "getattr":
    return _reply(code, getattr(target, arguments), objects)
  if kind == "bool":
    return _reply(code, bool(target), objects)
  setattr(target, *arguments)
  return _reply(code, None, objects)


def _reply(code: Code, value, objects) -> dict:
  encoder = wire.Encoder(code.special, objects)
  try:
    encoded = encoder.value(value)
    encoder.refresh(len(objects))
  except RecursionError:
    return {"stop": ["opaque_result", "a result is nested too deeply"]}
  return {"value": encoded, "nodes": encoder.nodes}


def _describe(error: BaseException) -> list:
  """Names of the exception's built-in classes, nearest first; arguments; one line."""
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
