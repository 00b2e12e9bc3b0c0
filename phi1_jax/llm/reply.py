"""Reads raw replies: bytes that a server billed for, whatever is in them."""

import dataclasses
import json
from typing import Any, TypeGuard

from phi1_jax.llm.request import clean

# A reply that reports more tokens than this is no report to settle money on.
_MOST_TOKENS = 10**9


class UnreadableError(ValueError):
  """A raw reply that is no completion: cut off, not JSON, or without a choice."""


@dataclasses.dataclass(frozen=True)
class Usage:
  """Tokens that a server says it billed."""

  prompt: int
  completion: int


@dataclasses.dataclass(frozen=True)
class Reply:
  """One reply as the journal has it.

  Attributes:
    key: hash of its request; names it for ever.
    text: what the model wrote; lone surrogates are replaced, NULs and other control
      characters are left for the parser.
    finish: why it ended: "stop", "length", "content_filter", or the server's own word.
    refusal: what the model said instead of answering, or None.
    model: the exact model that the server names, or None.
    usage: tokens, or None if the server does not say.
    picodollars: what it cost; without usage, the worst case.
  """

  key: str
  text: str
  finish: str
  refusal: str | None
  model: str | None
  usage: Usage | None
  picodollars: int


def load(raw: bytes) -> Any:
  """The JSON of a raw reply, or None: a poisoned one is no reason to fall over."""
  try:
    return json.loads(raw)
  except (ValueError, RecursionError):  # also no UTF-8, and numbers without end
    return None


def completion_of(line: Any) -> Any:
  """The completion in a line of a batch's output file, or None if it holds none."""
  response = line.get("response") if isinstance(line, dict) else None
  return response.get("body") if isinstance(response, dict) else None


def usage_of(content: Any) -> Usage | None:
  """The usage in a completion's JSON, or None if it has none that can be believed."""
  usage = content.get("usage") if isinstance(content, dict) else None
  if not isinstance(usage, dict):
    return None
  prompt, completion = usage.get("prompt_tokens"), usage.get("completion_tokens")
  if _is_count(prompt) and _is_count(completion):
    return Usage(prompt, completion)
  return None


def _is_count(value: Any) -> TypeGuard[int]:
  return type(value) is int and 0 <= value <= _MOST_TOKENS


def read(key: str, content: Any, picodollars: int) -> Reply:
  """A completion's JSON as a Reply.

  Args:
    key: of its request.
    content: what `load` returned.
    picodollars: what it cost.

  Raises:
    UnreadableError: it is no completion; the message says what it is.
  """
  if not isinstance(content, dict):
    raise UnreadableError("it is not the JSON of a completion")
  choices = content.get("choices")
  if not isinstance(choices, list) or not choices:
    raise UnreadableError("it holds no choice")
  choice = choices[0]
  message = choice.get("message") if isinstance(choice, dict) else None
  if not isinstance(message, dict):
    raise UnreadableError("its choice holds no message")
  finish, model = choice.get("finish_reason"), content.get("model")
  refusal = message.get("refusal")
  text = _text(message.get("content"))
  if finish == "error":
    raise UnreadableError("it ended with an error of the server")
  if text is None and not refusal and finish not in ("content_filter", "length"):
    raise UnreadableError("its message holds no text")
  return Reply(
    key=key,
    text=clean(text or ""),
    finish=clean(finish) if isinstance(finish, str) else "unknown",
    refusal=clean(refusal) if refusal and isinstance(refusal, str) else None,
    model=clean(model) if isinstance(model, str) else None,
    usage=usage_of(content),
    picodollars=picodollars,
  )


def _text(content: Any) -> str | None:
  """Text, also where a server sends it in parts."""
  if isinstance(content, list):
    parts = [part.get("text") for part in content if isinstance(part, dict)]
    return "".join(part for part in parts if isinstance(part, str)) or None
  return content if isinstance(content, str) else None
