"""The last stage: curated sets as versioned TFDS datasets, each with its card.

What the inputs kept is published by kind, under the names of the tasks that read it:
code as `code_filtered`, textbooks as `textbooks`, exercises as `exercises`.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from phi1_jax import InputError
from phi1_jax.curation import card, read
from phi1_jax.curation import folder as folders
from phi1_jax.curation.config import PublishConfig
from phi1_jax.curation.document import Document, Keep, Tally
from phi1_jax.text import records

STAGE, VERSION = "publish", 1
DATASETS = {"code": "code_filtered", "textbook": "textbooks", "exercise": "exercises"}


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
  facts: dict[str, Any] = {"lineage": read.lineage(config.inputs), "datasets": {}}
  total = Tally()
  with folders.measured(facts):
    for kind, name in DATASETS.items():
      counts = Tally()
      for document in documents(config.inputs, kind):
        counts.add(Keep(document))
      total.add_all(counts)
      if counts.kinds[kind]:
        path = _write(config, kind, name, counts.stats(), facts["lineage"])
        facts["datasets"][name] = str(path)
    if not facts["datasets"]:
      raise InputError(f"Publish.inputs: {config.inputs} hold no documents")
  return folders.finish(folder, STAGE, total.stats(), facts)


def documents(inputs: Sequence[str], kind: str) -> Iterator[Document]:
  """The documents of a kind, in the order of the inputs."""
  for decision in read.read(inputs):
    if isinstance(decision, Keep) and decision.document.kind == kind:
      yield decision.document


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
) -> str:
  """The dataset card: what is in the set, and every stage that it went through."""
  synthetic = [m for s in card.flat(lineage) for m in s.get("models") or []]
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
    "HumanEval and MBPP are not part of it; what was too close to them is listed in "
    "the folder of the stage decontaminate.\n",
  ]
  parts += [card.of_stage({**stage, "lineage": None}) for stage in card.flat(lineage)]
  return "\n".join(parts)


def _write(
  config: PublishConfig,
  kind: str,
  name: str,
  counts: Mapping[str, Any],
  lineage: Sequence[Mapping[str, Any]],
) -> Path:
  from phi1_jax.data import curated  # it loads TensorFlow, which takes seconds

  licences = " AND ".join(counts["licences"])
  return curated.write(
    Path(config.directory).expanduser(),
    name,
    config.version,
    map(example, documents(config.inputs, kind)),
    about={"description": f"{name}: see its README.md", "licence": licences},
    content={"kind": kind, "inputs": records.digest(read.identity(config.inputs))},
    card=dataset_card(name, config.version, counts, lineage),
  )
