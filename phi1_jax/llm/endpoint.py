"""Sends one request once through the package openai, and classifies the outcome."""

import asyncio
import contextlib
import dataclasses
import email.utils
import enum
import importlib
import os
import random
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from phi1_jax import InputError, how_to_install
from phi1_jax.llm import reply
from phi1_jax.llm.config import LlmConfig

KEY = "OPENAI_API_KEY"
# Errors of the HTTP library before any byte of the request has left.
_NOT_SENT = ("ConnectError", "ConnectTimeout", "PoolTimeout", "ProxyError")
_ANSWERS = {"messages": "message", "prompt": "text"}  # the field of a choice
_MOST_BYTES = 1 << 26  # of a body; ends an endless one
_SHORTEST_KEY = 8
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 60.0  # seconds
_MOST_SECONDS = 1e9  # that a server may ask for
_MOST_ERROR = 2000  # characters of an error that are kept
_GATEWAY_TIMEOUTS = (504, 524)  # the model behind the gateway may still bill


class RequestError(RuntimeError):
  """The endpoint gave no reply to a request, or none after every retry."""


class RefusedError(RequestError):
  """The endpoint will never take this request."""


class Verdict(enum.Enum):
  """What a failure means for the request, and for the run."""

  SLOW_DOWN = "send again later; not counted as an attempt"
  AGAIN = "send again"
  REFUSED = "the request will never be taken"
  FATAL = "no request will be taken"
  NO_MONEY = "the account has no money left"


@dataclasses.dataclass(frozen=True)
class Failure:
  """No completion."""

  text: str  # the server's or the network's reason
  doubtful: bool  # the request may be billed all the same
  status: int | None = None  # of HTTP or in the body; None without an answer
  headers: Mapping[str, str] = dataclasses.field(default_factory=dict)  # lower case

  @property
  def verdict(self) -> Verdict:
    """What follows from it."""
    status = self.status
    if status is None or status in (408, 409, 425) or status >= 500:
      return Verdict.AGAIN
    if status == 402 or (status == 429 and "insufficient_quota" in self.text):
      return Verdict.NO_MONEY
    if status == 429:
      return Verdict.AGAIN if self.doubtful else Verdict.SLOW_DOWN
    if status in (401, 403, 404, 405) or status < 400:
      return Verdict.FATAL
    return Verdict.REFUSED

  @property
  def passing(self) -> bool:
    """Whether the same request may succeed later."""
    return self.verdict in (Verdict.AGAIN, Verdict.SLOW_DOWN)

  def pause(self, attempts: int) -> float:
    """Return the seconds to wait after so many attempts."""
    return retry_after(self.headers) or backoff(attempts)

  def __str__(self) -> str:
    """Return a line about it."""
    return f"{self.status}, {self.text[:300]}" if self.status else self.text[:300]


def api_key(config: LlmConfig) -> str:
  """Return the key from the environment; an InputError if the endpoint wants one."""
  key = os.environ.get(KEY, "")
  hosted = urlsplit(config.base_url).hostname == "api.openai.com"
  if not key and (hosted or config.api_version):
    raise InputError(f"{KEY} is not set; {config.base_url} wants a key")
  return key


class Endpoint:
  """One endpoint. The key is read from OPENAI_API_KEY and is neither kept nor logged.

  Attributes:
    api: the client, for the Batch API.

  Raises:
    InputError: the package openai is missing, or a key for OpenAI's own API, or the
      client cannot be set up.
  """

  def __init__(self, config: LlmConfig):
    try:
      self._library = importlib.import_module("openai")
    except ImportError:
      raise InputError(
        f"asking an endpoint needs the package openai: {how_to_install('llm')}"
      ) from None
    self._config, self._key = config, api_key(config)
    options = {"base_url": config.base_url, "api_key": self._key or "none"}
    options |= {"max_retries": 0, "timeout": config.timeout_seconds}
    make = self._library.AsyncOpenAI
    if config.api_version:
      make, options["api_version"] = self._library.AsyncAzureOpenAI, config.api_version
    try:
      self.api: Any = make(**options)
    except Exception as error:  # because of the environment
      raise InputError(
        f"{config.base_url}: the client cannot be set up ({type(error).__name__}: "
        f"{error})\ncheck SSL_CERT_FILE, SSL_CERT_DIR and the environment's proxies"
      ) from None

  async def send(self, body: Mapping[str, Any]) -> bytes | Failure:
    """Send a body, unchanged, once; return the completion's. Raises nothing.

    Args:
      body: of a chat completion, or with `prompt` of a completion.
    """
    asked = "messages" if "messages" in body else "prompt"
    fields = {k: v for k, v in body.items() if k not in ("model", asked)}
    api = self.api.chat.completions if asked == "messages" else self.api.completions
    received, headers = bytearray(), {}
    try:
      request = api.with_streaming_response.create(
        model=body["model"], extra_body=fields or None, **{asked: body[asked]}
      )
      async with asyncio.timeout(self._config.timeout_seconds), request as response:
        headers = {name.lower(): value for name, value in response.headers.items()}
        async for part in response.iter_bytes():
          received += part
          if len(received) > _MOST_BYTES:
            raise ValueError(f"got a body of more than {_MOST_BYTES:,} bytes")
    except Exception as error:  # the call must be accounted for, whatever happened
      failure = self.failure(error)  # with headers, the status was 200
      return dataclasses.replace(failure, doubtful=failure.doubtful or bool(headers))
    raw = bytes(received)
    if headers.get("content-type", "").startswith("text/html"):
      text = f"got a page of HTML ({raw[:60]!r}...), expected an OpenAI-compatible API"
      return Failure(text, True, 200, headers)
    if problem := reply.problem(reply.load(raw), of=_ANSWERS[asked]):
      text = self._scrub(f"status 200, but {problem[0]}")
      return Failure(text, True, problem[1], headers)
    return raw

  def failure(self, error: Any) -> Failure:
    """Classify an exception of the client."""
    if isinstance(error, self._library.APIStatusError):
      headers = {k.lower(): v for k, v in error.response.headers.items()}
      text = self._scrub(error.response.text or error.message)
      status = error.status_code
      return Failure(text, status in _GATEWAY_TIMEOUTS, status, headers)
    if isinstance(error, TimeoutError | self._library.APITimeoutError):
      cause = type(error.__cause__).__name__
      text = f"no reply within {self._config.timeout_seconds:g} s"
    else:
      cause = type(error.__cause__ or error).__name__
      text = f"{cause}: {error.__cause__ or error}"
    return Failure(self._scrub(text), cause not in _NOT_SENT)

  def _scrub(self, text: str) -> str:
    """Return the beginning of a text without the key, which some servers repeat.

    A short key is a placeholder for a local server, and may be a part of any word.
    """
    if len(self._key or "") >= _SHORTEST_KEY:
      text = text.replace(self._key, "[key]")
    return text[:_MOST_ERROR]


def backoff(attempt: int) -> float:
  """Return the pause after so many attempts: it doubles from 0.5 to 60, half random."""
  longest = min(_FIRST_PAUSE * 2 ** min(attempt - 1, 20), _LONGEST_PAUSE)
  return longest * random.uniform(0.5, 1.0)


def retry_after(headers: Mapping[str, str]) -> float:
  """Return the pause that a server asks for, in seconds or as a date; or 0.

  Args:
    headers: names in lower case.
  """
  for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
    text = headers.get(name, "").strip()
    if text[:1].isdigit():
      with contextlib.suppress(ValueError):
        return min(float(text), _MOST_SECONDS) * unit
  try:
    moment = email.utils.parsedate_to_datetime(headers.get("retry-after", ""))
    return max(0.0, moment.timestamp() - time.time())
  except (TypeError, ValueError, OverflowError):
    return 0.0
