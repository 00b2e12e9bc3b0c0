"""What is too close to a benchmark goes; the paper's study of tau.

  documents -> evidence (references.py, one pass) -> verdict (verdict.py) -> decisions

Evidence does not depend on tau, so the study looks at each pair once and decides for
every tau. Its folders `pruned-TAU` are what the stage itself would give.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import numpy.typing as npt

from phi1_jax import InputError, storage
from phi1_jax.curation import card, pipeline, read, verdict
from phi1_jax.curation import folder as folders
from phi1_jax.curation.config import DecontaminateConfig
from phi1_jax.curation.document import Decision, Drop
from phi1_jax.curation.references import Embed, Index
from phi1_jax.curation.verdict import Evidence

STAGE = verdict.STAGE
STUDY, TABLE = "study.json", "study.md"
VERSION = 4  # of everything that decides the outcome beside the settings
_BATCH = 64
_Judged = tuple[Decision, list[Evidence]]


@dataclasses.dataclass(frozen=True)
class CheckpointEmbed:
  """Embeds with a model that each process opens when it is first asked.

  So a pipeline sends the name of a checkpoint to its workers, and not a model.

  Attributes:
    checkpoint: a work directory, a checkpoints folder or one step folder.
    pooling: "mean" over the tokens, or "last".
    max_length: tokens of a text that count.
  """

  checkpoint: str
  pooling: str = "mean"
  max_length: int = 512

  def __call__(self, texts: Sequence[str]) -> npt.NDArray[np.floating]:
    """Embeddings [texts, width]."""
    return _opened(self).embed(texts)

  @property
  def digest(self) -> str:
    """Of the model."""
    return _opened(self).digest


@functools.lru_cache(maxsize=1)
def _opened(named: CheckpointEmbed) -> Any:
  # It loads JAX, which no other part of this does.
  from phi1_jax.curation.embedding import Embedder

  return Embedder(named.checkpoint, named.pooling, named.max_length)


def run(
  config: DecontaminateConfig,
  folder: Path,
  runner: pipeline.Runner,
  embed: Embed | None = None,
) -> dict[str, Any]:
  """Runs the stage, or finds it done.

  Args:
    config: what to do.
    folder: the stage's folder, which every worker can write to.
    runner: where the pipeline runs.
    embed: texts to embeddings [texts, dimensions], such as `CheckpointEmbed`; it must
      be picklable. None compares no embeddings.

  Returns:
    What stats.json holds.

  Raises:
    InputError: the folder is of something else, an input or a benchmark cannot be read.
  """
  index = _index(config, embed)
  if folders.begin(folder, STAGE, _settings(config, index, embed)):
    return folders.read_stats(folder)
  facts: dict[str, Any] = {}
  with folders.measured(facts), runner.pipeline() as graph:
    judged = build(graph, config, index, (config.tau,), embed)
    _write(judged, config.tau, folder, config.shards)
  return _finish(config, folder, facts)


def study(
  config: DecontaminateConfig,
  folder: Path,
  taus: Sequence[float],
  runner: pipeline.Runner,
  embed: Embed | None = None,
) -> list[dict[str, Any]]:
  """The paper's pruning study (section 5.2, table 3): what each tau removes.

  Args:
    config: as for `run`, whose tau it replaces.
    folder: gets study.json, study.md, and a stage's folder `pruned-TAU` for each tau,
      which a model can be retrained on.
    taus: AST match rates.
    runner: where the pipeline runs.
    embed: as for `run`.

  Returns:
    For each tau: `tau`, `read`, `removed`, `share`, `reasons`, and under `benchmarks`
    for each task set the ids of the problems with a close match (`similar`) and how
    many have none (`non_similar`).

  Raises:
    InputError: as for `run`; or a tau is no share, or there twice.
  """
  _check_taus(taus)
  index = _index(config, embed)
  settings = {**_settings(config, index, embed), "taus": list(taus)}
  del settings["tau"]
  if folders.begin(folder, f"{STAGE}-study", settings):
    return storage.read_json(folder / STUDY)["rows"]
  configs = [dataclasses.replace(config, tau=tau) for tau in taus]
  places = [folder / f"pruned-{tau:g}" for tau in taus]
  for place, each in zip(places, configs, strict=True):
    place.mkdir(exist_ok=True)
    folders.begin(place, STAGE, _settings(each, index, embed))
  facts: dict[str, Any] = {}
  with folders.measured(facts), runner.pipeline() as graph:
    judged = build(graph, config, index, taus, embed)
    for place, tau in zip(places, taus, strict=True):
      _write(judged, tau, place, config.shards)
  rows = []
  for place, each in zip(places, configs, strict=True):
    rows.append(_row(each.tau, _finish(each, place, dict(facts)), place, index))
  storage.write_json(folder / STUDY, {"rows": rows})
  storage.write_text(folder / TABLE, table(rows))
  facts |= {"lineage": read.lineage(config.inputs)}
  folders.finish(folder, f"{STAGE}-study", {}, facts)
  return rows


def table(rows: Sequence[dict[str, Any]]) -> str:
  """The rows of a study as a Markdown table."""
  names = list(rows[0]["benchmarks"]) if rows else []
  head = ["tau", "removed", "share"]
  head += [f"{name}: {kind}" for name in names for kind in ("similar", "non-similar")]
  lines = [
    [f"{row['tau']:g}", f"{row['removed']:,} of {row['read']:,}", f"{row['share']:.1%}"]
    + [
      str(count)
      for name in names
      for count in (
        len(row["benchmarks"][name]["similar"]),
        row["benchmarks"][name]["non_similar"],
      )
    ]
    for row in rows
  ]
  return card.table(head, lines)


def build(
  graph: beam.Pipeline,
  config: DecontaminateConfig,
  index: Index,
  taus: Sequence[float],
  embed: Embed | None = None,
) -> beam.PCollection[_Judged]:
  """The pipeline from the inputs to all that is known of each document."""
  decisions = graph | "Read" >> pipeline.Read(config.inputs)
  if embed is None or config.distance is None:
    return decisions | "Judge" >> beam.Map(_judge, index, min(taus))
  return (
    decisions
    | "Batches" >> pipeline.Batches(_BATCH, config.shards)
    | "Judge" >> beam.FlatMap(_judge_all, index, min(taus), embed, config.distance)
  )


def _write(
  judged: beam.PCollection[_Judged], tau: float, folder: Path, shards: int
) -> None:
  _ = (
    judged
    | f"Decide {tau:g}" >> beam.Map(_decide, tau)
    | f"Write {tau:g}" >> pipeline.Write(folder, shards)
  )


def _judge(decision: Decision, index: Index, least: float) -> _Judged:
  if isinstance(decision, Drop):
    return decision, []
  return decision, index.evidence(decision.document.text, least)


def _judge_all(
  batch: Sequence[Decision],
  index: Index,
  least: float,
  embed: Embed,
  distance: float,
) -> Iterator[_Judged]:
  texts = [d.document.text for d in batch]
  near = index.near(texts, embed, distance)
  for decision, found in zip(batch, near, strict=True):
    if isinstance(decision, Drop):
      yield decision, []
    else:
      yield decision, index.evidence(decision.document.text, least, found)


def _decide(judged: _Judged, tau: float) -> Decision:
  decision, evidence = judged
  if isinstance(decision, Drop):
    return decision
  return verdict.decide(decision.document, evidence, tau)


def _index(config: DecontaminateConfig, embed: Embed | None) -> Index:
  if embed is not None and config.distance is None:
    raise InputError(
      "Decontaminate.distance: got None, expected the largest distance of a candidate; "
      "a checkpoint to embed with is given, so give a distance too"
    )
  return Index.of(config.benchmarks, config.ngram, embed)


def _settings(
  config: DecontaminateConfig, index: Index, embed: Embed | None
) -> dict[str, Any]:
  return {
    **dataclasses.asdict(config),
    "version": VERSION,
    "problems": index.digest,
    "embedding": getattr(embed, "digest", None),
    "read": read.identity(config.inputs),
  }


def _finish(
  config: DecontaminateConfig, folder: Path, facts: dict[str, Any]
) -> dict[str, Any]:
  counts = pipeline.total(folder, config.shards)
  facts |= {"lineage": read.lineage(config.inputs)}
  return folders.finish(folder, STAGE, counts.stats(), facts)


def _row(
  tau: float, stats: dict[str, Any], folder: Path, index: Index
) -> dict[str, Any]:
  similar = convicting(folder)
  reasons = {
    name: count for name, count in stats["dropped"].items() if name in verdict.REASONS
  }
  removed = sum(reasons.values())
  read_in = stats["kept"] + removed
  return {
    "tau": tau,
    "read": read_in,
    "removed": removed,
    "share": removed / read_in if read_in else 0.0,
    "reasons": reasons,
    "benchmarks": {
      name: {
        "similar": sorted(similar & ids),
        "non_similar": len(ids - similar),
      }
      for name, ids in index.ids().items()
    },
  }


def convicting(folder: Path) -> set[str]:
  """The ids of all problems because of which a stage dropped something."""
  found: set[str] = set()
  for file in sorted(folder.glob("dropped-*.jsonl")):
    with file.open("rb") as lines:
      for row in map(json.loads, lines):
        if row["dropped"]["reason"] in verdict.REASONS:
          found.update(row["dropped"]["evidence"]["problems"])
  return found


def _check_taus(taus: Sequence[float]) -> None:
  different = {f"{tau:g}" for tau in taus}  # as their folders are called
  if not taus or len(different) != len(taus) or not all(0 < tau < 1 for tau in taus):
    raise InputError(
      f"--tau: got {', '.join(map(str, taus)) or 'nothing'}, expected different "
      "numbers between 0 and 1, such as 0.95,0.9,0.85,0.8"
    )
