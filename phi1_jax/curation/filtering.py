"""The filter: licence, form, masks and classifier for raw code.

  check    licence, form check, masks; and the classifier, if it needs no model
  score    a classifier that needs a model, in one process on all devices

Textbooks and exercises pass: their code was run.
"""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from phi1_jax import storage
from phi1_jax.curation import classifier, form, inputs, licences, masking
from phi1_jax.curation import folder as folders
from phi1_jax.curation.config import FilterConfig
from phi1_jax.curation.document import Decision, Document, Drop, Keep, Tally
from phi1_jax.curation.engine import Each, Engine, Ticker, Write
from phi1_jax.curation.read import Read
from phi1_jax.storage import AnyPath

STAGE, VERSION = "filter", 3
_BATCH = 256


def run(config: FilterConfig, folder: AnyPath, engine: Engine) -> dict[str, Any]:
  """Filter the inputs; return the stats.

  Args:
    config: the settings.
    folder: the stage's folder; complete, it is only read.
    engine: where the tasks run.

  Raises:
    InputError: an input or the classifier is not there, or the folder was begun with
      other settings.
    EmptyError: nothing was kept.
  """
  place = storage.parse(config.classifier) if config.classifier else None
  opened = classifier.load(place) if place else None
  threshold = config.threshold
  if opened:
    opened.check()  # before anything is read
    threshold = opened.about["threshold"] if threshold is None else threshold
  settings = {**dataclasses.asdict(config), "version": VERSION}
  settings |= {"threshold": threshold, "grammar": form.grammar()}
  settings["model"] = opened.about["sha256"] if opened else None
  settings["read"] = inputs.identity(config.inputs)
  if folders.begin(folder, STAGE, settings):
    return folders.read_stats(folder)
  facts: dict[str, Any] = {}
  with folders.measured(facts):
    counts = _phases(config, threshold, opened, folder, engine)
    stats = counts.stats()
    facts |= {
      "threshold": threshold,
      "grammar": form.grammar(),
      "masked": stats.pop("figures", {}) if config.mask else "off",
      "models": [opened.about["name"]] if opened else [],
      "lineage": inputs.lineage(config.inputs),
    }
    if place:
      facts["classifier"] = folders.read_stats(place)
  return folders.finish(folder, STAGE, stats, facts)


def _phases(
  config: FilterConfig,
  threshold: float | None,
  opened: classifier.Classifier | None,
  folder: AnyPath,
  engine: Engine,
) -> Tally:
  work = folder / folders.ENGINE
  tasks, total = inputs.prepare(work, "Filter.inputs", config.inputs, engine.count)
  checks = [Read(work / "plan"), Each(check, (config.licences, config.mask))]
  if opened is None:
    counted = Masked(folder, "check")
    return engine.run(folder, "check", [*checks, counted], tasks, total)
  scoring = Score(str(config.classifier), threshold or 0.0)
  if not opened.on_device:
    steps = [*checks, scoring, Masked(folder, "check")]
    return engine.run(folder, "check", steps, tasks, total)
  engine.run(folder, "check", [*checks, Spill(folder)], tasks, total)
  steps = [Spilled(work / "checked"), scoring, Masked(folder, "score")]
  return engine.run(folder, "score", steps, tasks, total, one_process=True)


def check(decision: Decision, allowed: Sequence[str], mask: bool) -> Decision:
  """Drop a document for its licence or its form; mask what is left of it.

  Args:
    decision: as read.
    allowed: SPDX identifiers; () allows all.
    mask: whether secrets and addresses are replaced.
  """
  if isinstance(decision, Drop) or decision.document.kind != "code":
    return decision
  document = decision.document
  if allowed and not licences.allowed(document.licence, allowed):
    return Drop(document, "licence not allowed", {"licence": document.licence})
  if reason := form.problem(document.text):
    return Drop(document, reason)
  if mask:
    text, counts = masking.mask(document.text)
    if counts:
      document = dataclasses.replace(document, text=text)
      return Keep(document.noted("mask", counts))
  return decision


@dataclasses.dataclass(frozen=True)
class Score:
  """A step: documents of good form to those that the classifier keeps, in batches.

  Attributes:
    folder: of the train-classifier stage.
    threshold: the lowest probability that is kept.
  """

  folder: str
  threshold: float

  def __call__(
    self, data: Iterable[Decision], rank: int, world_size: int
  ) -> Iterator[Decision]:
    """Yield the decisions."""
    del rank, world_size
    model = classifier.opened(self.folder)
    iterator = iter(data)
    while batch := list(itertools.islice(iterator, _BATCH)):
      documents = [d.document for d in batch if _is_scored(d)]
      found = iter(())
      if documents:
        found = iter(model.probabilities([document.text for document in documents]))
      for decision in batch:
        if _is_scored(decision):
          yield decide(decision.document, float(next(found)), self.threshold)
        else:
          yield decision


def _is_scored(decision: Decision) -> bool:
  return isinstance(decision, Keep) and decision.document.kind == "code"


def decide(document: Document, probability: float, threshold: float) -> Decision:
  """Keep a document whose probability of high value reaches the threshold."""
  noted = {"probability": round(probability, 4), "threshold": threshold}
  document = document.noted(STAGE, noted)
  if noted["probability"] < threshold:
    return Drop(document, "low educational value", noted)
  return Keep(document)


@dataclasses.dataclass(frozen=True)
class Masked(Write):
  """The last step: writes the decisions, and counts the masks in what is kept."""

  def __call__(
    self, data: Iterable[Decision], rank: int, world_size: int
  ) -> Iterator[Tally]:
    """Write them, and yield their tally."""
    counts = Tally()

    def counted() -> Iterator[Decision]:
      for decision in data:
        if isinstance(decision, Keep) and "mask" in decision.document.provenance:
          counts.figures.update(decision.document.provenance["mask"])
        yield decision

    for tally in super().__call__(counted(), rank, world_size):
      tally.figures.update(counts.figures)
      yield tally


@dataclasses.dataclass(frozen=True)
class Spill:
  """The last step before a model: writes a task's decisions to a file."""

  folder: AnyPath

  def __call__(
    self, data: Iterable[Decision], rank: int, world_size: int
  ) -> Iterator[Tally]:
    """Write them."""
    del world_size
    tick = Ticker(self.folder, "check", rank)
    place = self.folder / folders.ENGINE / "checked"
    folders.spill(place, f"{rank:05d}.parquet", data, tick)
    yield Tally()


@dataclasses.dataclass(frozen=True)
class Spilled:
  """A step: the decisions that `Spill` wrote."""

  place: AnyPath

  def __call__(self, data: Any, rank: int, world_size: int) -> Iterator[Decision]:
    """Read them."""
    del data, world_size
    yield from folders.spilled(self.place / f"{rank:05d}.parquet")
