"""Stop strings in decoded text. Needs no JAX."""

from collections.abc import Sequence

# Decoded for a character whose last bytes have not been sampled yet.
_UNFINISHED = "\ufffd"


def cut(text: str, stops: Sequence[str]) -> tuple[str, str | None]:
  """Return the text before the first stop string, and that string or None.

  Of stops that begin at the same place the longest is returned.

      cut("a\\ndef f", ["\\ndef", "\\nif"])  ->  ("a", "\\ndef")
  """
  found = [(text.find(stop), -len(stop), stop) for stop in stops if stop in text]
  if not found:
    return text, None
  place, _, stop = min(found)
  return text[:place], stop


def settled(text: str, stops: Sequence[str]) -> int:
  """Return the number of leading characters that no later text can change.

  A stop string may have begun at the end, and the last character may be incomplete.

      settled("x = 1\\nde", ["\\ndef"])  ->  5
  """
  length = len(text.rstrip(_UNFINISHED))
  for stop in stops:
    for size in range(min(len(stop) - 1, length), 0, -1):
      if text.endswith(stop[:size], 0, length):
        length -= size
        break
  return length
