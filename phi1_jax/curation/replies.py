"""Replies of an LLM to a stage's requests, counted for stats and cards."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from phi1_jax.llm import prices
from phi1_jax.llm.budget import Estimate
from phi1_jax.llm.client import Client
from phi1_jax.llm.config import LlmConfig
from phi1_jax.llm.conversation import Answered, Failed
from phi1_jax.llm.request import Request

T = TypeVar("T")


class Replies:
  """Sends requests with a `Client`, and counts the replies that were used."""

  def __init__(self, config: LlmConfig, client: Client):
    self.model = config.model
    self._config, self._client = config, client
    self._replies = self._tokens = self._picodollars = self._failed = 0

  def ask(
    self, requests: Iterable[Request], parse: Callable[[str], T], total: int
  ) -> Iterator[Answered[T] | Failed]:
    """Yield the outcomes of `Client.ask`, counted."""
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
    """Return the cost of requests; send nothing."""
    return self._client.estimate(requests)

  def identity(self) -> dict[str, Any]:
    """Return the settings that decide the replies beside the requests."""
    return {"model": self.model, "extra": self._config.extra}

  def facts(self) -> dict[str, Any]:
    """Return the model, and the cost of the replies used and of all others."""
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
