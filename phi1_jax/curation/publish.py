"""The last stage: curated sets as versioned TFDS and parquet data sets with a card.

  ids       the ids of a task's documents, to find those that are read twice
  publish   a task's documents to a file of each set

Documents are published by kind, under the names of the tasks that read them: code as
`code_filtered`, textbooks as `textbooks`, exercises as `exercises`. DIRECTORY/NAME/
VERSION is for TFDS and seqio, its folder `parquet` for `datasets.load_dataset`.
"""

import dataclasses
import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from phi1_jax import InputError, storage
from phi1_jax.curation import card, clusters, inputs, read, sketches
from phi1_jax.curation import folder as folders
from phi1_jax.curation.config import PublishConfig
from phi1_jax.curation.document import Decision, Document, Drop, Keep, Tally
from phi1_jax.curation.engine import Engine, Ticker
from phi1_jax.data.config import CURATED_CONTENT
from phi1_jax.storage import AnyPath

STAGE, VERSION = "publish", 2
DATASETS = {"code": "code_filtered", "textbook": "textbooks", "exercise": "exercises"}
CARD = "README.md"


def run(config: PublishConfig, folder: AnyPath, engine: Engine) -> dict[str, Any]:
  """Write one set per kind of document; return the stats.

  Args:
    config: inputs, directory, version.
    folder: the stage's folder; complete, it is only read.
    engine: where the tasks run.

  Raises:
    InputError: an input is not there, holds nothing, or the version is taken.
  """
  settings = {**dataclasses.asdict(config), "version_of_stage": VERSION}
  settings["read"] = inputs.identity(config.inputs)
  if folders.begin(folder, STAGE, settings):
    return folders.read_stats(folder)
  facts: dict[str, Any] = {"lineage": inputs.lineage(config.inputs), "datasets": {}}
  with folders.measured(facts):
    work = folder / folders.ENGINE
    tasks, total = inputs.prepare(work, "Publish.inputs", config.inputs, engine.count)
    reading = read.Read(work / "plan")
    engine.run(folder, "ids", [reading, Ids(work)], tasks)
    _find_repeated(work)
    directory = storage.parse(config.directory)
    steps = [reading, Files(folder)]
    counts = engine.run(folder, "publish", steps, tasks, total)
    for kind in counts.kinds:
      path = _publish(config, kind, folder, directory, facts["lineage"])
      facts["datasets"][DATASETS[kind]] = os.fspath(path)
  stats = counts.stats()
  return folders.finish(folder, STAGE, stats, facts)


@dataclasses.dataclass(frozen=True)
class Ids:
  """A step: keys of the ids of a task's documents, to a file."""

  work: AnyPath

  def __call__(
    self, data: Iterable[Decision], rank: int, world_size: int
  ) -> Iterator[Tally]:
    """Write the keys, one for each document that is kept."""
    del world_size
    keys = [sketches.key(d.document.id, 0) for d in data if isinstance(d, Keep)]
    name = f"{rank:05d}.npy"
    clusters.save(self.work / "ids" / name, np.array(keys, np.uint64))
    yield Tally()


def _find_repeated(work: AnyPath) -> None:
  """Write which rows of each task are documents that were read before."""
  names = [n for n in storage.names(work / "ids") if n.endswith(".npy")]
  tables = [np.asarray(clusters.load(work / "ids" / name)) for name in names]
  every = np.concatenate(tables)
  first = np.zeros(len(every), bool)
  first[np.unique(every, return_index=True)[1]] = True
  starts = np.cumsum([0, *map(len, tables)])
  for name, start, stop in zip(names, starts[:-1], starts[1:], strict=True):
    clusters.save(work / "repeated" / name, np.flatnonzero(~first[start:stop]))


@dataclasses.dataclass(frozen=True)
class Files:
  """A step: a task's documents to a TFRecord and a parquet file of each kind."""

  folder: AnyPath

  def __call__(
    self, data: Iterable[Decision], rank: int, world_size: int
  ) -> Iterator[Tally]:
    """Write the files, and what is needed to put them together."""
    from phi1_jax.data import curated  # it loads TensorFlow, which takes seconds

    work, tally = self.folder / folders.ENGINE, Tally()
    repeated = set(clusters.load(work / "repeated" / f"{rank:05d}.npy").tolist())
    tick = Ticker(self.folder, "publish", rank)
    name = f"{rank:05d}-of-{world_size:05d}.parquet"
    drops: list[Decision] = []
    documents: dict[str, list[Document]] = {}
    row = 0
    for decision in data:
      if isinstance(decision, Keep):
        if row in repeated:
          decision = Drop(decision.document, "read twice")
        row += 1
      tally.add(decision)
      tick(1)
      if isinstance(decision, Drop):
        drops.append(decision)
      else:
        documents.setdefault(decision.document.kind, []).append(decision.document)
    folders.spill(self.folder, f"dropped-{name}", drops)
    for kind, found in documents.items():
      place = work / "sets" / kind
      place.mkdir(parents=True, exist_ok=True)
      folders.spill(place, f"{rank:05d}.parquet", map(Keep, found), schema=folders.KEPT)
      with tempfile.TemporaryDirectory() as scratch:
        local = Path(scratch) / "records"
        count, size = curated.write_records(local, map(example, found))
        storage.write_bytes(place / f"{rank:05d}.tfrecord", local.read_bytes())
      facts = {"documents": count, "bytes": size, "digest": f"{_digest(found):064x}"}
      part = Tally()
      for document in found:
        part.add(Keep(document))
      facts["tally"] = part.record()
      storage.write_json(place / f"{rank:05d}.json", facts)
    tick.flush()
    yield tally


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
  config: PublishConfig,
  kind: str,
  folder: AnyPath,
  directory: AnyPath,
  lineage: Sequence[Mapping[str, Any]],
) -> AnyPath:
  """Put the files of a set together under its version; return that folder.

  A folder in a bucket cannot be moved at once, so CURATED_CONTENT is written after the
  move. A note beside the folder says that the move has begun: what a killed run left
  there is removed, and a folder that this stage did not write is not.

  Raises:
    InputError: that version exists with other content, or the folder is read-only.
  """
  name, place = DATASETS[kind], folder / folders.ENGINE / "sets" / kind
  ranks = [n[:-5] for n in storage.names(place) if n.endswith(".json")]
  parts = [storage.read_json(place / f"{rank}.json") for rank in ranks]
  tally = Tally()
  for part in parts:
    tally.merge(part["tally"])
  counts = tally.stats()
  digest = sum(int(part["digest"], 16) for part in parts) % 2**256
  content = {"documents": f"{digest:064x}"}
  text = dataset_card(name, config.version, counts, lineage, len(config.inputs))
  target = directory / name / config.version
  made = directory / f".{name}-{config.version}"
  begun = directory / f"{made.name}.begun"
  try:
    if storage.exists(begun) and not storage.exists(target / CURATED_CONTENT):
      folders.remove_tree(target)
    if storage.exists(target):
      _check_same(target, content, config.version)
      _write_cards(target, text)
      begun.unlink(missing_ok=True)
      return target
    folders.remove_tree(made)  # another cut into tasks left other files there
    (made / "parquet").mkdir(parents=True, exist_ok=True)
    about = {
      "description": f"{name}: see its README.md",
      "licence": " AND ".join(counts["licences"]),
    }
    _write_info(made, name, config.version, parts, about)
    _write_files(place, ranks, made, name)
    _write_cards(made, text)
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


_FRONT_MATTER = """---
configs:
- config_name: default
  data_files:
  - split: train
    path: train-*.parquet
---

"""


def _write_cards(folder: AnyPath, text: str) -> None:
  storage.write_text(folder / CARD, text)
  storage.write_text(folder / "parquet" / CARD, _FRONT_MATTER + text)


def _check_same(target: AnyPath, content: Mapping[str, Any], version: str) -> None:
  noted = target / CURATED_CONTENT
  if not storage.exists(noted) or storage.read_json(noted) != content:
    major, minor, _ = version.split(".")
    raise InputError(
      f"Publish.version: {target} holds another set; give a new version, such as "
      f"{major}.{int(minor) + 1}.0"
    )


def _write_info(
  made: AnyPath,
  name: str,
  version: str,
  parts: Sequence[Mapping[str, Any]],
  about: Mapping[str, str],
) -> None:
  from phi1_jax.data import curated

  with tempfile.TemporaryDirectory() as scratch:
    local = Path(scratch) / name / version
    local.mkdir(parents=True)
    lengths = [part["documents"] for part in parts]
    curated.write_info(local, name, lengths, sum(p["bytes"] for p in parts), about)
    for file in local.glob("*.json"):
      storage.write_bytes(made / file.name, file.read_bytes())


def _write_files(
  place: AnyPath, ranks: Sequence[str], made: AnyPath, name: str
) -> None:
  from phi1_jax.data import curated

  for number, rank in enumerate(ranks):
    records = curated.shard_name(name, number, len(ranks))
    table = f"parquet/train-{number:05d}-of-{len(ranks):05d}.parquet"
    for kind, target in (("tfrecord", records), ("parquet", table)):
      content = storage.read_bytes(place / f"{rank}.{kind}")
      storage.write_bytes(made / target, content)


def dataset_card(
  name: str,
  version: str,
  counts: Mapping[str, Any],
  lineage: Sequence[Mapping[str, Any]],
  published: int,
) -> str:
  """Return the data set's card: its documents, and every stage they went through.

  Args:
    name: of the set.
    version: its version.
    counts: of its documents, as `Tally.stats` gives them.
    lineage: stats of the stages that were published.
    published: number of inputs; those without stats are no stages.
  """
  passed = _passed(lineage, list(counts["kinds"]))
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


def _passed(
  lineage: Sequence[Mapping[str, Any]], kinds: Sequence[str]
) -> list[Mapping[str, Any]]:
  """Return the stages that documents of these kinds have passed."""
  return [s for s in card.flat(lineage) if any(k in s.get("kinds", {}) for k in kinds)]


def _decontaminated(lineage: Sequence[Mapping[str, Any]], published: int) -> str:
  """Return a paragraph about the benchmarks looked for in every document."""
  benchmarks: dict[float, list[str]] = {}
  for name, tau in _looked_for(lineage, published).items():
    benchmarks.setdefault(tau, []).append(name)
  if not benchmarks:
    return "Nothing, or not enough, was done to keep benchmarks out of it.\n"
  said = [f"{', '.join(names)} at tau {tau:g}" for tau, names in benchmarks.items()]
  return (
    f"What was too close to {'; '.join(said)} is not part of it; the stage's folder "
    "lists it with the evidence.\n"
  )


def _looked_for(
  stages: Sequence[Mapping[str, Any]], published: int
) -> dict[str, float]:
  """Return the benchmarks looked for in all documents of some inputs, with the tau.

  Args:
    stages: stats of those inputs that are stages.
    published: number of inputs; nothing is known of those without stats.
  """
  if not 0 < published <= len(stages):
    return {}
  found = [_looked_for_until(stage) for stage in stages]
  common = [name for name in found[0] if all(name in each for each in found)]
  return {name: max(each[name] for each in found) for name in common}


def _looked_for_until(stage: Mapping[str, Any]) -> dict[str, float]:
  """Return the same for the documents that a stage kept; the lowest tau counts."""
  settings = stage["settings"]
  before = list(stage.get("lineage") or ())
  found = _looked_for(before, len(settings.get("inputs") or ()))
  if stage["stage"] == "decontaminate":
    tau = settings["tau"]
    found |= {name: min(tau, found.get(name, tau)) for name in settings["benchmarks"]}
  return found
