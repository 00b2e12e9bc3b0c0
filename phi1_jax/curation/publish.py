"""The last stage: curated sets as versioned TFDS datasets, each with its card.

What the inputs kept is published by kind, under the names of the tasks that read it:
code as `code_filtered`, textbooks as `textbooks`, exercises as `exercises`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from phi1_jax import InputError, storage
from phi1_jax.curation import card, read
from phi1_jax.curation import folder as folders
from phi1_jax.curation.config import PublishConfig
from phi1_jax.curation.document import Decision, Document, Drop, Keep, tally

STAGE, VERSION = "publish", 1
DATASETS = {"code": "code_filtered", "textbook": "textbooks", "exercise": "exercises"}
# In the filter's lineage, though no document comes from it: only opinions do.
_CLASSIFIER = "train-classifier"


def run(config: PublishConfig, folder: Path) -> dict[str, Any]:
  """Writes one dataset per kind that there is; gives the stats.

  Args:
    config: inputs, where to, version.
    folder: the stage's folder; complete, it is only read.

  Raises:
    InputError: an input is not there, holds nothing, or the version is taken.
  """
  settings = {**dataclasses.asdict(config), "version_of_stage": VERSION}
  settings["read"] = read.identity(config.inputs)
  if folders.begin(folder, STAGE, settings):
    return folders.read_stats(folder)
  lineage = read.lineage(config.inputs)
  facts: dict[str, Any] = {"lineage": lineage, "datasets": {}}
  with folders.measured(facts):
    counts = folders.write(folder, _decided(config.inputs))
    for kind in counts.kinds:
      path = _write(config, kind, folder, lineage)
      facts["datasets"][DATASETS[kind]] = str(path)
    if not facts["datasets"]:
      raise InputError(f"Publish.inputs: {config.inputs} hold no documents")
  return folders.finish(folder, STAGE, counts.stats(), facts)


def _decided(inputs: Sequence[str]) -> Iterator[Decision]:
  """What is read, each document once."""
  seen: set[str] = set()
  for decision in read.read(inputs):
    if isinstance(decision, Keep) and decision.document.id in seen:
      decision = Drop(decision.document, "read twice")
    seen.add(decision.document.id)
    yield decision


def example(document: Document) -> dict[str, str]:
  """A document as an example of a curated set."""
  names = ("text", "group", "id", "source", "licence")
  found = {name: getattr(document, name) for name in names}
  return {**found, "provenance": json.dumps(document.provenance, sort_keys=True)}


def dataset_card(
  name: str,
  version: str,
  counts: Mapping[str, Any],
  lineage: Sequence[Mapping[str, Any]],
  inputs: int,
) -> str:
  """The dataset card: what is in the set, and every stage that it went through.

  Args:
    name: of the set.
    version: its version.
    counts: of its documents, as `Tally.stats` gives them.
    lineage: stats of the stages that were published.
    inputs: how many inputs were published; those without stats are no stages.
  """
  passed = _passed(lineage, list(counts["kinds"]))
  synthetic = [m for stage in passed for m in stage.get("models") or []]
  parts = [
    f"# {name} {version}\n",
    f"{counts['read']:,} documents, {counts['kept_characters']:,} characters.\n",
    "Written or judged by: "
    + ("; ".join(dict.fromkeys(synthetic)) or "nobody")
    + ".\n",
    "## Sources and licences\n",
    card.table(
      ("source", "documents"),
      [(n, f"{c['kept']:,}") for n, c in counts["sources"].items()],
    ),
    card.table(
      ("licence", "documents"), [(n, f"{c:,}") for n, c in counts["licences"].items()]
    ),
    _decontaminated(lineage, inputs),
  ]
  parts += [card.of_stage({**stage, "lineage": None}) for stage in passed]
  return "\n".join(parts)


def _passed(
  lineage: Sequence[Mapping[str, Any]], kinds: Sequence[str]
) -> list[Mapping[str, Any]]:
  """The stages that documents of these kinds have passed."""
  return [s for s in card.flat(lineage) if any(k in s.get("kinds", {}) for k in kinds)]


def _decontaminated(lineage: Sequence[Mapping[str, Any]], inputs: int) -> str:
  """What the card may say about benchmarks: what was looked for in every document."""
  benchmarks: dict[float, list[str]] = {}
  for name, tau in _looked_for(lineage, inputs).items():
    benchmarks.setdefault(tau, []).append(name)
  if not benchmarks:
    return "Nothing, or not enough, was done to keep benchmarks out of it.\n"
  said = [f"{', '.join(names)} at tau {tau:g}" for tau, names in benchmarks.items()]
  return (
    f"What was too close to {'; '.join(said)} is not part of it; the stage's folder "
    "lists it with the evidence.\n"
  )


def _looked_for(stages: Sequence[Mapping[str, Any]], inputs: int) -> dict[str, float]:
  """Benchmarks that were looked for in all documents of some inputs, each with its tau.

  Args:
    stages: stats of those inputs that are stages.
    inputs: how many inputs there are; of one without stats nothing is known.
  """
  if not 0 < inputs <= len(stages):
    return {}
  found = [_looked_for_until(stage) for stage in stages]
  common = [name for name in found[0] if all(name in each for each in found)]
  return {name: max(each[name] for each in found) for name in common}


def _looked_for_until(stage: Mapping[str, Any]) -> dict[str, float]:
  """The same for what a stage kept; of a benchmark looked for twice, the lowest tau."""
  settings = stage["settings"]
  before = [s for s in stage.get("lineage") or () if s["stage"] != _CLASSIFIER]
  found = _looked_for(before, len(settings.get("inputs") or ()))
  if stage["stage"] == "decontaminate":
    tau = settings["tau"]
    found |= {name: min(tau, found.get(name, tau)) for name in settings["benchmarks"]}
  return found


def _write(
  config: PublishConfig,
  kind: str,
  folder: Path,
  lineage: Sequence[Mapping[str, Any]],
) -> Path:
  """Writes the set of a kind, read from the stage's own files one by one."""
  from phi1_jax.data import curated  # it loads TensorFlow, which takes seconds

  def documents() -> Iterator[Document]:
    return (document for document in folders.kept(folder) if document.kind == kind)

  counts = tally(map(Keep, documents())).stats()
  digest = hashlib.sha256()
  for document in documents():
    digest.update(folders.line(document.record()))
  name = DATASETS[kind]
  with storage.mirrored(storage.parse(config.directory)) as directory:
    return curated.write(
      directory,
      name,
      config.version,
      map(example, documents()),
      about={
        "description": f"{name}: see its README.md",
        "licence": " AND ".join(counts["licences"]),
      },
      content={"documents": digest.hexdigest()},
      card=dataset_card(name, config.version, counts, lineage, len(config.inputs)),
    )
