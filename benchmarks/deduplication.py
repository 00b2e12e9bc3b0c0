"""Which near-duplicates are found, and how far apart unrelated exercises are.

    python benchmarks/deduplication.py --exercises=4000

Each kind of copy is planted beside its original. Recall of the candidates is measured
against every pair compared with every other; what is dropped has its similarity as
evidence, so what is dropped by mistake is a question of the threshold: the quantiles of
unrelated pairs, and of each exercise's nearest neighbour, answer it.
"""

import argparse
import ast
import collections
import itertools
import random
import re
import sys
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from phi1_jax.curation import card, clusters
from phi1_jax.curation.config import DeduplicateConfig
from phi1_jax.curation.document import Document, identify
from phi1_jax.grammar import teacher
from phi1_jax.text import shingles, source

ANOTHER_BODY = """\
    pending, reached = [start], {start: 0}
    while pending:
        place = pending.pop()
        for step in neighbours[place]:
            if step not in reached or reached[step] > reached[place] + 1:
                reached[step] = reached[place] + 1
                pending.append(step)
    return [reached.get(place, -1) for place in neighbours]
"""
QUANTILES = (0.5, 0.9, 0.99, 0.999, 0.9999, 1.0)


def other_constant(text: str) -> str:
  """Every occurrence of one number of two digits is another number."""
  found = re.search(r"(?<![\w.])\d\d(?![\w.])", text)
  return text if not found else re.sub(rf"\b{found[0]}\b", str(int(found[0]) + 1), text)


def other_name(text: str) -> str:
  """The function has another name."""
  name = re.findall(r"^def (\w+)", text, re.M)[-1]
  return re.sub(rf"\b{name}\b", f"{name}_again", text)


def other_argument(text: str) -> str:
  """The first argument has another name."""
  names = re.findall(r"^def \w+\((\w+)", text, re.M)
  return re.sub(rf"\b{names[-1]}\b", "given_things", text) if names else text


def other_body(text: str) -> str:
  """The docstring stays, the body is that of something else: no near-duplicate."""
  tree = ast.parse(text)
  function = tree.body[-1]
  assert isinstance(function, ast.FunctionDef)
  rest = text.split("\n")[: function.body[0].end_lineno]
  return "\n".join([*rest, ANOTHER_BODY])


KINDS: dict[str, Callable[[str], str]] = {
  "copy": lambda text: text + "\n",
  "other line ends and indentation": lambda text: text.replace("    ", "\t").replace(
    "\n", "\r\n"
  ),
  "formatted by ast.unparse": lambda text: ast.unparse(ast.parse(text)),
  "a comment more": lambda text: f"# Exercise for today.\n{text}",
  "one number is another": other_constant,
  "the function has another name": other_name,
  "an argument has another name": other_argument,
  "another body": other_body,
}


def planted(
  texts: Sequence[str], config: DeduplicateConfig
) -> Iterator[tuple[object, ...]]:
  """Rows: kind, copies, similarity to the original, share dropped."""
  for kind, change in KINDS.items():
    pairs = [(text, change(text)) for text in texts]
    pairs = [(text, copy) for text, copy in pairs if copy != text]
    similar, dropped = [], 0
    for text, copy in pairs:
      standings = standing_of([text, copy], config)
      similar.append(
        shingles.jaccard(*(_set(each, config.shingle) for each in (text, copy)))
      )
      dropped += any(s.representative != name for name, s in standings.items())
    low, middle, high = np.quantile(similar, (0.05, 0.5, 0.95))
    share = f"{dropped / len(pairs):.1%}"
    yield kind, len(pairs), f"{low:.2f}", f"{middle:.2f}", f"{high:.2f}", share


def standing_of(
  texts: Sequence[str], config: DeduplicateConfig
) -> dict[str, clusters.Standing]:
  """What the stage decides, without its pipeline."""
  sketches = [
    clusters.sketch(document(text, number), config.shingle)
    for number, text in enumerate(texts)
  ]
  copies: dict[bytes, list[clusters.Sketch]] = collections.defaultdict(list)
  for sketch in sketches:
    copies[sketch.digest].append(sketch)
  leaders = [min(group, key=lambda s: s.key) for group in copies.values()]
  sizes = {min(s.key for s in group): len(group) for group in copies.values()}
  found = {leader.key: leader for leader in leaders}
  edges = [
    (one, other, similarity)
    for one, other in candidates(leaders, config)
    if (similarity := shingles.jaccard(found[one].hashes(), found[other].hashes()))
    >= config.similarity
  ]
  standings = clusters.clusters(edges, sizes)
  return {
    sketch.key: standings[group_leader.key]
    for group_leader, group in zip(leaders, copies.values(), strict=True)
    for sketch in group
  }


def candidates(
  sketches: Sequence[clusters.Sketch], config: DeduplicateConfig
) -> set[tuple[str, str]]:
  """Pairs that share a bucket."""
  buckets: dict[bytes, list[tuple[str, int]]] = collections.defaultdict(list)
  for sketch in sketches:
    if sketch.shingles:
      for band in clusters.buckets(sketch.hashes(), config.permutations, config.bands):
        buckets[band].append((sketch.key, len(sketch.hashes())))
  return {
    (other, name)
    for members in buckets.values()
    for name, others in clusters.candidates(
      members, config.similarity, config.comparisons
    )
    for other in others
  }


def against_all_pairs(
  texts: Sequence[str], config: DeduplicateConfig
) -> Iterator[tuple[object, ...]]:
  """Rows: similarity, pairs that have it, share of them among the candidates."""
  sketches = [
    clusters.sketch(document(text, number), config.shingle)
    for number, text in enumerate(texts)
  ]
  found = candidates(sketches, config)
  similar = [
    (
      shingles.jaccard(one.hashes(), other.hashes()),
      tuple(sorted((one.key, other.key))),
    )
    for one, other in itertools.combinations(sketches, 2)
  ]
  for low, high in ((0.5, 0.6), (0.6, 0.7), (0.7, 0.8), (0.8, 0.9), (0.9, 1.01)):
    pairs = [pair for value, pair in similar if low <= value < high]
    if pairs:
      share = sum(pair in found for pair in pairs) / len(pairs)
      yield f"{low} to {min(high, 1)}", len(pairs), f"{share:.1%}"


def apart(texts: Sequence[str], size: int, draws: int) -> Iterator[tuple[object, ...]]:
  """Rows of quantiles: random pairs."""
  rng, sets = random.Random(0), [_set(text, size) for text in texts]
  drawn = (rng.sample(sets, 2) for _ in range(draws))
  similar = [shingles.jaccard(one, other) for one, other in drawn]
  cells = (f"{value:.3f}" for value in np.quantile(similar, QUANTILES))
  yield "exercises of the grammar", f"{draws:,}", *cells


def document(text: str, number: int) -> Document:
  """A text as a document."""
  return Document(identify(f"{number}", text), text, "planted", "MIT", "exercise", "")


def _set(text: str, size: int) -> shingles.Hashes:
  return shingles.shingles(source.words(text), size)


def main() -> None:
  """Parses the command line and prints the tables."""
  parser = argparse.ArgumentParser(description="Deduplication.")
  parser.add_argument("--exercises", type=int, default=4000)
  parser.add_argument("--all_pairs", type=int, default=1200)
  parser.add_argument("--draws", type=int, default=200_000)
  arguments = parser.parse_args()
  config = DeduplicateConfig(("",))
  texts = [e.text for e in teacher.exercises(0, 0, arguments.exercises)]
  head = ("copy", "pairs", "similarity 5%", "50%", "95%", "dropped")
  print(f"Similarity from {config.similarity}, shingles of {config.shingle} words\n")
  print(card.table(head, planted(texts, config)))
  few = texts[: arguments.all_pairs]
  changed = [change(text) for text in few[:300] for change in KINDS.values()]
  head = ("similarity", "pairs", "found as candidates")
  print(card.table(head, against_all_pairs([*few, *changed], config)))
  head = ("random pairs", "pairs", *(f"{q:.2%}" for q in QUANTILES))
  print(card.table(head, apart(texts, config.shingle, arguments.draws)))


if __name__ == "__main__":
  sys.exit(main())
