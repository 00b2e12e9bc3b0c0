"""A cap on money that holds: the worst case is reserved before anything is sent.

What was paid, what may have been paid and what may yet be paid never add up to more
than the cap. A call that brought a reply is settled at the usage the server reports, at
its worst case if it reports none; a reply cut off or garbled is paid for like any
other. A call refused with an error status is released, as providers bill none of those.
A call that timed out or lost its connection, and one given up by a gateway (504, 524),
may have been computed and billed without our hearing of it: it stays reserved for ever.
"""

import dataclasses
from collections.abc import Sequence

from phi1_jax.llm import prices


class BudgetError(RuntimeError):
  """The next request might cost more than is left. Exit code 1, after all is saved."""


@dataclasses.dataclass
class Budget:
  """Accounts in picodollars.

  Attributes:
    cap: the most that may be spent.
    spent: what replies cost.
    doubtful: worst case of the calls that may or may not have been billed.
    doubtful_calls: how many those are.
    reserved: worst case of what is under way.
    overrun: a call was billed above its worst case, so the bound cannot be trusted.
  """

  cap: int
  spent: int = 0
  doubtful: int = 0
  doubtful_calls: int = 0
  reserved: int = 0
  overrun: bool = False

  @property
  def left(self) -> int:
    """What no reserve and no bill takes; negative if the cap was lowered."""
    return self.cap - self.spent - self.doubtful - self.reserved

  def fits(self, amount: int) -> bool:
    """Whether a call with this worst case may be sent."""
    return amount <= self.left and not self.overrun

  def reserve(self, amount: int) -> None:
    """Takes the worst case of a call that is about to be sent."""
    if not self.fits(amount):
      raise BudgetError(f"{prices.text(amount)} do not fit")
    self.reserved += amount

  def settle(self, amount: int, cost: int) -> None:
    """Turns a reserve into the cost of its reply."""
    self.reserved -= amount
    self.spent += cost
    self.overrun = self.overrun or cost > amount

  def release(self, amount: int) -> None:
    """Gives the reserve of a call back that was not billed."""
    self.reserved -= amount

  def doubt(self, amount: int) -> None:
    """Keeps the reserve of a call that may have been billed."""
    self.reserved -= amount
    self.doubtful += amount
    self.doubtful_calls += 1


def exhausted(
  cap: int, money: Sequence[int], need: int, mean: int, left: int | None
) -> str:
  """What to say when the next request does not fit, and how to go on.

  Args:
    cap: picodollars, as everything.
    money: spent, doubtful, reserved, and the number of doubtful calls.
    need: the worst case of the next request.
    mean: what a reply cost on average.
    left: how many requests have no outcome yet; None if nobody knows.
  """
  spent, doubtful, _, calls = money
  doubt = f" and {prices.text(doubtful)} of {calls} calls in doubt" if calls else ""
  open_requests = "" if left is None else f"; {left:,} requests are left"
  more = need + (mean * left * 5 // 4 if left is not None else spent)
  return (
    f"Llm.budget_usd: spent {prices.text(spent)}{doubt} of {prices.text(cap)}, the "
    f"next request may cost {prices.text(need)}{open_requests}\nto go on, run the same "
    f"command with --gin.Llm.budget_usd={prices.round_up(spent + doubtful + more)}; "
    "nothing is paid for twice"
  )
