"""A request, its key, and bounds on its tokens."""

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from phi1_jax import InputError
from phi1_jax.llm.config import LlmConfig

# OpenAI's reasoning models refuse max_tokens and a temperature; their reasoning counts
# as part of the reply. genai-prices has no such facts, and LiteLLM, which has, installs
# 130 MB. Llm.length_field, reasoning_tokens and extra override this rule.
_REASONING = re.compile(r"(.*/)?(o\d|gpt-[5-9])(?!.*chat)")
_REASONING_TOKENS = 4096
# Tokens that a server adds: markers around each message, a chat template's preamble.
_PER_MESSAGE, _PREAMBLE = 16, 256
_BYTES_PER_TOKEN = 4  # of English or code, roughly; for estimates, never for a bound


@dataclasses.dataclass(frozen=True)
class Message:
  """One turn of a conversation."""

  role: str
  content: str


@dataclasses.dataclass(frozen=True)
class Request:
  """A request for one reply."""

  messages: tuple[Message, ...]  # the conversation so far
  max_tokens: int  # the most tokens of the reply, without the model's reasoning
  prompt_id: str  # name of the prompt that this was made from
  prompt_version: str  # changes with the prompt, so that its old replies are not used
  sample: int = 0  # tells apart replies to the same text
  temperature: float | None = None  # 0 is greedy; not sent to OpenAI's reasoning models
  doubled: bool = False  # allow twice the tokens, since a reply was cut off

  def __post_init__(self):
    """Refuse requests that no endpoint takes."""
    wrong = None
    if not self.messages or self.messages[-1].role == "assistant":
      wrong = f"messages is {self.messages}, expected some, the last not assistant's"
    elif any(m.content != clean(m.content) for m in self.messages):
      wrong = "the content of a message has lone surrogates"
    elif self.max_tokens < 1:
      wrong = f"max_tokens is {self.max_tokens}, expected at least 1"
    if wrong:
      raise InputError(f"a request of prompt {self.prompt_id}: {wrong}")

  def most_tokens(self, config: LlmConfig) -> int:
    """Return the limit on the reply's tokens that is sent."""
    reasoning = config.reasoning_tokens
    if reasoning is None:
      reasoning = _REASONING_TOKENS if _REASONING.match(config.model) else 0
    return (self.max_tokens + reasoning) * (2 if self.doubled else 1)

  def body(self, config: LlmConfig) -> dict[str, Any]:
    """Return the body that is sent."""
    reasoning = bool(_REASONING.match(config.model))
    default = "max_completion_tokens" if reasoning else "max_tokens"
    fields = {
      "model": config.model,
      "messages": [dataclasses.asdict(message) for message in self.messages],
      config.length_field or default: self.most_tokens(config),
      "temperature": None if reasoning else self.temperature,
    }
    fields |= config.extra or {}
    return {name: value for name, value in fields.items() if value is not None}

  def content(self, config: LlmConfig) -> dict[str, Any]:
    """Return everything that decides the reply; the journal keeps it."""
    return {
      "body": self.body(config),
      "prompt": [self.prompt_id, self.prompt_version],
      "sample": self.sample,
      "endpoint": config.base_url.rstrip("/"),
    }

  def key(self, config: LlmConfig) -> str:
    """Return the name of the reply: a hash of `content`."""
    return digest(self.content(config))


def digest(content: Mapping[str, Any]) -> str:
  """Return the sha256 of JSON, whatever the order of its keys."""
  text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
  return hashlib.sha256(text.encode()).hexdigest()


def most_prompt_tokens(body: Mapping[str, Any]) -> int:
  """Return a bound on the tokens of a prompt, without its tokenizer.

  A token of a byte-level BPE is at least one byte. Every field is counted, since
  servers write schemas and tools into the prompt. The run stops at a server that bills
  more than this.
  """
  others = {name: value for name, value in body.items() if name != "messages"}
  markers = _PER_MESSAGE * len(body["messages"]) + _PREAMBLE
  return _text_bytes(body) + len(json.dumps(others).encode()) + markers


def likely_prompt_tokens(body: Mapping[str, Any]) -> int:
  """Return an estimate of the tokens of a prompt: a quarter of its bytes."""
  return -(-_text_bytes(body) // _BYTES_PER_TOKEN)


def _text_bytes(body: Mapping[str, Any]) -> int:
  return sum(len(message["content"].encode()) for message in body["messages"])


def clean(text: str) -> str:
  """Return text that UTF-8 can hold: lone surrogates become U+FFFD."""
  return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
