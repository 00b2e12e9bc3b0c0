"""Reads bindings where the library gin is not installed: the gin of our recipes.

    include 'gin/models/micro.gin'    a path from here or from the repository root
    STEPS = 400                       a macro
    Train.total_steps = %STEPS        a parameter, bound to a macro
    Data.rates = {                    or to a literal, over as many lines as it takes
      "code": 0.7, "text": 0.3,
    }
    Train.seed = %gin.REQUIRED        has to be bound again before it is read

A later binding wins, and the command line comes last. gin has more (references to
functions, macros inside of containers, imports, blocks of bindings); whoever uses it
is told to install gin.
"""

import ast
import io
import re
import tokenize
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from phi1_jax import InputError
from phi1_jax.cli import bindings
from phi1_jax.cli.bindings import PARTS, ROOT, Bindings

_NAME = re.compile(r"[A-Za-z_]\w*([./][A-Za-z_]\w*)*")
_LAYOUT = (tokenize.COMMENT, tokenize.NL, tokenize.INDENT, tokenize.DEDENT)


@dataclass(frozen=True)
class _Macro:
  """A value that stands under another name."""

  name: str


@dataclass(frozen=True)
class _Reader:
  """What has been read so far.

  Attributes:
    classes: parts whose parameters are known by name.
    files: see `Bindings`.
    bound: name -> value.
  """

  classes: Mapping[str, type]
  files: list[str] = field(default_factory=list)
  bound: dict[str, Any] = field(default_factory=dict)

  def read_file(self, path: str, outer: tuple[Path, ...] = ()) -> None:
    places = [Path(path), ROOT / path]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
      raise bindings.no_such_file(path)
    if found.resolve() in outer:
      raise bindings.circle()
    for number, words, line in _statements(found.read_text(encoding="utf-8")):
      place = f"{path}, line {number}"
      if words[0] == "include" and words[1:2] != ["="]:
        included = _value(words[1:], place, line)
        if not isinstance(included, str):
          raise _unknown(place, line)
        self.read_file(included, (*outer, found.resolve()))
      else:
        self.bind(words, place, line)
    self.files.append(path)

  def bind(self, words: list[str], place: str, line: str) -> None:
    equals = words.index("=") if "=" in words else 0
    name = "".join(words[:equals])
    if not _NAME.fullmatch(name):
      raise _unknown(place, line)
    part, _, parameter = name.rpartition(".")
    if part and "/" not in part:  # the caller refuses scopes
      if part not in PARTS:
        raise InputError(
          f"{place}: no part has the name {part!r}; known parts are {', '.join(PARTS)}"
        )
      cls = self.classes.get(part)
      if cls and parameter not in cls.__dataclass_fields__:
        raise bindings.no_such_parameter(f"{place}: ", part, parameter, cls)
    self.bound[name] = _value(words[equals + 1 :], place, line)

  def look_up(self, part: str) -> dict[str, Any]:
    """Implements `Bindings.look_up`."""
    prefix = f"{part}."
    names = [name for name in self.bound if name.startswith(prefix)]
    return {name.removeprefix(prefix): self._follow(name) for name in names}

  def _follow(self, name: str) -> Any:
    """What a name comes to when each macro on the way is replaced."""
    seen = [name]
    while isinstance(value := self.bound[seen[-1]], _Macro):
      if value.name == "gin.REQUIRED":
        raise bindings.required(seen[-1])
      if value.name not in self.bound:
        raise bindings.unbound_macro(value.name)
      if value.name in seen:
        raise bindings.circle()
      seen.append(value.name)
    return value


def read(
  files: Sequence[str], lines: Sequence[str], classes: Mapping[str, type]
) -> Bindings:
  """Does what `gin_library.read` does, and raises what that raises."""
  reader = _Reader(classes)
  for path in files:
    reader.read_file(path)
  for text in lines:
    for _, words, line in _statements(text):
      reader.bind(words, "on the command line", line)
  return Bindings(reader.files, set(reader.bound), reader.look_up)


def is_value(text: str) -> bool:
  """Whether a flag's text is a gin value, not a bare word or path."""
  try:
    statements = list(_statements(text))
    (words,) = [words for _, words, _ in statements]
    _value(words, "", text)
  except (InputError, ValueError, SyntaxError, tokenize.TokenError):
    # What only gin can read must not pass for a string.
    return bool(re.match(r"@\w|[(\[{].*[@%]\w", text.strip()))
  return True


def _statements(text: str):
  """Yields (line number, words, first line) of each statement, without comments."""
  words: list[tokenize.TokenInfo] = []
  for token in tokenize.generate_tokens(io.StringIO(text).readline):
    if token.type not in (tokenize.NEWLINE, tokenize.ENDMARKER):
      words += [token] if token.type not in _LAYOUT else []
    elif words:
      first = words[0]
      yield first.start[0], [word.string for word in words], first.line.strip()
      words = []


def _value(words: list[str], place: str, line: str) -> Any:
  """A literal, or the macro of `%NAME`."""
  text = " ".join(words)
  if words[:1] == ["%"] and _NAME.fullmatch(name := "".join(words[1:])):
    return _Macro(name)
  try:
    value = ast.literal_eval(text)
  except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
    raise _unknown(place, line) from None
  # Python's literals that gin does not take.
  if "+" in words or (isinstance(value, tuple) and words[0] != "("):
    raise _unknown(place, line)
  return value


def _unknown(place: str, line: str) -> InputError:
  return InputError(
    f"{place}: got {line!r}, expected NAME = literal, Part.parameter = literal or "
    "%MACRO, or include 'path'; whatever else gin knows needs the library: "
    "pip install gin-config"
  )
