"""Near-duplicates go: MinHash candidates, true Jaccard on every edge, no chains.

  documents -> shingles -> equal ones grouped -> MinHash bands -> candidates
            -> true Jaccard -> clusters (in one worker, edges only) -> decisions

Texts pass through the pipeline once, to be shuffled to their decisions. The rest moves
shingles, and at last edges: about 100 bytes each, all of which meet in one worker.
"""

from __future__ import annotations

import contextlib
import dataclasses
import heapq
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np

from phi1_jax import storage
from phi1_jax.curation import clusters, pipeline, read
from phi1_jax.curation import folder as folders
from phi1_jax.curation.clusters import Sketch, Standing
from phi1_jax.curation.config import DeduplicateConfig
from phi1_jax.curation.document import Decision, Document, Drop, Keep, LossError, Tally
from phi1_jax.text import diversity
from phi1_jax.text import shingles as runs

STAGE = "deduplicate"
VERSION = 2  # of everything that decides the outcome beside the settings
CLUSTERS = "clusters.json"
_SAMPLE = 1000
# The first of those with the same words; each one's key, and whether its lines are the
# first's.
_Group = tuple[Sketch, list[tuple[str, bool]]]


def run(
  config: DeduplicateConfig, folder: Path, runner: pipeline.Runner
) -> dict[str, Any]:
  """Runs the stage, or finds it done.

  Args:
    config: what to do.
    folder: the stage's folder, which every worker can write to.
    runner: where the pipeline runs.

  Returns:
    What stats.json holds.

  Raises:
    InputError: the folder is of something else, or an input cannot be read.
    LossError: a source loses more than `maximum_loss`. The folder keeps the documents
      for a look at them, but is not complete.
  """
  settings = dataclasses.asdict(config)
  del settings["maximum_loss"]  # it decides whether, not what
  settings |= {"version": VERSION, "read": read.identity(config.inputs)}
  if folders.begin(folder, STAGE, settings):
    stats = folders.read_stats(folder)
    check_loss(stats["losses"], config.maximum_loss, folder)
    return stats
  facts: dict[str, Any] = {}
  with folders.measured(facts):
    with runner.pipeline() as graph:
      build(graph, config, folder)
    counts = pipeline.total(folder, config.shards)
  losses = _losses(counts)
  check_loss(losses, config.maximum_loss, folder)
  facts |= {
    "losses": losses,
    "maximum_loss": config.maximum_loss,
    "duplicates": storage.read_json(folder / CLUSTERS),
    "diversity": diversity.figures(sample(folder)),
    "lineage": read.lineage(config.inputs),
  }
  return folders.finish(folder, STAGE, counts.stats(), facts)


def check_loss(
  losses: Mapping[str, Mapping[str, int]], maximum: float, folder: Path
) -> None:
  """Refuses to go on where a source lost too much.

  Raises:
    LossError: names the source, the shares and the largest clusters.
  """
  for source, counts in losses.items():
    share = counts["dropped"] / counts["read"]
    if share > maximum:
      raise LossError(
        f"{source}: {counts['dropped']:,} of {counts['read']:,} documents are "
        f"duplicates ({share:.1%}), Deduplicate.maximum_loss is {maximum:.1%}; look at "
        f"{folder}/dropped-*.jsonl, then raise it; for another Deduplicate.similarity "
        f"name a new --workdir. Largest: {_worst(folder, source)}"
      )


def build(graph: beam.Pipeline, config: DeduplicateConfig, folder: Path) -> None:
  """The pipeline, from the inputs to the folder's files."""
  decisions = graph | "Read" >> pipeline.Read(config.inputs)
  unread = decisions | "Unread" >> beam.Filter(lambda d: isinstance(d, Drop))
  documents = decisions | "Documents" >> beam.FlatMap(_documents)
  sketches = documents | "Sketch" >> beam.Map(_sketch, config)
  others = (
    sketches
    | "Ids" >> beam.Map(_id)
    | "SameId" >> beam.GroupByKey()
    | "Others" >> beam.FlatMap(_others)
  )
  groups = (
    {"sketches": sketches, "others": others}
    | "SameWords" >> beam.CoGroupByKey()
    | "Group" >> beam.FlatMap(_group)
  )
  leaders = groups | "Leaders" >> beam.FlatMap(_leaders)
  buckets = (
    leaders | "Bands" >> beam.FlatMap(_bands, config) | "Buckets" >> beam.GroupByKey()
  )
  edges = _edges(leaders, buckets, config) | "AllEdges" >> beam.Map(_together)
  none = graph | "Always" >> beam.Create(
    [0]
  )  # so that _clusters runs without edges too
  cuts = (
    (none, buckets | "Cut" >> beam.FlatMap(_cut, config))
    | beam.Flatten()
    | "AllCuts" >> beam.Map(_together)
  )
  sizes = groups | "Sizes" >> beam.FlatMap(_sizes) | "AllSizes" >> beam.Map(_together)
  standings = (
    {"edges": edges, "cuts": cuts, "sizes": sizes}
    | "Together" >> beam.CoGroupByKey()
    | "Clusters" >> beam.FlatMap(_clusters, folder)
  )
  of_members = (
    {"members": groups | "Members" >> beam.FlatMap(_members), "standing": standings}
    | "WithLeader" >> beam.CoGroupByKey()
    | "OfMembers" >> beam.FlatMap(_of_members)
  )
  judged = (
    {"documents": documents, "standing": of_members}
    | "WithDocument" >> beam.CoGroupByKey()
    | "Decide" >> beam.FlatMap(_decide, config)
  )
  _ = (
    (judged, unread)
    | "All" >> beam.Flatten()
    | "Write" >> pipeline.Write(folder, config.shards)
  )


def _edges(
  leaders: beam.PCollection[tuple[str, bytes]],
  buckets: beam.PCollection[tuple[bytes, Iterable[tuple[str, int]]]],
  config: DeduplicateConfig,
) -> beam.PCollection[tuple[str, str, float]]:
  """Compares all candidates: their shingles are joined to one, then to the other."""
  asked = (
    buckets
    | "Candidates" >> beam.FlatMap(_candidates, config)
    | "OfOne" >> beam.GroupByKey()
    | "Each" >> beam.FlatMap(_each)
  )
  sent = (
    {"shingles": leaders, "asked": asked}
    | "WithFirst" >> beam.CoGroupByKey()
    | "Send" >> beam.FlatMap(_send)
  )
  return (
    {"shingles": leaders, "sent": sent}
    | "WithSecond" >> beam.CoGroupByKey()
    | "Compare" >> beam.FlatMap(_compare, config.similarity)
  )


def _documents(decision: Decision) -> Iterator[tuple[str, Document]]:
  if isinstance(decision, Keep):
    yield decision.document.id, decision.document


def _sketch(
  keyed: tuple[str, Document], config: DeduplicateConfig
) -> tuple[bytes, Sketch]:
  found = clusters.sketch(keyed[1], config.shingle, config.prefer)
  return found.digest, found


def _id(sketched: tuple[bytes, Sketch]) -> tuple[str, tuple[str, bytes]]:
  digest, found = sketched
  return clusters.id_of(found.key), (found.key, digest)


def _others(
  named: tuple[str, Iterable[tuple[str, bytes]]],
) -> Iterator[tuple[bytes, str]]:
  """The keys under an id but for the first, by the digest of their words.

  Their documents will go, so they must not be what another one goes because of.
  """
  for name, digest in sorted(set(named[1]))[1:]:
    yield digest, name


def _group(joined: tuple[bytes, Mapping[str, Iterable[Any]]]) -> Iterator[_Group]:
  """The first of those with the same words, and all of them."""
  digest, parts = joined
  others = set(parts["others"])
  names: dict[str, bytes] = {}
  shingles = b""
  for found in parts["sketches"]:
    if found.key not in others:
      names[found.key], shingles = found.lines, found.shingles
  if names:
    first = min(names)
    members = [(name, lines == names[first]) for name, lines in sorted(names.items())]
    yield Sketch(first, digest, names[first], shingles), members


def _leaders(group: _Group) -> Iterator[tuple[str, bytes]]:
  if group[0].shingles:
    yield group[0].key, group[0].shingles


def _sizes(group: _Group) -> Iterator[tuple[str, int]]:
  if len(group[1]) > 1:
    yield group[0].key, len(group[1])


def _members(group: _Group) -> Iterator[tuple[str, tuple[str, bool]]]:
  for member in group[1]:
    yield group[0].key, member


def _bands(
  leader: tuple[str, bytes], config: DeduplicateConfig
) -> Iterator[tuple[bytes, tuple[str, int]]]:
  name, shingles = leader
  hashes = np.frombuffer(shingles, np.uint64)
  for band in clusters.buckets(hashes, config.permutations, config.bands):
    yield band, (name, len(hashes))


def _candidates(
  bucket: tuple[bytes, Iterable[tuple[str, int]]], config: DeduplicateConfig
) -> Iterator[tuple[str, list[str]]]:
  yield from clusters.candidates(bucket[1], config.similarity, config.comparisons)


def _cut(
  bucket: tuple[bytes, Iterable[tuple[str, int]]], config: DeduplicateConfig
) -> Iterator[int]:
  if left := clusters.cut(len(list(bucket[1])), config.comparisons):
    yield left


def _each(asked: tuple[str, Iterable[list[str]]]) -> Iterator[tuple[str, str]]:
  """Pairs (first, second) once each, whichever buckets they share."""
  for first in sorted({name for names in asked[1] for name in names}):
    yield first, asked[0]


def _send(
  joined: tuple[str, Mapping[str, Iterable[Any]]],
) -> Iterator[tuple[str, tuple[str, bytes]]]:
  first, parts = joined
  for shingles in parts["shingles"]:
    for second in parts["asked"]:
      yield second, (first, shingles)


def _compare(
  joined: tuple[str, Mapping[str, Iterable[Any]]], similarity: float
) -> Iterator[tuple[str, str, float]]:
  second, parts = joined
  for shingles in parts["shingles"]:
    hashes = np.frombuffer(shingles, np.uint64)
    for first, others in parts["sent"]:
      found = runs.jaccard(np.frombuffer(others, np.uint64), hashes)
      if found >= similarity:
        yield first, second, found


def _together(element: Any) -> tuple[int, Any]:
  """Everything to one worker."""
  return 0, element


def _clusters(
  joined: tuple[int, Mapping[str, Iterable[Any]]], folder: Path
) -> Iterator[tuple[str, Standing]]:
  parts = joined[1]
  edges = list(parts["edges"])
  standings = clusters.clusters(edges, dict(parts["sizes"]))
  facts = {"edges": len(edges), "pairs_not_compared": sum(parts["cuts"])}
  storage.write_json(folder / CLUSTERS, facts | clusters.summary(standings))
  yield from standings.items()


def _of_members(
  joined: tuple[str, Mapping[str, Iterable[Any]]],
) -> Iterator[tuple[str, tuple[Standing, bool]]]:
  """What holds for the first of those with the same words holds for all, by id."""
  for standing in joined[1]["standing"]:
    for name, copy in joined[1]["members"]:
      yield clusters.id_of(name), (standing, copy)


def _decide(
  joined: tuple[str, Mapping[str, Iterable[Any]]], config: DeduplicateConfig
) -> Iterator[Decision]:
  parts = joined[1]
  standing, copy = next(iter(parts["standing"]), (None, False))
  named = [(clusters.key(d, config.prefer), d) for d in parts["documents"]]
  named.sort(key=lambda pair: (pair[0], folders.line(pair[1].record())))
  name, first = named[0]
  yield clusters.decide(first, name, standing, copy)
  for _, document in named[1:]:
    yield clusters.again(document, first)


def _losses(counts: Tally) -> dict[str, dict[str, int]]:
  """Documents of each source that were read, and those that went as duplicates."""
  losses: dict[str, dict[str, int]] = {}
  for name in sorted({*counts.kept, *(source for source, _ in counts.dropped)}):
    dropped = sum(counts.dropped[name, reason] for reason in clusters.REASONS)
    if counts.kept[name] + dropped:
      losses[name] = {"read": counts.kept[name] + dropped, "dropped": dropped}
  return losses


def _worst(folder: Path, source: str, most: int = 3) -> str:
  """The largest clusters that documents of a source went into, and how they begin."""
  sizes: dict[str, tuple[int, str]] = {}
  for file in sorted(folder.glob("dropped-*.jsonl")):
    with file.open("rb") as lines:
      for row in map(json.loads, lines):
        found = row["dropped"]["evidence"]
        if row["source"] == source and "cluster" in found:
          begin = " ".join(row["text"].split())[:60]
          sizes.setdefault(found["representative"], (found["cluster"], begin))
  ordered = sorted(sizes.items(), key=lambda item: (-item[1][0], item[0]))[:most]
  return "; ".join(f"{size:,} like {name} ({begin})" for name, (size, begin) in ordered)


def sample(folder: Path, most: int = _SAMPLE) -> list[str]:
  """Texts that a stage kept: those of the least ids, which are hashes."""
  files = sorted(folder.glob("kept-*.jsonl"))
  with contextlib.ExitStack() as opened:
    rows = [map(json.loads, opened.enter_context(file.open("rb"))) for file in files]
    merged = heapq.merge(*rows, key=lambda row: row["id"])
    return [row["text"] for row in itertools.islice(merged, most)]
