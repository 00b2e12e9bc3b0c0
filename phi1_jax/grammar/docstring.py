"""Docstrings: sentences, blocks for arguments and answer, and examples, laid out."""

import random
from collections.abc import Sequence

from phi1_jax.grammar import english
from phi1_jax.grammar.draft import Argument, Draft
from phi1_jax.grammar.draws import chance, weighted
from phi1_jax.grammar.exercise import Call

WIDTH = 76
UNWRAPPED = 95  # sentences up to this long may stand on one line
_INDENT = "    "
BLOCKS = ((0.7, "none"), (0.12, "google"), (0.13, "parameters"), (0.05, "sphinx"))


def _paragraph(text: str, wrap: bool) -> list[str]:
  lines = []
  for line in text.split("\n"):
    start = "   " if line[:1].isdigit() and line[1:3] == ". " else ""
    start = "  " if line.startswith("- ") else start
    lines += english.wrapped(line, WIDTH, start) if wrap else [line]
  return lines


def _block(style: str, arguments: Sequence[Argument], draft: Draft) -> list[str]:
  """Lines that describe arguments and answer, with an empty one before them."""
  answer = english.capital(draft.answer)
  if style == "google":
    lines = [f"{_INDENT}{a.name}: {english.capital(a.about)}." for a in arguments]
    return ["", "Args:", *lines, "", "Returns:", f"{_INDENT}{answer}."]
  if style == "parameters":
    lines = [
      f"{_INDENT}{a.name} ({a.type}): {english.capital(a.about)}." for a in arguments
    ]
    ending = f"{_INDENT}{draft.returns}: {answer}."
    return ["", "Parameters:", *lines, "", "Returns:", ending]
  if style == "sphinx":
    lines = [f":param {a.name}: {a.about}" for a in arguments]
    return ["", *lines, f":return: {draft.answer}"]
  return []


def shown(call: Call) -> str:
  """The answer as the interpreter shows it."""
  text = call.answer
  if text.startswith('"') and "'" not in text and "\\" not in text:
    return f"'{text[1:-1]}'"
  return repr(eval(text))  # a literal that this part wrote


def layout(
  rng: random.Random, draft: Draft, examples: Sequence[Call], plain: bool = False
) -> str:
  """The docstring's source, indented by 4 spaces, with a newline at its end.

  Args:
    rng: chooses the layout.
    draft: what is to be said.
    examples: calls to show as a doctest.
    plain: no block about arguments and answer.
  """
  lines = _paragraph(draft.prose, wrap=len(draft.prose) > UNWRAPPED or chance(rng, 0.8))
  style = "none" if plain else weighted(rng, BLOCKS)
  lines += _block(style, draft.arguments, draft)
  doctest = [line for call in examples for line in (f">>> {call.source}", shown(call))]
  if doctest and "None" not in doctest:  # which the interpreter does not show
    lines += ["", *doctest]
  if len(lines) == 1 and len(lines[0]) <= WIDTH + 4 and not lines[0].endswith('"'):
    return f'{_INDENT}"""{lines[0]}"""\n'
  first = [f'{_INDENT}"""{lines[0]}']
  if chance(rng, 0.3):
    first = [f'{_INDENT}"""', f"{_INDENT}{lines[0]}"]
  rest = [f"{_INDENT}{line}".rstrip() for line in lines[1:]]
  return "\n".join([*first, *rest, f'{_INDENT}"""']) + "\n"
