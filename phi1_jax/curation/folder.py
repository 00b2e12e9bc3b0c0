"""The folder of a stage, local or on gs://.

  stage.json                      the settings that decide the outcome; written first
  kept-00000-of-0000N.parquet     documents
  dropped-00000-of-0000N.parquet  the others, each with `reason` and `evidence`
  stats.json                      counts by reason, source and licence; prompts, models,
                                  money; the stats of the stages before it
  README.md                       the same for people
  COMPLETED                       size and sha256 of each file; written last
  .engine/                        unfinished work, removed at the end

Folders of earlier versions, whose files are JSONL, can be read.
"""

import contextlib
import hashlib
import json
import resource
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from phi1_jax import InputError, storage
from phi1_jax.curation import card
from phi1_jax.curation.document import Decision, Document, Drop, Keep, Tally
from phi1_jax.storage import AnyPath
from phi1_jax.text import settings_file

STAGE, STATS, CARD, COMPLETED = "stage.json", "stats.json", "README.md", "COMPLETED"
ENGINE, FAILED = ".engine", ".failed"
_FIELDS = ("id", "text", "source", "repository", "licence", "kind", "provenance")
KEPT = pa.schema([(name, pa.string()) for name in _FIELDS])
ALL = pa.schema([(name, pa.string()) for name in (*_FIELDS, "reason", "evidence")])
_GROUP_ROWS, _GROUP_CHARACTERS = 1000, 16 << 20
_TAIL = 1 << 16  # bytes at the end of a file, with parquet's footer


class EmptyError(RuntimeError):
  """A stage kept nothing, or its inputs hold nothing."""


def begin(folder: AnyPath, stage: str, settings: Mapping[str, Any]) -> bool:
  """Write a stage's settings, or refuse a folder of something else.

  A stage that failed because it kept nothing may begin again with other settings.

  Args:
    folder: the stage's folder.
    stage: its name.
    settings: everything that decides its outcome.

  Returns:
    Whether the stage is complete already.

  Raises:
    InputError: the folder was begun with other settings, or holds something else.
  """
  found = storage.names(folder)
  if STAGE not in found:
    foreign = [name for name in found if not name.startswith(".")]
    if foreign:
      raise InputError(
        f"--workdir: {folder} is no folder of a stage, it holds {foreign[0]}; name an "
        "empty or a new folder"
      )
  complete = COMPLETED in found
  if not complete and (FAILED in found or not _documents(found)):
    wanted = json.loads(json.dumps({"stage": stage, **settings}))
    if STAGE in found and storage.read_json(folder / STAGE)["settings"] != wanted:
      clear(folder)
  folder.mkdir(parents=True, exist_ok=True)
  settings_file.begin(folder / STAGE, {"stage": stage, **settings})
  if complete:
    kept_files(folder)  # refuses changed files
  return complete


def clear(folder: AnyPath) -> None:
  """Remove everything that an incomplete stage left."""
  remove_tree(folder / ENGINE)
  for name in storage.names(folder):
    if name in (STAGE, FAILED) or name.startswith(("kept-", "dropped-")):
      (folder / name).unlink(missing_ok=True)


def remove_tree(folder: AnyPath) -> None:
  """Remove a folder with its files, if it exists."""
  if not storage.is_remote(folder):
    shutil.rmtree(folder, ignore_errors=True)
  elif storage.exists(folder):
    folder.rmtree()  # type: ignore[union-attr]


def finish(
  folder: AnyPath, stage: str, counts: Mapping[str, Any], facts: Mapping[str, Any]
) -> dict[str, Any]:
  """Write stats.json, the card, and COMPLETED last.

  Args:
    folder: the stage's folder, with its documents in place.
    stage: its name.
    counts: `Tally.stats`, or {} for a stage without documents of its own.
    facts: other entries of stats.json: "prompts", "models", "cost", "lineage".

  Returns:
    The content of stats.json.

  Raises:
    EmptyError: nothing was kept. The stage is not complete; its settings may change.
  """
  if "kept" in counts and not counts["kept"]:
    storage.write_text(folder / FAILED, "nothing was kept\n")
    reasons = "; ".join(f"{n:,} {reason}" for reason, n in counts["dropped"].items())
    raise EmptyError(
      f"{stage}: kept 0 of {counts['read']:,} documents ({reasons or 'read nothing'}); "
      f"look at {folder}/dropped-*.parquet, change the settings and run it again"
    )
  settings = storage.read_json(folder / STAGE)["settings"]
  stats = {"stage": stage, **counts, "settings": settings, **facts}
  storage.write_json(folder / STATS, stats)
  storage.write_text(folder / CARD, card.of_stage(stats))
  digests = {}
  for name in _documents(storage.names(folder)):
    noted = folder / ENGINE / "digests" / f"{name}.json"
    digests[name] = storage.read_json(noted)
  storage.write_json(folder / COMPLETED, digests)
  (folder / FAILED).unlink(missing_ok=True)
  remove_tree(folder / ENGINE)
  return stats


class _Hashing:
  """A file that hashes the bytes written to it."""

  def __init__(self, file: IO[bytes]):
    self._file, self.sha256, self.size, self.tail = file, hashlib.sha256(), 0, b""
    self.closed = False

  def write(self, content: Any) -> int:
    """Write and hash."""
    content = bytes(content)
    self.sha256.update(content)
    self.tail = (self.tail + content)[-_TAIL:]
    self.size += len(content)
    return self._file.write(content)

  def flush(self) -> None:
    """Do nothing: the owner of the file flushes it."""

  close = flush


class _Rows:
  """Writes documents to one parquet file in row groups."""

  def __init__(self, writer: Any, schema: pa.Schema):
    self._writer, self._schema = writer, schema
    self._rows: list[dict[str, Any]] = []
    self._characters = 0

  def add(self, document: Document, **more: str) -> None:
    """Write a document and further columns."""
    row = document.record() | more
    row["provenance"] = compact(document.provenance)
    self._rows.append(row)
    self._characters += len(document.text)
    if len(self._rows) >= _GROUP_ROWS or self._characters >= _GROUP_CHARACTERS:
      self.flush()

  def flush(self) -> None:
    """Write the rows that are held in memory."""
    if self._rows:
      self._writer.write_table(pa.Table.from_pylist(self._rows, self._schema))
    self._rows, self._characters = [], 0


@contextlib.contextmanager
def table(folder: AnyPath, name: str, schema: pa.Schema) -> Iterator[_Rows]:
  """Open a parquet file of documents that appears whole; note its digest."""
  folder.mkdir(parents=True, exist_ok=True)
  with storage.writing(folder / name) as file:
    sink = _Hashing(file)
    writer = pq.ParquetWriter(sink, schema, compression="zstd")
    opened = _Rows(writer, schema)
    try:
      yield opened
      opened.flush()
    finally:
      writer.close()
  noted = folder / ENGINE / "digests" / f"{name}.json"
  noted.parent.mkdir(parents=True, exist_ok=True)
  tail = hashlib.sha256(sink.tail).hexdigest()
  facts = {"bytes": sink.size, "sha256": sink.sha256.hexdigest(), "tail": tail}
  storage.write_json(noted, facts)


def write(
  folder: AnyPath,
  decisions: Iterable[Decision],
  shard: int = 0,
  shards: int = 1,
  tick: Callable[[int], None] = lambda count: None,
) -> Tally:
  """Write a shard of decisions, whole under its names or absent; return the counts.

  Args:
    folder: the stage's folder.
    decisions: of one shard, in an order that is the same on every run.
    shard: number of the shard.
    shards: how many there are.
    tick: called with 1 after each decision.
  """
  tally = Tally()
  name = f"{shard:05d}-of-{shards:05d}.parquet"
  with (
    table(folder, f"dropped-{name}", ALL) as dropped,
    table(folder, f"kept-{name}", KEPT) as kept,
  ):
    for decision in decisions:
      tally.add(decision)
      if isinstance(decision, Drop):
        evidence = compact(decision.evidence)
        dropped.add(decision.document, reason=decision.reason, evidence=evidence)
      else:
        kept.add(decision.document)
      tick(1)
  return tally


def spill(
  folder: AnyPath,
  name: str,
  decisions: Iterable[Decision],
  tick: Callable[[int], None] = lambda count: None,
  schema: pa.Schema = ALL,
) -> None:
  """Write decisions to one file, kept and dropped ones together, for `spilled`."""
  with table(folder, name, schema) as rows:
    for decision in decisions:
      if isinstance(decision, Drop):
        evidence = compact(decision.evidence)
        rows.add(decision.document, reason=decision.reason, evidence=evidence)
      else:
        rows.add(decision.document, reason="", evidence="{}")
      tick(1)


def spilled(path: AnyPath) -> Iterator[Decision]:
  """Yield the decisions of a file that `spill` wrote."""
  for row in rows(path):
    document = Document.of(row)
    if row["reason"]:
      yield Drop(document, row["reason"], row["evidence"])
    else:
      yield Keep(document)


def compact(record: Mapping[str, Any]) -> str:
  """Return a record as JSON on one line; equal records give equal text."""
  return json.dumps(record, separators=(",", ":"), allow_nan=False)


def rows(path: AnyPath, columns: list[str] | None = None) -> Iterator[dict[str, Any]]:
  """Yield the rows of a parquet file of documents, JSON columns parsed."""
  with path.open("rb") as file:
    for batch in pq.ParquetFile(file).iter_batches(256, columns=columns):
      for row in batch.to_pylist():
        for name in ("provenance", "evidence"):
          if name in row:
            row[name] = json.loads(row[name])
        yield row


def kept(folder: AnyPath) -> Iterator[Document]:
  """Yield the documents that a stage kept, complete or about to be."""
  for path in _paths(folder, "kept-"):
    if path.name.endswith(".jsonl"):
      yield from map(Document.of, storage.read_lines(path))
    else:
      yield from map(Document.of, rows(path))


def dropped(folder: AnyPath) -> Iterator[Drop]:
  """Yield the documents that a stage dropped, with the reasons."""
  for path in _paths(folder, "dropped-"):
    if path.name.endswith(".jsonl"):
      for row in storage.read_lines(path):
        yield Drop(Document.of(row), **row["dropped"])
    else:
      for row in rows(path):
        yield Drop(Document.of(row), row["reason"], row["evidence"])


def read_stats(folder: AnyPath) -> dict[str, Any]:
  """Return the stats of a complete stage.

  Raises:
    InputError: the folder is no stage's, or the stage is not complete.
  """
  found = storage.names(folder)
  if COMPLETED in found:
    return storage.read_json(folder / STATS)
  if STAGE in found:
    stage = storage.read_json(folder / STAGE)["settings"].get("stage")
    failed = " since it kept nothing" * (FAILED in found)
    raise InputError(f"{folder}: is not complete{failed}; run {stage} there again")
  raise InputError(
    f"{folder}: is no stage's folder; run the stage first, or name files: "
    "FOLDER/*.parquet"
  )


def kept_files(folder: AnyPath) -> list[AnyPath]:
  """Return the files of the documents that a complete stage kept, in order.

  Checks the size of each file, and the sha256 of its last 64 KiB.

  Raises:
    InputError: the stage is not complete, or a file has changed.
  """
  read_stats(folder)
  noted: dict[str, Any] = storage.read_json(folder / COMPLETED)
  for name, wanted in noted.items():
    if not _unchanged(folder / name, wanted):
      raise InputError(
        f"{folder / name}: not as the stage left it; delete {folder} and run it again"
      )
  return _paths(folder, "kept-")


def _unchanged(path: AnyPath, wanted: Any) -> bool:
  try:
    with path.open("rb") as file:
      if isinstance(wanted, str):  # of an earlier version
        return hashlib.sha256(file.read()).hexdigest() == wanted
      size = file.seek(0, 2)
      file.seek(max(0, size - _TAIL))
      tail = hashlib.sha256(file.read()).hexdigest()
      return size == wanted["bytes"] and tail == wanted["tail"]
  except FileNotFoundError:
    return False


def _paths(folder: AnyPath, prefix: str) -> list[AnyPath]:
  names = storage.names(folder)
  return [folder / name for name in _documents(names) if name.startswith(prefix)]


def _documents(names: Iterable[str]) -> list[str]:
  return [name for name in names if name.startswith(("kept-", "dropped-"))]


@contextlib.contextmanager
def measured(facts: dict[str, Any]) -> Iterator[None]:
  """Add `seconds` and `peak_memory_mib` (of this process and its workers) to facts."""
  started = time.monotonic()
  yield
  unit = 1 if sys.platform == "darwin" else 1024  # bytes of ru_maxrss
  usage = [resource.getrusage(w).ru_maxrss for w in _WHO]
  facts["run"] = {
    "seconds": round(time.monotonic() - started, 3),
    "peak_memory_mib": round(max(usage) * unit / (1 << 20), 1),
  }


_WHO = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
