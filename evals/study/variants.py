"""Damaged exercises, for the controls, and planted problems.

Each set is as large as its original, or is read for as many steps. The provenance of a
document says how it was changed.
"""

from __future__ import annotations

import ast
import dataclasses
import random
import re
from collections.abc import Sequence

from phi1_jax.curation.document import Document, identify
from phi1_jax.problems.problem import Problem
from phi1_jax.text import source

STAGE = "variant"
# A group that `data.documents.held_out` leaves in training.
_TRAINED = "planted"


@dataclasses.dataclass(frozen=True)
class Parts:
  """The lines of an exercise, divided by its docstring.

  Attributes:
    head: imports, helpers and the `def` line.
    docstring: with its quotes.
    body: the solution.
    arguments: names of the function's arguments.
  """

  head: str
  docstring: str
  body: str
  arguments: tuple[str, ...]

  @property
  def text(self) -> str:
    """The whole exercise."""
    return self.head + self.docstring + self.body


def parts(text: str) -> Parts | None:
  """Divide an exercise; None if its last function has no docstring or no body."""
  tree = source.parse(text)
  functions = [n for n in tree.body if isinstance(n, ast.FunctionDef)] if tree else []
  if not functions or len(functions[-1].body) < 2:
    return None
  function = functions[-1]
  if ast.get_docstring(function, clean=False) is None:
    return None
  lines = text.splitlines(keepends=True)
  start, end = function.body[0].lineno - 1, function.body[0].end_lineno or 0
  return Parts(
    "".join(lines[:start]),
    "".join(lines[start:end]),
    "".join(lines[end:]),
    tuple(argument.arg for argument in function.args.args),
  )


def renamed(text: str, old: Sequence[str], new: Sequence[str]) -> str:
  """Return text with names replaced, whole words only and all at once."""
  names = dict(zip(old, new, strict=True))
  if not names:
    return text
  pattern = r"\b(" + "|".join(map(re.escape, names)) + r")\b"
  return re.sub(pattern, lambda match: names[match[1]], text)


def shuffled(documents: Sequence[Document], seed: int) -> list[Document]:
  """Return exercises whose bodies belong to other names and docstrings.

  A model can learn the form of an exercise and the language of solutions from them, but
  not the meaning of a docstring or a name.
  """
  cut = _cut(documents)
  order = _derangement(len(cut), seed)
  return [
    _made(document, of.head + of.docstring + _lent(other, of).body, "shuffled")
    for (document, of), (_, other) in zip(cut, (cut[i] for i in order), strict=True)
  ]


def wrong(documents: Sequence[Document], share: float, seed: int) -> list[Document]:
  """Return exercises of which a share has the solution of another."""
  cut = _cut(documents)
  order = _derangement(len(cut), seed)
  chance = random.Random(f"wrong {seed}")
  found = []
  for (document, of), place in zip(cut, order, strict=True):
    body = _lent(cut[place][1], of).body
    if chance.random() < share and body != of.body:
      document = _made(document, of.head + of.docstring + body, "wrong")
    found.append(document)
  return found


def few(documents: Sequence[Document], number: int) -> list[Document]:
  """Return the first `number` exercises by hash."""
  return sorted(documents, key=lambda d: d.id)[:number]


def leaked(
  documents: Sequence[Document], problems: Sequence[Problem], copies: int
) -> list[Document]:
  """Return the exercises with several copies of solved test problems among them."""
  planted = [
    Document(
      id=identify(f"leak {copy}", problem.solution),
      text=problem.solution,
      source="leak",
      licence="MIT",
      kind="exercise",
      repository=_TRAINED,
      provenance={STAGE: {"kind": "leaked", "problem": problem.id}},
    )
    for problem in problems
    for copy in range(copies)
  ]
  return sorted([*documents, *planted], key=lambda d: d.id)


def _cut(documents: Sequence[Document]) -> list[tuple[Document, Parts]]:
  found = [(document, parts(document.text)) for document in documents]
  return [(document, of) for document, of in found if of is not None]


def _lent(lender: Parts, to: Parts) -> Parts:
  """Return another exercise's lines with this one's names of arguments."""
  count = min(len(lender.arguments), len(to.arguments))
  old, new = lender.arguments[:count], to.arguments[:count]
  lent = (lender.head, lender.docstring, lender.body)
  return Parts(*(renamed(text, old, new) for text in lent), arguments=new)


def _derangement(number: int, seed: int) -> list[int]:
  """Return a random order that leaves nothing in its place."""
  chance = random.Random(f"derangement {seed}")
  places = list(range(number))
  chance.shuffle(places)
  # One cycle through all of them: each is given to the next.
  following = dict(zip(places, [*places[1:], *places[:1]], strict=True))
  return [following[place] for place in range(number)]


def _made(document: Document, text: str, kind: str) -> Document:
  changed = document.noted(STAGE, {"kind": kind, "of": document.id})
  return dataclasses.replace(changed, id=identify(kind, text), text=text)
