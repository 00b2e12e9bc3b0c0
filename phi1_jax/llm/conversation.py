"""What to do about a reply that cannot be used: each remedy at most once.

A reply that was cut off is requested again with twice the tokens. A reply that the
parser refuses is shown to the model with the reason. Both are requests with keys of
their own, so a rerun finds their replies in the journal and decides the same.
"""

import dataclasses
from collections.abc import Callable, Generator, Iterator
from typing import Generic, TypeVar

from phi1_jax import InputError
from phi1_jax.llm.reply import Reply
from phi1_jax.llm.request import Message, Request, clean

T = TypeVar("T")
# Bytes of a bad reply that are shown to the model: at most, and for each of its tokens.
_QUOTED, _QUOTED_PER_TOKEN = 16_000, 8
_REASON = 500  # bytes of the reason
# What a parser may raise because of a reply's text.
_PARSE_ERRORS = (ValueError, ArithmeticError, TypeError, LookupError)
_PARSE_ERRORS += (AttributeError, SyntaxError)


class Malformed(ValueError):
  """Raised by a parser for a reply that it cannot use; the model reads the message."""


@dataclasses.dataclass(frozen=True)
class Answered(Generic[T]):
  """A request with a usable reply."""

  request: Request  # the original one
  value: T  # the parser's result
  reply: Reply  # the one that was parsed; its key is that of the last request


@dataclasses.dataclass(frozen=True)
class Failed:
  """A request without a usable reply."""

  request: Request  # the original one
  reason: str  # the same on every rerun, unless the server refused the request
  key: str  # of the last request


def converse(
  origin: Request, parse: Callable[[str], T]
) -> Generator[Request, Reply, Answered[T] | Failed]:
  """Yield the requests to send, each after the reply to the last; return the outcome.

  Args:
    origin: the first request.
    parse: raises Malformed for a text that it cannot use. Other exceptions because of
      the text count as Malformed, but InputError is passed on.
  """
  request, corrected = origin, False
  while True:
    reply = yield request
    if reply.refusal is not None:
      return Failed(origin, f"refused: {reply.refusal[:200]}", reply.key)
    if reply.finish == "content_filter":
      return Failed(origin, "ended by the server's content filter", reply.key)
    if reply.finish == "length":
      if request.doubled:
        return Failed(origin, "cut off, also with twice the tokens", reply.key)
      request = dataclasses.replace(request, doubled=True)
      continue
    try:
      return Answered(origin, parse(reply.text), reply)
    except InputError:
      raise
    except Malformed as error:
      reason = clean(str(error))
    except (RecursionError, MemoryError) as error:
      reason = type(error).__name__  # the message depends on the machine
    except _PARSE_ERRORS as error:
      reason = clean(f"{type(error).__name__}: {str(error)[:200]}")
    if corrected:
      why = f"malformed, and again when corrected: {reason}"
      return Failed(origin, why, reply.key)
    request, corrected = _corrected(request, reply.text, reason), True


def worst_turns(request: Request) -> Iterator[Request]:
  """Yield requests that cost at least as much as those that one request leads to."""
  doubled = dataclasses.replace(request, doubled=True)
  corrected = _corrected(doubled, "x" * _QUOTED, "x" * _REASON)
  yield from (request, corrected, corrected)


def _corrected(request: Request, text: str, reason: str) -> Request:
  most = _QUOTED_PER_TOKEN * request.max_tokens * (2 if request.doubled else 1)
  text, reason = _cut(text, min(most, _QUOTED)), _cut(reason, _REASON)
  note = (
    f"Your reply could not be used: {reason}. Answer again, in full, with this "
    "corrected."
  )
  *before, last = request.messages
  after = [Message(last.role, f"{last.content}\n\n{note}")]
  if text.strip():  # else some servers refuse two turns of one speaker in a row
    after = [last, Message("assistant", text), Message("user", note)]
  return dataclasses.replace(request, messages=(*before, *after))


def _cut(text: str, most: int) -> str:
  return text.encode()[:most].decode(errors="ignore")
