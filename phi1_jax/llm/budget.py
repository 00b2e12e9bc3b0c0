"""The budget: the worst case of a call is reserved before it is sent.

Money spent, doubtful and reserved never adds up to more than the cap. A reply costs
the usage that the server reports, or its worst case without any. A call that the server
refused with an error status costs nothing. A call that timed out, lost its connection
or got a body that is not a completion may have been billed: it stays reserved.
"""

import dataclasses

from phi1_jax.llm import prices


class BudgetError(RuntimeError):
  """The next request may cost more than is left. Exit code 1, after all is saved."""


@dataclasses.dataclass
class Budget:
  """Money of a journal, in picodollars."""

  cap: int  # the most that may be spent
  spent: int = 0  # cost of all replies
  doubtful: int = 0  # worst case of the calls that may or may not have been billed
  doubtful_calls: int = 0  # number of those
  reserved: int = 0  # worst case of the calls in flight and in open batches
  overrun: bool = False  # a call was billed above its worst case: the bound fails

  @property
  def left(self) -> int:
    """What may still be reserved; negative if the cap was lowered."""
    return self.cap - self.spent - self.doubtful - self.reserved

  def fits(self, amount: int) -> bool:
    """Return whether a call with this worst case may be sent."""
    return amount <= self.left and not self.overrun

  def settle(self, amount: int, cost: int) -> None:
    """Replace the reserve of a call by the cost of its reply."""
    self.reserved -= amount
    self.spent += cost
    self.overrun = self.overrun or cost > amount

  def fail(self, amount: int, *, doubtful: bool) -> None:
    """Release the reserve of a call, or keep it as doubtful."""
    self.reserved -= amount
    self.doubtful += amount * doubtful
    self.doubtful_calls += doubtful

  def figures(self) -> dict[str, str]:
    """Return the money as text, for a progress bar."""
    found = {"spent": prices.text(self.spent), "left": prices.text(max(0, self.left))}
    if self.doubtful_calls:
      doubt = f"{prices.text(self.doubtful)} ({self.doubtful_calls} calls)"
      found["in doubt"] = doubt
    return found

  def exhausted(self, need: int, more: int) -> BudgetError:
    """Return the error for a request that does not fit, with the flag to go on.

    Args:
      need: worst case of the request.
      more: likely cost of all requests that are left.
    """
    figures = self.figures()
    doubt = f" and {figures['in doubt']} in doubt" if self.doubtful_calls else ""
    enough = prices.round_up(self.spent + self.doubtful + need + more)
    return BudgetError(
      f"Llm.budget_usd: spent {prices.text(self.spent)}{doubt} of "
      f"{prices.text(self.cap)}, the next request may cost {prices.text(need)}\n"
      f"to go on, run the same command with --gin.Llm.budget_usd={enough}; nothing is "
      "paid for twice"
    )


@dataclasses.dataclass(frozen=True)
class Progress:
  """State of `Client.ask`."""

  done: int  # outcomes so far
  total: int | None  # number of requests; None if unknown
  budget: Budget  # the money of the whole journal
  note: str = ""  # the last message, such as the state of a batch


@dataclasses.dataclass(frozen=True)
class Estimate:
  """Cost of requests before any is sent, in picodollars.

  Attributes:
    requests: number of different requests.
    to_send: of these, the ones that are not in the journal or in an open batch.
    expected: their cost with a token for every 4 bytes of the prompt, and the mean
      tokens of the journal's replies, or half of the limit.
    worst: a bound on their cost in one run: a token for every byte, all tokens of the
      limit, every remedy for a bad reply, and every attempt lost but billed.
    budget: the money of the journal.
  """

  requests: int
  to_send: int
  expected: int
  worst: int
  budget: Budget

  def text(self, number: str = "the number of requests") -> str:
    """Return two lines for people; `number` names what decides how many requests."""
    budget, enough = self.budget, ""
    spent = budget.spent + budget.doubtful
    if self.expected > budget.left:
      least = prices.round_up(spent + self.expected)
      enough = (
        f"; that is not enough: give --gin.Llm.budget_usd={least} or lower {number}"
      )
    return (
      f"{self.requests:,} requests, {self.requests - self.to_send:,} already paid, "
      f"{self.to_send:,} to send: about {prices.text(self.expected)}; at most "
      f"{prices.text(self.worst)}, if every attempt fails and is billed\n"
      f"spent so far {prices.text(spent)} of {prices.text(budget.cap)}, "
      f"{prices.text(max(0, budget.left))} left{enough}"
    )
