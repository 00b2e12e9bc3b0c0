"""A request, its name, and the most that it can cost."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from phi1_jax import InputError
from phi1_jax.llm.config import LlmConfig

ROLES = ("system", "developer", "user", "assistant")
# Tokens that a server adds of its own accord: markers around each message, and the
# preamble that some chat templates put first.
_PER_MESSAGE, _PREAMBLE = 16, 256
_BYTES_PER_TOKEN = 4  # of English or code, roughly: for estimates, never for a bound


@dataclasses.dataclass(frozen=True)
class Message:
  """One turn of a conversation."""

  role: str
  content: str


@dataclasses.dataclass(frozen=True)
class Request:
  """One reply that is wanted. What is None is not sent.

  Attributes:
    messages: the conversation so far.
    max_tokens: the most tokens of the reply.
    prompt_id: the name of the prompt that this was made from.
    prompt_version: changed with the prompt, so that its old replies are not taken.
    sample: tells apart replies to the same text.
    temperature: 0 is greedy.
    top_p: nucleus.
    stop: the server ends before the first of them.
    seed: for servers that honour one.
    response_format: as in OpenAI's API, e.g. {"type": "json_object"}.
  """

  messages: tuple[Message, ...]
  max_tokens: int
  prompt_id: str
  prompt_version: str
  sample: int = 0
  temperature: float | None = None
  top_p: float | None = None
  stop: tuple[str, ...] = ()
  seed: int | None = None
  response_format: Mapping[str, Any] | None = None

  def __post_init__(self):
    """Refuses what no endpoint takes."""
    if not self.messages or self.messages[-1].role == "assistant":
      raise self._error("messages", self.messages, "some, the last one not assistant's")
    for message in self.messages:
      if message.role not in ROLES:
        raise self._error("role", message.role, f"one of {', '.join(ROLES)}")
      if message.content != clean(message.content):
        raise self._error(
          "content", message.content[:40], "text without lone surrogates"
        )
    if self.max_tokens < 1:
      raise self._error("max_tokens", self.max_tokens, "at least 1")
    if self.sample < 0:
      raise self._error("sample", self.sample, "0 or more")

  def body(self, config: LlmConfig) -> dict[str, Any]:
    """What is sent."""
    fields = {
      "model": config.model,
      "messages": [dataclasses.asdict(message) for message in self.messages],
      config.length_field: self.max_tokens,
      "temperature": self.temperature,
      "top_p": self.top_p,
      "stop": list(self.stop) or None,
      "seed": self.seed,
      "response_format": self.response_format and dict(self.response_format),
    }
    return {k: v for k, v in fields.items() if v is not None} | (config.extra or {})

  def key(self, config: LlmConfig) -> str:
    """Names the reply by all that decides it.

    That is everything sent (the model too), the prompt's id and version, and the sample
    index. It is not the endpoint's address, nor online or batch, nor any other row of
    the data set: one more row is one more reply to pay for.
    """
    content = {
      "body": self.body(config),
      "prompt": [self.prompt_id, self.prompt_version],
      "sample": self.sample,
    }
    return hashlib.sha256(canonical(content)).hexdigest()

  def _error(self, name: str, got: object, expected: str) -> InputError:
    return InputError(
      f"a request of prompt {self.prompt_id}: {name} is {got!r}, expected {expected}"
    )


def canonical(content: Any) -> bytes:
  """JSON that is the same whatever the order of its keys."""
  return json.dumps(
    content, sort_keys=True, separators=(",", ":"), allow_nan=False
  ).encode()


def most_prompt_tokens(body: Mapping[str, Any]) -> int:
  """A bound on the tokens of a prompt, without its tokenizer.

  A token of a byte-level BPE is at least one byte of the text. Every field is counted,
  as servers write schemas and tools into the prompt, and what they add themselves is
  allowed for. A server that bills more than that is stopped at (see `budget`).
  """
  others = {name: value for name, value in body.items() if name != "messages"}
  schema = len(json.dumps(others).encode())
  markers = _PER_MESSAGE * len(body["messages"]) + _PREAMBLE
  return _text_bytes(body) + schema + markers


def likely_prompt_tokens(body: Mapping[str, Any]) -> int:
  """An estimate of the tokens of a prompt: a quarter of its bytes."""
  return -(-_text_bytes(body) // _BYTES_PER_TOKEN)


def _text_bytes(body: Mapping[str, Any]) -> int:
  return sum(len(message["content"].encode()) for message in body["messages"])


def clean(text: str) -> str:
  """Text that UTF-8 can hold: lone surrogates become U+FFFD."""
  return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
