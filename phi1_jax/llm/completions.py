"""Completions of a model behind an endpoint, for evals: without a journal.

The requests are sent by `endpoint.Endpoint`, as all others are. Where a refusal names a
field (`_OPTIONAL`), the request is sent without it, and where it wants
`max_completion_tokens`, with that. If that succeeds, later requests are sent so, too.
"""

import asyncio
import dataclasses
import logging
import math
import re
import threading
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from phi1_jax import InputError
from phi1_jax.llm import reply
from phi1_jax.llm.config import LlmConfig
from phi1_jax.llm.endpoint import (
  Endpoint,
  Failure,
  RefusedError,
  RequestError,
  Verdict,
)

APIS = ("completions", "chat")
_MOST_STOPS = 4  # of OpenAI's own API; the caller cuts at the others
_LONGEST_PAUSE = 60.0
# Fields that decide no text, or that the caller does not depend on.
_OPTIONAL = ("logprobs", "seed", "stop")
_LENGTH, _RENAMED = "max_tokens", "max_completion_tokens"
log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Completion:
  """A completion."""

  text: str  # the continuation, or the answer without the model's reasoning
  finish: str  # why it ended: "stop", "length", or the server's own word
  tokens: int | None  # how many were generated; None if the server does not say
  log_prob: float | None  # sum over the tokens; None if the server does not say
  seconds: float  # from the request to the answer, retries included


class CompletionsClient:
  """One model behind one endpoint; safe to use from several threads.

  Args:
    base_url: such as "http://localhost:8000/v1".
    model: the endpoint's name for the model.
    api: one of `APIS`.
    api_version: Azure's, such as "2024-10-21".
    retries: how often a request is sent again that met a passing failure (429, 5xx,
      network), with growing pauses.
    timeout: seconds until an unanswered request counts as failed.

  Attributes:
    left_out: fields that the server refused.

  Raises:
    InputError: no such package, or not an address.
  """

  def __init__(
    self,
    base_url: str,
    model: str,
    *,
    api: str = "completions",
    api_version: str | None = None,
    retries: int = 6,
    timeout: float = 600.0,
  ):
    address = urlsplit(base_url)
    if address.scheme not in ("http", "https") or not address.netloc:
      raise InputError(
        f"--base_url: got {base_url!r}, expected something like "
        "http://localhost:8000/v1"
      )
    self.base_url, self.model, self.api, self._retries = base_url, model, api, retries
    options = {"timeout_seconds": timeout, "api_version": api_version}
    # No journal is written.
    self._endpoint = Endpoint(LlmConfig(model, ".", 0.0, base_url, **options))
    self._loop = asyncio.new_event_loop()
    threading.Thread(target=self._loop.run_forever, daemon=True).start()
    self.left_out: set[str] = set()
    self._waited = False
    self._length = _LENGTH  # the endpoint's name for the limit

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
    """Return a continuation of a prompt, or the answer to it.

    Args:
      prompt: the text to continue; with api "chat" the user's message.
      max_tokens: the most tokens to generate.
      temperature: 0 is greedy.
      top_p: nucleus; None leaves it out.
      top_k: not part of OpenAI's API, but vLLM and others take it; None leaves it out.
      stops: the server ends before the first of them. It gets four of them: cut again.
      seed: for servers that use it.

    Raises:
      InputError: the endpoint refuses any request (key, model), or is none.
      RequestError: it refuses this one (a parameter, its length, its content), or gave
        no answer after all retries.
    """
    chat = self.api == "chat"
    wanted = {
      "model": self.model,
      "prompt": None if chat else prompt,
      "messages": [{"role": "user", "content": prompt}] if chat else None,
      self._length: max_tokens,
      "temperature": temperature,
      "top_p": top_p,
      "top_k": top_k,
      "stop": list(stops[:_MOST_STOPS]) or None,
      "seed": seed,
      "logprobs": None if chat else 0,
    }
    body = {k: v for k, v in wanted.items() if v is not None and k not in self.left_out}
    started, attempts, refused = time.monotonic(), 0, set[str]()
    while True:
      sending = asyncio.run_coroutine_threadsafe(self._endpoint.send(body), self._loop)
      answer = sending.result()
      if not isinstance(answer, Failure):
        self._learn(body, refused)
        return self._read(answer, time.monotonic() - started)
      said = answer.text if answer.verdict is Verdict.REFUSED else ""
      if _LENGTH in body and _RENAMED in said:
        body[_RENAMED] = body.pop(_LENGTH)
        continue
      if named := body.keys() & {n for n in _OPTIONAL if re.search(rf"\b{n}\b", said)}:
        refused |= named
        body = {k: v for k, v in body.items() if k not in named}
        continue
      attempts += 1
      if not answer.passing or attempts > self._retries:
        raise self._error(answer)
      self._wait(answer, attempts)

  def _learn(self, body: dict[str, Any], refused: set[str]) -> None:
    """Change the requests to come as one that succeeded was changed."""
    self._length = _RENAMED if _RENAMED in body else self._length
    if refused - self.left_out:
      self.left_out |= refused
      left = sorted(self.left_out)
      log.warning("%s refuses %s: left out from now on", self.base_url, left)

  def _wait(self, failure: Failure, attempts: int) -> None:
    """Wait before a request is sent again; say why once, not for each request."""
    if not self._waited:
      self._waited = True
      log.warning("%s: %s; trying again", self.base_url, failure.text[:300])
    time.sleep(min(failure.pause(attempts), _LONGEST_PAUSE))

  def _error(self, failure: Failure) -> Exception:
    kind = InputError
    if failure.verdict not in (Verdict.FATAL, Verdict.NO_MONEY):
      kind = RefusedError if failure.verdict is Verdict.REFUSED else RequestError
    status = f"{failure.status} " if failure.status else ""
    refused = "refused with " if (failure.status or 0) >= 400 else ""
    return kind(
      f"{self.base_url}, model {self.model}: {refused}{status}{failure.text[:300]}"
    )

  def _read(self, raw: bytes, seconds: float) -> Completion:
    content = reply.load(raw)
    choice, usage = content["choices"][0], reply.usage_of(content)
    finish = choice.get("finish_reason")
    if finish == "content_filter":
      raise RequestError(f"{self.base_url}: its content filter ended the completion")
    said = reply.read("", content, 0) if self.api == "chat" else None
    if said and not (said.text or said.reasoning or finish == "length"):
      raise RequestError(
        f"{self.base_url}: got a message without content, finish {finish!r}: "
        f"{said.refusal or raw[:200]!r}"
      )
    found = choice.get("logprobs")
    scores = found.get("token_logprobs") if isinstance(found, dict) else None
    scores = [x for x in scores or () if isinstance(x, int | float)]
    total = math.fsum(scores) if scores else math.nan
    return Completion(
      text=said.text if said else choice["text"],
      finish=finish if isinstance(finish, str) else "unknown",
      tokens=usage.completion if usage else None,
      log_prob=total if math.isfinite(total) else None,
      seconds=seconds,
    )
