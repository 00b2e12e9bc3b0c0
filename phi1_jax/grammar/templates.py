"""The small language of the tables.

`[a|b]` stands for "a" or "b", and a bracket may be inside another; a `|` outside of
brackets divides whole alternatives. `$name` is a place that is filled; `$name:mode`
fills it in another form.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable

PLACE = re.compile(r"\$([a-z]+)(?::([a-z]+))?")
# A text, or a place as (name, mode).
Piece = str | tuple[str, str]
Template = tuple[Piece, ...]


def alternatives(text: str) -> list[str]:
  """Return what a text of the tables stands for, in order.

  >>> alternatives("the [sum|total] of $xs|$xs[| added] up")
  ['the sum of $xs', 'the total of $xs', '$xs up', '$xs added up']

  Raises:
    ValueError: a bracket is never closed, or never opened.
  """
  found, place = _options(text, 0)
  if place < len(text):
    raise ValueError(f"a ']' without a '[' in {text!r}")
  return found


def _options(text: str, place: int) -> tuple[list[str], int]:
  """Return the alternatives from a place on, and the place of the ']' or the end."""
  found: list[str] = []
  current = [""]
  while place < len(text) and text[place] != "]":
    character = text[place]
    if character == "[":
      inner, place = _options(text, place + 1)
      if place >= len(text):
        raise ValueError(f"a '[' without a ']' in {text!r}")
      current = [before + option for before in current for option in inner]
    elif character == "|":
      found += current
      current = [""]
    else:
      current = [before + character for before in current]
    place += 1
  return found + current, place


def parse(text: str) -> Template:
  """Return a text as pieces: texts and places."""
  pieces: list[Piece] = []
  end = 0
  for match in PLACE.finditer(text):
    if match.start() > end:
      pieces.append(text[end : match.start()])
    pieces.append((match[1], match[2] or ""))
    end = match.end()
  if end < len(text):
    pieces.append(text[end:])
  return tuple(pieces)


def parse_all(texts: Iterable[str]) -> tuple[Template, ...]:
  """Return every alternative of the texts as pieces."""
  return tuple(parse(option) for text in texts for option in alternatives(text))


def places(text: str) -> set[str]:
  """Return the names of the places of a text."""
  return {match[1] for match in PLACE.finditer(text)}


def fill(template: Template, value: Callable[[str, str], str]) -> str:
  """Return the text with its places filled by `value(name, mode)`."""
  return "".join(
    [piece if isinstance(piece, str) else value(*piece) for piece in template]
  )


@functools.lru_cache(1 << 14)
def parsed(text: str) -> Template:
  """Return `parse(text)`, from a cache."""
  return parse(text)
