"""An LLM as the stages use it: who it is, what it answers, what that cost."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from phi1_jax.llm import prices
from phi1_jax.llm.budget import Estimate
from phi1_jax.llm.client import Client
from phi1_jax.llm.config import LlmConfig
from phi1_jax.llm.conversation import Answered, Failed
from phi1_jax.llm.request import Request

T = TypeVar("T")


class Desk:
  """Asks through a `Client`, and counts the replies that were used.

  Args:
    config: which model.
    client: asks it.

  Attributes:
    model: the name that the endpoint knows it by.
  """

  def __init__(self, config: LlmConfig, client: Client):
    self.model = config.model
    self._config, self._client = config, client
    self._replies = self._tokens = self._picodollars = self._failed = 0

  def ask(
    self, requests: Iterable[Request], parse: Callable[[str], T], total: int
  ) -> Iterator[Answered[T] | Failed]:
    """`Client.ask`, counted."""
    for outcome in self._client.ask(requests, parse, total):
      if isinstance(outcome, Answered):
        self._replies += 1
        self._picodollars += outcome.reply.picodollars
        usage = outcome.reply.usage
        self._tokens += usage.prompt + usage.completion if usage else 0
      else:
        self._failed += 1
      yield outcome

  def estimate(self, requests: Iterable[Request]) -> Estimate:
    """What they would cost; sends nothing."""
    return self._client.estimate(requests)

  def identity(self) -> dict[str, Any]:
    """What decides the answers beside the requests."""
    return {"model": self.model, "extra": self._config.extra}

  def facts(self) -> dict[str, Any]:
    """The model, and what its answers cost, alone and with all that was of no use."""
    budget = self._client.budget
    return {
      "models": [self.model],
      "cost": {
        "replies used": f"{self._replies:,}",
        "requests without a usable reply": f"{self._failed:,}",
        "tokens of the replies used and their prompts": f"{self._tokens:,}",
        "paid for the replies used": prices.text(self._picodollars),
        "journal with every reply": self._config.journal,
        "paid for everything in the journal so far": prices.text(budget.spent),
        "counted for calls in doubt": prices.text(budget.doubtful),
      },
    }
