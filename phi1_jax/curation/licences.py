"""Licences as data sets give them: strings, lists, structs, SPDX expressions."""

import ast
import re
from collections.abc import Mapping, Sequence
from typing import Any

UNKNOWN = "unknown"
_NAMES = ("spdx", "spdx_id", "key", "name", "license", "licence")
# Spellings of names that are not SPDX's, in lower case.
_SPELLINGS = (
  (r"(?:the )?(mit|isc|zlib|unlicense) licen[cs]e", r"\1"),
  (r"the unlicense", "Unlicense"),
  (r"apache(?: software)?(?: licen[cs]e)?,?(?: version)?[ -]v?2(?:\.0)?", "Apache-2.0"),
  (r"bsd[ -]([23])-clause\b.* licen[cs]e", r"BSD-\1-Clause"),
)
_NONE = {"", "none", "null", "noassertion", "no_license", "unknown"}


def parse(found: Any) -> str:
  """Return the SPDX expression of a licence as a data set gives it.

  Args:
    found: a string, also of a list, or of names that a slash divides (any applies), a
      list of strings or structs (all apply, also unknown ones), a
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
  if text.startswith("[") and text.endswith("]"):
    try:
      return parse(ast.literal_eval(text))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
      return text
  if re.fullmatch(r"[\w.+ -]+(?:/[\w.+ -]+)+", text):
    return " OR ".join(map(parse, text.split("/")))
  for pattern, name in _SPELLINGS:
    if spelled := re.fullmatch(pattern, text, re.IGNORECASE):
      return spelled.expand(name)
  return UNKNOWN if text.lower() in _NONE else text


def allowed(licence: str, allowed_names: Sequence[str]) -> bool:
  """Return whether an expression can be fulfilled with allowed licences alone.

  `AND` needs both sides, `OR` needs one, an exception after `WITH` is ignored. Upper
  and lower case are equal. Text that is not an expression counts as one name.
  """
  known = {name.lower() for name in allowed_names}
  if licence.lower() in known:
    return True
  text = re.sub(r"\s+WITH\s+[^\s()]+", "", licence, flags=re.IGNORECASE)
  words = [token.lower() for token in re.findall(r"\(|\)|[^\s()]+", text)]
  operators = ("(", ")", "and", "or")
  terms = [w if w in operators else str(w in known) for w in words]
  try:  # an expression of True, False and operators; SPDX and Python agree on these
    tree = ast.parse(" ".join(terms), mode="eval")
    return not any(isinstance(n, ast.Call | ast.Tuple) for n in ast.walk(tree)) and (
      eval(compile(tree, "licence", "eval"), {}) is True
    )
  except (SyntaxError, RecursionError, MemoryError):
    return False
