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
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from phi1_jax import InputError, storage
from phi1_jax.curation import card, clusters, read, sketches
from phi1_jax.curation import folder as folders
from phi1_jax.curation.config import PublishConfig
from phi1_jax.curation.document import Decision, Document, Drop, Keep, Tally
from phi1_jax.curation.engine import Job, Task
from phi1_jax.data.config import CURATED_CONTENT
from phi1_jax.storage import AnyPath

STAGE, VERSION = "publish", 3
DATASETS = {"code": "code_filtered", "textbook": "textbooks", "exercise": "exercises"}
CARD = "README.md"
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
  names = [f"{rank:05d}.npy" for rank in range(job.plan()[0])]
  tables = [np.asarray(clusters.load(job.work / "keys" / name)) for name in names]
  every = np.concatenate(tables)
  ends = np.cumsum([len(table) for table in tables])
  _, first, same = np.unique(every["id"], return_index=True, return_inverse=True)
  for place in np.flatnonzero(every["text"] != every["text"][first[same]])[:1]:
    rank = int(np.searchsorted(ends, place, "right"))
    found = (d for d in read.of_task(job.work / "plan", rank) if isinstance(d, Keep))
    row = int(place - ends[rank] + len(tables[rank]))
    document = next(itertools.islice(found, row, None)).document
    raise InputError(
      f"Publish.inputs: got two documents of different text with the id {document.id}, "
      "expected an id for each; name one of them only, or change the id"
    )
  again = np.ones(len(every), bool)
  again[first] = False
  for name, rows in zip(names, np.split(again, ends[:-1]), strict=True):
    clusters.save(job.work / "repeated" / name, np.flatnonzero(rows))
  counts = job.phase("publish", _files)
  lineage = read.lineage(job.config.inputs)
  paths = {
    DATASETS[kind]: os.fspath(_publish(job.config, kind, job.work, lineage))
    for kind in counts.of("kinds")
  }
  return counts.stats(), {"datasets": paths}


def _keys(task: Task) -> None:
  """Write keys of the ids and texts of a task's documents."""
  documents = (d.document for d in task.read() if isinstance(d, Keep))
  keys = [(sketches.of_id(d.id), sketches.of_id(d.text)) for d in documents]
  clusters.save(task.work / "keys" / f"{task.name}.npy", np.array(keys, _KEY))


def _files(task: Task) -> Tally:
  """Write a TFRecord and a parquet file of each kind, with facts about them."""
  from phi1_jax.data import curated  # it loads TensorFlow, which takes seconds

  tally, row = Tally(), 0
  repeated = set(clusters.load(task.work / "repeated" / f"{task.name}.npy").tolist())
  drops: list[Decision] = []
  kinds: dict[str, list[Document]] = {}
  for decision in task.ticked(task.read()):
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
    facts = {"documents": count, "bytes": size, "digest": f"{_digest(found):064x}"}
    storage.write_json(place / f"{task.name}.json", {**facts, "tally": part.record()})
  return tally


def example(document: Document) -> dict[str, str]:
  """Return a document as an example of a curated set."""
  found = {
    name: getattr(document, name) for name in ("text", "id", "source", "licence")
  }
  provenance = folders.compact(document.provenance)
  return {**found, "group": document.repository, "provenance": provenance}


def _digest(documents: Iterable[Document]) -> int:
  """Return a digest of a set that does not depend on the order."""
  lines = (folders.compact(document.record()).encode() for document in documents)
  return sum(int.from_bytes(hashlib.sha256(x).digest()) for x in lines) % 2**256


def _publish(
  config: PublishConfig, kind: str, work: AnyPath, lineage: Sequence[Mapping[str, Any]]
) -> AnyPath:
  """Write a set under its version, from the files of the tasks; return that folder.

  A folder in a bucket cannot be moved at once, so CURATED_CONTENT is written after the
  move. A note beside the folder says that the move has begun: files of a killed run
  there are removed, and a folder that this stage did not write is not.

  Raises:
    InputError: that version exists with other content, or the folder is read-only.
  """
  files, name, tally = work / "sets" / kind, DATASETS[kind], Tally()
  parts = {
    each[:-5]: storage.read_json(files / each)
    for each in storage.names(files)
    if each.endswith(".json")
  }
  for part in parts.values():
    tally.merge(part["tally"])
  counts = tally.stats()
  about = dataset_card(name, config.version, counts, lineage, len(config.inputs))
  digest = sum(int(part["digest"], 16) for part in parts.values()) % 2**256
  content = {"documents": f"{digest:064x}"}
  directory = storage.parse(config.directory)
  target = directory / name / config.version
  made = directory / f".{name}-{config.version}"
  begun = directory / f"{made.name}.begun"
  try:
    if storage.exists(begun) and not storage.exists(target / CURATED_CONTENT):
      folders.remove_tree(target)
    new = not storage.exists(target)
    if new:
      folders.remove_tree(made)  # another cut into tasks left other files there
      _write_files(files, made, name, parts, counts)
    else:
      _check_same(target, content)
    place = made if new else target
    storage.write_text(place / CARD, about)
    storage.write_text(place / "parquet" / CARD, _FRONT_MATTER + about)
    if new:
      storage.write_text(begun, "this version is not complete\n")
      storage.move(made, target)
      storage.write_json(target / CURATED_CONTENT, content)
    begun.unlink(missing_ok=True)
  except PermissionError as error:
    raise InputError(
      f"Publish.directory: cannot write to {directory} ({error.strerror or error}); "
      "name another folder"
    ) from None
  return target


def _check_same(target: AnyPath, content: Mapping[str, Any]) -> None:
  noted = target / CURATED_CONTENT
  if not storage.exists(noted) or storage.read_json(noted) != content:
    major, minor, _ = target.name.split(".")
    raise InputError(
      f"Publish.version: {target} holds another set; give a new version, such as "
      f"{major}.{int(minor) + 1}.0"
    )


def _write_files(
  files: AnyPath,
  made: AnyPath,
  name: str,
  parts: Mapping[str, Mapping[str, Any]],
  counts: Mapping[str, Any],
) -> None:
  """Copy the files of the tasks under the names that TFDS and `datasets` expect."""
  from phi1_jax.data import curated

  (made / "parquet").mkdir(parents=True, exist_ok=True)
  for number, rank in enumerate(parts):
    records = curated.shard_name(name, number, len(parts))
    table = f"parquet/train-{number:05d}-of-{len(parts):05d}.parquet"
    for kind, target in (("tfrecord", records), ("parquet", table)):
      content = storage.read_bytes(files / f"{rank}.{kind}")
      storage.write_bytes(made / target, content)
  lengths = [part["documents"] for part in parts.values()]
  licences = " AND ".join(counts["licences"])
  about = {"description": f"{name}: see its README.md", "licence": licences}
  with tempfile.TemporaryDirectory() as scratch:
    local = Path(scratch) / name / made.name.rpartition("-")[2]
    local.mkdir(parents=True)
    size = sum(part["bytes"] for part in parts.values())
    curated.write_info(local, name, lengths, size, about)
    for file in local.glob("*.json"):
      storage.write_bytes(made / file.name, file.read_bytes())


def dataset_card(
  name: str,
  version: str,
  counts: Mapping[str, Any],
  lineage: Sequence[Mapping[str, Any]],
  published: int,
) -> str:
  """Return the data set's card: its documents, and every stage they went through."""
  kinds = list(counts["kinds"])
  passed = [
    s for s in card.flat(lineage) if any(k in s.get("kinds", {}) for k in kinds)
  ]
  models = [model for stage in passed for model in stage.get("models") or []]
  sources = [(n, f"{c['kept']:,}") for n, c in counts["sources"].items()]
  found = [(n, f"{c:,}") for n, c in counts["licences"].items()]
  parts = [
    f"# {name} {version}\n",
    f"{counts['read']:,} documents, {counts['kept_characters']:,} characters.\n",
    f"Written or judged by: {'; '.join(dict.fromkeys(models)) or 'nobody'}.\n",
    "## Sources and licences\n",
    card.table(("source", "documents"), sources),
    card.table(("licence", "documents"), found),
    _decontaminated(lineage, published),
  ]
  parts += [card.of_stage({**stage, "lineage": None}) for stage in passed]
  return "\n".join(parts)


def _decontaminated(lineage: Sequence[Mapping[str, Any]], published: int) -> str:
  """Return a paragraph about the benchmarks that every input was searched for."""
  searched = [
    {name: stage["settings"]["tau"] for name in stage["settings"]["benchmarks"]}
    for stage in lineage
    if stage["stage"] == "decontaminate"
  ]
  common = set.intersection(*map(set, searched)) if searched else ()
  if not common or len(searched) < published:
    return "Not every input comes from `decontaminate`, so it may hold benchmarks.\n"
  taus = {name: max(each[name] for each in searched) for name in sorted(common)}
  said = ", ".join(f"{name} (tau {tau:g})" for name, tau in taus.items())
  return (
    f"What was too close to {said} is not part of it; the stage's folder lists it with "
    "the evidence.\n"
  )
