"""How a run that asks a model stands: what is done, what it costs, how long yet."""

import dataclasses

from phi1_jax.llm import prices


@dataclasses.dataclass(frozen=True)
class Snapshot:
  """How a run stands. Money is in picodollars and counts the whole journal.

  Attributes:
    done: requests with an outcome that were handed over, counted anew by each `ask`.
    total: all requests of this `ask`; None if nobody knows.
    spent: for all replies so far.
    left: what may still be spent; what is under way is reserved, so not in it.
    doubtful: worst case of calls that may or may not have been billed.
    doubtful_calls: how many those are.
    rate: replies per second of this `ask`, those of the journal left out.
    eta_seconds: until the rest is done at this rate; None if nobody knows.
    note: the last thing to be told, such as how a batch stands.
  """

  done: int
  total: int | None
  spent: int
  left: int
  doubtful: int
  doubtful_calls: int
  rate: float
  eta_seconds: float | None
  note: str = ""

  def figures(self) -> dict[str, str]:
    """The money as text, for a line of progress."""
    found = {"spent": prices.text(self.spent), "left": prices.text(max(0, self.left))}
    if self.doubtful_calls:
      doubt = f"{prices.text(self.doubtful)} ({self.doubtful_calls} calls)"
      found["in doubt"] = doubt
    return found


@dataclasses.dataclass(frozen=True)
class Bill:
  """What a whole journal has cost, in picodollars; what is under way is not in it.

  Attributes:
    spent: for all replies.
    doubtful: worst case of calls that may or may not have been billed.
    doubtful_calls: how many those are.
  """

  spent: int
  doubtful: int
  doubtful_calls: int


@dataclasses.dataclass(frozen=True)
class Estimate:
  """What requests would cost, before any is sent. Money is in picodollars.

  Attributes:
    requests: how many there are, each counted once.
    already_paid: of these, the ones in the journal or in a batch under way.
    to_send: the others.
    expected: for those: a token for every 4 bytes of the prompt, and as many tokens of
      reply as the journal's replies have on average, or half of max_tokens.
    worst: for those: a token for every byte, and all of max_tokens. Remedies for bad
      replies come on top; the budget holds for all together.
    spent: what the journal has cost so far, calls in doubt included.
    cap: the budget.
  """

  requests: int
  already_paid: int
  to_send: int
  expected: int
  worst: int
  spent: int
  cap: int

  def text(self) -> str:
    """Two lines for people."""
    left = prices.text(max(0, self.cap - self.spent))
    return (
      f"{self.requests:,} requests, {self.already_paid:,} already paid, "
      f"{self.to_send:,} to send: about {prices.text(self.expected)}, "
      f"at worst {prices.text(self.worst)}\n"
      f"spent so far {prices.text(self.spent)} of {prices.text(self.cap)}, "
      f"{left} left"
      + ("; that may not be enough" if self.worst > self.cap - self.spent else "")
    )
