"""State shared by the tasks of a sender: budget, journal, messages to the run."""

import asyncio
import contextlib
import dataclasses
import json
import logging
import sqlite3
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from phi1_jax.llm import journal, prices, reply
from phi1_jax.llm.config import LlmConfig
from phi1_jax.llm.endpoint import Failure, Verdict
from phi1_jax.llm.journal import Call, Journal, Statement, Writer

# Why a sender stops; the run raises InputError, BudgetError or RequestError.
INPUT, BUDGET, FAILED = "input", "budget", "failed"
_KEPT = "all replies so far are kept"
_SPARE, _SPARE_PER_REPLY = 1 << 20, 1 << 16  # bytes of disk, see Writer
log = logging.getLogger(__name__)


class StoppedError(RuntimeError):
  """Leaves a task after `Session.stop`."""


class Session:
  """Runs tasks, pays for calls, writes them down, and tells the run.

  Args:
    past: the journal, whose folder this process has to itself.
    send: sends a message to the run.
    ended: set when nothing more is to be sent: the run has ended, or the work.

  Attributes:
    budget: the money of the journal.
    opened: batches of this endpoint that earlier runs left open.
    changed: set when a task has ended or money was released.
    stopped: the message that says why the work ended, if it did.
  """

  def __init__(
    self,
    config: LlmConfig,
    past: Journal,
    send: Callable[..., None],
    ended: asyncio.Event,
  ):
    self.config, self._send, self.ended = config, send, ended
    price = prices.find(config)
    self._prices = {False: price, True: price.batch()}
    self._next = past.next_call()
    self.budget = past.budget(prices.picodollars(config.budget_usd))
    self.writer = Writer(past.path, _SPARE + _SPARE_PER_REPLY * config.concurrency)
    self.opened = past.open_batches(config.base_url.rstrip("/"))
    here = sum(call.reserve for batch in self.opened for call in batch.calls.values())
    self._elsewhere = self.budget.reserved - here  # in batches of other endpoints
    self.changed = asyncio.Event()
    self.stopped: dict[str, Any] = {}
    self._tasks: set[asyncio.Task[None]] = set()

  @property
  def stopping(self) -> bool:
    """Whether nothing more is to be sent."""
    return self.ended.is_set()

  @property
  def settling(self) -> bool:
    """Whether calls that are reserved for may still cost less."""
    return self.budget.reserved > self._elsewhere

  def tell(self, **message: Any) -> None:
    """Send the run a message, with the money."""
    self._send(**message, budget=dataclasses.asdict(self.budget))

  def give_up(self, key: str, text: str, *, fatal: bool = False) -> None:
    """Tell the run that a request gets no reply; if `fatal`, that it has to stop."""
    self.tell(failed=key, text=text, fatal=fatal)

  def stop(self, kind: str, text: str = "", need: int = 0) -> None:
    """End the work for a reason; the first counts. BUDGET needs so many picodollars."""
    self.stopped = self.stopped or {"stop": kind, "text": text, "need": need}
    self.ended.set()
    self.changed.set()

  def stop_for(self, failure: Failure, text: str) -> None:
    """End the work because no request would be answered."""
    if failure.verdict is Verdict.NO_MONEY:
      text += "\nthe account has no money left; nothing is lost, run the same command "
      self.stop(FAILED, text + "again when it has")
    else:
      model = self.config.model
      text += f"\ncheck OPENAI_API_KEY, Llm.base_url and Llm.model ({model})"
      self.stop(INPUT, text)

  def spawn(self, work: Coroutine[None, None, None]) -> None:
    """Start a task; an exception in it ends the work."""
    task = asyncio.create_task(self._guard(work))
    self._tasks.add(task)
    task.add_done_callback(self._tasks.discard)

  async def _guard(self, work: Coroutine[None, None, None]) -> None:
    try:
      await work
    except StoppedError:
      pass
    except (sqlite3.Error, OSError) as error:
      text = f"{self.config.journal}: cannot be written ({error}); {_KEPT}"
      self.stop(FAILED, text)
    except Exception as error:  # a bug, or an answer that nobody thought of
      log.exception("in a task of the sender")
      text = f"cannot go on ({type(error).__name__}: {str(error)[:200]})"
      self.stop(FAILED, f"{text}\n{_KEPT}")
    self.changed.set()

  async def finish(self) -> None:
    """Wait for all tasks, and tell the run why the work ended."""
    while self._tasks:
      await asyncio.wait(self._tasks)
    self.tell(**self.stopped)
    self.writer.close()

  async def wait(self, seconds: float | None) -> None:
    """Wait for a change, for the end of the work, or so long."""
    self.changed.clear()
    if not self.stopping:
      with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(self.changed.wait(), seconds)

  async def sleep(self, seconds: float) -> None:
    """Wait so long, or until the end of the work."""
    with contextlib.suppress(TimeoutError):
      await asyncio.wait_for(self.ended.wait(), seconds)

  def reserve(self, call: Call, batch: str | None = None) -> Call:
    """Reserve the money of a call that fits; `note` it before it is sent."""
    self.budget.reserved += call.reserve
    self._next += 1
    return dataclasses.replace(call, number=self._next - 1, batch=batch)

  async def note(self, *calls: Call, batch: Iterable[Statement] = ()) -> None:
    """Commit calls that are about to be sent, and the batch that they are part of."""
    await self.writer.write(*batch, *map(journal.sent, calls))

  async def replied(self, call: Call, raw: bytes) -> None:
    """Commit a reply, or for a batch the line of its output file; settle the cost."""
    in_batch = call.batch is not None
    usage, price = reply.usage_of(reply.load(raw, in_batch)), self._prices[in_batch]
    cost = price.cost(*usage) if usage else call.reserve
    prompt, completion = usage or (None, None)
    columns = {"cost": cost, "price": json.dumps(dataclasses.asdict(price))}
    columns |= {"prompt_tokens": prompt, "completion_tokens": completion, "raw": raw}
    await self.writer.write(journal.settle(call.number, "reply", **columns))
    self.budget.settle(call.reserve, cost)
    self._check()
    self.tell(reply=call.key)

  async def failed(self, calls: Iterable[Call], failure: Failure) -> None:
    """Commit that calls brought no reply."""
    calls = list(calls)
    outcome = "doubtful" if failure.doubtful else "released"
    columns = {"status": failure.status, "reason": failure.text}
    await self.writer.write(
      *(journal.settle(call.number, outcome, **columns) for call in calls)
    )
    for call in calls:
      self.budget.fail(call.reserve, doubtful=failure.doubtful)
    self._check()

  def _check(self) -> None:
    """End the work if no more calls may be paid for."""
    if self.writer.full:
      text = f"{self.config.journal}: the disk is full; {_KEPT}: make room"
      self.stop(FAILED, f"{text} and run the same command again")
    if self.budget.overrun:
      self.stop(
        FAILED,
        "the server billed more tokens than a request allows; it may not honour "
        "Llm.length_field, or Llm's prices and model are another's. Spent: "
        f"{prices.text(self.budget.spent)}",
      )
