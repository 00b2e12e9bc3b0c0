"""Many texts searched for at once: runs of words, lines, and shapes of functions."""

import collections
import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from rapidfuzz.distance import Levenshtein
from rapidfuzz.process import cdist

from phi1_jax.text import shingles, trees

# A run of words in which fewer than so many begin with a letter, or differ, is a row of
# numbers or a loop.
LEAST_LETTERS = 6
LEAST_DISTINCT = 7
_CHUNK = 256


class Grams:
  """Which problems a text shares runs of words with, and how much of each.

  Args:
    texts: words of each problem.
    size: words of a run; a shorter text is one run.
    least: texts of fewer words say too little to be looked for.
  """

  def __init__(self, texts: Sequence[Sequence[str]], size: int, least: int):
    self._sizes: dict[int, shingles.Hashes] = {}
    self._owners: dict[int, list[int]] = collections.defaultdict(list)
    self.totals = np.zeros(len(texts), np.int64)
    found: dict[int, set[int]] = collections.defaultdict(set)
    for number, words in enumerate(texts):
      length = min(size, len(words))
      if len(words) < least:
        continue
      telling = [
        i for i in range(len(words) - length + 1) if _tells(words[i : i + length])
      ]
      for value in set(shingles.ngrams(words, length)[telling].tolist()):
        self._owners[value].append(number)
        self.totals[number] += 1
        found[length].add(value)
    for length, values in found.items():
      self._sizes[length] = np.array(sorted(values), np.uint64)

  def shared(self, words: Sequence[str]) -> dict[int, int]:
    """Return for each problem the number of runs that a text has in common with it."""
    counts: collections.Counter[int] = collections.Counter()
    hashes = shingles.word_hashes(words)
    for size, wanted in self._sizes.items():
      runs = shingles.ngrams(hashes, size)
      places = np.searchsorted(wanted, runs)
      there = wanted[np.minimum(places, len(wanted) - 1)] == runs
      for value in set(runs[there].tolist()):
        counts.update(self._owners[value])
    return dict(counts)


def _tells(words: Sequence[str]) -> bool:
  share = len(words) / 13
  letters = sum(word[0].isalpha() for word in words)
  return letters >= LEAST_LETTERS * share and len(set(words)) >= LEAST_DISTINCT * share


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
  """A function that is like a problem's; the greater, the more alike.

  Attributes:
    rate: AST match rate.
    same_name: whether it is called like the problem's.
    function: minus its number in the document.
    shape: number of the problem's function in `Shapes.all`.
  """

  rate: float
  same_name: bool
  function: int
  shape: int


class Shapes:
  """AST match rates with every problem's functions.

  Args:
    names: what each problem's function is called.
    shapes: the shapes of its functions.
  """

  def __init__(self, names: Sequence[str], shapes: Sequence[Sequence[trees.Shape]]):
    pairs = [(shape, n) for n, each in enumerate(shapes) for shape in each]
    self.all = [shape for shape, _ in pairs]
    self._owners = [number for _, number in pairs]
    self._names = [plain(name) for name in names]
    self._written = [shape.written for shape in self.all]
    self._ordered = [shape.ordered for shape in self.all]

  def best(
    self, functions: Sequence[tuple[str, trees.Shape]], least: float
  ) -> dict[int, Match]:
    """Return the best match with each problem that has one.

    Args:
      functions: names and shapes of a document's functions.
      least: rates below do not count.
    """
    best: dict[int, Match] = {}
    for start in range(0, len(functions), _CHUNK):
      part = [shape for _, shape in functions[start : start + _CHUNK]]
      rates = np.maximum(
        _rates([shape.written for shape in part], self._written, least),
        _rates([shape.ordered for shape in part], self._ordered, least),
      )
      for place, column in zip(*map(np.ndarray.tolist, np.nonzero(rates)), strict=True):
        owner, number = self._owners[column], start + place
        same = plain(functions[number][0]) == self._names[owner]
        match = Match(float(rates[place, column]), same, -number, column)
        best[owner] = max(match, best.get(owner, match))
    return best


def plain(name: str) -> str:
  """Return a name in one spelling, the same for `isEven` and `is_even`."""
  return name.replace("_", "").lower()


def _rates(some: list[str], others: list[str], least: float) -> npt.NDArray[np.float64]:
  # As float32, 19 of 20 tokens would be less than 0.95.
  scorer = Levenshtein.normalized_similarity
  return cdist(some, others, scorer=scorer, score_cutoff=least, dtype=np.float64)
