"""How a draft becomes an exercise: named, run, and worded."""

import builtins
import keyword
import random
import re
from collections.abc import Sequence

from phi1_jax.grammar import docstring, exercise, words
from phi1_jax.grammar.draft import SELF, Argument, Draft
from phi1_jax.grammar.draws import chance, several, weighted, whole
from phi1_jax.grammar.exercise import Call, Exercise
from phi1_jax.grammar.reserve import Gate

LONGEST_NAME = 48
LONGEST_LINE = 92
HINTS = ((0.4, "typing"), (0.4, "builtin"), (0.2, "none"))
_NAME_TRIES = 12
_TAKEN = frozenset(dir(builtins)) | frozenset(keyword.kwlist) | words.LOCALS


def usable(name: str) -> bool:
  """Whether a function or an argument may be called so."""
  return name.isidentifier() and name not in _TAKEN


def _named(draft: Draft, rng: random.Random, gate: Gate) -> str | None:
  arguments = {argument.name for argument in draft.arguments}
  for _ in range(_NAME_TRIES):
    pieces = [piece for piece in draft.name(rng).split("_") if piece]
    doubled = zip(pieces, ["", *pieces], strict=False)
    name = "_".join(piece for piece, before in doubled if piece != before)
    fits = len(name) <= LONGEST_NAME and usable(name) and name not in arguments
    if fits and gate.name(name):
      return name
  return None


def _typed(style: str, text: str) -> tuple[str, set[str]]:
  """A type in a style, "typing" or "builtin", and what it imports from typing."""
  if style == "builtin":
    return text, set()
  text = re.sub(r"\b(list|dict|set|tuple)\[", lambda m: m[0].capitalize(), text)
  text = re.sub(r"^(.+) \| None$", r"Optional[\1]", text)
  return text, set(re.findall(r"\b(List|Dict|Set|Tuple|Optional)\b", text))


def signature(
  name: str, arguments: Sequence[Argument], returns: str, style: str
) -> tuple[str, set[str]]:
  """The `def` line, and the names it needs from typing.

  Args:
    name: the function's.
    arguments: its arguments.
    returns: its type, as in `dict[str, int]`.
    style: "typing" (`Dict[str, int]`), "builtin" (`dict[str, int]`) or "none".
  """
  if style == "none":
    return f"def {name}({', '.join(a.name for a in arguments)}):", set()
  needed, listed = set(), []
  for argument in arguments:
    text, names = _typed(style, argument.type)
    needed |= names
    listed.append(f"{argument.name}: {text}")
  text, names = _typed(style, returns)
  return f"def {name}({', '.join(listed)}) -> {text}:", needed | names


def _examples(
  rng: random.Random, draft: Draft, made: list[Call], taken: list[Call]
) -> list[Call]:
  """Calls for a doctest, now and then; not those that the tests use, if possible."""
  if "set[" in draft.returns or not chance(rng, 0.15):
    return []
  spare = [call for call in made if call not in taken and len(call.source) < 70]
  distinct = {call.key: call for call in spare or taken}
  return several(rng, list(distinct.values()), whole(rng, 1, 2))


def finish(
  draft: Draft, rng: random.Random, gate: Gate, plain: bool = False
) -> Exercise | None:
  """Names the draft, runs it and words its docstring.

  Args:
    draft: what is to be computed.
    rng: chooses name, inputs and layout.
    gate: the tier that the name must belong to.
    plain: no type hints, no blocks about arguments, no examples.

  Returns:
    None where no name fits the tier, a line is too long, or the answers to the inputs
    are too much alike to judge a solution by.
  """
  name = _named(draft, rng, gate)
  if name is None:
    return None
  lines = [f"    {line}".rstrip().replace(SELF, name) for line in draft.body]
  if max(map(len, lines)) > LONGEST_LINE:
    return None
  body = "\n".join(lines) + "\n"
  found = _tried(draft, rng, name, body)
  if found is None:
    return None
  made, taken = found
  examples = [] if plain else _examples(rng, draft, made, taken)
  text = docstring.layout(rng, draft, examples, plain)
  return Exercise(
    name=name,
    prompt=f"{_head(draft, rng, name, plain)}\n{text}",
    body=body,
    tests=exercise.asserts(taken),
    composition=draft.composition,
    family=draft.family,
    frame=draft.frame,
  )


def _head(draft: Draft, rng: random.Random, name: str, plain: bool) -> str:
  """Imports, helpers and the `def` line, with type hints in some style."""
  style = "none" if plain else weighted(rng, HINTS)
  line, needed = signature(name, draft.arguments, draft.returns, style)
  if len(line) > LONGEST_LINE:
    line, needed = signature(name, draft.arguments, draft.returns, "none")
  header = [f"import {module}" for module in draft.imports]
  if needed:
    header.append(f"from typing import {', '.join(sorted(needed))}")
  blocks = ["\n".join(header)] if header else []
  blocks += [draft.before.rstrip()] if draft.before else []
  return "\n\n\n".join([*blocks, line])


def _tried(
  draft: Draft, rng: random.Random, name: str, body: str
) -> tuple[list[Call], list[Call]] | None:
  """All calls made, and those for the asserts; tries harder once."""
  imports = "".join(f"import {module}\n" for module in draft.imports)
  # Without type hints, which would take longer to evaluate than the rest.
  line, _ = signature(name, draft.arguments, draft.returns, "none")
  function = exercise.compiled(f"{imports}{draft.before}{line}\n{body}", name)
  for count in (8, 16):
    made = exercise.calls(function, name, draft.inputs(rng, count))
    taken = exercise.chosen(rng, made)
    if taken is not None:
      return made, taken
  return None
