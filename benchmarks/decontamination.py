"""What decontamination finds, what it takes by mistake, and where its thresholds lie.

    python benchmarks/decontamination.py

Three tables. Recall: every problem of HumanEval and MBPP in disguise (plants.py), alone
and inside of a module of the standard library, by signal and by the rules together.
Precision: what the rules drop of the standard library, all of it, to be judged by eye.
Random pairs: how near to a threshold come pairs that are not related.
"""

import argparse
import collections
import random
import sys
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import plants
from rapidfuzz.distance import Levenshtein
from rapidfuzz.process import cdist

from phi1_jax.curation import card, embedding, references, verdict
from phi1_jax.curation.config import DecontaminateConfig
from phi1_jax.curation.references import Embed, Index
from phi1_jax.curation.verdict import Evidence
from phi1_jax.data import corpora
from phi1_jax.problems.problem import Problem
from phi1_jax.text import shingles, source, trees

BENCHMARKS = DecontaminateConfig(("",)).benchmarks
HOST_CHARACTERS = 6000
QUANTILES = (0.5, 0.9, 0.99, 0.999, 0.9999, 1.0)


def library() -> list[tuple[str, str]]:
  """Paths and texts of Python's standard library."""
  cpython = next(c for c in corpora.embedded() if c.name == "cpython")
  found = []
  for path in cpython.paths:
    documents = corpora.code(cpython, path)
    if not isinstance(documents, corpora.Drop):
      found += [(path, document.text) for document in documents]
  return found


def recall(
  index: Index,
  named: Sequence[tuple[str, Problem]],
  hosts: Sequence[str],
  taus: Sequence[float],
) -> Iterator[tuple[object, ...]]:
  """Rows of the table of recall; the rules are those of the first tau."""
  tau = taus[0]
  short = {r.id for r in index.references if is_short(r)}
  for kind, disguise in plants.KINDS.items():
    for benchmark in BENCHMARKS:
      counts: collections.Counter[str] = collections.Counter()
      for name, problem in named:
        plant = disguise(problem) if name == benchmark else None
        if plant is None:
          continue
        counts["plants"] += 1
        evidence = index.evidence(plant, min(taus))
        own = [e for e in evidence if e.problem == problem.id]
        counts.update(signals(own, taus))
        found = any(verdict.reason(e, tau) for e in evidence)
        counts["found"] += found
        is_short_one = problem.id in short
        counts["short"] += is_short_one
        counts["short found"] += found and is_short_one
        host = plants.in_host(plant, hosts[counts["plants"] % len(hosts)], problem.id)
        counts["in host"] += any(
          verdict.reason(e, tau) for e in index.evidence(host, tau)
        )
      if counts["plants"]:
        yield kind, benchmark, *shares(counts, taus)


def is_short(reference: references.Reference) -> bool:
  """Whether its shape alone does not convict."""
  tokens = max(min(len(s.written), len(s.ordered)) for s in reference.shapes)
  return tokens < verdict.SHORT_TOKENS or reference.generic


def signals(evidence: Iterable[Evidence], taus: Sequence[float]) -> Iterator[str]:
  """The signals that see a problem in a plant."""
  for found in evidence:
    if found.exact:
      yield "exact"
    if found.text_runs or found.solution_runs:
      yield "13-gram"
    for tau in taus:
      if found.match >= tau:
        yield f"AST {tau:g}"


def shares(counts: collections.Counter[str], taus: Sequence[float]) -> Iterator[str]:
  """One row's cells."""
  total, short = counts["plants"], counts["short"]
  yield f"{total}"
  for name in (
    "exact",
    "13-gram",
    *(f"AST {tau:g}" for tau in taus),
    "found",
    "in host",
  ):
    yield f"{counts[name] / total:.1%}"
  rest = total - short
  found = counts["found"] - counts["short found"]
  yield f"{found / rest:.1%} of {rest}" if rest else "-"
  yield f"{counts['short found'] / short:.1%} of {short}" if short else "-"


def precision(
  index: Index, texts: Sequence[tuple[str, str]], taus: Sequence[float]
) -> Iterator[tuple[object, ...]]:
  """Rows of what is dropped of the library."""
  for path, text in texts:
    evidence = index.evidence(text, min(taus))
    for tau in taus:
      for found in evidence:
        if why := verdict.reason(found, tau):
          yield f"{tau:g}", path, found.problem, why, found.function, found.record()


def pairs(
  index: Index, texts: Sequence[tuple[str, str]], draws: int
) -> Iterator[tuple[object, ...]]:
  """Quantiles of each measure over pairs drawn at random."""
  rng = random.Random(0)
  functions = [f for _, text in texts for f in source.functions(text)]
  shapes = [trees.shape(f.node) for f in rng.sample(functions, 2000)]
  written = [shape.written for shape in shapes if shape]
  for low, high in ((1, 15), (15, 21), (21, 40), (40, 1000)):
    some = [
      shape.written
      for reference in index.references
      for shape in reference.shapes
      if low <= len(shape.written) < high
    ]
    rates = cdist(some, written, scorer=Levenshtein.normalized_similarity).ravel()
    name = f"AST match rate, problem of {low} to {high - 1} tokens, library function"
    yield name, f"{len(rates):,}", *quantiles(rates)
  sets = [shingles.shingles(source.words(text), 5) for _, text in texts]
  drawn = [rng.sample(sets, 2) for _ in range(draws)]
  similar = [shingles.jaccard(one, other) for one, other in drawn]
  yield "Jaccard of library modules, shingles of 5", f"{draws:,}", *quantiles(similar)
  runs = [e.text_runs for _, text in texts for e in index.evidence(text, 1.0)]
  blank = len(index.references) * len(texts) - len(runs)
  values = np.concatenate([np.zeros(blank), runs])
  yield (
    "13-grams of a problem's text in a module",
    f"{len(values):,}",
    *quantiles(values),
  )


def distances(
  index: Index, texts: Sequence[tuple[str, str]], embed: Embed
) -> Iterator[tuple[object, ...]]:
  """Quantiles of embedding distances: unrelated functions, each problem's plants."""
  rng = random.Random(0)
  functions = [f.source for _, text in texts for f in source.functions(text)]
  every = {n: e.code for n, e in enumerate(index.references)}
  wanted = references.embed_code(embed, list(every.values()))
  sets = {"library function": rng.sample(functions, 1000)}
  for kind in ("renamed", "paraphrased docstring", "all at once, no text"):
    of = {p.id: plants.KINDS[kind](p) for _, p in references.problems(BENCHMARKS)}
    sets[kind] = [of[e.id] or e.code for e in index.references]
  for name, found in sets.items():
    close = references.embed_code(embed, found) @ wanted.T
    values = close.ravel() if name == "library function" else np.diagonal(close)
    apart = np.sqrt(np.maximum(0.0, 2.0 - 2.0 * values))
    yield f"embedding distance, {name}", f"{len(apart):,}", *quantiles(apart)


def quantiles(values: Sequence[float] | np.ndarray) -> Iterator[str]:
  """Formatted quantiles."""
  yield from (f"{value:.3g}" for value in np.quantile(values, QUANTILES))


def main() -> None:
  """Parses the command line and prints the tables."""
  parser = argparse.ArgumentParser(description="Decontamination.")
  parser.add_argument("--taus", default="0.95,0.9,0.85,0.8")
  parser.add_argument("--draws", type=int, default=100_000)
  parser.add_argument("--checkpoint", help="a model: how far apart are embeddings?")
  parser.add_argument("--pooling", choices=("mean", "last"), default="last")
  arguments = parser.parse_args()
  taus = [float(tau) for tau in arguments.taus.split(",")]
  named = references.problems(BENCHMARKS)
  index = Index.of(BENCHMARKS, DecontaminateConfig(("",)).ngram)
  texts = library()
  small = [text for _, text in texts if len(text) < HOST_CHARACTERS]
  hosts = [text for text in small if not index.evidence(text, min(taus))]
  head = ["disguise", "benchmark", "plants", "exact", "13-gram"]
  head += [*(f"AST {tau:g}" for tau in taus), "found"]
  head += ["in a module", "found, long", "found, short or generic"]
  print(f"Recall, the rules at tau {taus[0]:g}\n")
  print(card.table(head, recall(index, named, hosts, taus)))
  rows = list(precision(index, texts, taus))
  functions = sum(len(source.functions(text)) for _, text in texts)
  print(
    f"Dropped of the standard library: {len(texts)} files, {functions:,} functions\n"
  )
  for tau in taus:
    paths = {row[1] for row in rows if row[0] == f"{tau:g}"}
    print(f"tau {tau:g}: {len(paths)} files ({len(paths) / len(texts):.2%})")
  head = ["tau", "file", "problem", "rule", "function", "evidence"]
  print("\n" + card.table(head, rows))
  head = ["random pairs", "pairs", *(f"{q:.2%}" for q in QUANTILES)]
  print(card.table(head, pairs(index, texts, arguments.draws)))
  if arguments.checkpoint:
    embed = embedding.opened(arguments.checkpoint, arguments.pooling, 512).embed
    print(card.table(head, distances(index, texts, embed)))


if __name__ == "__main__":
  sys.exit(main())
