"""Decontamination: drops text that is too close to a benchmark.

document -> evidence (references.py) -> rules (verdict.py) -> decision
"""

import dataclasses
import functools
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from phi1_jax import storage
from phi1_jax.curation import folder as folders
from phi1_jax.curation import read, verdict
from phi1_jax.curation.config import DecontaminateConfig
from phi1_jax.curation.document import Decision, Document, Drop, Keep, Tally
from phi1_jax.curation.engine import Job
from phi1_jax.curation.folder import Tick
from phi1_jax.curation.references import Embed, Index
from phi1_jax.storage import AnyPath

STAGE, VERSION = verdict.STAGE, 7
STUDY = "study.json"
_BATCH = 64
_MAX_LENGTH = 512  # tokens of a function that are embedded


@functools.lru_cache(maxsize=2)
def index(benchmarks: tuple[str, ...], ngram: int, embed: Embed | None = None) -> Index:
  """Return the index of some task sets, made once in a process."""
  return Index.of(benchmarks, ngram, embed)


def run(job: Job, embed: Embed | None = None) -> dict[str, Any]:
  """Run the stage; return the stats.

  Args:
    job: the run.
    embed: texts to embeddings [texts, dimensions]; None takes the checkpoint's.

  Raises:
    InputError: the folder is of something else, or an input or a benchmark cannot be
      read.
  """
  config: DecontaminateConfig = job.config
  settings: dict[str, Any] = {"version": VERSION, "embedding": None}
  if embed is None and config.checkpoint:
    from phi1_jax.curation import embedding  # it loads JAX

    with folders.naming("Decontaminate.checkpoint"):
      opened = embedding.opened(config.checkpoint, config.pooling, _MAX_LENGTH)
    embed, settings["embedding"] = opened.embed, opened.digest
  settings["problems"] = index(tuple(config.benchmarks), config.ngram, embed).digest

  def judge() -> tuple[dict[str, Any], dict[str, Any]]:
    tasks, total = job.plan()
    arguments, in_one = (config, job.folder, embed), embed is not None
    counts = job.phase("judge", _judge_task, arguments, tasks, total, in_one)
    return counts.stats(), {}

  return job.run(STAGE, settings, judge)


def study(
  job: Job, taus: Sequence[float], embed: Embed | None = None
) -> list[dict[str, Any]]:
  """Run the stage at several AST match rates, as the paper does (section 5.2, table 3).

  The folder gets study.json, and a stage's folder `pruned-TAU` for each tau.

  Returns:
    For each tau `tau`, `read`, `removed`, `share`, `reasons`, and under `benchmarks`
    for each task set the ids of the problems with a close match (`similar`) and how
    many have none (`non_similar`).
  """
  rows = []
  for tau in taus:
    place, config = job.folder / f"pruned-{tau:g}", job.config
    config = dataclasses.replace(config, tau=tau)
    stats = run(dataclasses.replace(job, config=config, folder=place), embed)
    reasons = {n: c for n, c in stats["dropped"].items() if n in verdict.REASONS}
    removed, similar = sum(reasons.values()), set[str]()
    for drop in folders.dropped(place):
      similar.update(drop.evidence.get("problems", ()))
    total = stats["kept"] + removed
    row = {"tau": tau, "read": total, "removed": removed, "share": removed / total}
    ids = index(tuple(config.benchmarks), config.ngram, embed).ids()
    row |= {"reasons": reasons, "benchmarks": {}}
    for name, each in ids.items():
      found = {"similar": sorted(similar & each), "non_similar": len(each - similar)}
      row["benchmarks"][name] = found
    rows.append(row)
  storage.write_json(job.folder / STUDY, {"rows": rows})
  return rows


def _judge_task(
  config: DecontaminateConfig,
  folder: AnyPath,
  embed: Embed | None,
  rank: int,
  tasks: int,
  tick: Tick,
) -> Tally:
  made = index(tuple(config.benchmarks), config.ngram, embed)

  def decide(documents: Sequence[Document]) -> Iterator[Decision]:
    near: Sequence[dict[int, float] | None] = [None] * len(documents)
    if embed and documents:
      texts = [document.text for document in documents]
      near = made.near(texts, embed, config.distance or 0.0)
    for document, close in zip(documents, near, strict=True):
      evidence = made.evidence(document.text, config.tau, close)
      yield verdict.decide(document, evidence, config.tau)

  def decisions() -> Iterator[Decision]:
    found = read.of_task(folder / folders.ENGINE / "plan", rank)
    while batch := list(itertools.islice(found, _BATCH)):
      decided = decide([each.document for each in batch if isinstance(each, Keep)])
      for each in batch:
        yield each if isinstance(each, Drop) else next(decided)

  return folders.write(folder, decisions(), rank, tasks, tick)
