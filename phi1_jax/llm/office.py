"""What the parts of the courier share: their order, whom to tell, when to stop."""

import asyncio
import dataclasses
from collections.abc import Callable
from typing import Any

from phi1_jax.llm.budget import Budget

# How a courier stops; the run raises InputError, BudgetError or RequestError.
INPUT, BUDGET, FAILED = "input", "budget", "failed"


@dataclasses.dataclass(frozen=True)
class Order:
  """What a courier is told first.

  Attributes:
    folder: the journal, whose lock the courier inherits.
    pid: of the run.
    config: the fields of LlmConfig.
    price: the fields of Price, for calls made one by one.
    cap: picodollars.
    account: the fields of Account, as the run read them.
  """

  folder: str
  pid: int
  config: dict[str, Any]
  price: dict[str, Any]
  cap: int
  account: dict[str, Any]


class Office:
  """Tells the run what happens, and the workers when to stop.

  Args:
    budget: whose state goes with every message.
    write: sends one message to the run.

  Attributes:
    stopped: the message that says why, once nothing more may be sent.
  """

  def __init__(self, budget: Budget, write: Callable[[dict[str, Any]], None]):
    self._budget, self._write = budget, write
    self._ended = asyncio.Event()
    self.stopped: dict[str, Any] | None = None

  @property
  def stopping(self) -> bool:
    """Whether nothing more is to be sent."""
    return self._ended.is_set()

  def tell(self, **message: Any) -> None:
    """Tells the run something, and how the money stands."""
    budget = self._budget
    money = [budget.spent, budget.doubtful, budget.reserved, budget.doubtful_calls]
    self._write({**message, "money": money})

  def stop(self, kind: str, text: str, **more: Any) -> None:
    """Ends the work for a reason, of which the first counts."""
    self.stopped = self.stopped or {"stop": kind, "text": text, **more}
    self._ended.set()

  def close(self) -> None:
    """Ends the work because the run has ended."""
    self._ended.set()

  async def wait(self, seconds: float | None, event: asyncio.Event) -> None:
    """Waits for an event, so many seconds, or the end, whichever is first."""
    waits = [asyncio.create_task(e.wait()) for e in (event, self._ended)]
    try:
      await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
      for wait in waits:
        wait.cancel()

  async def sleep(self, seconds: float) -> None:
    """Waits so long, or until the end."""
    await self.wait(seconds, self._ended)
