"""Stop strings, looked for in decoded text. Needs no JAX."""

from collections.abc import Sequence

# What stands for a character whose last bytes have not been sampled yet.
_UNFINISHED = "\ufffd"


def cut(text: str, stops: Sequence[str]) -> tuple[str, str | None]:
  """The text before the first stop string, and which one it was (None: none).

  Of stops that begin at the same place the longest is named.

      cut("a\\ndef f", ["\\ndef", "\\nif"])  ->  ("a", "\\ndef")
  """
  found = [(text.find(stop), -len(stop), stop) for stop in stops if stop in text]
  if not found:
    return text, None
  place, _, stop = min(found)
  return text[:place], stop


def settled(text: str, stops: Sequence[str]) -> int:
  """How many leading characters no later text can take back.

  A stop string may have begun at the end, and a last character may be incomplete.

      settled("x = 1\\nde", ["\\ndef"])  ->  5
  """
  length = len(text.rstrip(_UNFINISHED))
  for stop in stops:
    for size in range(min(len(stop) - 1, length), 0, -1):
      if text.endswith(stop[:size], 0, length):
        length -= size
        break
  return length
