"""Decontamination: drops text that is too close to a benchmark.

document -> evidence (references.py) -> rules -> decision
"""

import dataclasses
import functools
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from phi1_jax import storage
from phi1_jax.curation import folder as folders
from phi1_jax.curation import references
from phi1_jax.curation.config import DecontaminateConfig
from phi1_jax.curation.document import Decision, Keep, Tally
from phi1_jax.curation.engine import Job, Task
from phi1_jax.curation.references import Embed, Index

STAGE, VERSION = references.STAGE, 8
STUDY = "study.json"
_BATCH = 64
_MAX_LENGTH = 512  # tokens of a function that are embedded


index = functools.lru_cache(maxsize=2)(Index)  # made once in a process


def run(job: Job, embed: Embed | None = None) -> dict[str, Any]:
  """Run the stage; return the stats. Without `embed` the checkpoint makes embeddings.

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
  one = embed is not None
  return job.run(
    STAGE,
    settings,
    lambda: (job.phase("judge", _judge, config, embed, one_process=one).stats(), {}),
  )


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
    reasons = {n: c for n, c in stats["dropped"].items() if n in references.REASONS}
    removed, similar = sum(reasons.values()), set[str]()
    for drop in folders.dropped(place):
      similar.update(drop.evidence.get("problems", ()))
    total = stats["kept"] + removed
    row = {"tau": tau, "read": total, "removed": removed, "share": removed / total}
    ids = index(tuple(config.benchmarks), config.ngram, embed).ids().items()
    benchmarks = {
      name: {"similar": sorted(similar & each), "non_similar": len(each - similar)}
      for name, each in ids
    }
    rows.append({**row, "reasons": reasons, "benchmarks": benchmarks})
  storage.write_json(job.folder / STUDY, {"rows": rows})
  return rows


def _judge(config: DecontaminateConfig, embed: Embed | None, task: Task) -> Tally:
  made = index(tuple(config.benchmarks), config.ngram, embed)

  def decisions() -> Iterator[Decision]:
    found = task.read()
    while batch := list(itertools.islice(found, _BATCH)):
      texts = [each.document.text for each in batch if isinstance(each, Keep)]
      near: Iterator[Any] = itertools.repeat(None)
      if embed and texts:
        near = iter(made.near(texts, embed, config.distance or 0.0))
      for each in batch:
        if isinstance(each, Keep):
          evidence = made.evidence(each.document.text, config.tau, next(near))
          each = references.decide(each.document, evidence, config.tau)
        yield each

  return task.write(decisions())
