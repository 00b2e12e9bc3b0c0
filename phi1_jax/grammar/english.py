"""The little English grammar that phrases are put together with."""

_DOUBLING = {"cap", "cut", "drop", "flip", "get", "pad", "put", "strip", "swap", "trim"}


def capital(text: str) -> str:
  """The text with a capital letter at its start."""
  return text[:1].upper() + text[1:]


def article(noun: str) -> str:
  """The noun with "a" or "an" before it."""
  return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def gerund(phrase: str) -> str:
  """ "square it" -> "squaring it"."""
  verb, _, rest = phrase.partition(" ")
  if verb in _DOUBLING:
    verb += verb[-1]
  elif verb.endswith("e") and not verb.endswith("ee"):
    verb = verb[:-1]
  return f"{verb}ing {rest}"


def third_person(phrase: str) -> str:
  """ "square it" -> "squares it"."""
  verb, _, rest = phrase.partition(" ")
  if verb.endswith("y") and verb[-2] not in "aeou":
    return f"{verb[:-1]}ies {rest}"
  return f"{verb}{'es' if verb.endswith(('s', 'x', 'ch', 'sh')) else 's'} {rest}"


def singular(verb: str) -> str:
  """ "is/are even" -> "is even"."""
  pair, _, rest = verb.partition(" ")
  return f"{pair.split('/')[0]} {rest}"


def plural(verb: str) -> str:
  """ "is/are even" -> "are even"."""
  pair, _, rest = verb.partition(" ")
  return f"{pair.split('/')[1]} {rest}"


def negated(verb: str, many: bool = False) -> str:
  """ "is/are even" -> "is not even"; "ends/end in 5" -> "does not end in 5"."""
  pair, _, rest = verb.partition(" ")
  one, more = pair.split("/")
  if rest.startswith("no "):  # "is no multiple" -> "is a multiple"
    return f"{more if many else one} a {rest[3:]}"
  if rest.startswith("not "):
    plain = rest[4:]
    if one == "is":
      return f"{more if many else one} {plain}"
    return plain if many else third_person(plain)
  if one == "is":
    return f"{more if many else one} not {rest}"
  return f"{'do' if many else 'does'} not {more} {rest}"


def listed(items: list[str], word: str = "and") -> str:
  """ "a", "a and b", "a, b and c"."""
  if len(items) < 2:
    return "".join(items)
  return f"{', '.join(items[:-1])} {word} {items[-1]}"


def both(verbs: list[str]) -> str:
  """Verbs joined by "and", with more weight where one of them holds an "or"."""
  return (", and also " if any(" or " in v for v in verbs) else " and ").join(verbs)


def wrapped(text: str, width: int, indent: str = "") -> list[str]:
  """Lines of at most `width` characters, broken at spaces; `indent` from the second."""
  lines, line = [], ""
  for word in text.split(" "):
    if line and len(line) + 1 + len(word) > width:
      lines.append(line)
      line = indent + word
    else:
      line = f"{line} {word}" if line else word
  return [*lines, line]
