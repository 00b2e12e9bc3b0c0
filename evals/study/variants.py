"""Damaged exercises, for the controls, planted problems, and a control that copies.

The provenance of a document says how it was changed.
"""

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
  """The lines of an exercise, divided by its docstring."""

  head: str  # imports, helpers and the `def` line
  docstring: str  # with its quotes
  body: str  # the solution
  arguments: tuple[str, ...]  # names of the function's arguments


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
  cut = (lines[:start], lines[start:end], lines[end:])
  names = tuple(argument.arg for argument in function.args.args)
  return Parts(*map("".join, cut), arguments=names)


def renamed(text: str, old: Sequence[str], new: Sequence[str]) -> str:
  """Return text with names replaced pair by pair, whole words only and all at once."""
  names = dict(zip(old, new, strict=False))
  if not names:
    return text
  pattern = r"\b(" + "|".join(map(re.escape, names)) + r")\b"
  return re.sub(pattern, lambda match: names[match[1]], text)


def wrong(
  documents: Sequence[Document], share: float, seed: int, kind: str = "wrong"
) -> list[Document]:
  """Return exercises of which a share has the solution of another.

  It is about their own arguments. With share 1 and kind "shuffled" all have it, and a
  model can learn the form of an exercise and the language of solutions from them, but
  not the meaning of a docstring or a name.
  """
  cut = [(document, parts(document.text)) for document in documents]
  known = [(document, of) for document, of in cut if of is not None]
  places = list(range(len(known)))
  random.Random(f"derangement {seed}").shuffle(places)
  # One cycle through all of them: each gets the body of the next.
  following = dict(zip(places, [*places[1:], *places[:1]], strict=True))
  chance, found = random.Random(f"wrong {seed}"), []
  for place, (document, of) in enumerate(known):
    lender = known[following[place]][1]
    body = renamed(lender.body, lender.arguments, of.arguments)
    if share == 1 or (chance.random() < share and body != of.body):
      text = of.head + of.docstring + body
      changed = document.noted(STAGE, {"kind": kind, "of": document.id})
      document = dataclasses.replace(changed, id=identify(kind, text), text=text)
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


def copied(
  documents: Sequence[Document], problems: Sequence[Problem]
) -> list[dict[str, str]]:
  """Return completions that copy the body under the most similar training docstring.

  A model may have solved by retrieval what this control solves. Similarity is the
  cosine of TF-IDF weights of the docstrings' words and pairs of words; the body's
  arguments get the names of the problem's.

  Returns:
    A line of `--completions` for each problem.
  """
  from sklearn.feature_extraction.text import TfidfVectorizer

  taught = [found for d in documents if (found := parts(d.text))]
  asked = [
    parts(problem.prompt + "    pass\n") or Parts("", problem.prompt, "", ())
    for problem in problems
  ]
  vectorizer = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"\w+", min_df=1)
  known = vectorizer.fit_transform([each.docstring for each in taught])
  closeness = vectorizer.transform([each.docstring for each in asked]) @ known.T
  rows = []
  for problem, to, row in zip(problems, asked, closeness, strict=True):
    of = taught[int(row.argmax())]
    body = renamed(of.body, of.arguments, to.arguments)
    rows.append({"task_id": problem.id, "completion": body})
  return rows
