"""Asks an OpenAI-compatible endpoint (vLLM, llama.cpp, OpenAI itself, ...) for text.

Needs the package `openai` (extra `llm`). The key is read from OPENAI_API_KEY; a server
that wants none gets a placeholder.
"""

import dataclasses
import importlib
import math
import os
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from phi1_jax import InputError

KEY = "OPENAI_API_KEY"
# OpenAI's own API takes at most this many stop strings; other servers take any number.
_OPENAI_STOPS = 4
# The whole endpoint refuses, not only this request: key, permission, address or model.
_REFUSALS = (401, 403, 404)
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 8.0  # seconds, between garbled answers


class RequestError(RuntimeError):
  """The endpoint gave no answer to a request, or none after every retry."""


class _GarbledError(RequestError):
  """An answer that is none; the next one may be."""


def library() -> Any:
  """The package openai.

  Raises:
    InputError: it is not installed.
  """
  try:
    return importlib.import_module("openai")
  except ImportError:
    raise InputError(
      "asking an endpoint needs the package openai: "
      "pip install -c constraints.txt -e '.[llm]'"
    ) from None


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
    retries: how often a request that failed for a passing reason (429, 5xx, network,
      an answer that is no completion) is sent again, with growing pauses.
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
    pause = _FIRST_PAUSE
    for _ in range(self._retries):
      try:
        return self._read(self._ask(options), started)
      except _GarbledError:
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)
    return self._read(self._ask(options), started)

  def _read(self, answer: Any, started: float) -> Reply:
    try:
      reply = _reply(answer, time.monotonic() - started)
    except (AttributeError, IndexError, TypeError) as error:
      raise _GarbledError(
        f"{self.base_url}: no completion but {answer!r:.200}"
      ) from error
    if reply.finish == "error":
      raise _GarbledError(f"{self.base_url}: ended with an error, {answer!r:.200}")
    if reply.finish == "content_filter":
      raise RequestError(f"{self.base_url}: its content filter ended the completion")
    return reply

  def _ask(self, options: dict[str, Any]) -> Any:
    library = self._library
    try:
      return self._api.completions.create(**options)
    except (library.APIConnectionError, library.InternalServerError) as error:
      raise RequestError(f"{self.base_url}: {error}") from error
    except (library.RateLimitError, library.ConflictError) as error:
      raise RequestError(f"{self.base_url}: {error}") from error
    except library.APIStatusError as error:  # asking again is no use
      kind = InputError if error.status_code in _REFUSALS else RequestError
      raise kind(
        f"{self.base_url}, model {self.model}: refused with {error.status_code} "
        f"({error.message[:200]})"
      ) from None
    except (library.APIError, ValueError) as error:  # an answer that is none
      raise _GarbledError(f"{self.base_url}: {error}") from error


def _reply(answer: Any, seconds: float) -> Reply:
  choice = answer.choices[0]
  if not isinstance(choice.text, str):
    raise TypeError(f"text is {choice.text!r}")
  scores = choice.logprobs.token_logprobs if choice.logprobs else None
  log_prob = sum(x for x in scores if x is not None) if scores else None
  return Reply(
    text=choice.text,
    finish=choice.finish_reason or "unknown",
    tokens=answer.usage.completion_tokens if answer.usage else None,
    log_prob=log_prob if log_prob is None or math.isfinite(log_prob) else None,
    seconds=seconds,
  )
