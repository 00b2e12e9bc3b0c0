"""Sends one request once through the official client, and says what became of it."""

import asyncio
import dataclasses
import enum
import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from phi1_jax import InputError
from phi1_jax.llm.client import KEY, library

# Errors of the HTTP library before any byte of the request has left.
_NOT_SENT = ("ConnectError", "ConnectTimeout", "PoolTimeout", "ProxyError")
_MOST_BYTES = 1 << 26  # of a reply: enough for any, and an end to an endless one
_MOST_ERROR = 2000  # characters of an error's text that are kept
# The gateway gave up, the model behind it perhaps not. 200 is for a page of HTML.
_DOUBTFUL_STATUS = (200, 504, 524)


@dataclasses.dataclass(frozen=True)
class Replied:
  """The server said 200, so it bills this.

  Attributes:
    raw: the body as it came.
    whole: False if the connection broke or timed out before the body's end.
    headers: names in lower case.
  """

  raw: bytes
  whole: bool
  headers: Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Rejected:
  """The server answered with an error."""

  status: int
  text: str
  headers: Mapping[str, str]

  @property
  def doubtful(self) -> bool:
    """Whether it may be billed all the same."""
    return self.status in _DOUBTFUL_STATUS


@dataclasses.dataclass(frozen=True)
class Lost:
  """No answer.

  Attributes:
    reason: what went wrong.
    doubtful: the request may have arrived, so it may be billed.
  """

  reason: str
  doubtful: bool


Outcome = Replied | Rejected | Lost


class Verdict(enum.Enum):
  """What an error status means for the request, and for the run."""

  SLOW_DOWN = "ask again later; this was no attempt"
  AGAIN = "ask again; this was an attempt"
  REFUSED = "never ask this again as it stands"
  FATAL = "no request would fare better"
  BROKE = "the account has no money left"


def judge(status: int, text: str) -> Verdict:
  """Classifies an error by its HTTP status and what the server wrote."""
  if status == 402 or (status == 429 and "insufficient_quota" in text):
    return Verdict.BROKE
  if status == 429:
    return Verdict.SLOW_DOWN
  if status in (408, 409, 425) or status >= 500:
    return Verdict.AGAIN
  if status in (401, 403, 404, 405) or status < 400:
    return Verdict.FATAL
  return Verdict.REFUSED


class Sender:
  """One endpoint. The key is read from OPENAI_API_KEY and goes nowhere else.

  Args:
    base_url: of the endpoint.
    timeout: seconds for a whole reply.

  Attributes:
    api: the client, for the batches' endpoints.

  Raises:
    InputError: the package openai is missing, or a key for OpenAI's own API.
  """

  def __init__(self, base_url: str, timeout: float):
    self._library = library()
    self._key = os.environ.get(KEY, "")
    if not self._key and urlsplit(base_url).hostname == "api.openai.com":
      raise InputError(f"{KEY} is not set; {base_url} wants a key")
    self._timeout = timeout
    self.api: Any = self._library.AsyncOpenAI(
      base_url=base_url, api_key=self._key or "none", max_retries=0, timeout=timeout
    )

  async def send(self, body: Mapping[str, Any]) -> Outcome:
    """Sends a chat completion's body, exactly as it is, once."""
    fields = {k: v for k, v in body.items() if k not in ("model", "messages")}
    create = self.api.chat.completions.with_streaming_response.create
    request = create(
      model=body["model"], messages=body["messages"], extra_body=fields or None
    )
    received: list[bytes] = []
    headers: dict[str, str] | None = None
    try:
      async with asyncio.timeout(self._timeout), request as response:
        headers = {name.lower(): value for name, value in response.headers.items()}
        size = 0
        async for part in response.iter_bytes():
          received.append(part)
          size += len(part)
          if size > _MOST_BYTES:
            return Replied(b"".join(received), False, headers)
    except Exception as error:
      # Whatever went wrong, the outcome is one of three; nothing may escape, as the
      # call must be accounted for.
      if headers is None:
        return self.failure(error)
      return Replied(b"".join(received), False, headers)
    raw = b"".join(received)
    if headers.get("content-type", "").startswith("text/html"):
      text = f"a page of HTML ({raw[:60]!r}...)"
      return Rejected(200, f"{text}, expected an OpenAI-compatible API", headers)
    return Replied(raw, True, headers)

  def failure(self, error: Any) -> Rejected | Lost:
    """What an error of the client, before any body, means."""
    if isinstance(error, self._library.APIStatusError):
      headers = {k.lower(): v for k, v in error.response.headers.items()}
      text = error.response.text or error.message
      return Rejected(error.status_code, self._scrub(text)[:_MOST_ERROR], headers)
    if isinstance(error, TimeoutError | self._library.APITimeoutError):
      cause = type(error.__cause__).__name__
      reason = f"no reply within {self._timeout:g} s"
    else:
      cause = type(error.__cause__ or error).__name__
      reason = f"{cause}: {error.__cause__ or error}"
    return Lost(self._scrub(reason)[:_MOST_ERROR], doubtful=cause not in _NOT_SENT)

  async def close(self) -> None:
    """Closes the connections."""
    await self.api.close()

  def _scrub(self, text: str) -> str:
    """Some servers repeat the key that they refuse."""
    return text.replace(self._key, "[key]") if self._key else text
