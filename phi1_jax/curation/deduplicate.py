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
from phi1_jax.curation.engine import Job, Task
from phi1_jax.storage import AnyPath
from phi1_jax.text import diversity

STAGE, VERSION = "deduplicate", 4
AGAINST = "Deduplicate.against or --against"  # for errors
SMALL = 10  # documents; below, a share says nothing
REASONS = ("same words", "near-duplicate")
_PARTS = 256
_SAMPLE, _SAMPLED_CHARACTERS = 400, 8000
_NONE = np.zeros(0, np.uint64)


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
  job.phase("read", _read, config, own, parts)
  compared = job.phase("compare", _compare, config, tasks=parts)
  summary = _choose(work)
  counts = job.phase("decide", _decide, tasks=own, total=total)
  losses = _losses(counts)
  _check_loss(losses, config.maximum_loss, job.folder)
  figures = {**compared.of("figures"), **summary}
  facts = {"losses": losses, "maximum_loss": config.maximum_loss, "duplicates": figures}
  return counts.stats(), facts | {"diversity": diversity.figures(sample(job.folder))}


def _read(config: DeduplicateConfig, own: int, parts: int, task: Task) -> None:
  """Copy a task's documents, and write the tables of what is compared of them.

  Tasks from `own` on read what `against` names.
  """
  sets: list[np.ndarray] = []
  found: list[tuple[int, int, int, int]] = []  # rows of MEMBER

  def copied() -> Iterator[Decision]:
    for row, decision in enumerate(task.read()):
      document, shingles = decision.document, _NONE
      if isinstance(decision, Keep):
        shingles, digest = sketches.sketch(document.text, config.shingle)
        known = [*config.prefer, document.source]
        priority = 1 + known.index(document.source)
        rank = priority if task.rank < own else clusters.AGAINST
        key = sketches.key(document.id, rank)
        found.append((digest, key, clusters.number(task.rank, row), 0))
        if task.rank >= own:
          decision = Keep(dataclasses.replace(document, text=""))
      sets.append(shingles)
      yield decision

  folders.spill(_documents(task.work, task.rank), task.ticked(copied()))
  ends = np.cumsum([0, *map(len, sets)])
  clusters.save(
    task.work / "shingles" / f"{task.name}.npy", np.concatenate([_NONE, *sets])
  )
  clusters.save(task.work / "shingles" / f"{task.name}-ends.npy", ends)
  equal = np.array(found, clusters.MEMBER)
  members = np.concatenate([equal, _in_bands(config, equal, sets)])
  clusters.save_cut(
    task.work / "buckets", task.name, members, members["bucket"] % parts
  )


def _documents(work: AnyPath, task: int) -> AnyPath:
  return work / "documents" / f"{task:05d}.parquet"


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


def _compare(config: DeduplicateConfig, task: Task) -> Tally:
  members = clusters.load_all(task.work / "buckets" / task.name, clusters.MEMBER)
  pairs, left = clusters.pairs(members, config.similarity, config.comparisons)
  found = clusters.edges(pairs, task.work / "shingles", config.similarity)
  ranges = clusters.part_of_key(found["key2"], task.tasks)
  clusters.save_cut(task.work / "edges", task.name, found, ranges)
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
    return [row["id"] for row in folders.rows(_documents(work, task), ["id"])]

  def of(number: int) -> str:
    task, row = clusters.place(number)
    return of_task(task)[row]

  return of


def _decide(task: Task) -> Tally:
  table = clusters.load_all(task.work / "verdicts" / task.name, clusters.VERDICT)
  verdicts = {clusters.place(number)[1]: rest for number, *rest in table.tolist()}
  id_of = _ids(task.work)

  def decisions() -> Iterator[Decision]:
    found = folders.spilled(_documents(task.work, task.rank))
    for row, decision in enumerate(found):
      document = decision.document
      by, similarity, size = verdicts.get(row, (0, clusters.STAYS, 1))
      if isinstance(decision, Drop):
        yield decision
      elif similarity == clusters.STAYS:
        yield Keep(document.noted(STAGE, {"cluster": size}))
      else:
        facts = {"similarity": round(similarity, 4), "cluster": size}
        reason = "near-duplicate" if similarity < 1.0 else "same words"
        yield Drop(document, reason, {"representative": id_of(by), **facts})

  return task.write(decisions())


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
  drops = (row for row in counts.record() if row[0] == "dropped" and row[2] in REASONS)
  kept, lost = counts.of("kept"), Tally(drops).of("dropped")
  return {
    name: {"read": kept.get(name, 0) + lost.get(name, 0), "dropped": lost.get(name, 0)}
    for name in sorted({*kept, *lost})
  }


def sample(folder: AnyPath, most: int = _SAMPLE) -> list[str]:
  """Return texts that a stage kept: those of the least ids, which are hashes."""
  first = itertools.islice(folders.kept(folder), 20 * most)
  pairs = ((each.id, each.text[:_SAMPLED_CHARACTERS]) for each in first)
  return [text for _, text in heapq.nsmallest(most, pairs)]
