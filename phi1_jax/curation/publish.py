"""The last stage: curated sets as versioned TFDS and parquet data sets with a card.

  keys      of a task's documents, to find those that are read twice
  publish   a task's documents to a file of each set

Documents are published by kind, under the names of the tasks that read them: code as
`code_filtered`, textbooks as `textbooks`, exercises as `exercises`. DIRECTORY/NAME/
VERSION is for TFDS and seqio, its folder `parquet` for `datasets.load_dataset`.
"""

import functools
import hashlib
import itertools
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from phi1_jax import InputError, storage
from phi1_jax.curation import card, read, sketches
from phi1_jax.curation import deduplicate as tables
from phi1_jax.curation import folder as folders
from phi1_jax.curation.config import PublishConfig
from phi1_jax.curation.document import Decision, Document, Drop, Keep, Tally
from phi1_jax.curation.engine import Job, Task
from phi1_jax.data.config import CURATED_CONTENT
from phi1_jax.storage import AnyPath

STAGE, VERSION = "publish", 3
DATASETS = {"code": "code_filtered", "textbook": "textbooks", "exercise": "exercises"}
CARD = "README.md"
_BEGUN = ".begun"  # in the folder of a version that is not complete
_KEY = np.dtype([("id", "u8"), ("text", "u8")])
_FRONT_MATTER = """---
configs:
- config_name: default
  data_files:
  - split: train
    path: train-*.parquet
---

"""


def run(job: Job) -> dict[str, Any]:
  """Write one set per kind of document; return the stats.

  Raises:
    InputError: an input is not there, holds nothing, or the version is taken.
  """
  return job.run(STAGE, {"version_of_stage": VERSION}, functools.partial(_run, job))


def _run(job: Job) -> tuple[dict[str, Any], dict[str, Any]]:
  job.phase("keys", _keys)
  _mark_repeated(job)
  counts = job.phase("publish", _files)
  lineage = read.lineage(job.config.inputs)
  try:
    paths = {
      DATASETS[kind]: os.fspath(_publish(job.config, kind, job.work, lineage))
      for kind in counts.of("kinds")
    }
  except PermissionError as error:
    raise InputError(
      f"Publish.directory: cannot write to {job.config.directory} "
      f"({error.strerror or error}); name another folder"
    ) from None
  return counts.stats(), {"datasets": paths}


def _mark_repeated(job: Job) -> None:
  """Write for each task the rows whose ids were read before."""
  names = [f"{rank:05d}.npy" for rank in range(job.plan())]
  found = [np.asarray(tables.load(job.work / "keys" / name)) for name in names]
  every, ends = np.concatenate(found), np.cumsum([len(table) for table in found])
  _, first, same = np.unique(every["id"], return_index=True, return_inverse=True)
  for place in np.flatnonzero(every["text"] != every["text"][first[same]])[:1]:
    rank = int(np.searchsorted(ends, place, "right"))
    kept = (d for d in read.of_task(job.work / "plan", rank) if isinstance(d, Keep))
    row = int(place - ends[rank] + len(found[rank]))
    document = next(itertools.islice(kept, row, None)).document
    raise InputError(
      f"Publish.inputs: got two documents of different text with the id {document.id}, "
      "expected an id for each; name one of them only, or change the id"
    )
  again = np.ones(len(every), bool)
  again[first] = False
  for name, rows in zip(names, np.split(again, ends[:-1]), strict=True):
    tables.save(job.work / "repeated" / name, np.flatnonzero(rows))


def _keys(task: Task) -> None:
  """Write keys of the ids and texts of a task's documents."""
  documents = (d.document for d in task.read() if isinstance(d, Keep))
  keys = [(sketches.of_id(d.id), sketches.of_id(d.text)) for d in documents]
  tables.save(task.work / "keys" / f"{task.name}.npy", np.array(keys, _KEY))


def _files(task: Task) -> Tally:
  """Write a TFRecord and a parquet file of each kind, with facts about them."""
  from phi1_jax.data import curated  # it loads TensorFlow, which takes seconds

  tally, row = Tally(), 0
  repeated = set(tables.load(task.work / "repeated" / f"{task.name}.npy").tolist())
  drops: list[Decision] = []
  kinds: dict[str, list[Document]] = {}
  for decision in task.read():
    if isinstance(decision, Keep):
      if row in repeated:
        decision = Drop(decision.document, "read twice")
      row += 1
    tally.add(decision)
    if isinstance(decision, Drop):
      drops.append(decision)
    else:
      kinds.setdefault(decision.document.kind, []).append(decision.document)
  name = f"dropped-{task.name}-of-{task.tasks:05d}.parquet"
  folders.spill(task.folder / name, drops)
  for kind, found in kinds.items():
    place, part = task.work / "sets" / kind, Tally()
    for document in found:
      part.add(Keep(document))
    folders.spill(place / f"{task.name}.parquet", map(Keep, found), folders.KEPT)
    with tempfile.TemporaryDirectory() as scratch:
      local = Path(scratch) / "records"
      count, size = curated.write_records(local, map(example, found))
      storage.write_bytes(place / f"{task.name}.tfrecord", local.read_bytes())
    # A digest of the set does not depend on the order.
    lines = (folders.compact(document.record()).encode() for document in found)
    digest = sum(int.from_bytes(hashlib.sha256(x).digest()) for x in lines) % 2**256
    facts = {"documents": count, "bytes": size, "digest": f"{digest:064x}"}
    storage.write_json(place / f"{task.name}.json", {**facts, "tally": part.record()})
  return tally


def example(document: Document) -> dict[str, str]:
  """Return a document as an example of a curated set."""
  found = {
    name: getattr(document, name) for name in ("text", "id", "source", "licence")
  }
  provenance = folders.compact(document.provenance)
  return {**found, "group": document.repository, "provenance": provenance}


def _publish(
  config: PublishConfig, kind: str, work: AnyPath, lineage: Sequence[Mapping[str, Any]]
) -> AnyPath:
  """Write a set under its version, from the files of the tasks; return that folder.

  A set is made beside its place and moved there; in a bucket, where a folder cannot be
  moved at once, it is made in its place. CURATED_CONTENT comes last. What a killed run
  left is made anew.

  Raises:
    InputError: that version exists with other content.
  """
  files, name, tally = work / "sets" / kind, DATASETS[kind], Tally()
  ranks = [each[:-5] for each in storage.names(files) if each.endswith(".json")]
  parts = {rank: storage.read_json(files / f"{rank}.json") for rank in ranks}
  for part in parts.values():
    tally.merge(part["tally"])
  counts = tally.stats()
  digest = sum(int(part["digest"], 16) for part in parts.values()) % 2**256
  content = {"documents": f"{digest:064x}"}
  directory = storage.parse(config.directory)
  target = made = directory / name / config.version
  done = target / CURATED_CONTENT
  if not storage.is_remote(directory):
    made = directory / f".{name}-{config.version}" / config.version
    folders.remove_tree(made.parent)
  elif storage.exists(target / _BEGUN):
    folders.remove_tree(target)
  new = not storage.names(target)
  if not new and (not storage.exists(done) or storage.read_json(done) != content):
    major, minor, _ = config.version.split(".")
    raise InputError(
      f"Publish.version: {target} holds another set; give a new version, such as "
      f"{major}.{int(minor) + 1}.0"
    )
  if new:
    made.mkdir(parents=True, exist_ok=True)
    storage.write_text(made / _BEGUN, "this version is not complete\n")
    (made / "parquet").mkdir()
    _write_files(files, made, name, parts, " AND ".join(counts["licences"]))
  place = made if new else target
  about = card.of_set(name, config.version, counts, lineage, len(config.inputs))
  storage.write_text(place / CARD, about)
  storage.write_text(place / "parquet" / CARD, _FRONT_MATTER + about)
  if new:
    storage.write_json(made / CURATED_CONTENT, content)
    (made / _BEGUN).unlink()
    if made != target:
      folders.remove_tree(target)  # an empty folder
      storage.move(made, target)
      folders.remove_tree(made.parent)
  return target


def _write_files(
  files: AnyPath,
  target: AnyPath,
  name: str,
  parts: Mapping[str, Mapping[str, Any]],
  licences: str,
) -> None:
  """Copy the files of the tasks under the names that TFDS and `datasets` expect."""
  from phi1_jax.data import curated

  for number, rank in enumerate(parts):
    records = curated.shard_name(name, number, len(parts))
    table = f"parquet/train-{number:05d}-of-{len(parts):05d}.parquet"
    for kind, file in (("tfrecord", records), ("parquet", table)):
      content = storage.read_bytes(files / f"{rank}.{kind}")
      storage.write_bytes(target / file, content)
  lengths = [part["documents"] for part in parts.values()]
  about = {"description": f"{name}: see its README.md", "licence": licences}
  with tempfile.TemporaryDirectory() as scratch:
    local = Path(scratch) / name / target.name
    local.mkdir(parents=True)
    size = sum(part["bytes"] for part in parts.values())
    curated.write_info(local, name, lengths, size, about)
    for file in local.glob("*.json"):
      storage.write_bytes(target / file.name, file.read_bytes())
