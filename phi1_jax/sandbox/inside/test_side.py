"""T: executes the trusted tests; stand-ins for the code's names send requests to U.

What comes back from U is data: atoms and containers that wire.py built, or one of the
stand-ins below. A stand-in for an object has no operators, so that no `__eq__` of the
code ever takes part in a comparison.
"""

from __future__ import annotations

import ast
import builtins
import collections
import collections.abc
import contextlib
import functools
import importlib
import itertools
import os
import re
import secrets
import socket
import sys
import types

from . import asserts, code_side, differential, wire
from .asserts import Stop

_SINGLE_ITEMS, _MOST_ITEMS = 64, 1000  # of an iterator: one by one, then in batches
_MOST_PASSED = 100_000  # items of an iterator that the tests pass
_METHOD = re.compile(
  r"__(?!class__|dict__|del__|getattribute__|setattr__|new__)[a-z_]+__", re.ASCII
)
_ADVICE = 'set in_process=True, in a file of problems "in_process": true'
_MESSAGE_OF_STOP_ITERATION = "the code raised StopIteration"


class Channel:
  """T's end of the channel to U.

  Attributes:
    stopped: the first Stop; it holds even if a test swallowed it.
  """

  def __init__(self, requests: int, replies: int):
    self._requests, self._replies = requests, replies
    self._held: list = []  # what the code holds, too
    self._held_contents: list = []  # of these, when both sides agreed
    self._stand_ins: dict = {}
    self.stopped: Stop | None = None

  def stop(self, outcome: str, detail: str) -> Stop:
    """Return the Stop to raise: the first one of this program."""
    self.stopped = self.stopped or Stop(outcome, detail)
    return self.stopped

  def await_code(self) -> None:
    """Return when U is ready for code; a Stop that is retried if it never is."""
    with contextlib.suppress(EOFError, OSError, ValueError):
      if wire.receive(self._replies) == code_side.READY:
        return
    raise self.stop("worker_lost", "the code's process could not be set up")

  def ask(self, *messages, objects=()) -> dict:
    """Send a request and return U's reply; raise the exception of U's code.

    Args:
      messages: the request.
      objects: of the request; what the code did before it raised is done to them.
    """
    if self.stopped:
      raise self.stopped
    try:
      for message in messages:
        wire.send(self._requests, message)
      reply = wire.receive(self._replies)
    except wire.TooLarge as error:
      raise self.stop("output_limit", f"a message of {error}") from None
    except (EOFError, OSError):
      raise self.stop("lost", "the code's process is gone") from None
    except ValueError:
      raise self.stop("opaque_result", "an answer that is not JSON") from None
    if not isinstance(reply, dict):
      raise self.stop("opaque_result", "an answer that is not an object")
    if "stop" in reply:
      outcome, detail = map(str, reply["stop"])
      if outcome not in ("syntax_error", "output_limit"):
        outcome = "opaque_result"
      raise self.stop(outcome, detail[: asserts.DETAIL_LENGTH])
    if "raised" in reply:
      if "nodes" in reply:
        self.decode(reply, objects)
      raise _exception(reply["raised"])
    return reply

  def request(self, do: str, handle: int, arguments):
    """Have U do something with one of its objects; arguments are copied."""
    return self._request(do, handle, arguments)[0]

  def same(self, left, right) -> bool:
    """Return `left is right`; a Stop where copies do not allow to tell."""
    kinds = (int, float, complex, str, bytes, tuple, frozenset, range)
    if left is right or type(left) is not type(right) or type(left) not in kinds:
      return left is right
    if left == right or left != left:
      raise self.stop(
        "unsupported",
        f"the tests compare equal values of type {type(left).__name__} by identity; "
        + _ADVICE,
      )
    return False

  def take(self, handle: int, most: int):
    """Return the next items of an iterator of U, and the exception behind, if known."""
    items, reply = self._request("next", handle, most)
    then = reply.get("then")
    if type(items) is not list or len(items) > most or not (items or then):
      raise self.stop("opaque_result", "a malformed reply with an iterator's items")
    if isinstance(then, dict) and then.get("end") is True:
      then = StopIteration()
    elif then is not None:
      then = _exception(then.get("raised") if isinstance(then, dict) else None)
    return items, then

  def _request(self, do: str, handle: int, arguments):
    encoder = wire.Encoder(self._special, self._held)
    try:
      encoder.refresh(self._held_contents)
      encoded = encoder.value(arguments)
    except wire.Opaque as error:
      raise self.stop("unsupported", str(error)) from None
    request = {"do": do, "handle": handle, "arguments": encoded, "nodes": encoder.nodes}
    reply = self.ask(request, objects=encoder.objects)
    return self.decode(reply, encoder.objects), reply

  def decode(self, reply: dict, objects=()):
    """Return the value of a reply; apply U's changes to the request's objects."""
    try:
      decoder = wire.Decoder(reply["nodes"], self._revive, objects)
      value, objects = decoder.value(reply["value"]), decoder.objects()
      self._held = [objects[i] for i in reply["held"]]
      self._held_contents = [wire.contents(x) for x in self._held]
      return value
    except (Exception, RecursionError) as error:
      if isinstance(error, MemoryError):
        raise
      raise self.stop(
        "opaque_result", f"not plain data: {asserts.one_line(error)}"
      ) from None

  def _special(self, value) -> list:
    remote = _remote(value) if isinstance(value, (Remote, Derived)) else None
    if remote is not None and remote._channel is self:
      return ["remote", remote._handle]
    if isinstance(value, Remote) or getattr(builtins, _name(value), None) is not value:
      # How far the code reads it shows only where the tests keep it.
      temporary = sys.getrefcount(value) <= _references_to_a_temporary()
      if isinstance(value, collections.abc.Iterator) and temporary:
        items = list(itertools.islice(value, _MOST_PASSED + 1))
        plain = (int, str, float, bool, type(None))
        if len(items) <= _MOST_PASSED and all(type(x) in plain for x in items):
          return ["iterator", items]
      raise self.stop(
        "unsupported",
        f"the tests pass a {type(value).__name__}, which cannot leave their process; "
        + _ADVICE,
      )
    return ["builtin", value.__name__]

  def _revive(self, tag: str, payload):
    if tag == "derived":
      node, base, own, arguments = payload
      remote = self._stand_in(*node)
      kind = _derived(remote._name, base, tuple(own))
      value = base.__new__(kind, *arguments)
      vars(value)["__remote__"] = remote
      if base is collections.deque:
        base.__init__(value, *arguments)
      return value
    return self._stand_in(tag, payload)

  def _stand_in(self, tag: str, payload) -> Remote:
    handle, name = payload
    if type(handle) is not int or type(name) is not str:
      raise wire.Opaque(tag)
    if (tag, handle) not in self._stand_ins:
      self._stand_ins[tag, handle] = _STAND_INS[tag](self, handle, name)
    return self._stand_ins[tag, handle]


class Remote:
  """Stands in for something that stays in U."""

  _channel: Channel
  _handle: int
  _name: str

  def __init__(self, channel: Channel, handle: int, name: str):
    vars(self).update(_channel=channel, _handle=handle, _name=name[:80])

  def __repr__(self):
    return f"<{self._name} of the code>"

  def __getattr__(self, name: str):
    if name.startswith("__"):
      raise AttributeError(name)
    return self._channel.request("getattr", self._handle, name)

  def __setattr__(self, name: str, value):
    self._channel.request("setattr", self._handle, (name, value))


class Function(Remote):
  """A function of the code: calling it calls the original in U."""

  def __init__(self, channel: Channel, handle: int, name: str):
    super().__init__(channel, handle, name)
    vars(self).update(__name__=name[:80])

  def __call__(self, *arguments, **keywords):
    """Return or raise what the code's function does."""
    return self._channel.request("call", self._handle, (arguments, keywords))


class _Counting(Channel):
  def _special(self, value):
    raise Stop(str(sys.getrefcount(value)), "")


@functools.cache
def _references_to_a_temporary() -> int:
  """Return the references to an argument in `Channel._special` without the tests'."""
  try:
    return Function(_Counting(-1, -1), 0, "")(iter(()))
  except Stop as counted:
    return int(counted.outcome)


class Iterator(Remote):
  """An iterator of the code.

  The first items are fetched one by one, as lazily as in one process, and later ones in
  batches, which double while U fills them fast.
  """

  _items: collections.deque
  _then: BaseException | None
  _taken: int
  _most: int

  def __init__(self, channel: Channel, handle: int, name: str):
    super().__init__(channel, handle, name)
    vars(self).update(_items=collections.deque(), _then=None, _taken=0, _most=1)

  @property
  def __class__(self):
    return types.GeneratorType if self._name == "generator" else Iterator

  def __iter__(self):
    return self

  def __next__(self):
    if not self._items and self._then is None:
      items, then = self._channel.take(self._handle, self._most)
      taken, most = self._taken + len(items), self._most
      fast = taken >= _SINGLE_ITEMS and len(items) == most
      most = min(2 * most, _MOST_ITEMS) if fast else 1
      vars(self).update(_then=then, _taken=taken, _most=most)
      self._items.extend(items)
    if self._items:
      return self._items.popleft()
    then = self._then
    vars(self).update(_then=None)
    assert then is not None  # `take` returns items or this
    raise then

  def __getattr__(self, name: str):
    if vars(self).get("_items") or vars(self).get("_then"):
      raise self._channel.stop("unsupported", f"{name} of an iterator read ahead")
    return super().__getattr__(name)


class Object(Remote):
  """An instance of a class of the code; it has no operators.

  Its attributes, its truth, its length and its items are as if functions of the code
  had returned them.
  """

  def __bool__(self):
    """Its truth, as if the code had returned that, e.g. of a `re.Match`."""
    return bool(self._channel.request("bool", self._handle, None))

  def __len__(self):
    return int(self._channel.request("len", self._handle, None))

  def __iter__(self):
    items = self._channel.request("iter", self._handle, None)
    if not isinstance(items, Iterator):
      raise self._channel.stop("opaque_result", "items that cannot be asked for")
    return items


class Callable(Object, Function):
  """A class of the code, or an instance with `__call__`, e.g. a decorator."""


def _remote(value) -> Remote:
  return vars(value)["__remote__"] if isinstance(value, Derived) else value


def _refuse(operator: str):
  def method(self, *_):
    remote = _remote(self)
    raise remote._channel.stop(
      "opaque_result", f"{operator} on {remote!r}, which is not plain data"
    )

  return method


class Derived:
  """An instance of a class of the code that extends a built-in type.

  Its contents are here, and all that the built-in type has works on them. What the
  class overrides is refused, except its text: that, and what the built-in type does
  not have, is asked of the code.
  """

  def __new__(cls, *_, **__):
    """Refuse copies: no object of the code would belong to them."""
    raise Stop("opaque_result", f"a new {cls.__name__}, which the code has to make")

  def __getattr__(self, name: str):
    if name.startswith("__"):
      raise AttributeError(name)
    return getattr(_remote(self), name)

  def __setattr__(self, name: str, value):
    if hasattr(type(self), name):
      _refuse(f"setting {name}")(self)
    setattr(_remote(self), name, value)


def _text_by(method: str):
  def text(self, *arguments):
    remote = _remote(self)
    made = remote._channel.request("getattr", remote._handle, method)(*arguments)
    return made if type(made) is str else _refuse(method)(remote)

  return text


_TEXTS = ("__repr__", "__str__", "__format__")


@functools.lru_cache(maxsize=64)
def _derived(name: str, base: type, own: tuple) -> type:
  """A class whose instances stand for those of a class that extends `base`.

  Args:
    name: of the class.
    base: the built-in type.
    own: special methods that the class defines itself, and what it overrides.
  """
  methods: dict = {}
  for method in own:
    if not method.startswith("__") and hasattr(base, method):
      methods[method] = property(_refuse(method))
    elif not _METHOD.fullmatch(method):
      raise wire.Opaque(f"a {name} with a {method}")
    else:
      methods[method] = _text_by(method) if method in _TEXTS else _refuse(method)
  return type(name, (Derived, base), methods)


_OPERATORS = """
  eq ne lt le gt ge contains getitem add radd sub rsub mul rmul truediv
  rtruediv floordiv rfloordiv mod rmod pow rpow neg pos abs int float index str
  format and rand or ror xor rxor invert round hash
"""
for _operator in _OPERATORS.split():
  setattr(Object, f"__{_operator}__", _refuse(f"__{_operator}__"))

_STAND_INS = {
  "function": Function,
  "iterator": Iterator,
  "object": Object,
  "callable": Callable,
  "class": Callable,
}


def _name(value) -> str:
  name = getattr(value, "__name__", "") if not isinstance(value, Remote) else ""
  return name if isinstance(name, str) else ""


def _exception(described) -> BaseException:
  """Return an exception of U's code as the nearest built-in class."""
  try:
    names, arguments, line = described
    kinds = [getattr(builtins, name) for name in names if name.isidentifier()]
    kind = next(k for k in kinds if issubclass(k, BaseException))
    line = str(line)[: asserts.DETAIL_LENGTH]
    if issubclass(kind, (StopIteration, StopAsyncIteration, GeneratorExit)):
      # These would end a loop of the tests as if all was well.
      kind, arguments = RuntimeError, [_MESSAGE_OF_STOP_ITERATION]
    try:
      error = kind(*arguments)
    except Exception:
      error = RuntimeError(line)
  except Exception:
    error, line = RuntimeError("?"), "an exception that cannot be read"
  vars(error)["line_from_code"] = line
  return error


@functools.lru_cache(maxsize=512)  # many samples of a problem share its tests
def _names(tests: tuple):
  """Return the names that tests take from the code, and those used like modules.

  Builtins are the tests' own, whatever the code calls its functions, unless there is
  no other name: then the code's function is itself called, say, `sum`.
  """
  used, defined, dotted = set(), set(), set()
  for source in tests:
    try:
      tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
      continue  # asserts.run says so
    for node in ast.walk(tree):
      if isinstance(node, ast.Name):
        (used if isinstance(node.ctx, ast.Load) else defined).add(node.id)
      elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        dotted.add(node.value.id)
      elif isinstance(node, ast.arg):
        defined.add(node.arg)
      elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        defined.add(node.name)
      elif isinstance(node, ast.alias):
        defined.add((node.asname or node.name).split(".")[0])
  used.discard(differential.NAME)
  own = {name for name in used if not hasattr(builtins, name)}
  names = own if own - defined else used
  return sorted(names), dotted


def judge(channel: Channel, program: dict, modules) -> dict:
  """Have U execute the code, run the tests, and return the verdict.

  Args:
    channel: to U.
    program: code, tests, in_process.
    modules: names of modules that tests may find imported by the code; they get
      their own, never the code's.
  """
  tests = program["tests"]
  names, dotted = _names(tuple(tests))
  namespace: dict = {"__name__": "tests", "__builtins__": builtins}
  try:
    channel.await_code()
    reply = channel.ask({"do": "load", "code": program["code"], "names": names})
    if program["in_process"]:
      return _judge_in_process(channel, tests, names)
    defined = channel.decode(reply)
    imported = reply["modules"]
  except BaseException as error:
    outcome, detail = asserts.classify(error)
    return {"outcome": outcome, "detail": detail, "failed_test": None}
  for name in names:
    if name in modules and name in dotted and (name in imported or name in defined):
      namespace[name] = importlib.import_module(name)
    elif name in defined:
      namespace[name] = defined[name]
  namespace["__same__"] = channel.same
  verdict = asserts.run(tests, namespace, [n for n in names if n not in namespace])
  if channel.stopped and verdict["outcome"] != channel.stopped.outcome:
    verdict.update(outcome=channel.stopped.outcome, detail=str(channel.stopped))
  return verdict


def _judge_in_process(channel: Channel, tests, names) -> dict:
  """Have U run the tests after the code: weaker, so the verdict is flagged.

  The secret that a pass must come with is sent behind the tests and is read by U only
  when they are through, so that no frame and no object holds it while code runs.
  """
  secret = secrets.token_hex(16)
  reply = channel.ask({"do": "run_tests", "tests": tests, "names": names}, secret)
  verdict = reply["verdict"]
  outcome, failed = str(verdict["outcome"]), verdict["failed_test"]
  if outcome == "passed" and reply["secret"] != secret:
    raise channel.stop("opaque_result", "a pass without its secret")
  return {
    "outcome": outcome,
    "detail": str(verdict["detail"])[: asserts.DETAIL_LENGTH],
    "failed_test": failed if failed in tests or failed is None else str(failed)[:2000],
  }


def serve(programs: int, answers: int, control: socket.socket, modules) -> None:
  """Judge the programs that S announces; return when S is gone.

  Args:
    programs: the worker's input; the program is read here, not by S.
    answers: the worker's output, for what may quote the tests.
    control: S sends one byte and the channel's two descriptors, and gets the outcome.
    modules: see `judge`.
  """
  while True:
    announced, descriptors, _, _ = socket.recv_fds(control, 1, 2)
    if not announced:
      return
    try:
      verdict = judge(Channel(*descriptors), wire.receive(programs), modules)
    except BaseException as error:
      outcome, detail = asserts.classify(error)
      verdict = {"outcome": outcome, "detail": detail, "failed_test": None}
    for descriptor in descriptors:
      os.close(descriptor)
    wire.send(answers, {key: verdict[key] for key in ("detail", "failed_test")})
    wire.send(control.fileno(), {"outcome": verdict["outcome"]})
