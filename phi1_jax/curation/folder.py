"""The folder of a stage, local or on gs://.

  stage.json                      the settings that decide the outcome; written first
  kept-00000-of-0000N.parquet     documents
  dropped-00000-of-0000N.parquet  the others, each with `reason` and `evidence`
  stats.json                      counts by reason, source and licence; prompts, models,
                                  money; the stats of the stages before it
  README.md                       the same for people
  COMPLETED                       size and sha256 of each file's end; written last
  .engine/                        unfinished work, removed at the end

Folders of earlier versions, whose files are JSONL, can be read.
"""

import contextlib
import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from phi1_jax import InputError, storage
from phi1_jax.curation import card
from phi1_jax.curation.config import STAGES
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


@contextlib.contextmanager
def naming(setting: str) -> Iterator[None]:
  """Put the name of a setting before the InputErrors of a block."""
  try:
    yield
  except InputError as error:
    raise InputError(f"{setting}: {error}") from None


def begin(folder: AnyPath, stage: str, settings: Mapping[str, Any]) -> bool:
  """Write a stage's settings; return whether the stage is complete already.

  A stage that failed because it kept nothing may begin again with other settings.

  Raises:
    InputError: the folder was begun with other settings, or holds something else.
  """
  found, wanted = storage.names(folder), {"stage": stage, **settings}
  foreign = [name for name in found if not name.startswith(".")]
  if foreign and STAGE not in found:
    raise InputError(
      f"--workdir: {folder} is not the folder of a stage, it holds {foreign[0]}; name "
      "an empty or a new folder"
    )
  complete = COMPLETED in found
  if STAGE in found and not complete and (FAILED in found or not _documents(found)):
    settings_before = storage.read_json(folder / STAGE)["settings"]
    if settings_before != json.loads(json.dumps(wanted)):
      remove_tree(folder / ENGINE)
      for name in (STAGE, FAILED, *_documents(found)):
        (folder / name).unlink(missing_ok=True)
  folder.mkdir(parents=True, exist_ok=True)
  settings_file.begin(folder / STAGE, wanted)
  if complete:
    kept_files(folder)  # refuses changed files
  return complete


def remove_tree(folder: AnyPath) -> None:
  """Remove a folder with its files, if it exists."""
  if not storage.is_remote(folder):
    shutil.rmtree(folder, ignore_errors=True)
  elif storage.exists(folder):
    folder.rmtree()  # type: ignore[union-attr]


def finish(
  folder: AnyPath, stage: str, counts: Mapping[str, Any], facts: Mapping[str, Any]
) -> dict[str, Any]:
  """Write stats.json, the card, and COMPLETED last; return the stats.

  `counts` is `Tally.stats`; `facts` has "prompts", "models", "cost", "lineage".

  Raises:
    EmptyError: nothing was kept. The stage is not complete; its settings may change.
  """
  if not counts["kept"]:
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
  names = _documents(storage.names(folder))
  storage.write_json(folder / COMPLETED, {n: _facts(folder / n) for n in names})
  (folder / FAILED).unlink(missing_ok=True)
  remove_tree(folder / ENGINE)
  return stats


def _facts(path: AnyPath) -> dict[str, Any]:
  """Return the size of a file, and the sha256 of its end."""
  with path.open("rb") as file:
    size = file.seek(0, 2)
    file.seek(max(0, size - _TAIL))
    return {"bytes": size, "tail": hashlib.sha256(file.read()).hexdigest()}


@contextlib.contextmanager
def table(
  path: AnyPath, schema: pa.Schema = ALL
) -> Iterator[Callable[[Decision], None]]:
  """Open a parquet file of decisions that appears whole; give a function to add one."""
  path.parent.mkdir(parents=True, exist_ok=True)
  rows: list[dict[str, Any]] = []
  characters = 0
  with (
    storage.writing(path) as file,
    pq.ParquetWriter(file, schema, compression="zstd") as writer,
  ):

    def flush() -> None:
      nonlocal characters
      if rows:
        writer.write_table(pa.Table.from_pylist(rows, schema))
      rows.clear()
      characters = 0

    def add(decision: Decision) -> None:
      nonlocal characters
      document, reason, evidence = decision.document, "", {}
      if isinstance(decision, Drop):
        reason, evidence = decision.reason, decision.evidence
      row = {**document.record(), "provenance": compact(document.provenance)}
      rows.append(row | {"reason": reason, "evidence": compact(evidence)})
      characters += len(document.text)
      if len(rows) >= _GROUP_ROWS or characters >= _GROUP_CHARACTERS:
        flush()

    yield add
    flush()


def write(
  folder: AnyPath, decisions: Iterable[Decision], shard: int = 0, shards: int = 1
) -> Tally:
  """Write a stage's files of a shard, each whole or absent; return the counts."""
  tally, name = Tally(), f"{shard:05d}-of-{shards:05d}.parquet"
  with (
    table(folder / f"dropped-{name}") as drop,
    table(folder / f"kept-{name}", KEPT) as keep,
  ):
    for decision in decisions:
      tally.add(decision)
      (drop if isinstance(decision, Drop) else keep)(decision)
  return tally


def spill(
  path: AnyPath, decisions: Iterable[Decision], schema: pa.Schema = ALL
) -> None:
  """Write decisions to one file, kept and dropped ones together, for `spilled`."""
  with table(path, schema) as add:
    for decision in decisions:
      add(decision)


def spilled(path: AnyPath) -> Iterator[Decision]:
  """Yield the decisions of a file, also of the JSONL of an earlier version."""
  lines = storage.read_lines if path.name.endswith(".jsonl") else rows
  for row in lines(path):
    document, dropped = Document.of(row), row.get("dropped", row)
    if dropped.get("reason"):
      yield Drop(document, dropped["reason"], dropped["evidence"])
    else:
      yield Keep(document)


def rows(path: AnyPath, columns: list[str] | None = None) -> Iterator[dict[str, Any]]:
  """Yield the rows of a parquet file of documents, JSON columns parsed."""
  with path.open("rb") as file:
    for batch in pq.ParquetFile(file).iter_batches(256, columns=columns):
      for row in batch.to_pylist():
        for name in ("provenance", "evidence"):
          if name in row:
            row[name] = json.loads(row[name])
        yield row


def compact(record: Mapping[str, Any]) -> str:
  """Return a record as JSON on one line; equal records give equal text."""
  return json.dumps(record, separators=(",", ":"), allow_nan=False)


def kept(folder: AnyPath) -> Iterator[Document]:
  """Yield the documents that a stage kept, complete or about to be."""
  paths = _paths(folder, "kept-")
  return (decision.document for path in paths for decision in spilled(path))


def dropped(folder: AnyPath) -> Iterator[Drop]:
  """Yield the documents that a stage dropped, with the reasons."""
  paths = _paths(folder, "dropped-")
  return (d for path in paths for d in spilled(path) if isinstance(d, Drop))


def read_stats(folder: AnyPath) -> dict[str, Any]:
  """Return the stats of a complete stage.

  Raises:
    InputError: the folder does not exist or is not a stage's, or the stage is not
      complete; the message has the command to run.
  """
  found = storage.names(folder)
  if COMPLETED in found:
    return storage.read_json(folder / STATS)
  if STAGE in found:
    stage = storage.read_json(folder / STAGE)["settings"].get("stage")
    failed = " since it kept nothing" * (FAILED in found)
    raise InputError(f"{folder}: is not complete{failed}; run {stage} there again")
  if found or folder.name not in STAGES:
    what = f"holds {found[0]}" if found else "no such file or folder"
    raise InputError(
      f"{folder}: {what}; expected the folder of a stage, or files such as "
      "FOLDER/*.parquet"
    )
  raise InputError(
    f"{folder}: no such folder; make it with\n"
    f"python -m phi1_jax.curate {folder.name} --workdir={folder}"
  )


def kept_files(folder: AnyPath) -> list[AnyPath]:
  """Return the files of the documents that a complete stage kept, in order.

  Checks the size of each file, and the sha256 of its last 64 KiB.

  Raises:
    InputError: the stage is not complete, or a file has changed.
  """
  read_stats(folder)
  for name, noted in storage.read_json(folder / COMPLETED).items():
    path, found = folder / name, None
    with contextlib.suppress(FileNotFoundError):
      found = _facts(path)
      if isinstance(noted, str):  # of an earlier version
        found = hashlib.sha256(storage.read_bytes(path)).hexdigest()
    if found != noted:
      raise InputError(
        f"{path}: not as the stage left it; delete {folder} and run it again"
      )
  return _paths(folder, "kept-")


def _paths(folder: AnyPath, prefix: str) -> list[AnyPath]:
  names = storage.names(folder)
  return [folder / name for name in names if name.startswith(prefix)]


def _documents(names: Iterable[str]) -> list[str]:
  return [name for name in names if name.startswith(("kept-", "dropped-"))]
