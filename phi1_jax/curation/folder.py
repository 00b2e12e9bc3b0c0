"""The folder of a stage: what was asked, what was kept, what was dropped and why.

  stage.json                    what decides the outcome; written first
  kept-00000-of-0000N.jsonl     documents, one a line
  dropped-00000-of-0000N.jsonl  the others, each with `dropped: {reason, evidence}`
  stats.json                    counts by reason, source and licence; prompts, models,
                                money; the stats of the stages before it
  README.md                     the same for people
  COMPLETED                     sha256 of each file of documents; written last

Whatever else a stage leaves (labels, a classifier, a table) lies beside them. A stage
that was stopped is begun again: it is a pure function of its inputs, and what it paid
for is in a journal. Files without COMPLETED are of no use to the next stage.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import resource
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from phi1_jax import InputError, storage
from phi1_jax.curation import card
from phi1_jax.curation.document import Decision, Document, Drop, Tally
from phi1_jax.text import settings_file

STAGE, STATS, CARD, COMPLETED = "stage.json", "stats.json", "README.md", "COMPLETED"


def begin(folder: Path, stage: str, settings: Mapping[str, Any]) -> bool:
  """Writes down what a stage is to do, or refuses a folder of something else.

  Args:
    folder: the stage's folder, which is there.
    stage: its name.
    settings: everything that decides its outcome.

  Returns:
    Whether it is complete already.

  Raises:
    InputError: the folder was begun with other settings, or holds something else.
  """
  if not (folder / STAGE).exists():
    foreign = [e.name for e in sorted(folder.iterdir()) if not e.name.startswith(".")]
    if foreign:
      raise InputError(
        f"--workdir: {folder} is no folder of a stage, it holds {foreign[0]}; name an "
        "empty or a new folder"
      )
  complete = (folder / COMPLETED).exists()
  if not complete and not _documents(folder):
    (folder / STAGE).unlink(missing_ok=True)  # nothing was made by other settings
  settings_file.begin(folder / STAGE, {"stage": stage, **settings})
  if complete:
    kept_files(folder)  # refuses what is not as it was left
  return complete


def finish(
  folder: Path, stage: str, counts: Mapping[str, Any], facts: Mapping[str, Any]
) -> dict[str, Any]:
  """Writes stats.json, the card, and COMPLETED last.

  Args:
    folder: the stage's folder, with its documents in place.
    stage: its name.
    counts: what `Tally.stats` gives.
    facts: what else belongs into stats.json: "prompts", "models", "cost", "diversity",
      "lineage" (stats of the stages before), and the stage's own figures.

  Returns:
    What stats.json holds.
  """
  settings = storage.read_json(folder / STAGE)["settings"]
  stats = {"stage": stage, **counts, "settings": settings, **facts}
  storage.write_json(folder / STATS, stats)
  storage.write_text(folder / CARD, card.of_stage(stats))
  digests = {path.name: _sha256(path) for path in _documents(folder)}
  storage.write_json(folder / COMPLETED, digests)
  return stats


def write(
  folder: Path, decisions: Iterable[Decision], shard: int = 0, shards: int = 1
) -> Tally:
  """Writes one shard of decisions, whole under its name or absent; counts them."""
  tally = Tally()
  names = [f"{kind}-{shard:05d}-of-{shards:05d}.jsonl" for kind in ("kept", "dropped")]
  with contextlib.ExitStack() as files:
    kept, dropped = (
      files.enter_context(storage.writing(folder / name)) for name in names
    )
    for decision in decisions:
      tally.add(decision)
      if isinstance(decision, Drop):
        dropped.write(line(decision.record()))
      else:
        kept.write(line(decision.document.record()))
  return tally


def line(record: Mapping[str, Any]) -> bytes:
  """A record as one line of JSON; equal records give equal bytes."""
  text = json.dumps(record, separators=(",", ":"), allow_nan=False)
  return text.encode() + b"\n"


def kept(folder: Path) -> Iterator[Document]:
  """The documents that a stage kept, complete or about to be."""
  for path in sorted(folder.glob("kept-*-of-*.jsonl")):
    with path.open("rb") as file:
      yield from (Document.of(json.loads(row)) for row in file)


def read_stats(folder: Path) -> dict[str, Any]:
  """The stats of a complete stage.

  Raises:
    InputError: the folder is no stage's, or the stage is not complete.
  """
  if not (folder / COMPLETED).is_file():
    if (folder / STAGE).is_file():
      stage = storage.read_json(folder / STAGE)["settings"].get("stage")
      what = f"is not complete; run {stage} there again"
    else:
      what = (
        "is no stage's folder; run the stage first, or name files: FOLDER/*.parquet"
      )
    raise InputError(f"{folder}: {what}")
  return storage.read_json(folder / STATS)


def kept_files(folder: Path) -> list[Path]:
  """The files of what a complete stage kept, in order.

  Raises:
    InputError: the stage is not complete, or a file is not as it was left.
  """
  read_stats(folder)
  for name, digest in storage.read_json(folder / COMPLETED).items():
    if not (folder / name).is_file() or _sha256(folder / name) != digest:
      raise InputError(
        f"{folder / name}: not as the stage left it; delete {folder} and run it again"
      )
  return sorted(folder.glob("kept-*-of-*.jsonl"))


@contextlib.contextmanager
def measured(facts: dict[str, Any]) -> Iterator[None]:
  """Adds `seconds` and `peak_memory_mib` (of this process so far) to facts."""
  started = time.monotonic()
  yield
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB on Linux
  facts["run"] = {
    "seconds": round(time.monotonic() - started, 3),
    "peak_memory_mib": round(peak / 1024, 1),
  }


def _documents(folder: Path) -> list[Path]:
  return sorted([*folder.glob("kept-*.jsonl"), *folder.glob("dropped-*.jsonl")])


def _sha256(path: Path) -> str:
  with path.open("rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()
