"""What decontamination finds, and what it takes by mistake.

    python benchmarks/decontamination.py

Two tables. Recall: every problem of HumanEval and MBPP in disguise (plants.py), alone
and inside of a module of the standard library, by signal and by the rules together.
Precision: what the rules drop of the standard library, all of it, to be judged by eye.
"""

import argparse
import collections
import sys
from collections.abc import Iterable, Iterator, Sequence

import plants

from phi1_jax.curation import card, references
from phi1_jax.curation.config import DecontaminateConfig
from phi1_jax.curation.references import Evidence, Index
from phi1_jax.data import corpora
from phi1_jax.problems.problem import Problem
from phi1_jax.text import source

BENCHMARKS = DecontaminateConfig(("",)).benchmarks
HOST_CHARACTERS = 6000


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
        found = any(references.reason(e, tau) for e in evidence)
        counts["found"] += found
        is_short_one = problem.id in short
        counts["short"] += is_short_one
        counts["short found"] += found and is_short_one
        host = plants.in_host(plant, hosts[counts["plants"] % len(hosts)], problem.id)
        counts["in host"] += any(
          references.reason(e, tau) for e in index.evidence(host, tau)
        )
      if counts["plants"]:
        yield kind, benchmark, *shares(counts, taus)


def is_short(reference: references.Reference) -> bool:
  """Whether its shape alone does not convict."""
  tokens = max(min(len(s.written), len(s.ordered)) for s in reference.shapes)
  return tokens < references.SHORT_TOKENS or reference.generic


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
        if why := references.reason(found, tau):
          yield f"{tau:g}", path, found.problem, why, found.function, found.record()


def main() -> None:
  """Parses the command line and prints the tables."""
  parser = argparse.ArgumentParser(description="Decontamination.")
  parser.add_argument("--taus", default="0.95,0.9,0.85,0.8")
  arguments = parser.parse_args()
  taus = [float(tau) for tau in arguments.taus.split(",")]
  named = references.problems(BENCHMARKS)
  index = Index(BENCHMARKS, DecontaminateConfig(("",)).ngram)
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


if __name__ == "__main__":
  sys.exit(main())
