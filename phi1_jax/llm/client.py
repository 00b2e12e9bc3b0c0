"""Asks an OpenAI-compatible endpoint (vLLM, llama.cpp, OpenAI itself, ...) for text.

Needs the package `openai` (extra `llm`). The key is read from OPENAI_API_KEY; a server
that wants none gets a placeholder.
"""

import dataclasses
import importlib
import os
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from phi1_jax import InputError

KEY = "OPENAI_API_KEY"
# OpenAI's own API takes at most this many stop strings; other servers take any number.
_OPENAI_STOPS = 4


class RequestError(RuntimeError):
  """The endpoint gave no answer, after every retry."""


@dataclasses.dataclass(frozen=True)
class Reply:
  """What came back.

  Attributes:
    text: the continuation.
    finish: why it ended: "stop", "length", or the server's own word.
    tokens: how many tokens were generated; None if the server does not say.
    log_prob: sum over the tokens; None if the server does not say.
    seconds: from the request to the answer, retries included.
  """

  text: str
  finish: str
  tokens: int | None
  log_prob: float | None
  seconds: float


class Client:
  """One model behind one endpoint; safe to use from several threads.

  Args:
    base_url: such as "http://localhost:8000/v1".
    model: the name that the endpoint knows the model by.
    retries: how often a request that failed for a passing reason (429, 5xx, network)
      is sent again, with growing pauses.
    timeout: seconds until an unanswered request counts as failed.

  Raises:
    InputError: no such package, or an address that is none.
  """

  def __init__(
    self, base_url: str, model: str, *, retries: int = 6, timeout: float = 600.0
  ):
    address = urlsplit(base_url)
    if address.scheme not in ("http", "https") or not address.netloc:
      raise InputError(
        f"--base_url: got {base_url!r}, expected something like "
        "http://localhost:8000/v1"
      )
    try:
      self._library: Any = importlib.import_module("openai")
    except ImportError:
      raise InputError(
        "asking an endpoint needs the package openai: pip install 'phi1_jax[llm]'"
      ) from None
    self.base_url, self.model = base_url, model
    self._few_stops = address.hostname == "api.openai.com"
    self._api = self._library.OpenAI(
      base_url=base_url,
      api_key=os.environ.get(KEY) or "none",
      max_retries=retries,
      timeout=timeout,
    )

  def complete(
    self,
    prompt: str,
    *,
    max_tokens: int,
    temperature: float,
    top_p: float | None = None,
    top_k: int | None = None,
    stops: Sequence[str] = (),
    seed: int | None = None,
  ) -> Reply:
    """Continues a prompt through /v1/completions.

    Args:
      prompt: what to continue.
      max_tokens: the most tokens to generate.
      temperature: 0 is greedy.
      top_p: nucleus; None leaves it out.
      top_k: not part of OpenAI's API, but vLLM and others take it; None leaves it out.
      stops: the server ends before the first of them. OpenAI's own API gets the first
        four only: cut again.
      seed: for servers that honour one.

    Raises:
      InputError: the endpoint refuses the request itself (key, model, parameter).
      RequestError: no answer after all retries.
    """
    options: dict[str, Any] = {
      "model": self.model,
      "prompt": prompt,
      "max_tokens": max_tokens,
      "temperature": temperature,
      "logprobs": 0,
    }
    if stops:
      options["stop"] = list(stops[:_OPENAI_STOPS] if self._few_stops else stops)
    if top_p is not None:
      options["top_p"] = top_p
    if seed is not None:
      options["seed"] = seed
    if top_k is not None:
      options["extra_body"] = {"top_k": top_k}
    started = time.monotonic()
    answer = self._ask(options)
    try:
      return _reply(answer, time.monotonic() - started)
    except (AttributeError, IndexError, TypeError) as error:
      raise RequestError(
        f"{self.base_url}: no completion but {answer!r:.200}"
      ) from error

  def _ask(self, options: dict[str, Any]) -> Any:
    library = self._library
    try:
      return self._api.completions.create(**options)
    except (library.APIConnectionError, library.InternalServerError) as error:
      raise RequestError(f"{self.base_url}: {error}") from error
    except (library.RateLimitError, library.ConflictError) as error:
      raise RequestError(f"{self.base_url}: {error}") from error
    except (
      library.APIStatusError
    ) as error:  # 400, 401, 403, 404, 422: asking again is no use
      raise InputError(
        f"{self.base_url}, model {self.model}: refused with {error.status_code} "
        f"({error.message[:200]})"
      ) from None
    except (library.APIError, ValueError) as error:  # an answer that is none
      raise RequestError(f"{self.base_url}: {error}") from error


def _reply(answer: Any, seconds: float) -> Reply:
  choice = answer.choices[0]
  scores = choice.logprobs.token_logprobs if choice.logprobs else None
  return Reply(
    text=choice.text or "",
    finish=choice.finish_reason or "unknown",
    tokens=answer.usage.completion_tokens if answer.usage else None,
    log_prob=sum(x for x in scores if x is not None) if scores else None,
    seconds=seconds,
  )
