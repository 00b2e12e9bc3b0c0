"""A control that copies the body under the most similar training docstring.

A model may have solved by retrieval what this control solves. Similarity is the cosine
of TF-IDF weights of the docstrings' words and pairs of words; the body's arguments get
the names of the problem's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sklearn.feature_extraction.text import TfidfVectorizer

from evals.study.variants import Parts, parts, renamed
from phi1_jax.curation.document import Document
from phi1_jax.problems.problem import Problem


def completions(
  documents: Sequence[Document], problems: Sequence[Problem]
) -> list[dict[str, Any]]:
  """Return a line of `--completions` for each problem, from training exercises."""
  taught = [found for d in documents if (found := parts(d.text))]
  asked = [_asked(problem) for problem in problems]
  vectorizer = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"\w+", min_df=1)
  known = vectorizer.fit_transform([each.docstring for each in taught])
  closeness = vectorizer.transform([each.docstring for each in asked]) @ known.T
  return [
    {"task_id": problem.id, "completion": _copied(taught[int(row.argmax())], each)}
    for problem, each, row in zip(problems, asked, closeness, strict=True)
  ]


def _asked(problem: Problem) -> Parts:
  found = parts(problem.prompt + "    pass\n")
  return found or Parts("", problem.prompt, "", ())


def _copied(of: Parts, to: Parts) -> str:
  """Return the body of an exercise with the arguments of the problem."""
  count = min(len(of.arguments), len(to.arguments))
  return renamed(of.body, of.arguments[:count], to.arguments[:count])
