"""Rows of a TOML file: their values, and errors with file and line."""

from __future__ import annotations

import ast
import math
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from phi1_jax import InputError
from phi1_jax.grammar.templates import alternatives


def texts(value: Any) -> tuple[str, ...]:
  """Return the alternatives of a text or of a list of them."""
  return tuple(option for text in listed(value) for option in alternatives(text))


def listed(value: Any) -> list[str]:
  """Return the texts of a text or of a list of them."""
  return [value] if isinstance(value, str) else list(value)


_HEADER = re.compile(r"\[([\w.]+)\]\s*(#.*)?$")
_KEY = re.compile(r"(\w+)\s*=")


def _lines(source: str) -> dict[str, int]:
  """Return "section" and "section.key" -> line number of a TOML file."""
  found: dict[str, int] = {}
  section, inside = "", False
  for number, line in enumerate(source.split("\n"), 1):
    if not inside and (match := _HEADER.match(line)):
      section = match[1]
      found[section] = number
    elif not inside and (match := _KEY.match(line)):
      found[f"{section}.{match[1]}"] = number
    inside ^= line.count("'''") % 2 == 1
  return found


class Row:
  """One row while it is read: its values, and errors with file and line."""

  def __init__(self, file: str, lines: Mapping[str, int], id: str, values: Any):
    self.file, self.lines, self.id = file, lines, id
    if not isinstance(values, dict):
      raise self.wrong("", repr(values), "a row of key = value")
    self.values: dict[str, Any] = dict(values)

  @property
  def place(self) -> str:
    """File and line."""
    return f"{self.file}:{self.lines.get(self.id, 1)} [{self.id}]"

  def wrong(self, key: str, got: str, expected: str) -> InputError:
    """Return the error of a key, with its line."""
    line = self.lines.get(f"{self.id}.{key}", self.lines.get(self.id, 1))
    where = f"{self.file}:{line} [{self.id}]{' ' * bool(key)}{key}"
    return InputError(f"{where}: got {got}, expected {expected}; change the row")

  def take(self, key: str, default: Any = None, type: Any = (str, list)) -> Any:
    """Return and remove the value of a key; without a default the row needs it."""
    if key not in self.values:
      if default is None:
        raise self.wrong(key, "nothing", "a value")
      return default
    value = self.values.pop(key)
    texts = not isinstance(value, list) or all(isinstance(v, str) for v in value)
    if not isinstance(value, type) or not texts:
      raise self.wrong(key, repr(value), "a text or a list of texts")
    if value == [] and default is None:
      raise self.wrong(key, "[]", "at least one text")
    return value

  def texts(self, key: str, default: Any = None) -> tuple[str, ...]:
    """Return the alternatives of a key."""
    try:
      return texts(self.take(key, default))
    except ValueError as error:
      raise self.wrong(key, str(error), "brackets in pairs") from None

  def literal(self, key: str) -> tuple[Any, ...]:
    """Return the values of a key that holds a Python list."""
    text = self.take(key, "[]", str)
    try:
      return tuple(ast.literal_eval(text))
    except (ValueError, SyntaxError, TypeError) as error:
      raise self.wrong(key, f"{text!r} ({error})", "a list of literals") from None

  def let(self) -> tuple[tuple[str, tuple[Any, ...]], ...]:
    """Return the constants: "2..9|20" are numbers, "a|b" are texts."""
    found = []
    for name, text in self.take("let", {}, dict).items():
      values: list[Any] = []
      for each in str(text).split("|"):
        if match := re.fullmatch(r"(-?\d+)\.\.(-?\d+)", each):
          numbers = range(int(match[1]), int(match[2]) + 1)
          if not numbers:
            raise self.wrong("let", repr(text), 'a range such as "2..9"')
          values += numbers
        else:
          values.append(int(each) if re.fullmatch(r"-?\d+", each) else each)
      if not values or len({type(value) for value in values}) > 1:
        raise self.wrong("let", repr(text), 'such as "2..9|20" or "a|b"')
      found.append((name, tuple(values)))
    return tuple(found)

  def weight(self, key: str = "weight", default: float = 1.0) -> float:
    """Return a number that is not negative."""
    value = self.values.pop(key, default)
    if type(value) not in (int, float) or not 0 <= value < math.inf:
      raise self.wrong(key, repr(value), "a number >= 0")
    return float(value)

  def words(self, key: str) -> tuple[str, ...]:
    """Return words that are divided by spaces."""
    words = tuple(self.take(key, None, str).split())
    bad = [word for word in words if not word.isidentifier()]
    if bad or not words:
      got = repr(bad[0]) if bad else "none"
      raise self.wrong(key, got, "words of letters, digits and _")
    return words

  def done(self) -> None:
    """Raise if a key is left that no row has."""
    for key in self.values:
      raise self.wrong(key, "a key that no such row has", "a key of docs/exercises.md")


def read(file: Path) -> list[Row]:
  """Return the rows of a file, not yet read."""
  try:
    source = file.read_text(encoding="utf-8-sig")
    tables = tomllib.loads(source)
  except OSError as error:
    raise InputError(
      f"Data.grammar_tables: got {file}, expected a file that can be read "
      f"({error.strerror}); give its path"
    ) from None
  except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
    raise InputError(f"{file}: got {error}, expected TOML; change the line") from None
  lines = _lines(source)
  found = []
  for section, rows in tables.items():
    for name, values in rows.items() if isinstance(rows, dict) else ():
      if section in ("filter", "map"):
        for part, columns in values.items():
          found.append(Row(str(file), lines, f"{section}.{name}.{part}", columns))
      else:
        found.append(Row(str(file), lines, f"{section}.{name}", values))
  return found
