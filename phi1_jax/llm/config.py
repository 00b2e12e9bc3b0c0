"""What a run that asks a language model is told."""

import dataclasses
import math
from urllib.parse import urlsplit

from phi1_jax import InputError, storage

APIS = ("online", "batch")
LENGTH_FIELDS = ("max_tokens", "max_completion_tokens")
# OpenAI's limit on one batch; its limit on the size of the file is in batch_files.py.
MOST_IN_A_BATCH = 50_000


@dataclasses.dataclass(frozen=True)
class LlmConfig:
  """One model behind one endpoint, and what may be spent on it (gin name: `Llm`).

  Attributes:
    model: the name that the endpoint knows the model by.
    journal: folder of the raw replies, which are paid for once. Several stages may
      share one; they then share the budget too.
    budget_usd: the most that everything in the journal may cost together, in dollars.
    base_url: such as "http://localhost:8000/v1".
    api: "online" asks one by one; "batch" uses OpenAI's Batch API, at half the price
      and within 24 hours. Both share the journal.
    input_usd_per_million: price of the prompt's tokens; None takes it from the table in
      prices.py. 0.0 suits a server of one's own.
    output_usd_per_million: the same for the tokens of the reply.
    concurrency: the most requests under way at once.
    requests_per_minute: limit of the account; None learns it from the server's
      x-ratelimit headers.
    tokens_per_minute: the same for tokens.
    timeout_seconds: until a request without its whole reply counts as lost. Make it
      long: the provider may bill what was given up here.
    attempts: how often a request is sent that meets a server error, a timeout or a
      broken connection. Being told to slow down (429) is no attempt.
    length_field: how the endpoint calls the most tokens of a reply; OpenAI's reasoning
      models want "max_completion_tokens".
    extra: more fields for every request, such as {"reasoning_effort": "low"}.
    skip_unanswered: yield a failure for a request that got no answer after all
      attempts, rather than stop the run. Whatever is written then depends on the
      server's mood.
    poll_seconds: between two looks at a batch.
    batch_requests: the most requests in one batch.
  """

  model: str
  journal: str
  budget_usd: float
  base_url: str = "https://api.openai.com/v1"
  api: str = "online"
  input_usd_per_million: float | None = None
  output_usd_per_million: float | None = None
  concurrency: int = 32
  requests_per_minute: int | None = None
  tokens_per_minute: int | None = None
  timeout_seconds: float = 600.0
  attempts: int = 6
  length_field: str = "max_tokens"
  extra: dict[str, str | int | float | bool] | None = None
  skip_unanswered: bool = False
  poll_seconds: float = 30.0
  batch_requests: int = MOST_IN_A_BATCH

  def __post_init__(self):
    """Refuses what cannot work, by name."""
    address = urlsplit(self.base_url)
    if address.scheme not in ("http", "https") or not address.netloc:
      raise _error("base_url", self.base_url, "something like http://localhost:8000/v1")
    for name in ("model", "journal"):
      if not getattr(self, name):
        raise _error(name, getattr(self, name), "a name")
    if storage.is_remote(storage.parse(self.journal)):
      raise _error(
        "journal", self.journal, "a local folder: each call is synced to disk"
      )
    for name, options in (("api", APIS), ("length_field", LENGTH_FIELDS)):
      if getattr(self, name) not in options:
        raise _error(name, getattr(self, name), f"one of {', '.join(options)}")
    for name in ("budget_usd", "input_usd_per_million", "output_usd_per_million"):
      value = getattr(self, name)
      if value is not None and not (math.isfinite(value) and value >= 0):
        raise _error(name, value, "a number of dollars, 0 or more")
    for name in ("timeout_seconds", "poll_seconds"):
      value = getattr(self, name)
      if not (math.isfinite(value) and value > 0):
        raise _error(name, value, "a number of seconds above 0")
    self._check_counts()
    self._check_extra()

  def _check_counts(self) -> None:
    for name, most in (
      ("concurrency", 1000),  # as many connections as the client opens
      ("attempts", 1000),
      ("requests_per_minute", math.inf),
      ("tokens_per_minute", math.inf),
      ("batch_requests", MOST_IN_A_BATCH),
    ):
      value = getattr(self, name)
      if value is not None and not 1 <= value <= most:
        limit = "" if most == math.inf else f" and at most {most:,}"
        raise _error(name, value, f"at least 1{limit}")

  def _check_extra(self) -> None:
    ours = {"model", "messages", "stream", "n", *LENGTH_FIELDS}
    for name in self.extra or {}:
      if name in ours:
        raise _error("extra", self.extra, f"no {name!r} in it, which is set elsewhere")


def _error(name: str, got: object, expected: str) -> InputError:
  return InputError(f"Llm.{name}: got {got!r}, expected {expected}")
