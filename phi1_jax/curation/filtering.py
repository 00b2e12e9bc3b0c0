"""The filter: licence, form, masks and classifier for raw code.

A classifier that needs a model runs in one process, on all devices. Textbooks and
exercises pass: their code was run.
"""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from phi1_jax import storage
from phi1_jax.curation import classifier, form, licences, read
from phi1_jax.curation import folder as folders
from phi1_jax.curation.config import FilterConfig
from phi1_jax.curation.document import Decision, Document, Drop, Keep, Tally
from phi1_jax.curation.engine import Job
from phi1_jax.curation.folder import Tick
from phi1_jax.storage import AnyPath

STAGE, VERSION = "filter", 4
_BATCH = 256


def run(job: Job) -> dict[str, Any]:
  """Filter the inputs; return the stats.

  Raises:
    InputError: an input or the classifier is not there, or the folder was begun with
      other settings.
    EmptyError: nothing was kept.
  """
  config: FilterConfig = job.config
  about: dict[str, Any] = {}
  on_device = False
  facts: dict[str, Any] = {"grammar": form.grammar()}
  if config.classifier:
    place = storage.parse(config.classifier)
    with folders.naming("Filter.classifier"):
      opened = classifier.load(place)
      opened.check()  # before anything is read
    about, on_device = opened.about, opened.on_device
    facts |= {"models": [about["name"]], "classifier": folders.read_stats(place)}
    if config.threshold is None:
      config = dataclasses.replace(config, threshold=about["threshold"])
  facts["threshold"] = config.threshold
  settings = {"version": VERSION, "grammar": form.grammar()}
  settings |= {"threshold": config.threshold, "model": about.get("sha256")}

  def work() -> tuple[dict[str, Any], dict[str, Any]]:
    tasks, total = job.plan()
    if on_device:  # all cores check; one process scores, with the model
      job.phase("check", _check_task, (config, job.folder), tasks, total)
    arguments = (config, job.folder, on_device)
    stats = job.phase("filter", _task, arguments, tasks, total, on_device).stats()
    masked = stats.pop("figures", {}) if config.mask else "off"
    return stats, {**facts, "masked": masked}

  return job.run(STAGE, settings, work)


def _checked(config: FilterConfig, work: AnyPath, rank: int) -> Iterator[Decision]:
  for decision in read.of_task(work / "plan", rank):
    yield check(decision, config.licences, config.mask)


def _check_task(
  config: FilterConfig, folder: AnyPath, rank: int, tasks: int, tick: Tick
) -> None:
  """Write the checked documents of a task, for `_task`."""
  del tasks
  work = folder / folders.ENGINE
  found = _checked(config, work, rank)
  folders.spill(work / "checked", f"{rank:05d}.parquet", found, tick)


def _task(
  config: FilterConfig,
  folder: AnyPath,
  checked: bool,
  rank: int,
  tasks: int,
  tick: Tick,
) -> Tally:
  """Score documents, which may be checked, write a task's files; return its counts."""
  masks, work = Tally(), folder / folders.ENGINE

  def decisions() -> Iterator[Decision]:
    found = _checked(config, work, rank)
    if checked:
      found = folders.spilled(work / "checked" / f"{rank:05d}.parquet")
    while batch := list(itertools.islice(found, _BATCH)):
      for decision in _scored(config, batch) if config.classifier else batch:
        if isinstance(decision, Keep):
          for kind, number in decision.document.provenance.get("mask", {}).items():
            masks.count(number, "figures", kind)
        yield decision

  tally = folders.write(folder, decisions(), rank, tasks, tick)
  tally.merge(masks.record())
  return tally


def check(decision: Decision, allowed: Sequence[str], mask: bool) -> Decision:
  """Drop a document for its licence or its form; mask the secrets in the others."""
  if not _is_code(decision):
    return decision
  document = decision.document
  if allowed and not licences.allowed(document.licence, allowed):
    return Drop(document, "licence not allowed", {"licence": document.licence})
  if reason := form.problem(document.text):
    return Drop(document, reason)
  if mask:
    text, counts = form.mask(document.text)
    if counts:
      document = dataclasses.replace(document, text=text)
      return Keep(document.noted("mask", counts))
  return decision


def _scored(config: FilterConfig, batch: Sequence[Decision]) -> Iterator[Decision]:
  """Yield the decisions of the classifier about the code of a batch."""
  texts = [d.document.text for d in batch if _is_code(d)]
  model = classifier.opened(str(config.classifier))
  found = iter(model.probabilities(texts) if texts else ())
  for decision in batch:
    if _is_code(decision):
      decision = decide(decision.document, float(next(found)), config.threshold or 0.0)
    yield decision


def _is_code(decision: Decision) -> bool:
  return isinstance(decision, Keep) and decision.document.kind == "code"


def decide(document: Document, probability: float, threshold: float) -> Decision:
  """Keep a document whose probability of high value reaches the threshold."""
  noted = {"probability": round(probability, 4), "threshold": threshold}
  document = document.noted(STAGE, noted)
  if noted["probability"] < threshold:
    return Drop(document, "low educational value", noted)
  return Keep(document)
