"""Near-duplicates: MinHash candidates, true Jaccard on every edge, no chains.

  read      documents to tables: shingles, and members of buckets by their hash
  compare   members of a part of the buckets to edges, with their true similarity
  choose    edges to the documents that stay, one range of keys after the other
  decide    documents to those that are kept and those that are dropped

Each phase but `choose` is cut into tasks; see clusters.py.
"""

import dataclasses
import functools
import heapq
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from phi1_jax import storage
from phi1_jax.curation import clusters, read, sketches
from phi1_jax.curation import folder as folders
from phi1_jax.curation.config import DeduplicateConfig
from phi1_jax.curation.document import Decision, Drop, Keep, Tally
from phi1_jax.curation.engine import Job
from phi1_jax.curation.folder import Tick
from phi1_jax.storage import AnyPath
from phi1_jax.text import diversity

STAGE, VERSION = "deduplicate", 4
AGAINST = "Deduplicate.against or --against"  # for errors
SMALL = 10  # documents; below, a share says nothing
REASONS = ("same words", "near-duplicate")
_PARTS = 256
_SAMPLE, _SAMPLED_CHARACTERS = 400, 8000
_NONE = np.zeros(0, np.uint64)
_ALONE = (0, 0, 0, 0, clusters.STAYS, 1)  # the verdict on a document without a cluster


class LossError(RuntimeError):
  """A source would lose more than it may."""


def run(job: Job) -> dict[str, Any]:
  """Run the stage, or find it done; return the stats.

  Raises:
    InputError: the folder is of something else, or an input cannot be read.
    LossError: a source loses more than `maximum_loss`. The stage is not complete.
    EmptyError: the inputs hold no document.
  """
  config: DeduplicateConfig = job.config
  settings: dict[str, Any] = {"version": VERSION}
  settings["read_against"] = read.identity(AGAINST, config.against)
  # The maximum decides whether there is an outcome, not which.
  work = functools.partial(_run, job)
  stats = job.run(STAGE, settings, work, ignored=("maximum_loss",))
  _check_loss(stats["losses"], config.maximum_loss, job.folder)  # of an earlier run
  return stats


def _run(job: Job) -> tuple[dict[str, Any], dict[str, Any]]:
  config, work = job.config, job.work
  if not storage.exists(work / "tasks.json"):
    own = read.cut(read.plan("Deduplicate.inputs", config.inputs), job.engine.count)
    against = read.plan(AGAINST, config.against)
    more = read.cut(against, job.engine.count) if against else []
    read.save(work / "plan", [*own, *more])
    storage.write_json(work / "tasks.json", {"own": len(own)})
  every, total = job.plan()
  own, parts = storage.read_json(work / "tasks.json")["own"], min(every, _PARTS)
  job.phase("read", _read, (config, work, own, parts), every, total)
  compared = job.phase("compare", _compare, (config, work, parts), parts)
  summary = _choose(work)
  counts = job.phase("decide", _decide, (job.folder,), own, total)
  losses = _losses(counts)
  _check_loss(losses, config.maximum_loss, job.folder)
  figures = {**compared.of("figures"), **summary}
  facts = {"losses": losses, "maximum_loss": config.maximum_loss, "duplicates": figures}
  return counts.stats(), facts | {"diversity": diversity.figures(sample(job.folder))}


def _read(
  config: DeduplicateConfig,
  work: AnyPath,
  own: int,
  parts: int,
  rank: int,
  tasks: int,
  tick: Tick,
) -> None:
  """Copy a task's documents, and write the tables of what is compared of them.

  Tasks from `own` on read what `against` names.
  """
  del tasks
  sets: list[np.ndarray] = []
  found: list[tuple[int, int, int, int]] = []  # rows of MEMBER

  def copied() -> Iterator[Decision]:
    for row, decision in enumerate(read.of_task(work / "plan", rank)):
      document, shingles = decision.document, _NONE
      if isinstance(decision, Keep):
        shingles, digest = sketches.sketch(document.text, config.shingle)
        known = [*config.prefer, document.source]
        priority = 1 + known.index(document.source)
        key = sketches.key(document.id, priority if rank < own else clusters.AGAINST)
        found.append((digest, key, clusters.number(rank, row), 0))
        if rank >= own:
          decision = Keep(dataclasses.replace(document, text=""))
      sets.append(shingles)
      yield decision

  name = f"{rank:05d}"
  folders.spill(work / "documents", f"{name}.parquet", copied(), tick)
  ends = np.cumsum([0, *map(len, sets)])
  clusters.save(work / "shingles" / f"{name}.npy", np.concatenate([_NONE, *sets]))
  clusters.save(work / "shingles" / f"{name}-ends.npy", ends)
  equal = np.array(found, clusters.MEMBER)
  members = np.concatenate([equal, _in_bands(config, equal, sets)])
  clusters.save_cut(work / "buckets", name, members, members["bucket"] % parts)


def _in_bands(
  config: DeduplicateConfig, equal: clusters.Table, sets: list[np.ndarray]
) -> clusters.Table:
  """Return the members of the buckets of bands, for documents with shingles."""
  sizes = np.array(
    [len(sets[clusters.place(n)[1]]) for n in equal["number"]], np.uint32
  )
  some = equal[sizes > 0]
  banded = np.repeat(some[:, None], config.bands, axis=1)
  banded["size"] = sizes[sizes > 0][:, None]
  filled = [each for each in sets if len(each)]
  for start in range(0, len(filled), 512):
    chunk = slice(start, start + 512)
    hashes = sketches.bands(filled[chunk], config.permutations, config.bands)
    banded["bucket"][chunk] = hashes
  return banded.reshape(-1)


def _compare(
  config: DeduplicateConfig,
  work: AnyPath,
  parts: int,
  rank: int,
  tasks: int,
  tick: Tick,
) -> Tally:
  del tasks, tick
  members = clusters.load_all(work / "buckets" / f"{rank:05d}", clusters.MEMBER)
  pairs, left = clusters.pairs(members, config.similarity, config.comparisons)
  found = clusters.edges(pairs, work / "shingles", config.similarity)
  ranges = clusters.part_of_key(found["key2"], parts)
  clusters.save_cut(work / "edges", f"{rank:05d}", found, ranges)
  counts = {"pairs_compared": len(pairs), "pairs_not_compared": left}
  return Tally([["figures", *count] for count in counts.items()])


def _choose(work: AnyPath) -> dict[str, Any]:
  """Write the verdicts for the tasks that decide; return a summary."""
  if not storage.exists(work / "chosen.json"):
    verdicts = clusters.choose(work / "edges", _ids(work))
    tasks = np.array([clusters.place(n)[0] for n in verdicts["number"]], np.int64)
    clusters.save_cut(work / "verdicts", "all", verdicts, tasks)
    count = int((verdicts["similarity"] == clusters.STAYS).sum())
    largest = int(verdicts["size"].max(initial=1))
    summary = {"clusters": count, "documents_of_the_largest": largest}
    storage.write_json(work / "chosen.json", summary)
  return storage.read_json(work / "chosen.json")


def _ids(work: AnyPath) -> Callable[[int], str]:
  """Return a function that looks up the id of a document by its number."""

  @functools.lru_cache(maxsize=64)
  def of_task(task: int) -> list[str]:
    path = work / "documents" / f"{task:05d}.parquet"
    return [row["id"] for row in folders.rows(path, ["id"])]

  def of(number: int) -> str:
    task, row = clusters.place(number)
    return of_task(task)[row]

  return of


def _decide(folder: AnyPath, rank: int, tasks: int, tick: Tick) -> Tally:
  work = folder / folders.ENGINE
  table = clusters.load_all(work / "verdicts" / f"{rank:05d}", clusters.VERDICT)
  verdicts = {clusters.place(row[0])[1]: row for row in table.tolist()}
  id_of = _ids(work)

  def decisions() -> Iterator[Decision]:
    path = work / "documents" / f"{rank:05d}.parquet"
    for row, decision in enumerate(folders.spilled(path)):
      document = decision.document
      *_, by, _, similarity, size = verdicts.get(row, _ALONE)
      if isinstance(decision, Drop):
        yield decision
      elif similarity == clusters.STAYS:
        yield Keep(document.noted(STAGE, {"cluster": size}))
      else:
        facts = {"similarity": round(similarity, 4), "cluster": size}
        reason = "near-duplicate" if similarity < 1.0 else "same words"
        yield Drop(document, reason, {"representative": id_of(by), **facts})

  return folders.write(folder, decisions(), rank, tasks, tick)


def _check_loss(
  losses: Mapping[str, Mapping[str, int]], maximum: float, folder: AnyPath
) -> None:
  """Refuse to go on where a source of `SMALL` documents or more lost too much."""
  for source, counts in losses.items():
    share = counts["dropped"] / counts["read"]
    if share > maximum and counts["read"] >= SMALL:
      raise LossError(
        f"{source}: {counts['dropped']:,} of {counts['read']:,} documents are "
        f"duplicates ({share:.1%}), Deduplicate.maximum_loss is {maximum:.1%}; "
        f"look at {folder}/dropped-*.parquet, then raise it; for another "
        "Deduplicate.similarity name a new --workdir"
      )


def _losses(counts: Tally) -> dict[str, dict[str, int]]:
  """Return how many documents of each source were read, and dropped as duplicates."""
  stats, losses = counts.stats(), {}
  drops = (row for row in counts.record() if row[0] == "dropped" and row[2] in REASONS)
  duplicates = Tally(drops).of("dropped")
  for source, found in stats["sources"].items():
    lost = duplicates.get(source, 0)
    if found["kept"] + lost:
      losses[source] = {"read": found["kept"] + lost, "dropped": lost}
  return losses


def sample(folder: AnyPath, most: int = _SAMPLE) -> list[str]:
  """Return texts that a stage kept: those of the least ids, which are hashes."""
  first = itertools.islice(folders.kept(folder), 20 * most)
  pairs = ((each.id, each.text[:_SAMPLED_CHARACTERS]) for each in first)
  return [text for _, text in heapq.nsmallest(most, pairs)]
