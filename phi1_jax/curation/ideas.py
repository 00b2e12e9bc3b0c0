"""What an LLM is asked about: topics, professions, audiences, function names.

The paper got diversity from constraints: topics and audiences for textbooks, function
names for exercises (section 2.2). Its lists are not published; these are ours. A choice
is a function of seed and index, so asking for more keeps what was asked before.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

TOPICS = (
  "arithmetic with integers",
  "division and remainders",
  "rounding and floating point numbers",
  "prime numbers and divisors",
  "number bases and binary digits",
  "bitwise operations",
  "comparing and ordering values",
  "conditions with several branches",
  "boolean logic",
  "while loops with a stopping condition",
  "for loops with an accumulator",
  "nested loops",
  "early return from a search",
  "string slicing",
  "counting characters",
  "splitting and joining words",
  "palindromes and reversal",
  "substitution ciphers",
  "formatting text in columns",
  "parsing simple formats by hand",
  "regular expressions",
  "list indexing and slicing",
  "filtering a list",
  "mapping over a list",
  "running totals and moving averages",
  "finding minima and maxima",
  "sorting with a key",
  "binary search",
  "merging sorted sequences",
  "removing duplicates in order",
  "two pointers",
  "sliding windows",
  "stacks",
  "queues",
  "tuples and unpacking",
  "sets and membership",
  "set operations",
  "dictionaries as counters",
  "grouping items by a key",
  "inverting and merging dictionaries",
  "nested dictionaries",
  "matrices as lists of lists",
  "transposing and rotating grids",
  "neighbours in a grid",
  "recursion on numbers",
  "recursion on nested lists",
  "memoisation",
  "dynamic programming on sequences",
  "backtracking",
  "permutations and combinations",
  "graphs as adjacency lists",
  "breadth-first search",
  "depth-first search",
  "shortest paths",
  "trees and traversal",
  "heaps and priority queues",
  "greedy choices",
  "intervals and overlaps",
  "dates and times",
  "money and percentages",
  "units and conversion",
  "probability and expectation",
  "mean, median and mode",
  "linear equations",
  "vectors and dot products",
  "polynomials",
  "sequences and recurrences",
  "geometry of points and rectangles",
  "validating input",
  "raising and handling exceptions",
  "functions as arguments",
  "closures",
  "generators",
  "iterators with itertools",
  "simple classes",
  "data classes",
  "inheritance",
  "simulating a process step by step",
  "encoding and compression of runs",
  "checksums and parity",
)
PROFESSIONS = (
  "baker",
  "librarian",
  "gardener",
  "bus driver",
  "nurse",
  "carpenter",
  "astronomer",
  "teacher",
  "postal worker",
  "chef",
  "accountant",
  "beekeeper",
  "sailor",
  "museum guide",
  "electrician",
  "journalist",
  "zookeeper",
  "tailor",
  "pharmacist",
  "farmer",
  "pilot",
  "watchmaker",
  "firefighter",
  "geologist",
  "musician",
  "architect",
  "translator",
  "fisher",
  "train dispatcher",
  "photographer",
  "weather forecaster",
  "shopkeeper",
  "referee",
  "archivist",
  "plumber",
  "surveyor",
  "potter",
  "hotel clerk",
  "biologist",
  "game designer",
)
AUDIENCES = (
  "pupils of twelve who have never programmed",
  "high-school students who like mathematics",
  "high-school students who think they do not like mathematics",
  "first-year students of computer science",
  "students of the humanities",
  "office workers who know spreadsheets",
  "engineers who know another programming language",
  "teachers who prepare a lesson",
  "adults who return to learning",
  "hobbyists who build small tools at home",
)
WORDS = (
  *("river", "lantern", "puzzle", "orchard", "ticket", "bridge", "compass", "garden"),
  *("letter", "station", "recipe", "mountain", "clock", "market", "feather", "harbour"),
  *("island", "mirror", "village", "basket", "signal", "thread", "winter", "journey"),
  *("library", "shadow", "engine", "planet", "castle", "forest", "painter", "coin"),
)
_VERBS = (
  *("count", "find", "list", "sum", "merge", "split", "rank", "filter", "group"),
  *("compare", "check", "measure", "select", "rotate", "pair", "collect", "reduce"),
  *("arrange", "locate", "convert", "balance", "trace", "match", "combine", "remove"),
  *("classify", "estimate", "extract", "validate", "schedule", "distribute", "encode"),
)
_QUALITIES = (
  *("longest", "shortest", "largest", "smallest", "repeated", "missing", "nested"),
  *("unique", "adjacent", "even", "odd", "sorted", "reversed", "common", "first"),
  *(
    "last",
    "alternating",
    "rising",
    "falling",
    "weighted",
    "empty",
    "valid",
    "nearest",
  ),
  *("frequent", "rare", "overlapping", "matching", "remaining", "early", "late"),
)
_THINGS = (
  *("words", "numbers", "digits", "letters", "pairs", "prices", "scores", "rows"),
  *("columns", "intervals", "orders", "tickets", "routes", "names", "dates", "weights"),
  *("steps", "tokens", "groups", "paths", "cells", "readings", "parcels", "shifts"),
  *("divisors", "sequences", "blocks", "runs", "peaks", "signals", "grades", "stops"),
)


def function_name(chance: random.Random) -> str:
  """A name such as "count_rising_scores"; 30,720 of them."""
  return "_".join(map(chance.choice, (_VERBS, _QUALITIES, _THINGS)))


def two_topics(chance: random.Random) -> tuple[str, str]:
  """Two different topics."""
  first = chance.randrange(len(TOPICS))
  second = (first + 1 + chance.randrange(len(TOPICS) - 1)) % len(TOPICS)
  return TOPICS[first], TOPICS[second]


def some(chance: random.Random, of: Sequence[str], number: int) -> list[str]:
  """Some different items, in random order."""
  left = list(of)
  return [left.pop(chance.randrange(len(left))) for _ in range(number)]


def dice(seed: int, index: int) -> random.Random:
  """Random numbers that follow from seed and index, on every machine."""
  return random.Random(f"ideas {seed} {index}")
