"""A client for /v1/completions, for evals of a model behind an endpoint."""

import dataclasses
import math
import os
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from phi1_jax import InputError
from phi1_jax.llm.endpoint import KEY, RequestError, library

_OPENAI_STOPS = 4  # stop strings that OpenAI's own API takes; others take any number
_REFUSALS = (401, 403, 404)  # key, permission, address or model: not this request alone
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 8.0  # seconds, between unusable answers


class _UnusableError(RequestError):
  """An answer that is not a completion; the next may be."""


@dataclasses.dataclass(frozen=True)
class Completion:
  """A completion.

  Attributes:
    text: the continuation.
    finish: why it ended: "stop", "length", or the server's own word.
    tokens: how many were generated; None if the server does not say.
    log_prob: sum over the tokens; None if the server does not say.
    seconds: from the request to the answer, retries included.
  """

  text: str
  finish: str
  tokens: int | None
  log_prob: float | None
  seconds: float


class CompletionsClient:
  """One model behind one endpoint; safe to use from several threads.

  Args:
    base_url: such as "http://localhost:8000/v1".
    model: the endpoint's name for the model.
    retries: how often a request is sent again that met a passing failure (429, 5xx,
      network, an answer that is not a completion), with growing pauses.
    timeout: seconds until an unanswered request counts as failed.

  Raises:
    InputError: no such package, or not an address.
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
    self._library = library()
    self.base_url, self.model, self._retries = base_url, model, retries
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
  ) -> Completion:
    """Return a continuation of a prompt.

    Args:
      prompt: the text to continue.
      max_tokens: the most tokens to generate.
      temperature: 0 is greedy.
      top_p: nucleus; None leaves it out.
      top_k: not part of OpenAI's API, but vLLM and others take it; None leaves it out.
      stops: the server ends before the first of them. OpenAI's own API gets the first
        four only: cut again.
      seed: for servers that use it.

    Raises:
      InputError: the endpoint refuses any request (key, model).
      RequestError: it refuses this one (a parameter, its length, its content), or gave
        no answer after all retries.
    """
    options: dict[str, Any] = {
      "model": self.model,
      "prompt": prompt,
      "max_tokens": max_tokens,
      "temperature": temperature,
      "logprobs": 0,
      "stop": list(stops[:_OPENAI_STOPS] if self._few_stops else stops) or None,
      "top_p": top_p,
      "seed": seed,
      "extra_body": None if top_k is None else {"top_k": top_k},
    }
    options = {name: value for name, value in options.items() if value is not None}
    started, pause = time.monotonic(), _FIRST_PAUSE
    for _ in range(self._retries):
      try:
        return self._read(self._ask(options), started)
      except _UnusableError:
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)
    return self._read(self._ask(options), started)

  def _read(self, answer: Any, started: float) -> Completion:
    try:
      found = _completion(answer, time.monotonic() - started)
    except (AttributeError, IndexError, TypeError) as error:
      raise _UnusableError(
        f"{self.base_url}: not a completion: {answer!r:.200}"
      ) from error
    if found.finish == "error":
      raise _UnusableError(f"{self.base_url}: ended with an error, {answer!r:.200}")
    if found.finish == "content_filter":
      raise RequestError(f"{self.base_url}: its content filter ended the completion")
    return found

  def _ask(self, options: dict[str, Any]) -> Any:
    library = self._library
    passing = (
      *(library.APIConnectionError, library.InternalServerError),
      *(library.RateLimitError, library.ConflictError),
    )
    try:
      return self._api.completions.create(**options)
    except passing as error:  # after all of the package's retries
      raise RequestError(f"{self.base_url}: {error}") from error
    except library.APIStatusError as error:
      kind = InputError if error.status_code in _REFUSALS else RequestError
      raise kind(
        f"{self.base_url}, model {self.model}: refused with {error.status_code} "
        f"({error.message[:200]})"
      ) from None
    except (library.APIError, ValueError) as error:  # not an API's answer
      raise _UnusableError(f"{self.base_url}: {error}") from error


def _completion(answer: Any, seconds: float) -> Completion:
  choice = answer.choices[0]
  if not isinstance(choice.text, str):
    raise TypeError(f"text is {choice.text!r}")
  scores = choice.logprobs.token_logprobs if choice.logprobs else None
  log_prob = sum(x for x in scores if x is not None) if scores else None
  return Completion(
    text=choice.text,
    finish=choice.finish_reason or "unknown",
    tokens=answer.usage.completion_tokens if answer.usage else None,
    log_prob=log_prob if log_prob is None or math.isfinite(log_prob) else None,
    seconds=seconds,
  )
