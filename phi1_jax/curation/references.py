"""Benchmarks that training data must not hold, indexed for one pass over a corpus.

Each problem gives its text (HumanEval: the docstring; MBPP: the task without "Write a
function to"), its solution, and the shape of its functions. Their n-grams and lines are
looked up, so that the cost of a document does not grow with the benchmarks; shapes are
compared with those of about the same length.
"""

import ast
import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from phi1_jax import InputError, storage
from phi1_jax.curation import generic, search, verdict
from phi1_jax.curation.config import PROBLEM_FILES
from phi1_jax.curation.verdict import Evidence
from phi1_jax.problems import humaneval, mbpp, written
from phi1_jax.problems.problem import Problem, digest
from phi1_jax.text import source, trees

# Texts of fewer words say too little to be looked for.
LEAST_WORDS = 6
# Words of the runs that support a match of functions.
PHRASE = 4
_TASK = re.compile(
  r"^\s*write an? (?:python )?(?:function|program|code)s? (?:to|that)\b", re.I
)
Embed = Callable[[Sequence[str]], npt.NDArray[np.floating]]


@dataclasses.dataclass(frozen=True)
class Reference:
  """One problem.

  Attributes:
    id: "HumanEval/0", "Mbpp/2".
    benchmark: task set that it is of.
    name: entry point of its solution.
    text_words: words of its text.
    solution_words: words of its solution, docstrings left out.
    body_words: number of words of its entry point's body.
    lines: lines of that body (see `source.lines`).
    shapes: of its entry point; of one that only calls another function, of that too.
    code: solution, for embeddings.
  """

  id: str
  benchmark: str
  name: str
  text_words: tuple[str, ...]
  solution_words: tuple[str, ...]
  body_words: int
  lines: tuple[str, ...]
  shapes: tuple[trees.Shape, ...]
  code: str

  @property
  def generic(self) -> bool:
    """Whether all of it is an idiom (see generic.py)."""
    return all(map(generic.known, self.shapes))


def problems(benchmarks: Iterable[str]) -> list[tuple[str, Problem]]:
  """Return the problems of some task sets, with the set's name.

  Raises:
    InputError: a task set is not known, or its file is not there.
  """
  return [(name, problem) for name in benchmarks for problem in _load(name)]


def _load(name: str) -> Sequence[Problem]:
  if name.endswith(PROBLEM_FILES):
    return humaneval.read(storage.parse(name))
  if name in written.TASK_SETS:
    return written.load(name)
  return humaneval.load() if name == humaneval.TASK_SET else mbpp.load(name)


def reference(benchmark: str, problem: Problem) -> Reference:
  """Return what is looked for of a problem.

  Raises:
    InputError: its solution does not define its entry point in a way that can be
      compared with other functions.
  """
  tree = source.parse(problem.solution)
  functions = {
    node.name: node
    for node in (tree.body if tree else ())
    if isinstance(node, source.FunctionNode)
  }
  found = {name: trees.shape(node) for name, node in functions.items()}
  shapes = {name: shape for name, shape in found.items() if shape}
  if problem.entry_point not in shapes:
    if tree is None:
      what = "a solution (prompt + canonical_solution) that is no Python"
    elif problem.entry_point not in functions:
      what = "a solution without it"
    else:
      what = "one that is nested too deep to be compared"
    raise InputError(
      f"Decontaminate.benchmarks: {benchmark}, {problem.id}: got {what}, expected a "
      f"function {problem.entry_point!r} at top level; mend the problem or leave it out"
    )
  entry = functions[problem.entry_point]
  docstring = ast.get_docstring(entry)
  body = body_of(problem.solution, entry)
  return Reference(
    id=problem.id,
    benchmark=benchmark,
    name=problem.entry_point,
    text_words=prose(source.words(docstring or _TASK.sub("", problem.prompt))),
    solution_words=tuple(source.words(without_docstrings(problem.solution))),
    body_words=len(source.words(body)),
    lines=source.lines(body),
    shapes=_shapes(problem.entry_point, shapes),
    code=ended(problem.solution),
  )


def _shapes(name: str, shapes: Mapping[str, trees.Shape]) -> tuple[trees.Shape, ...]:
  """Return the shape of the entry point, and of the function that it wraps."""
  names = [name]
  if len(shapes[name].written) < verdict.SHORT_TOKENS:
    names.append(max(shapes, key=lambda name: (len(shapes[name].written), name)))
  return tuple(shapes[name] for name in dict.fromkeys(names))


def body_of(code: str, function: source.FunctionNode) -> str:
  """Return the lines of a function after its signature and docstring."""
  after = bool(ast.get_docstring(function, clean=False)) and len(function.body) > 1
  first = function.body[1 if after else 0]
  return "\n".join(code.split("\n")[first.lineno - 1 : function.end_lineno])


def prose(words: Iterable[str]) -> tuple[str, ...]:
  """Return words without operators."""
  return tuple(word for word in words if word[0].isalnum() or word[0] == "_")


def without_docstrings(code: str) -> str:
  """Return Python source without its docstrings."""
  tree = source.parse(code)
  lines = code.split("\n")
  for node in ast.walk(tree) if tree else ():
    if not isinstance(node, ast.Module | ast.ClassDef | source.FunctionNode):
      continue
    if ast.get_docstring(node, clean=False) is not None:
      text = node.body[0]
      for number in range(text.lineno - 1, text.end_lineno or text.lineno):
        lines[number] = ""
  return "\n".join(lines)


class Index:
  """All references, ready to be searched; can be pickled.

  Args:
    references: the problems.
    ngram: words of a run.
    digest: sha256 of the problems.
    vectors: unit embeddings of their solutions [problems, dimensions], or None.
  """

  def __init__(
    self,
    references: Sequence[Reference],
    ngram: int,
    digest: str,
    vectors: npt.NDArray[np.floating] | None = None,
  ):
    self.references, self.digest = tuple(references), digest
    texts = [r.text_words for r in references]
    self._texts = search.Grams(texts, ngram, LEAST_WORDS)
    self._phrases = search.Grams(texts, PHRASE, PHRASE + 1)
    self._solutions = search.Grams(
      [r.solution_words for r in references], ngram, LEAST_WORDS
    )
    self._lines = search.Lines([r.lines for r in references])
    self._shapes = search.Shapes(
      [r.name for r in references], [r.shapes for r in references]
    )
    self._generic = [generic.known(shape) for shape in self._shapes.all]
    self._vectors = vectors

  @staticmethod
  def of(benchmarks: Sequence[str], ngram: int, embed: Embed | None = None) -> "Index":
    """Return the index of some task sets.

    Raises:
      InputError: a task set is not known, or its file is not there.
    """
    named = problems(benchmarks)
    found = [reference(name, problem) for name, problem in named]
    vectors = unit(embed([r.code for r in found])) if embed else None
    return Index(found, ngram, digest(p for _, p in named), vectors)

  def ids(self) -> dict[str, set[str]]:
    """Return the ids of each task set's problems."""
    found: dict[str, set[str]] = {}
    for each in self.references:
      found.setdefault(each.benchmark, set()).add(each.id)
    return found

  def evidence(
    self, text: str, least: float, near: Mapping[int, float] | None = None
  ) -> list[Evidence]:
    """Return what a document has in common with each problem.

    Args:
      text: the document.
      least: an AST match rate of this or more is a reason to look at a pair.
      near: distances of embeddings of those that are close.
    """
    every = [(f.name, trees.shape(f.node)) for f in source.functions(text)]
    functions = [(name, shape) for name, shape in every if shape]
    matches = self._shapes.best(functions, min(least, verdict.SUPPORTED))
    words = source.words(text)
    plain = prose(words)
    texts, phrases = self._texts.shared(plain), self._phrases.shared(plain)
    solutions = self._solutions.shared(words)
    exact = self._lines.contained(source.lines(text))
    near = near or {}
    alike = {
      n for n, match in matches.items() if match.rate >= least or match.same_name
    }
    return [
      self._pair(
        number,
        exact=number in exact,
        text_runs=texts.get(number, 0),
        phrases=phrases.get(number, 0) / max(1, int(self._phrases.totals[number])),
        solution_runs=solutions.get(number, 0),
        distance=near.get(number),
        **self._matched(matches.get(number), functions),
      )
      for number in sorted({*texts, *solutions, *exact, *near, *alike})
    ]

  def _matched(
    self, match: search.Match | None, functions: Sequence[tuple[str, trees.Shape]]
  ) -> dict[str, Any]:
    if match is None:
      return {}
    shape = self._shapes.all[match.shape]
    return {
      "match": match.rate,
      "same_name": match.same_name,
      "function": functions[-match.function][0],
      "tokens": min(len(shape.written), len(shape.ordered)),
      "generic_match": self._generic[match.shape],
    }

  def _pair(self, number: int, **facts: Any) -> Evidence:
    of = self.references[number]
    return Evidence(
      problem=of.id,
      text=facts["text_runs"] / max(1, int(self._texts.totals[number])),
      solution=facts["solution_runs"] / max(1, int(self._solutions.totals[number])),
      words=of.body_words,
      text_words=len(of.text_words),
      generic=of.generic,
      **facts,
    )

  def near(
    self, texts: Sequence[str], embed: Embed, distance: float
  ) -> list[dict[int, float]]:
    """Return for each text the problems whose embedding is close to a function's."""
    assert self._vectors is not None
    pieces = [[f.source for f in source.functions(text)] or [text] for text in texts]
    flat = [ended(piece) for found in pieces for piece in found]
    vectors = unit(embed(flat)) if flat else np.zeros((0, self._vectors.shape[1]))
    closeness = vectors @ self._vectors.T
    distances = np.sqrt(np.maximum(0.0, 2.0 - 2.0 * closeness))
    ends = np.cumsum([len(found) for found in pieces])
    results = []
    for end, found in zip(ends, pieces, strict=True):
      least = distances[end - len(found) : end].min(0)
      close = np.flatnonzero(least <= distance)
      results.append({int(n): float(least[n]) for n in close})
    return results


def ended(code: str) -> str:
  """Return code with one end of line, since the last hidden state depends on it."""
  return code.rstrip("\n") + "\n"


def unit(vectors: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
  """Return vectors of length 1 [n, dimensions]; a vector of zeros stays."""
  lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
  return vectors / np.where(lengths > 0, lengths, 1.0)
