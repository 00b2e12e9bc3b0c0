"""Benchmarks that training data must not hold, indexed for one pass over a corpus.

Each problem gives its text (HumanEval: the docstring; MBPP: the task without "Write a
function to"), its solution, and the shape of its functions. Their n-grams and lines are
looked up, so that the cost of a document does not grow with the benchmarks; shapes are
compared with those of about the same length.
"""

import ast
import bisect
import collections
import dataclasses
import functools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rapidfuzz.distance import Levenshtein
from rapidfuzz.process import extract

from phi1_jax import InputError, storage
from phi1_jax.curation import verdict
from phi1_jax.curation.config import PROBLEM_FILES
from phi1_jax.curation.verdict import Evidence
from phi1_jax.problems import humaneval, mbpp, written
from phi1_jax.problems.problem import Problem, digest
from phi1_jax.text import shingles, source, trees

# Texts of fewer words say too little to be looked for.
LEAST_WORDS = 6
# Words of the runs that support a match of functions.
PHRASE = 4
# A run of 13 words in which fewer than so many begin with a letter, or differ, is a row
# of numbers or a loop.
_LEAST_LETTERS, _LEAST_DISTINCT = 6, 7
_GENERIC_MATCH = 0.95
_MASK = (1 << 20) - 1
_TASK = re.compile(
  r"^\s*write an? (?:python )?(?:function|program|code)s? (?:to|that)\b", re.I
)
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
Embed = Callable[[Sequence[str]], npt.NDArray[np.floating]]


@dataclasses.dataclass(frozen=True)
class Reference:
  """One problem."""

  id: str  # "HumanEval/0", "Mbpp/2"
  benchmark: str  # its task set
  name: str  # entry point of its solution
  text_words: tuple[str, ...]
  solution_words: tuple[str, ...]  # docstrings left out
  body_words: int  # of its entry point
  lines: tuple[str, ...]  # of that body (see `source.lines`)
  # Of its entry point; of one that only calls another function, of that too.
  shapes: tuple[trees.Shape, ...]
  code: str  # solution, for embeddings
  generic: bool  # whether all of its shapes are what anybody writes


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
  """Return the parts of a problem that are looked for.

  Raises:
    InputError: its solution does not define its entry point in a way that can be
      compared with other functions.
  """
  tree, name = source.parse(problem.solution), problem.entry_point
  nodes = [n for n in (tree.body if tree else ()) if isinstance(n, source.FunctionNode)]
  functions = {node.name: node for node in nodes}
  found = {name: trees.shape(node) for name, node in functions.items()}
  shapes = {name: shape for name, shape in found.items() if shape}
  if name not in shapes:
    got = "one that is nested too deep to be compared"
    if tree is None:
      got = "a solution (prompt + canonical_solution) that is not valid Python"
    elif name not in functions:
      got = "a solution without it"
    raise InputError(
      f"Decontaminate.benchmarks: {benchmark}, {problem.id}: got {got}, expected a "
      f"function {name!r} at top level; mend the problem or leave it out"
    )
  chosen = [name]
  if len(shapes[name].written) < verdict.SHORT_TOKENS:  # it may wrap another
    chosen.append(max(shapes, key=lambda name: (len(shapes[name].written), name)))
  own = tuple(shapes[name] for name in dict.fromkeys(chosen))
  text = ast.get_docstring(functions[name]) or _TASK.sub("", problem.prompt)
  body = _body(problem.solution, functions[name])
  return Reference(
    id=problem.id,
    benchmark=benchmark,
    name=name,
    text_words=_prose(source.words(text)),
    solution_words=tuple(source.words(without_docstrings(problem.solution))),
    body_words=len(source.words(body)),
    lines=source.lines(body),
    shapes=own,
    code=problem.solution,
    generic=all(map(generic, own)),
  )


def generic(shape: trees.Shape) -> bool:
  """Return whether a function is one of idioms.txt, but for its names and strings.

  Anybody writes such functions, and benchmarks ask for some of them; a match with one
  proves nothing by itself.
  """
  least = _GENERIC_MATCH
  return any(trees.match_rate(shape, other, least) >= least for other in _idioms())


@functools.cache
def _idioms() -> tuple[trees.Shape, ...]:
  text = (Path(__file__).parent / "idioms.txt").read_text(encoding="utf-8")
  found = (trees.shape(function.node) for function in source.functions(text))
  return tuple(shape for shape in found if shape)


def _body(code: str, function: source.FunctionNode) -> str:
  """Return the lines of a function after its signature and docstring."""
  after = bool(ast.get_docstring(function, clean=False)) and len(function.body) > 1
  first = function.body[1 if after else 0]
  return "\n".join(code.split("\n")[first.lineno - 1 : function.end_lineno])


def _prose(words: Iterable[str]) -> tuple[str, ...]:
  """Return words without operators."""
  return tuple(word for word in words if word[0].isalnum() or word[0] == "_")


def without_docstrings(code: str) -> str:
  """Return Python source without its docstrings."""
  tree, lines = source.parse(code), code.split("\n")
  for node in ast.walk(tree) if tree else ():
    if (
      isinstance(node, _DOCUMENTED) and ast.get_docstring(node, clean=False) is not None
    ):
      text = node.body[0]
      for number in range(text.lineno - 1, text.end_lineno or text.lineno):
        lines[number] = ""
  return "\n".join(lines)


class Grams:
  """Which problems a text shares runs of words with, and how much of each."""

  def __init__(self, texts: Sequence[Sequence[str]], size: int, least: int):
    self._owners: dict[int, list[int]] = collections.defaultdict(list)
    self.totals, self._sizes = np.zeros(len(texts), np.int64), set[int]()
    self._may_be = np.zeros(_MASK + 1, bool)  # by the last bits of a run's hash
    for number, words in enumerate(texts):
      length = min(size, len(words))
      if len(words) < least:
        continue
      starts = range(len(words) - length + 1)
      telling = [start for start in starts if _tells(words[start : start + length])]
      for value in set(shingles.ngrams(words, length)[telling].tolist()):
        self._owners[value].append(number)
        self._may_be[value & _MASK] = True
        self.totals[number] += 1
        self._sizes.add(length)

  def shared(self, words: shingles.Hashes) -> dict[int, int]:
    """Return for each problem the number of runs that a text has in common with it."""
    counts: collections.Counter[int] = collections.Counter()
    for size in self._sizes:
      runs = shingles.ngrams(words, size)
      found = runs[self._may_be[(runs & np.uint64(_MASK)).astype(np.intp)]]
      for value in set(found.tolist()):
        counts.update(self._owners.get(value, ()))
    return dict(counts)


def _tells(words: Sequence[str]) -> bool:
  share = len(words) / 13
  letters = sum(word[0].isalpha() for word in words)
  distinct = len(set(words))
  return letters >= _LEAST_LETTERS * share and distinct >= _LEAST_DISTINCT * share


class Lines:
  """Which solutions stand in a text, line by line."""

  def __init__(self, solutions: Sequence[Sequence[str]]):
    self._solutions = solutions
    self._anchors: dict[str, list[tuple[int, int]]] = collections.defaultdict(list)
    for number, lines in enumerate(solutions):
      if lines:
        anchor = max(range(len(lines)), key=lambda place: len(lines[place]))
        self._anchors[lines[anchor]].append((number, anchor))

  def contained(self, lines: Sequence[str]) -> set[int]:
    """Return the solutions whose lines follow each other in `lines`."""
    found = set()
    for place, line in enumerate(lines):
      for number, anchor in self._anchors.get(line, ()):
        wanted, start = self._solutions[number], place - anchor
        if start >= 0 and tuple(lines[start : start + len(wanted)]) == tuple(wanted):
          found.add(number)
    return found


@dataclasses.dataclass(frozen=True, order=True)
class Match:
  """A function that is like a problem's; the greater, the more alike."""

  rate: float  # AST match rate
  same_name: bool  # whether it is called like the problem's
  function: int  # minus its number in the document
  shape: int  # number of the problem's function in `Shapes.all`


class Shapes:
  """AST match rates with every problem's functions."""

  def __init__(self, names: Sequence[str], shapes: Sequence[Sequence[trees.Shape]]):
    pairs = [(shape, n) for n, each in enumerate(shapes) for shape in each]
    self.all = [shape for shape, _ in pairs]
    self._owners = [number for _, number in pairs]
    self._names = [_plain(name) for name in names]
    # Of each form the texts by length, and the places of their shapes in `all`.
    self._forms: dict[str, tuple[list[str], list[int], list[int]]] = {}
    for form in ("written", "ordered"):
      every = [getattr(shape, form) for shape in self.all]
      order = sorted(range(len(every)), key=lambda n: len(every[n]))
      texts = [every[n] for n in order]
      self._forms[form] = texts, list(map(len, texts)), order

  def best(
    self, functions: Sequence[tuple[str, trees.Shape]], least: float
  ) -> dict[int, Match]:
    """Return the best match with each problem that has one."""
    best: dict[int, Match] = {}
    for number, (name, shape) in enumerate(functions):
      plain = _plain(name)
      for column, rate in self._rates(shape, least).items():
        owner = self._owners[column]
        match = Match(rate, plain == self._names[owner], -number, column)
        best[owner] = max(match, best.get(owner, match))
    return best

  def _rates(self, shape: trees.Shape, least: float) -> dict[int, float]:
    """Return the rates of at least `least`, by the place in `all`."""
    rates: dict[int, float] = {}
    for form, (texts, lengths, order) in self._forms.items():
      text = getattr(shape, form)
      # The match rate is at most the ratio of the lengths.
      first = bisect.bisect_left(lengths, least * len(text) - 0.01)
      last = bisect.bisect_right(lengths, len(text) + 0.01, key=lambda n: n * least)
      scorer = Levenshtein.normalized_similarity
      options: dict[str, Any] = {"score_cutoff": least, "limit": None}
      near = extract(text, texts[first:last], scorer=scorer, **options)
      for _, rate, place in near:
        column = order[first + int(place)]
        rates[column] = max(rate, rates.get(column, 0.0))
    return rates


def _plain(name: str) -> str:
  """Return a name in one spelling, the same for `isEven` and `is_even`."""
  return name.replace("_", "").lower()


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
    self._texts = Grams(texts, ngram, LEAST_WORDS)
    self._phrases = Grams(texts, PHRASE, PHRASE + 1)
    solutions = [r.solution_words for r in references]
    self._solutions = Grams(solutions, ngram, LEAST_WORDS)
    self._lines = Lines([r.lines for r in references])
    self._shapes = Shapes([r.name for r in references], [r.shapes for r in references])
    self._generic = list(map(generic, self._shapes.all))
    self._vectors = vectors

  @staticmethod
  def of(benchmarks: Sequence[str], ngram: int, embed: Embed | None = None) -> "Index":
    """Return the index of some task sets.

    Raises:
      InputError: a task set is not known, or its file is not there.
    """
    named = problems(benchmarks)
    found = [reference(name, problem) for name, problem in named]
    vectors = embed_code(embed, [r.code for r in found]) if embed else None
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
    """Return the evidence for each problem that a document has something of.

    Args:
      text: the document.
      least: an AST match rate of this or more is a reason to look at a pair.
      near: distances of embeddings of those that are close.
    """
    every = [(f.name, trees.shape(f.node)) for f in source.functions(text)]
    functions = [(name, shape) for name, shape in every if shape]
    matches = self._shapes.best(functions, min(least, verdict.SUPPORTED))
    words, near = source.words(text), near or {}
    plain = shingles.word_hashes(_prose(words))
    texts, phrases = self._texts.shared(plain), self._phrases.shared(plain)
    solutions = self._solutions.shared(shingles.word_hashes(words))
    exact = self._lines.contained(source.lines(text))
    alike = {n for n, m in matches.items() if m.rate >= least or m.same_name}
    found = []
    for number in sorted({*texts, *solutions, *exact, *near, *alike}):
      of = self.references[number]
      shares = {
        name: counts.get(number, 0) / max(1, int(grams.totals[number]))
        for name, counts, grams in (
          ("text", texts, self._texts),
          ("phrases", phrases, self._phrases),
          ("solution", solutions, self._solutions),
        )
      }
      each = Evidence(
        problem=of.id,
        exact=number in exact,
        text_runs=texts.get(number, 0),
        solution_runs=solutions.get(number, 0),
        distance=near.get(number),
        words=of.body_words,
        text_words=len(of.text_words),
        generic=of.generic,
        **shares,
        **self._matched(matches.get(number), functions),
      )
      found.append(each)
    return found

  def _matched(
    self, match: Match | None, functions: Sequence[tuple[str, trees.Shape]]
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

  def near(
    self, texts: Sequence[str], embed: Embed, distance: float
  ) -> list[dict[int, float]]:
    """Return for each text the problems whose embedding is close to a function's."""
    assert self._vectors is not None
    results = []
    pieces = [[f.source for f in source.functions(text)] or [text] for text in texts]
    vectors = embed_code(embed, [piece for found in pieces for piece in found])
    distances = np.sqrt(np.maximum(0.0, 2.0 - 2.0 * vectors @ self._vectors.T))
    ends = np.cumsum([len(found) for found in pieces])
    for rows in np.split(distances, ends[:-1]):
      least = rows.min(0)
      close = np.flatnonzero(least <= distance)
      results.append({int(n): float(least[n]) for n in close})
    return results


def embed_code(embed: Embed, codes: Sequence[str]) -> npt.NDArray[np.floating]:
  """Return unit vectors of code [n, dimensions]; a vector of zeros stays.

  Each code has one end of line, since the last hidden state depends on it.
  """
  vectors = embed([code.rstrip("\n") + "\n" for code in codes])
  lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
  return vectors / np.where(lengths > 0, lengths, 1.0)
