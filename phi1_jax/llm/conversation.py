"""What is done about a reply that cannot be used: at most one of each remedy.

No request is ever sent twice in the same words. A reply that was cut off by its length
is asked for with twice as many tokens; one that the parser refuses is shown to the
model with what is wrong. Both are requests of their own, with keys of their own, so a
rerun finds their replies in the journal and takes the same decisions.
"""

import dataclasses
from collections.abc import Callable
from typing import Generic, TypeVar

from phi1_jax import InputError
from phi1_jax.llm.reply import Reply, UnreadableError
from phi1_jax.llm.request import Message, Request, clean

T = TypeVar("T")
_QUOTED = 16_000  # characters of a bad reply that are shown to the model
_SAID = 200  # characters of an exception's message that are
# What a parser that did not think of everything raises because of a reply's text.
_SURPRISES = (
  ValueError,
  ArithmeticError,
  RecursionError,
  MemoryError,
  TypeError,
  LookupError,
  AttributeError,
  SyntaxError,
)


class Malformed(ValueError):
  """Raised by a parser for a reply that it cannot use; the message tells the model."""


@dataclasses.dataclass(frozen=True)
class Answered(Generic[T]):
  """A request and what came of it.

  Attributes:
    request: as it was asked.
    value: what the parser made of the reply.
    reply: the reply it was made of; its key is that of the last request.
  """

  request: Request
  value: T
  reply: Reply


@dataclasses.dataclass(frozen=True)
class Failed:
  """A request that has no usable reply.

  Attributes:
    request: as it was asked.
    reason: why; the same on every rerun, unless the server refused the request.
    key: of the last reply, or of the request if there was none.
  """

  request: Request
  reason: str
  key: str


@dataclasses.dataclass(frozen=True)
class Turn:
  """A request to be sent, and what led to it.

  Attributes:
    origin: the request as it was asked.
    request: what to send now.
    longer: it may take twice the tokens, as the reply before was cut off.
    corrected: it tells the model what was wrong.
    cut: the reply that was cut off.
  """

  origin: Request
  request: Request
  longer: bool = False
  corrected: bool = False
  cut: Reply | None = None


def respond(
  turn: Turn, key: str, read: Callable[[], Reply], parse: Callable[[str], T]
) -> Answered[T] | Failed | Turn:
  """The outcome of a turn whose reply is in the journal, or the next turn.

  Args:
    turn: what was sent.
    key: of its request.
    read: gives the reply, or raises UnreadableError.
    parse: raises Malformed for a text that it cannot use. What else it raises because
      of a text means the same, as the reply would stop every rerun otherwise; only
      InputError, which is never a reply's fault, goes on.
  """
  try:
    reply = read()
  except UnreadableError as error:
    return _correct(turn, key, "", f"it cannot be read: {error}")
  if reply.refusal is not None:
    return Failed(turn.origin, f"refused: {reply.refusal[:200]}", key)
  if reply.finish == "content_filter":
    return Failed(turn.origin, "ended by the server's content filter", key)
  if reply.finish == "length" and not turn.longer:
    request = turn.request
    request = dataclasses.replace(request, max_tokens=2 * request.max_tokens)
    return dataclasses.replace(turn, request=request, longer=True, cut=reply)
  try:
    return Answered(turn.origin, _parsed(parse, reply.text), reply)
  except Malformed as error:
    return _correct(turn, key, reply.text, clean(str(error)))


def refused(
  turn: Turn, key: str, reason: str, parse: Callable[[str], T]
) -> Answered[T] | Failed:
  """The outcome of a turn that the server refuses, such as for too many tokens."""
  if turn.cut is not None:
    try:
      return Answered(turn.origin, _parsed(parse, turn.cut.text), turn.cut)
    except Malformed as error:
      why = clean(str(error))
      reason = f"cut off after {turn.cut.finish}: {why}; then {reason}"
  return Failed(turn.origin, reason, key)


def _parsed(parse: Callable[[str], T], text: str) -> T:
  """What the parser makes of a text; whatever it stumbles over is Malformed."""
  try:
    return parse(text)
  except (Malformed, InputError):
    raise
  except (RecursionError, MemoryError) as error:
    # Their messages depend on the stack and the machine, and what is said to the model
    # decides the key of the next reply.
    raise Malformed(type(error).__name__) from error
  except _SURPRISES as error:
    raise Malformed(f"{type(error).__name__}: {str(error)[:_SAID]}") from error


def _correct(turn: Turn, key: str, text: str, why: str) -> Failed | Turn:
  if turn.corrected:
    return Failed(turn.origin, f"malformed, and again when corrected: {why}", key)
  note = (
    f"Your reply could not be used: {why}. Answer again, in full, with this corrected."
  )
  messages = turn.request.messages
  if text.strip():
    quoted = Message("assistant", text[:_QUOTED])
    messages = (*messages, quoted, Message("user", note))
  else:  # two turns of one speaker in a row are refused by some servers
    last = messages[-1]
    last = Message(last.role, f"{last.content}\n\n{note}")
    messages = (*messages[:-1], last)
  request = dataclasses.replace(turn.request, messages=messages)
  return dataclasses.replace(turn, request=request, corrected=True, cut=None)
