"""Licences as data sets give them: strings, lists, structs, SPDX expressions."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

UNKNOWN = "unknown"
_TOKEN = re.compile(r"\(|\)|[^\s()]+")
_NAMES = ("spdx", "spdx_id", "key", "name", "license", "licence")
_NONE = {"", "none", "null", "noassertion", "no_license", "unknown"}


def parse(found: Any) -> str:
  """Return the SPDX expression of a licence as a data set gives it.

  Args:
    found: a string, a list of strings or structs (all apply, also unknown ones), a
      struct with the name under `name`, `spdx_id` or the like, or None.

  Returns:
    An expression such as "MIT AND (Apache-2.0 OR BSD-3-Clause)", or "unknown".
  """
  if isinstance(found, Mapping):
    found = next((found[name] for name in _NAMES if found.get(name)), None)
  if isinstance(found, (list, tuple, set)):
    parts = sorted({parse(each) for each in found})
    parts = [f"({p})" if len(parts) > 1 and " OR " in p else p for p in parts]
    return " AND ".join(parts) or UNKNOWN
  text = " ".join(str(found).split()) if found is not None else ""
  return UNKNOWN if text.lower() in _NONE else text


def allowed(licence: str, allowed_names: Sequence[str]) -> bool:
  """Return whether an expression can be fulfilled with allowed licences alone.

  `AND` needs both sides, `OR` needs one, an exception after `WITH` is ignored. Upper
  and lower case are equal. Text that is not an expression counts as one name.
  """
  known = {name.lower() for name in allowed_names}
  if licence.lower() in known:
    return True
  tokens = _TOKEN.findall(licence)
  try:
    result, end = _either(tokens, 0, known)
  except IndexError:
    return False
  return result and end == len(tokens)


def _either(tokens: list[str], place: int, known: set[str]) -> tuple[bool, int]:
  result, place = _both(tokens, place, known)
  while place < len(tokens) and tokens[place].upper() == "OR":
    other, place = _both(tokens, place + 1, known)
    result |= other
  return result, place


def _both(tokens: list[str], place: int, known: set[str]) -> tuple[bool, int]:
  result, place = _single(tokens, place, known)
  while place < len(tokens) and tokens[place].upper() == "AND":
    other, place = _single(tokens, place + 1, known)
    result &= other
  return result, place


def _single(tokens: list[str], place: int, known: set[str]) -> tuple[bool, int]:
  if tokens[place] == "(":
    result, place = _either(tokens, place + 1, known)
    if tokens[place] != ")":
      return False, place
    return result, place + 1
  result = tokens[place].lower() in known
  if place + 1 < len(tokens) and tokens[place + 1].upper() == "WITH":
    place += 2
  return result, place + 1
