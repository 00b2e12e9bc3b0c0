"""Settings of a run that asks a language model."""

import dataclasses
import json
from typing import Annotated, Any, Literal, get_args
from urllib.parse import urlsplit

from phi1_jax import storage
from phi1_jax.settings import PositiveInt, Range, Settings

LengthField = Literal["max_tokens", "max_completion_tokens"]
LENGTH_FIELDS = get_args(LengthField)
_Dollars = Annotated[float, Range(least=0, most=1e6)]
_Price = Annotated[float, Range(least=0, most=1e4)]
_Seconds = Annotated[float, Range(least=1e-3)]
# OpenAI's limit on the requests of a batch; batches.py has the limit on its bytes.
MOST_IN_A_BATCH = 50_000


@dataclasses.dataclass(frozen=True)
class LlmConfig(Settings):
  """One model at one endpoint, and what may be spent on it (gin name: `Llm`).

  Attributes:
    model: the endpoint's name for the model; on Azure the name of the deployment.
    journal: local folder of journal.sqlite, which keeps every raw reply. Several
      commands may share it; they then share the budget too.
    budget_usd: the most that everything in the journal may cost together, in dollars.
    base_url: such as "http://localhost:8000/v1", or for Azure
      "https://NAME.openai.azure.com/openai".
    api: "online", or "batch" for OpenAI's Batch API (half the price, within 24 hours).
    input_usd_per_million: price of prompt tokens; None takes the list price from the
      package genai-prices. 0.0 for your own server.
    output_usd_per_million: price of reply tokens, those of the reasoning included.
    concurrency: the most requests in flight.
    requests_per_minute: rate limit of the account. Without it, a server that answers
      429 slows the run down.
    tokens_per_minute: the same for tokens.
    timeout_seconds: time for a whole reply. The provider may bill a request that timed
      out, so make it long.
    attempts: how often a request is sent that meets server errors, timeouts or broken
      connections. Status 429 is not counted.
    length_field: the endpoint's name for the limit on reply tokens; None takes
      "max_completion_tokens" for OpenAI's reasoning models, else "max_tokens".
    reasoning_tokens: added to each request's limit for the model's reasoning; None adds
      4,096 for OpenAI's reasoning models, else 0.
    extra: more fields of every request, such as {"reasoning_effort": "low"} or
      {"chat_template_kwargs": {"enable_thinking": False}}. None removes a field.
    skip_unanswered: yield a failure for a request without a reply after all attempts
      instead of stopping. The run still stops if the server cannot be reached, or
      answers with errors only and more than 10 requests have no reply, as long as no
      request has got a reply in this run. The output depends on the server's state.
    poll_seconds: time between two queries of a batch's status.
    batch_requests: the most requests in one batch; several batches run at once.
    api_version: the query parameter api-version of Azure, such as "2024-10-21".
  """

  model: str
  journal: str
  budget_usd: _Dollars
  base_url: str = "https://api.openai.com/v1"
  api: Literal["online", "batch"] = "online"
  input_usd_per_million: _Price | None = None
  output_usd_per_million: _Price | None = None
  # The HTTP client opens as many connections.
  concurrency: Annotated[int, Range(least=1, most=1000)] = 32
  requests_per_minute: PositiveInt | None = None
  tokens_per_minute: PositiveInt | None = None
  timeout_seconds: _Seconds = 600.0
  attempts: Annotated[int, Range(least=1, most=1000)] = 6
  length_field: LengthField | None = None
  reasoning_tokens: Annotated[int, Range(least=0, most=10**6)] | None = None
  extra: dict[str, Any] | None = None
  skip_unanswered: bool = False
  poll_seconds: _Seconds = 30.0
  batch_requests: Annotated[int, Range(least=1, most=MOST_IN_A_BATCH)] = MOST_IN_A_BATCH
  api_version: str | None = None

  def __post_init__(self):
    super().__post_init__()
    address = urlsplit(self.base_url)
    if address.scheme not in ("http", "https") or not address.netloc:
      raise self.wrong("base_url", "something like http://localhost:8000/v1")
    for name in ("model", "journal"):
      if not getattr(self, name):
        raise self.wrong(name, "a name")
    if storage.is_remote(storage.parse(self.journal)):
      raise self.wrong("journal", "a local folder: SQLite writes it")
    try:
      json.dumps(self.extra, allow_nan=False)
    except ValueError as error:
      raise self.wrong("extra", f"what JSON can hold ({error})") from None
    for name in ("model", "messages", "stream", "n", *LENGTH_FIELDS):
      if name in (self.extra or {}):
        raise self.wrong("extra", f"no {name!r} in it, which is set elsewhere")
