"""Near-duplicates: MinHash candidates, true Jaccard on every edge, no chains.

  read      documents to tables: shingles, and members of buckets by their hash
  compare   members of a part of the buckets to edges, with their true similarity
  choose    edges to the documents that stay, one range of keys after the other
  decide    documents to those that are kept and those that are dropped

All tables are numpy arrays in files, cut by a hash or by the documents' keys, and a
task holds one part of one table; each phase but `choose` is cut into tasks. A document
is named by its number, task << 32 | row, and sorts by its key.

A document goes only if it is similar to one that stays; similarity to one that goes is
no reason. So no chain of small steps removes a whole source.
"""

import dataclasses
import functools
import heapq
import io
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from phi1_jax import storage
from phi1_jax.curation import folder as folders
from phi1_jax.curation import read, sketches
from phi1_jax.curation.config import DeduplicateConfig
from phi1_jax.curation.document import Decision, Drop, Keep, Tally
from phi1_jax.curation.engine import Job, Task
from phi1_jax.storage import AnyPath
from phi1_jax.text import diversity, shingles

STAGE, VERSION = "deduplicate", 4
AGAINST = "Deduplicate.against or --against"  # for errors
REASONS = ("same words", "near-duplicate")
_SMALL = 10  # documents; below, a share says nothing
_PARTS = 256
_SAMPLE, _SAMPLED_CHARACTERS = 400, 8000

Table = npt.NDArray[np.void]
# A document in a bucket; `size` is the number of its shingles, 0 in buckets of equals.
MEMBER = np.dtype([("bucket", "u8"), ("key", "u8"), ("number", "u8"), ("size", "u4")])
# The second document comes after the first in the order of the keys.
EDGE = np.dtype(
  [("key1", "u8"), ("one", "u8"), ("key2", "u8"), ("two", "u8"), ("similarity", "f8")]
)
# Verdict on a document; `by` is the one that stays, and the similarity of that is -1;
# `size` is the number of different documents in the cluster.
VERDICT = np.dtype(
  [("number", "u8"), ("by", "u8"), ("similarity", "f8"), ("size", "u4")]
)
STAYS = -1.0
_ALWAYS = 0  # priority, in the four highest bits of a key, of the set to compare with
_ROW = (1 << 32) - 1  # bits of the row in a document's number


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
    own = read.cut(read.plan("Deduplicate.inputs", config.inputs), job.count)
    against = read.plan(AGAINST, config.against)
    more = read.cut(against, job.count) if against else []
    read.save(work / "plan", [*own, *more])
    storage.write_json(work / "tasks.json", {"own": len(own)})
  own = storage.read_json(work / "tasks.json")["own"]
  parts = min(job.plan(), _PARTS)
  job.phase("read", _read, config, own, parts)
  compared = job.phase("compare", _compare, config, tasks=parts, unit="tasks")
  summary = _choose(work)
  total = None if config.against else job.documents
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
  sets: list[sketches.Hashes] = []
  found: list[tuple[int, int, int, int]] = []  # rows of MEMBER

  def copied() -> Iterator[Decision]:
    for row, decision in enumerate(task.read()):
      document, hashes = decision.document, np.zeros(0, np.uint64)
      if isinstance(decision, Keep):
        hashes, digest = sketches.sketch(document.text, config.shingle)
        rank = 1 + [*config.prefer, document.source].index(document.source)
        key = sketches.key(document.id, rank if task.rank < own else _ALWAYS)
        found.append((digest, key, task.rank << 32 | row, 0))
        if task.rank >= own:
          decision = Keep(dataclasses.replace(document, text=""))
      sets.append(hashes)
      yield decision

  folders.spill(_documents(task.work, task.rank), copied())
  place = task.work / "shingles"
  save(place / f"{task.name}.npy", np.concatenate([np.zeros(0, np.uint64), *sets]))
  save(place / f"{task.name}-ends.npy", np.cumsum([0, *map(len, sets)]))
  equal = np.array(found, MEMBER)
  members = np.concatenate([equal, _in_bands(config, equal, sets)])
  save_cut(task.work / "buckets", task.name, members, members["bucket"] % parts)


def _documents(work: AnyPath, task: int) -> AnyPath:
  return work / "documents" / f"{task:05d}.parquet"


def _in_bands(
  config: DeduplicateConfig, equal: Table, sets: list[sketches.Hashes]
) -> Table:
  """Return the members of the buckets of bands, for documents with shingles."""
  sizes = np.array([len(sets[int(n) & _ROW]) for n in equal["number"]], np.uint32)
  banded = np.repeat(equal[sizes > 0][:, None], config.bands, axis=1)
  banded["size"] = sizes[sizes > 0][:, None]
  filled = [each for each in sets if len(each)]
  for start in range(0, len(filled), 512):
    chunk = slice(start, start + 512)
    hashes = sketches.bands(filled[chunk], config.permutations, config.bands)
    banded["bucket"][chunk] = hashes
  return banded.reshape(-1)


def _compare(config: DeduplicateConfig, task: Task) -> Tally:
  members = load_all(task.work / "buckets" / task.name, MEMBER)
  table, left = pairs(members, config.similarity, config.comparisons)
  found = edges(table, task.work / "shingles", config.similarity)
  ranges = part_of_key(found["key2"], task.tasks)
  save_cut(task.work / "edges", task.name, found, ranges)
  counts = {"pairs_compared": len(table), "pairs_not_compared": left}
  return Tally([["figures", *count] for count in counts.items()])


def pairs(members: Table, similarity: float, most: int) -> tuple[Table, int]:
  """Return the pairs to compare within whole buckets, and how many were left out.

  A member is compared with at most so many of its bucket's first, so that the work
  grows linearly with the bucket; equals with the first.
  """
  members = np.sort(members, order=("bucket", "key", "number"))
  if not len(members):
    return np.zeros(0, EDGE), 0
  bucket, equal = members["bucket"], members["size"] == 0
  new = np.diff(bucket, prepend=~bucket[:1]) != 0
  first = np.maximum.accumulate(np.where(new, np.arange(len(members)), 0))
  rank = np.arange(len(members)) - first  # in the bucket
  found = [np.zeros(0, EDGE)]
  for step in range(min(most, int(rank.max()))):
    late = np.flatnonzero((rank > step) & (~equal | (step == 0)))
    early = first[late] + step
    sizes = np.sort([members["size"][late], members["size"][early]], axis=0)
    alike = sizes[0] >= similarity * sizes[1]
    early, late = members[early[alike]], members[late[alike]]
    table = np.zeros(len(late), EDGE)
    table["key1"], table["one"] = early["key"], early["number"]
    table["key2"], table["two"] = late["key"], late["number"]
    found.append(table)
  left = np.maximum(0, rank[~equal] - most).sum()
  return np.unique(np.concatenate(found)), int(left)


def edges(table: Table, folder: AnyPath, similarity: float) -> Table:
  """Return the pairs whose true Jaccard similarity is large enough.

  The folder has the shingles: `TASK.npy` (hashes) and `TASK-ends.npy` (their ends, by
  row). Two documents without any are equal.
  """

  @functools.lru_cache(maxsize=64)
  def of_task(task: int) -> tuple[np.ndarray, np.ndarray]:
    hashes, ends = (load(folder / f"{task:05d}{end}.npy") for end in ("", "-ends"))
    return hashes, np.asarray(ends)

  @functools.lru_cache(maxsize=1024)
  def of(number: int) -> np.ndarray:
    (hashes, ends), row = of_task(number >> 32), number & _ROW
    return np.asarray(hashes[ends[row] : ends[row + 1]])

  table = np.sort(table, order=("one", "two"))
  for at, (one, two) in enumerate(table[["one", "two"]].tolist()):
    first, second = of(one), of(two)
    some = len(first) or len(second)
    table["similarity"][at] = shingles.jaccard(first, second) if some else 1.0
  return table[table["similarity"] >= similarity]


def part_of_key(keys: npt.NDArray[np.uint64], parts: int) -> np.ndarray:
  """Return the range of keys that each key is in; parts are in the order of the keys.

  Within each priority the ranges have about the same number of documents.
  """
  count = np.uint64(parts)
  within = (keys >> np.uint64(28)) & np.uint64(0xFFFF_FFFF)
  return (keys >> np.uint64(60)) * count + (within * count >> np.uint64(32))


def choose(folder: AnyPath) -> Table:
  """Return verdicts on the documents that go, and on those that stay for them.

  The folder has the edges, cut by the range of `key2`. Only those of one range are in
  memory, and some 300 bytes for each document that goes. A document that was read twice
  counts once in `size`.
  """
  # Number of a document that goes -> its key, and number, key and similarity of the
  # document that stays.
  gone: dict[int, tuple[int, int, int, float]] = {}
  for name in storage.names(folder):
    table = load_all(folder / name, EDGE)
    table = table[(table["key2"] >> np.uint64(60)) != _ALWAYS]
    rows = np.sort(table, order=("key2", "two", "key1", "one")).tolist()
    for two, found in itertools.groupby(rows, key=lambda row: row[3]):
      best = None
      for key1, one, key2, _, similarity in found:
        if one in gone:
          if similarity < 1.0:
            continue
          # A document with the words of one that goes is as similar to its `by`.
          _, one, key1, similarity = gone[one]
        if best is None or similarity > best[3]:
          best = key2, one, key1, similarity
      if best:
        gone[two] = best
  clusters: dict[int, dict[int, int]] = {}  # numbers -> keys without the priority
  for number, (key, by, by_key, _) in gone.items():
    cluster = clusters.setdefault(by, {by: by_key & (1 << 60) - 1})
    cluster[number] = key & (1 << 60) - 1
  verdicts = [
    (number, by, gone[number][3] if number in gone else STAYS, len({*cluster.values()}))
    for by, cluster in clusters.items()
    for number in cluster
  ]
  return np.array(verdicts, VERDICT)


def _choose(work: AnyPath) -> dict[str, Any]:
  """Write the verdicts for the tasks that decide; return a summary."""
  if not storage.exists(work / "chosen.json"):
    verdicts = choose(work / "edges")
    save_cut(work / "verdicts", "all", verdicts, verdicts["number"] >> np.uint64(32))
    count = int((verdicts["similarity"] == STAYS).sum())
    largest = int(verdicts["size"].max(initial=1))
    summary = {"clusters": count, "documents_of_the_largest": largest}
    storage.write_json(work / "chosen.json", summary)
  return storage.read_json(work / "chosen.json")


def _decide(task: Task) -> Tally:
  table = load_all(task.work / "verdicts" / task.name, VERDICT)
  verdicts = {number & _ROW: rest for number, *rest in table.tolist()}

  @functools.lru_cache(maxsize=64)
  def ids(part: int) -> list[str]:
    return [row["id"] for row in folders.rows(_documents(task.work, part), ["id"])]

  def decisions() -> Iterator[Decision]:
    found = folders.spilled(_documents(task.work, task.rank))
    for row, decision in enumerate(found):
      document = decision.document
      by, similarity, size = verdicts.get(row, (0, STAYS, 1))
      if isinstance(decision, Drop):
        yield decision
      elif similarity == STAYS:
        yield Keep(document.noted(STAGE, {"cluster": size}))
      else:
        facts = {"similarity": round(similarity, 4), "cluster": size}
        representative = ids(by >> 32)[by & _ROW]
        reason = "near-duplicate" if similarity < 1.0 else "same words"
        yield Drop(document, reason, {"representative": representative, **facts})

  return task.write(decisions())


def _check_loss(
  losses: Mapping[str, Mapping[str, int]], maximum: float, folder: AnyPath
) -> None:
  """Refuse to go on where a source of `_SMALL` documents or more lost too much."""
  for source, counts in losses.items():
    share = counts["dropped"] / counts["read"]
    if share > maximum and counts["read"] >= _SMALL:
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


def save(path: AnyPath, table: np.ndarray) -> None:
  """Write a table atomically."""
  path.parent.mkdir(parents=True, exist_ok=True)
  with storage.writing(path) as file:
    np.save(file, table)


def load(path: AnyPath) -> np.ndarray:
  """Return a table: mapped into memory if it is local, otherwise downloaded."""
  if not storage.is_remote(path):
    return np.load(path, mmap_mode="r")
  return np.load(io.BytesIO(storage.read_bytes(path)))


def load_all(folder: AnyPath, dtype: np.dtype) -> Table:
  """Return the tables of a folder as one."""
  names = [name for name in storage.names(folder) if name.endswith(".npy")]
  found = [load(folder / name) for name in names]
  return np.concatenate([np.zeros(0, dtype), *found])


def save_cut(folder: AnyPath, name: str, table: Table, parts: np.ndarray) -> None:
  """Write the rows of a table to the folders of their parts."""
  order = np.argsort(parts, kind="stable")
  table, parts = table[order], parts[order].astype(np.int64)
  starts = np.flatnonzero(np.diff(parts, prepend=-1))
  for start, rows in zip(starts, np.split(table, starts[1:]), strict=False):
    save(folder / f"{int(parts[start]):05d}" / f"{name}.npy", rows)
