"""Books every call: money reserved, call noted, reply kept, money settled."""

import base64
import dataclasses
import time
from collections.abc import Mapping
from typing import Any

from phi1_jax.llm import prices, reply
from phi1_jax.llm.budget import Budget
from phi1_jax.llm.prices import Price
from phi1_jax.llm.scribe import Books


class DiskError(RuntimeError):
  """The journal cannot be written to, so nothing more may be sent."""


@dataclasses.dataclass(frozen=True)
class Ask:
  """A request that the run wants answered.

  Attributes:
    key: its hash.
    body: what is sent.
    about: prompt_id, prompt_version and sample, for the journal.
    reserve: picodollars of its worst case.
    tokens: how many it takes of a limit on tokens, roughly.
  """

  key: str
  body: Mapping[str, Any]
  about: Mapping[str, Any]
  reserve: int
  tokens: int


@dataclasses.dataclass(frozen=True)
class Call:
  """One sending of a request.

  Attributes:
    number: of the call in this journal.
    key: of the request.
    reserve: picodollars.
    batch: the name of the batch that it is in, or None.
    begun: time.monotonic() of the sending.
  """

  number: int
  key: str
  reserve: int
  batch: str | None
  begun: float = dataclasses.field(default_factory=time.monotonic)


@dataclasses.dataclass(frozen=True)
class Kept:
  """A reply that is on the disk."""

  offset: int
  completion_tokens: int | None


class Ledger:
  """The budget and the journal in step; whatever is interrupted errs to the dear side.

  Args:
    books: the journal's files.
    budget: what is left.
    price: of calls made one by one.
    next_call: number of the next call.
  """

  def __init__(self, books: Books, budget: Budget, price: Price, next_call: int):
    self.books, self.budget = books, budget
    self._prices = {False: price, True: price.batch()}
    self._next = next_call

  def reserve(self, ask: Ask, batch: str | None = None) -> Call:
    """Takes the money for a call that fits; `note` must follow before it is sent."""
    self.budget.reserve(ask.reserve)
    call = Call(self._next, ask.key, ask.reserve, batch)
    self._next += 1
    return call

  async def note(self, call: Call) -> None:
    """Writes down that a call is about to be sent.

    Raises:
      DiskError: it could not be; the money is released.
    """
    row = {"call": call.number, "key": call.key, "reserve": call.reserve}
    try:
      await self.books.sent.append({**row, "batch": call.batch, "time": time.time()})
    except OSError as error:
      self.budget.release(call.reserve)
      raise _disk(self.books, error) from None

  async def replied(self, call: Call, ask: Ask, raw: bytes, whole: bool) -> Kept:
    """Keeps a raw reply, and settles its price.

    Only its usage is looked at before it is on the disk, by a function that cannot
    fail. For a batch, `raw` is the line of its output file.

    Raises:
      DiskError: it could not be written; it is counted at its worst case.
    """
    content = reply.load(raw)
    if call.batch is not None:
      content = reply.completion_of(content)
    usage = reply.usage_of(content) if whole else None
    price = self._prices[call.batch is not None]
    cost = price.cost(usage.prompt, usage.completion) if usage else call.reserve
    row = {
      "key": call.key,
      "call": call.number,
      "picodollars": cost,
      "completion_tokens": usage and usage.completion,
      "usage": usage and dataclasses.asdict(usage),
      "price": dataclasses.asdict(price),
      "whole": whole,
      "batch": call.batch,
      "time": time.time(),
      "seconds": round(time.monotonic() - call.begun, 3),
      **ask.about,
      "request": ask.body,
      **_text(raw),
    }
    try:
      offset = await self.books.replies.append(row)
    except OSError as error:
      self.budget.doubt(call.reserve)
      raise _disk(self.books, error) from None
    self.budget.settle(call.reserve, cost)
    return Kept(offset, usage.completion if usage else None)

  async def failed(
    self, call: Call, reason: str, *, released: bool, status: int | None = None
  ) -> None:
    """Books a call that brought no reply.

    Args:
      call: which.
      reason: what the server or the network said.
      released: it was not billed, for certain.
      status: HTTP status, if there was one.

    Raises:
      DiskError: it could not be written down; until it is, the journal doubts the call.
    """
    if released:
      self.budget.release(call.reserve)
    else:
      self.budget.doubt(call.reserve)
    row = {"call": call.number, "key": call.key, "released": released}
    row |= {"status": status, "reason": reason, "time": time.time()}
    try:
      await self.books.failures.append(row)
    except OSError as error:
      raise _disk(self.books, error) from None

  def complaint(self) -> str | None:
    """Why nothing more may be sent, or None."""
    if self.books.full:
      return f"{self.books.folder}: the disk is full; {_GO_ON}"
    if self.budget.overrun:
      return (
        "the server billed more tokens than a request allows; it may not honour "
        "Llm.length_field, or Llm's prices and model are another's. Spent: "
        f"{prices.text(self.budget.spent)}"
      )
    return None


_GO_ON = "all replies so far are kept: make room and run the same command again"


def _disk(books: Books, error: OSError) -> DiskError:
  return DiskError(f"{books.folder}: cannot be written ({error.strerror}); {_GO_ON}")


def _text(raw: bytes) -> dict[str, str]:
  """Bytes as JSON can hold them, to the last one."""
  try:
    return {"raw": raw.decode()}
  except UnicodeDecodeError:
    return {"raw_base64": base64.b64encode(raw).decode()}
