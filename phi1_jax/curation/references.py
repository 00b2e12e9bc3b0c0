"""Benchmarks that training data must not hold, indexed for one pass over a corpus.

Each problem gives its text (HumanEval: the docstring; MBPP: the task without "Write a
function to"), its solution, and the shape of its functions. Their n-grams and lines are
looked up, so that the cost of a document does not grow with the benchmarks; shapes are
compared with those of about the same length.

Four signals of one document and one problem, none of which is proof by itself:

  lines   the solution's body stands there, line by line
  words   runs of words in common with the problem's text, and with its solution
  shape   AST match rate of the closest function
  vector  distance of the closest function's embedding

The rules; the first that holds is the reason.

  exact solution        its lines are there, and it is neither short nor generic
  text                  half of the text's runs of 13 words are there and at least 3, or
                        all of a text of 8 words or more
  solution words        half of the solution's runs and at least 3; it is not generic
  AST                   a match of tau or more with a function that is neither short nor
                        generic (idioms.txt); below 24 tokens also the same name, or
                        half of the text's phrases
  short, AST and words  an almost equal function that is short, with the same name or
                        half of the text's phrases; or generic, with the phrases
  AST and words         a match of 0.85 and the same name; or of 0.7, and half of the
                        text's phrases, or embeddings within the distance given

A document that no rule convicts is kept, with its strongest signals noted. The numbers
are from benchmarks/decontamination.py, which measures finds and mistakes.
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
from phi1_jax.curation.config import PROBLEM_FILES
from phi1_jax.curation.document import Decision, Document, Drop, Keep
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
_ESCAPE = re.compile(r"\\+[nrt]")
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
Embed = Callable[[Sequence[str]], npt.NDArray[np.floating]]

STAGE = "decontaminate"
# Functions of fewer tokens are short. Of pairs of a problem from 15 tokens on and a
# library function, 1 in 10,000 matches by 0.73 or more; of shorter ones, by 0.89.
SHORT_TOKENS = 15
# From here on a match convicts without the same name or words: functions of 15 to 23
# tokens are idioms that two people write alike.
ALONE_TOKENS = 24
SHORT_MATCH, SHORT_WORDS = 0.95, 13
# No module of the standard library has a run of 13 words of any problem's text.
HALF, LEAST_RUNS, WHOLE_WORDS = 0.5, 3, 8
# Match rates that count if the words match, or the name alone: names such as
# `merge_sort` are everybody's, and two such functions match by 0.75.
SUPPORTED, NAMED = 0.7, 0.85
NOTED = 5
REASONS = ("exact solution", "text", "solution words", "AST", "short, AST and words")
REASONS += ("AST and words",)


@dataclasses.dataclass(frozen=True)
class Evidence:
  """Facts that a document and a problem have in common."""

  problem: str  # its id
  exact: bool = False  # whether the solution's lines are there
  text: float = 0.0  # share of the text's runs of words that are there
  text_runs: int = 0  # number of them
  # Share of the text's runs of 4 words; supports a match, proves nothing.
  phrases: float = 0.0
  solution: float = 0.0  # share of the solution's runs
  solution_runs: int = 0
  # AST match rate of the closest function; below the least that matters, 0.
  match: float = 0.0
  function: str = ""  # its name
  same_name: bool = False  # whether that function is called like the problem's
  distance: float | None = None  # L2, of the closest embeddings, where known
  # Tokens of the problem's function that it matches, in the shorter form.
  tokens: int = 0
  generic_match: bool = False  # whether that function is what anybody writes
  words: int = 0  # of the body of the problem's solution
  text_words: int = 0
  generic: bool = False  # whether all of its solution is what anybody writes

  def strength(self) -> tuple[float, ...]:
    """Return a key that sorts evidence."""
    return (self.exact, max(self.match, self.text, self.solution), self.match)

  def record(self) -> dict[str, Any]:
    """Return the evidence as JSON, without empty fields."""
    return {
      name: round(value, 4) if isinstance(value, float) else value
      for name, value in dataclasses.asdict(self).items()
      if value not in (None, "", 0, False)
    }


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
  found: list[tuple[str, Problem]] = []
  for name in benchmarks:
    if name.endswith(PROBLEM_FILES):
      loaded = humaneval.read(storage.parse(name))
    elif name == humaneval.TASK_SET:
      loaded = humaneval.load()
    else:
      loaded = (written if name in written.TASK_SETS else mbpp).load(name)
    found += [(name, problem) for problem in loaded]
  return found


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
  if len(shapes[name].written) < SHORT_TOKENS:  # it may wrap another
    chosen.append(max(shapes, key=lambda name: (len(shapes[name].written), name)))
  own = tuple(shapes[name] for name in dict.fromkeys(chosen))
  text = ast.get_docstring(functions[name]) or _TASK.sub("", problem.prompt)
  # The lines after its signature and docstring.
  function = functions[name]
  documented = bool(ast.get_docstring(function, clean=False)) and len(function.body) > 1
  first = function.body[1 if documented else 0].lineno
  body = "\n".join(problem.solution.split("\n")[first - 1 : function.end_lineno])
  return Reference(
    id=problem.id,
    benchmark=benchmark,
    name=name,
    text_words=tuple(filter(_is_prose, _words(text))),
    solution_words=tuple(_words(without_docstrings(problem.solution))),
    body_words=len(_words(body)),
    lines=source.lines(body),
    shapes=own,
    code=problem.solution,
    generic=all(map(generic, own)),
  )


def _words(text: str) -> list[str]:
  """Return the words of a text, the same of a docstring and of its source.

  In source, a line end in a string is written as an escape, whose letter would become a
  part of the next word.
  """
  return source.words(_ESCAPE.sub(" ", text))


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


@functools.lru_cache(maxsize=1 << 20)
def _is_prose(word: str) -> bool:
  """Return whether a word is not an operator."""
  return word[0].isalnum() or word[0] == "_"


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
    for runs in shingles.ngrams_of_sizes(words, sorted(self._sizes)):
      found = runs[self._may_be[(runs & np.uint64(_MASK)).astype(np.intp)]]
      for value in set(found.tolist()):
        counts.update(self._owners.get(value, ()))
    return dict(counts)


def _tells(words: Sequence[str]) -> bool:
  share = len(words) / 13
  letters = sum(word[0].isalpha() for word in words)
  distinct = len(set(words))
  return letters >= _LEAST_LETTERS * share and distinct >= _LEAST_DISTINCT * share


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
  ) -> dict[int, tuple[float, bool, int, int]]:
    """Return the best match with each problem that has one of at least `least`.

    A match is the rate, whether the names are the same, minus the number of the
    function, and the place of the problem's shape in `all`.
    """
    best: dict[int, tuple[float, bool, int, int]] = {}
    scorer = Levenshtein.normalized_similarity
    options: dict[str, Any] = {"score_cutoff": least, "limit": None}
    for number, (name, shape) in enumerate(functions):
      for form, (texts, lengths, order) in self._forms.items():
        text = getattr(shape, form)
        # The match rate is at most the ratio of the lengths.
        first = bisect.bisect_left(lengths, least * len(text) - 0.01)
        last = bisect.bisect_right(lengths, len(text) + 0.01, key=lambda n: n * least)
        near = extract(text, texts[first:last], scorer=scorer, **options)
        for _, rate, place in near:
          column = order[first + int(place)]
          owner = self._owners[column]
          match = (rate, _plain(name) == self._names[owner], -number, column)
          best[owner] = max(match, best.get(owner, match))
    return best


def _plain(name: str) -> str:
  """Return a name in one spelling, the same for `isEven` and `is_even`."""
  return name.replace("_", "").lower()


class Index:
  """All references, ready to be searched; can be pickled.

  Args:
    benchmarks: names of task sets, or files of problems.
    ngram: words of a run.
    embed: makes the embeddings of the solutions, for `near`.

  Attributes:
    references: the problems.
    digest: their sha256.

  Raises:
    InputError: a task set is not known, or its file is not there.
  """

  def __init__(self, benchmarks: Sequence[str], ngram: int, embed: Embed | None = None):
    named = problems(benchmarks)
    self.digest = digest(problem for _, problem in named)
    self.references = found = [reference(name, problem) for name, problem in named]
    texts = [each.text_words for each in found]
    self._grams = {
      "text": Grams(texts, ngram, LEAST_WORDS),
      "phrases": Grams(texts, PHRASE, PHRASE + 1),
      "solution": Grams([r.solution_words for r in found], ngram, LEAST_WORDS),
    }
    # The longest line of each solution -> the solutions, and where in them it is.
    self._anchors: dict[str, list[tuple[int, int]]] = collections.defaultdict(list)
    for number, each in enumerate(found):
      if each.lines:
        anchor = max(range(len(each.lines)), key=lambda n: len(each.lines[n]))
        self._anchors[each.lines[anchor]].append((number, anchor))
    self._shapes = Shapes([r.name for r in found], [r.shapes for r in found])
    self._generic = list(map(generic, self._shapes.all))
    self._vectors = embed_code(embed, [each.code for each in found]) if embed else None

  def ids(self) -> dict[str, set[str]]:
    """Return the ids of each task set's problems."""
    found: dict[str, set[str]] = {}
    for each in self.references:
      found.setdefault(each.benchmark, set()).add(each.id)
    return found

  def _contained(self, lines: Sequence[str]) -> set[int]:
    """Return the solutions whose lines follow each other in `lines`."""
    found = set()
    for place, line in enumerate(lines):
      for number, anchor in self._anchors.get(line, ()):
        wanted, start = self.references[number].lines, place - anchor
        if start >= 0 and tuple(lines[start : start + len(wanted)]) == wanted:
          found.add(number)
    return found

  def evidence(
    self, text: str, least: float, near: Mapping[int, float] | None = None
  ) -> list[Evidence]:
    """Return the evidence for each problem that a document has something of.

    An AST match rate of `least` or more is a reason to look at a pair, and so is a
    distance of embeddings in `near`, by the problem.
    """
    every = [(f.name, trees.shape(f.node)) for f in source.functions(text)]
    functions = [(name, shape) for name, shape in every if shape]
    matches = self._shapes.best(functions, min(least, SUPPORTED))
    words, near = _words(text), near or {}
    every_word = shingles.word_hashes(words)
    prose = every_word[np.fromiter(map(_is_prose, words), bool, len(words))]
    hashes = {"text": prose, "phrases": prose, "solution": every_word}
    runs = {name: grams.shared(hashes[name]) for name, grams in self._grams.items()}
    exact = self._contained(source.lines(text))
    alike = {n for n, match in matches.items() if match[0] >= least or match[1]}
    found = []
    for number in sorted({*runs["text"], *runs["solution"], *exact, *near, *alike}):
      of, facts = self.references[number], {}
      for name, grams in self._grams.items():
        total = max(1, int(grams.totals[number]))
        facts[name] = runs[name].get(number, 0) / total
      if match := matches.get(number):
        rate, same_name, place, column = match
        shape = self._shapes.all[column]
        facts |= {"match": rate, "same_name": same_name}
        facts |= {"function": functions[-place][0]}
        facts |= {"tokens": min(len(shape.written), len(shape.ordered))}
        facts |= {"generic_match": self._generic[column]}
      each = Evidence(
        problem=of.id,
        exact=number in exact,
        text_runs=runs["text"].get(number, 0),
        solution_runs=runs["solution"].get(number, 0),
        distance=near.get(number),
        words=of.body_words,
        text_words=len(of.text_words),
        generic=of.generic,
        **facts,
      )
      found.append(each)
    return found

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


def reason(found: Evidence, tau: float) -> str | None:
  """Return why the document goes because of this problem; None if it stays."""
  if found.exact and found.words >= SHORT_WORDS and not found.generic:
    return "exact solution"
  whole = found.text == 1.0 and found.text_words >= WHOLE_WORDS
  if whole or (found.text >= HALF and found.text_runs >= LEAST_RUNS):
    return "text"
  if found.solution >= HALF and found.solution_runs >= LEAST_RUNS and not found.generic:
    return "solution words"
  telling = found.tokens >= SHORT_TOKENS and not found.generic_match
  worded = max(found.text, found.phrases) >= HALF or found.distance is not None
  specific = found.tokens >= ALONE_TOKENS or found.same_name or worded
  if telling and specific and found.match >= tau:
    return "AST"
  if not worded and (found.generic_match or not found.same_name):
    return None
  if found.match >= max(tau, SHORT_MATCH):
    return "short, AST and words"
  if telling and found.match >= min(tau, SUPPORTED if worded else NAMED):
    return "AST and words"
  return None


def decide(document: Document, evidence: Sequence[Evidence], tau: float) -> Decision:
  """Drop a document that any problem convicts; note the evidence of the others."""
  ordered = sorted(evidence, key=lambda e: e.problem)
  ordered.sort(key=Evidence.strength, reverse=True)
  convicted = [(e, why) for e in ordered if (why := reason(e, tau))]
  if not convicted:
    looked_at = [found.record() for found in ordered[:NOTED]]
    facts = {"tau": tau, "looked_at": looked_at, "candidates": len(ordered)}
    return Keep(document.noted(STAGE, facts))
  pairs: list[dict[str, Any]] = []
  for found, why in convicted:  # the strongest, and of every other reason the strongest
    if len(pairs) < NOTED or why not in {pair["reason"] for pair in pairs}:
      pairs.append({**found.record(), "reason": why})
  problems = sorted({found.problem for found, _ in convicted})
  facts = {"tau": tau, "problems": problems, "pairs": pairs}
  return Drop(document, convicted[0][1], facts)
