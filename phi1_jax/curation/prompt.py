"""Prompts: text files with `$places`, named and versioned by their own content."""

import dataclasses
import hashlib
import itertools
import string
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from phi1_jax import InputError
from phi1_jax.curation.folder import naming
from phi1_jax.llm.client import Client
from phi1_jax.llm.conversation import Answered
from phi1_jax.llm.request import Message, Request

T = TypeVar("T")
Item = TypeVar("Item")
_FOLDER = Path(__file__).parent / "prompts"


@dataclasses.dataclass(frozen=True)
class Prompt:
  """A text with places to fill."""

  id: str  # the name of its file
  text: str  # with `$name` for what varies

  @property
  def version(self) -> str:
    """12 hex digits of the sha256 of the text: a changed prompt is another one."""
    return hashlib.sha256(self.text.encode()).hexdigest()[:12]

  def request(
    self, places: Mapping[str, str], max_tokens: int, temperature: float, sample: int
  ) -> Request:
    """Return the request with its places filled; another sample is another reply."""
    messages = (Message("user", string.Template(self.text).substitute(places)),)
    named = self.id, self.version
    return Request(messages, max_tokens, *named, sample, temperature)

  def record(self) -> dict[str, str]:
    """Return the prompt for cards."""
    return {**dataclasses.asdict(self), "version": self.version}


def load(name: str, places: frozenset[str]) -> Prompt:
  """Return a prompt of the project, such as "annotate", or of a file.

  `places` are the names that its text may and must vary by.

  Raises:
    InputError: no such file, not text, or not the places that there are.
  """
  path = _FOLDER / f"{name}.txt"
  if not path.is_file():
    path = Path(name).expanduser()
  try:
    text = path.read_text(encoding="utf-8")
  except (OSError, UnicodeDecodeError) as error:
    known = ", ".join(sorted(file.stem for file in _FOLDER.glob("*.txt")))
    raise InputError(
      f"{name}: not readable ({getattr(error, 'strerror', None) or error}); "
      f"expected a text file, or one of {known}"
    ) from None
  template = string.Template(text)
  found = set(template.get_identifiers())
  if not template.is_valid() or found != places:
    raise InputError(
      f"{path}: got the places {', '.join(sorted(found)) or 'none'}, expected "
      f"{', '.join(sorted(places))} (a plain dollar sign is written $$)"
    )
  return Prompt(path.stem, text)


class Asker:
  """A stage's prompt, and the replies to it."""

  def __init__(self, config: Any, places: frozenset[str], client: Client):
    self.config, self.client = config, client
    with naming(f"{config.gin_name}.prompt"):
      self.prompt = load(config.prompt, places)

  def identity(self) -> dict[str, Any]:
    """Return the model and the prompt."""
    return {**self.client.identity(), "prompt": self.prompt.version}

  def facts(self) -> dict[str, Any]:
    """Return the model, the prompt, and the cost for stats and cards."""
    return {**self.client.facts(), "prompts": [self.prompt.record()]}

  def ask(
    self,
    items: Iterable[Item],
    request: Callable[[Item], Request],
    parse: Callable[[str], T],
    total: int,
  ) -> Iterator[tuple[Item, T | None, str, dict[str, Any]]]:
    """Yield each item with a value or None, why there is none, and facts about it."""
    facts = {"model": self.client.model, "prompt": self.prompt.version}
    items, asked = itertools.tee(items)
    answers = self.client.ask(map(request, asked), parse, total)
    for item, answer in zip(items, answers, strict=True):
      if isinstance(answer, Answered):
        yield item, answer.value, "", {**facts, "request": answer.reply.key}
      else:
        yield item, None, answer.reason, {**facts, "request": answer.key}
