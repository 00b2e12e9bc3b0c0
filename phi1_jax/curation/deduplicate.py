"""Near-duplicates: MinHash candidates, true Jaccard on every edge, no chains.

  read      documents to tables: shingles, and members of buckets by their hash
  pairs     members of a part of the buckets to pairs
  compare   pairs to edges, with their true similarity
  choose    edges to the documents that stay, one range of keys after the other
  decide    documents to those that are kept and those that are dropped

Each phase but `choose` is cut into tasks; see clusters.py.
"""

import dataclasses
import functools
import heapq
import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from phi1_jax import storage
from phi1_jax.curation import clusters, inputs, sketches
from phi1_jax.curation import folder as folders
from phi1_jax.curation.config import DeduplicateConfig
from phi1_jax.curation.document import Decision, Document, Drop, Keep, Tally
from phi1_jax.curation.engine import Engine, Ticker, Write
from phi1_jax.curation.read import Read
from phi1_jax.storage import AnyPath
from phi1_jax.text import diversity

STAGE, VERSION = "deduplicate", 3
SMALL = 10  # documents; below, a share says nothing
REASONS = (
  "exact duplicate",
  "same words",
  "near-duplicate",
  "read twice",
  "id of another text",
)
_PARTS = 256
_SAMPLE, _SAMPLED_CHARACTERS = 400, 8000
_SHOWN = 200  # characters of a text that is evidence


class LossError(RuntimeError):
  """A source would lose more than it may."""


def run(config: DeduplicateConfig, folder: AnyPath, engine: Engine) -> dict[str, Any]:
  """Run the stage, or find it done; return the stats.

  Args:
    config: the settings.
    folder: the stage's folder, which every worker can write to.
    engine: where the tasks run.

  Raises:
    InputError: the folder is of something else, or an input cannot be read.
    LossError: a source loses more than `maximum_loss`. The stage is not complete.
    EmptyError: the inputs hold no document.
  """
  settings = dataclasses.asdict(config)
  del settings["maximum_loss"]  # it decides whether, not what
  settings |= {"version": VERSION, "read": inputs.identity(config.inputs)}
  settings["read_against"] = inputs.identity(config.against)
  if folders.begin(folder, STAGE, settings):
    stats = folders.read_stats(folder)
    check_loss(stats["losses"], config.maximum_loss, folder)
    return stats
  facts: dict[str, Any] = {}
  with folders.measured(facts):
    counts, duplicates = _phases(config, folder, engine)
    losses = _losses(counts)
    check_loss(losses, config.maximum_loss, folder)
    facts |= {
      "losses": losses,
      "maximum_loss": config.maximum_loss,
      "duplicates": duplicates,
      "diversity": diversity.figures(sample(folder)),
      "lineage": inputs.lineage(config.inputs),
    }
  return folders.finish(folder, STAGE, counts.stats(), facts)


def _phases(
  config: DeduplicateConfig, folder: AnyPath, engine: Engine
) -> tuple[Tally, dict[str, Any]]:
  work = folder / folders.ENGINE
  if not storage.exists(work / "plan" / "plan.json"):
    places = inputs.plan("Deduplicate.inputs", config.inputs)
    parts = inputs.cut(places, engine.count(sum(p.size for p in places), len(places)))
    against = inputs.plan("Deduplicate.against", config.against)
    size = sum(place.size for place in against)
    more = inputs.cut(against, engine.count(size, len(against))) if against else []
    inputs.save(work / "plan", [*parts, *more])
    storage.write_json(
      work / "tasks.json", {"inputs": len(parts), "all": len(parts) + len(more)}
    )
  tasks = storage.read_json(work / "tasks.json")
  total = storage.read_json(work / "plan" / "plan.json")["documents"]
  parts = min(tasks["all"], _PARTS)
  reading = Sketch(config, folder, tasks["inputs"], parts)
  engine.run(folder, "read", [Read(work / "plan"), reading], tasks["all"], total)
  left = engine.run(folder, "pairs", [Pairs(config, work, parts)], parts)
  compared = engine.run(folder, "compare", [Compare(config, work, parts)], parts)
  summary = _choose(work)
  deciding = [Decide(work), Write(folder, "decide")]
  counts = engine.run(folder, "decide", deciding, tasks["inputs"], total)
  figures = {
    "pairs_compared": compared.figures["pairs"],
    "edges": compared.figures["edges"],
    "pairs_not_compared": left.figures["left"],
  }
  return counts, figures | summary


@dataclasses.dataclass(frozen=True)
class Sketch:
  """A step: documents to a copy of them and the tables of what is compared.

  Attributes:
    config: the settings.
    folder: the stage's folder.
    own: tasks from this one on read what `against` names.
    parts: number of parts of the buckets.
  """

  config: DeduplicateConfig
  folder: AnyPath
  own: int
  parts: int

  def __call__(
    self, data: Iterable[Decision], rank: int, world_size: int
  ) -> Iterator[Tally]:
    """Write the tables of a task."""
    del world_size
    work, config = self.folder / folders.ENGINE, self.config
    found: list[sketches.Sketch] = []
    tick = Ticker(self.folder, "read", rank)
    against = rank >= self.own

    def copied() -> Iterator[Decision]:
      for decision in data:
        document = decision.document
        if isinstance(decision, Drop):
          found.append(_NOTHING)
          yield decision
          continue
        priority = sketches.rank(document.source, config.prefer)
        priority = sketches.AGAINST if against else priority
        found.append(sketches.sketch(document, config.shingle, priority))
        document = dataclasses.replace(document, text="") if against else document
        yield Keep(document)

    folders.spill(work / "documents", f"{rank:05d}.parquet", copied(), tick)
    tick.flush()
    name = f"{rank:05d}"
    ends = np.zeros(len(found) + 1, np.int64)
    ends[1:] = np.cumsum([len(each.shingles) for each in found])
    sets = [each.shingles for each in found]
    clusters.save(work / "shingles" / f"{name}.npy", np.concatenate([_NONE, *sets]))
    clusters.save(work / "shingles" / f"{name}-ends.npy", ends)
    prints = [[each.lines for each in found], [each.text for each in found]]
    clusters.save(work / "prints" / f"{name}.npy", np.array(prints, np.uint64))
    members = self._members(found, rank)
    clusters.save_cut(
      work / "buckets",
      name,
      members,
      (members["bucket"] % np.uint64(self.parts)).astype(np.int64),
    )
    yield Tally()

  def _members(self, found: list[sketches.Sketch], rank: int) -> clusters.Table:
    config = self.config
    rows = [row for row, each in enumerate(found) if each is not _NOTHING]
    equal = np.zeros(2 * len(rows), clusters.MEMBER)
    for place, row in enumerate(rows):
      each, name = found[row], clusters.number(rank, row)
      equal[2 * place] = (each.digest, each.key, name, 0, clusters.EQUAL)
      hashed = each.key * 0x9E37_79B9_7F4A_7C15 % 2**64
      of_text = each.text >> 32
      equal[2 * place + 1] = (hashed, each.key, name, of_text, clusters.SAME_ID)
    rows = [row for row in rows if len(found[row].shingles)]
    banded = np.zeros((len(rows), config.bands), clusters.MEMBER)
    sets = [found[row].shingles for row in rows]
    for start in range(0, len(rows), 512):
      chunk = slice(start, start + 512)
      hashes = sketches.bands(sets[chunk], config.permutations, config.bands)
      banded["bucket"][chunk] = hashes
    banded["key"] = np.array([found[row].key for row in rows], np.uint64)[:, None]
    numbers = [clusters.number(rank, row) for row in rows]
    banded["number"] = np.array(numbers, np.uint64)[:, None]
    banded["size"] = np.array([len(each) for each in sets], np.uint32)[:, None]
    return np.concatenate([equal, banded.reshape(-1)])


_NONE = np.zeros(0, np.uint64)
_NOTHING = sketches.Sketch(0, 0, 0, 0, _NONE)


@dataclasses.dataclass(frozen=True)
class Pairs:
  """A step: the members of a part of the buckets to pairs."""

  config: DeduplicateConfig
  work: AnyPath
  parts: int

  def __call__(self, data: Any, rank: int, world_size: int) -> Iterator[Tally]:
    """Write the pairs of a part."""
    del data, world_size
    members = clusters.load_all(self.work / "buckets" / f"{rank:05d}", clusters.MEMBER)
    found, repeated, left = clusters.pairs(
      members, self.config.similarity, self.config.comparisons
    )
    parts = (found["two"] % np.uint64(self.parts)).astype(np.int64)
    clusters.save_cut(self.work / "pairs", f"{rank:05d}", found, parts)
    clusters.save(self.work / "repeated" / f"{rank:05d}.npy", repeated)
    tally = Tally()
    tally.figures["left"] = left
    yield tally


@dataclasses.dataclass(frozen=True)
class Compare:
  """A step: a part of the pairs to edges."""

  config: DeduplicateConfig
  work: AnyPath
  parts: int

  def __call__(self, data: Any, rank: int, world_size: int) -> Iterator[Tally]:
    """Write the edges of a part."""
    del data, world_size
    pairs = clusters.load_all(self.work / "pairs" / f"{rank:05d}", clusters.PAIR)
    pairs = np.unique(pairs)
    shingles = clusters.Shingles(self.work / "shingles")
    found = clusters.edges(pairs, shingles, self.config.similarity)
    ranges = clusters.part_of_key(found["key2"], self.parts)
    clusters.save_cut(self.work / "edges", f"{rank:05d}", found, ranges)
    tally = Tally()
    tally.figures.update({"pairs": len(pairs), "edges": len(found)})
    yield tally


def _choose(work: AnyPath) -> dict[str, Any]:
  """Write the verdicts for the tasks that decide; return a summary."""
  done = work / "chosen.json"
  if not storage.exists(done):
    repeated = clusters.load_all(work / "repeated", clusters.VERDICT)
    numbers = np.sort(repeated["number"])
    gone = clusters.choose(work / "edges", numbers, sketches.AGAINST)
    verdicts = clusters.with_sizes(gone)
    stays = verdicts[verdicts["similarity"] == clusters.STAYS]
    largest = stays[np.argsort(-stays["size"].astype(np.int64), kind="stable")][:10]
    ids = _Ids(work)
    summary = {
      "clusters": len(stays),
      "largest": [
        {"representative": ids.of(each["number"]), "documents": int(each["size"])}
        for each in largest
      ],
    }
    verdicts = np.concatenate([verdicts, repeated])
    tasks = clusters.task_of(verdicts["number"]).astype(np.int64)
    clusters.save_cut(work / "verdicts", "all", verdicts, tasks)
    storage.write_json(done, summary)
  return storage.read_json(done)


class _Ids:
  """Looks up ids and texts by the documents' numbers."""

  def __init__(self, work: AnyPath):
    self._work = work
    self._load = functools.lru_cache(maxsize=64)(self._loaded)
    self._prints = functools.lru_cache(maxsize=64)(self._loaded_prints)

  def _loaded(self, task: int) -> list[str]:
    path = self._work / "documents" / f"{task:05d}.parquet"
    return [row["id"] for row in folders.rows(path, ["id"])]

  def _loaded_prints(self, task: int) -> np.ndarray:
    return np.asarray(clusters.load(self._work / "prints" / f"{task:05d}.npy"))

  def of(self, number: int) -> str:
    """Return the id of a document."""
    return self._load(int(number) >> 32)[clusters.row_of(number)]

  def prints(self, number: int) -> tuple[int, int]:
    """Return the digests of a document's lines and of its text."""
    found = self._prints(int(number) >> 32)[:, clusters.row_of(number)]
    return int(found[0]), int(found[1])

  def text(self, number: int) -> dict[str, Any]:
    """Return a document's source and the begin of its text, as evidence."""
    path = self._work / "documents" / f"{int(number) >> 32:05d}.parquet"
    for row, found in enumerate(folders.rows(path, ["source", "text"])):
      if row == clusters.row_of(number):
        return {"source": found["source"], "begin": found["text"][:_SHOWN]}
    raise IndexError(number)


@dataclasses.dataclass(frozen=True)
class Decide:
  """A step: a task's documents to decisions."""

  work: AnyPath

  def __call__(self, data: Any, rank: int, world_size: int) -> Iterator[Decision]:
    """Yield the decisions."""
    del data, world_size
    place = self.work / "verdicts" / f"{rank:05d}"
    table = clusters.load_all(place, clusters.VERDICT)
    verdicts = dict(zip(table["number"].tolist(), table.tolist(), strict=True))
    ids = _Ids(self.work)
    path = self.work / "documents" / f"{rank:05d}.parquet"
    for row, decision in enumerate(folders.spilled(path)):
      if isinstance(decision, Drop):
        yield decision
      else:
        found = verdicts.get(clusters.number(rank, row))
        yield _decision(decision.document, found, ids)


def _decision(document: Document, verdict: Any, ids: _Ids) -> Decision:
  number, by, similarity, size = verdict or (0, 0, clusters.STAYS, 1)
  if similarity == clusters.STAYS:
    return Keep(document.noted(STAGE, {"cluster": size}))
  evidence: dict[str, Any] = {"representative": ids.of(by)}
  own, other = ids.prints(number), ids.prints(by)
  if similarity == clusters.REPEATED:
    if own[1] == other[1]:
      return Drop(document, "read twice", evidence)
    # An id names one text, and only the giver knows the right one.
    texts = [ids.text(by), {"source": document.source, "begin": document.text[:_SHOWN]}]
    return Drop(document, "id of another text", {**evidence, "texts": texts})
  evidence |= {"similarity": round(similarity, 4), "cluster": size}
  if similarity < 1.0:
    return Drop(document, "near-duplicate", evidence)
  reason = "exact duplicate" if own[0] == other[0] else "same words"
  return Drop(document, reason, evidence)


def check_loss(
  losses: Mapping[str, Mapping[str, int]], maximum: float, folder: AnyPath
) -> None:
  """Refuse to go on where a source of `SMALL` documents or more lost too much.

  Raises:
    LossError: names the source, the shares and the largest clusters.
  """
  for source, counts in losses.items():
    share = counts["dropped"] / counts["read"]
    if share > maximum and counts["read"] >= SMALL:
      raise LossError(
        f"{source}: {counts['dropped']:,} of {counts['read']:,} documents are "
        f"duplicates ({share:.1%}), Deduplicate.maximum_loss is {maximum:.1%}; "
        f"look at {folder}/dropped-*.parquet, then raise it; for another "
        "Deduplicate.similarity name a new --workdir. Largest: "
        f"{_worst(folder, source)}"
      )


def _losses(counts: Tally) -> dict[str, dict[str, int]]:
  """Return how many documents of each source were read, and dropped as duplicates."""
  losses: dict[str, dict[str, int]] = {}
  for name in sorted({*counts.kept, *(source for source, _ in counts.dropped)}):
    dropped = sum(counts.dropped[name, reason] for reason in REASONS)
    if counts.kept[name] + dropped:
      losses[name] = {"read": counts.kept[name] + dropped, "dropped": dropped}
  return losses


def _worst(folder: AnyPath, source: str, most: int = 3) -> str:
  """Return the largest clusters that a source's documents went into."""
  sizes: dict[str, tuple[int, str]] = {}
  for drop in folders.dropped(folder):
    if drop.document.source == source and "cluster" in drop.evidence:
      begin = " ".join(drop.document.text.split())[:60]
      name = drop.evidence["representative"]
      sizes.setdefault(name, (drop.evidence["cluster"], begin))
  ordered = sorted(sizes.items(), key=lambda item: (-item[1][0], item[0]))[:most]
  return "; ".join(f"{size:,} like {name} ({begin})" for name, (size, begin) in ordered)


def sample(folder: AnyPath, most: int = _SAMPLE) -> list[str]:
  """Return texts that a stage kept: those of the least ids, which are hashes."""
  first = itertools.islice(folders.kept(folder), 20 * most)
  pairs = ((each.id, each.text[:_SAMPLED_CHARACTERS]) for each in first)
  return [text for _, text in heapq.nsmallest(most, pairs)]
