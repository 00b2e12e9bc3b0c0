"""Parses raw replies."""

import dataclasses
import json
import re
from typing import Any, NamedTuple

from phi1_jax.llm.request import clean

_KINDS = {"message": dict, "text": str}
_MOST_TOKENS = 10**8  # a server that reports more is not believed
_OPEN = re.compile(r"<(?:think|thinking|reasoning)>|\[THINK\]", re.I)
_CLOSE = re.compile(r"</(?:think|thinking|reasoning)>|\[/THINK\]", re.I)


class Usage(NamedTuple):
  """Tokens that a server says it billed; `completion` includes the reasoning."""

  prompt: int
  completion: int


@dataclasses.dataclass(frozen=True)
class Reply:
  """One reply of the journal."""

  key: str
  text: str  # the answer, without the reasoning; lone surrogates are replaced
  reasoning: str  # from a field of its own or from think tags
  finish: str  # "stop", "length", "content_filter", or the server's own word
  refusal: str | None  # the model's words in place of an answer
  model: str | None  # the server's exact name for the model
  usage: Usage | None  # None if the server does not say
  picodollars: int  # its cost; without usage the worst case


def load(raw: bytes, batch: bool = False) -> Any:
  """Return the JSON in a body, or None; `batch`: in a line of a batch's output file."""
  try:
    content = json.loads(raw)
  except (ValueError, RecursionError):
    return None
  for name in ("response", "body") if batch else ():
    content = content.get(name) if isinstance(content, dict) else None
  return content


def problem(content: Any, of: str = "message") -> tuple[str, int | None] | None:
  """Return why a body is not a completion, and the error code in it, or None.

  `of` is the field of a choice that has the answer: "message" or "text".
  """
  if not isinstance(content, dict):
    return "got a body that is broken off or not JSON, expected a completion", None
  error, choices = content.get("error"), content.get("choices")
  choice = choices[0] if isinstance(choices, list) and choices else None
  if isinstance(choice, dict) and choice.get("finish_reason") == "error":
    error = choice.get("error") or "the server's own error ended the reply"
  elif isinstance(choice, dict) and isinstance(choice.get(of), _KINDS[of]):
    return None
  if not error:
    return f"got a body without a {of}, expected a completion", None
  code = error.get("code") if isinstance(error, dict) else None
  code = code if type(code) is int and 400 <= code < 600 else None
  return f"an error in place of a completion: {json.dumps(error)}", code


def usage_of(content: Any) -> Usage | None:
  """Return the usage in a body, or None if there is none that can be believed."""
  usage = content.get("usage") if isinstance(content, dict) else None
  if not isinstance(usage, dict):
    return None
  counts = usage.get("prompt_tokens"), usage.get("completion_tokens")
  believed = all(type(each) is int and 0 <= each <= _MOST_TOKENS for each in counts)
  return Usage(*counts) if believed else None  # pyright: ignore[reportArgumentType]


def read(key: str, content: Any, picodollars: int) -> Reply:
  """Return the reply in a body for which `problem` returns None."""
  choice = content["choices"][0]
  message = choice["message"]
  text, reasoning = split_reasoning(_text(message.get("content")) or "")
  field = message.get("reasoning_content") or message.get("reasoning")
  return Reply(
    key=key,
    text=text,
    reasoning=(_text(field) or "") + reasoning,
    finish=_text(choice.get("finish_reason")) or "unknown",
    refusal=_text(message.get("refusal")),
    model=_text(content.get("model")),
    usage=usage_of(content),
    picodollars=picodollars,
  )


def split_reasoning(text: str) -> tuple[str, str]:
  """Return the answer in a text with think tags, and the reasoning.

  The answer is after the last closing tag, and ends at an opening tag that is never
  closed. Some chat templates write the first opening tag into the prompt, so a closing
  tag may come without it.
  """
  start = max((tag.end() for tag in _CLOSE.finditer(text)), default=0)
  unclosed = _OPEN.search(text, start)
  end = unclosed.start() if unclosed else len(text)
  if not start and not unclosed:
    return text, ""
  reasoning = f"{text[:start]}\n{text[end:]}"
  return text[start:end].strip(), _CLOSE.sub("", _OPEN.sub("", reasoning)).strip()


def _text(content: Any) -> str | None:
  """Return text that UTF-8 can hold, also where a server sends it in parts."""
  if isinstance(content, list):
    parts = [part.get("text") for part in content if isinstance(part, dict)]
    content = "".join(part for part in parts if isinstance(part, str))
  return clean(content) or None if isinstance(content, str) else None
