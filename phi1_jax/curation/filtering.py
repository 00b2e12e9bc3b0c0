"""The filter: licence, form, masks and classifier for raw code.

A classifier that needs a model runs in one process, on all devices. Textbooks and
exercises pass: their code was run.
"""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Sequence
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
    arguments = (config, job.folder)
    if on_device:  # all cores check; one process scores, with the model
      job.phase("check", _check_task, arguments, tasks, total)
      counts = job.phase(
        "score", _score_task, arguments, tasks, total, one_process=True
      )
    else:
      counts = job.phase("check", _task, arguments, tasks, total)
    stats = counts.stats()
    masked = stats.pop("figures", {}) if config.mask else "off"
    return stats, {**facts, "masked": masked}

  return job.run(STAGE, settings, work)


def _checked(config: FilterConfig, folder: AnyPath, rank: int) -> Iterator[Decision]:
  """Yield the checked documents of a task."""
  for decision in read.of_task(folder / folders.ENGINE / "plan", rank):
    yield check(decision, config.licences, config.mask)


def _spilled(folder: AnyPath, rank: int) -> AnyPath:
  return folder / folders.ENGINE / "checked" / f"{rank:05d}.parquet"


def _check_task(
  config: FilterConfig, folder: AnyPath, rank: int, tasks: int, tick: Tick
) -> None:
  """Write the checked documents of a task, for `_score_task`."""
  del tasks
  path = _spilled(folder, rank)
  folders.spill(path.parent, path.name, _checked(config, folder, rank), tick)


def _score_task(
  config: FilterConfig, folder: AnyPath, rank: int, tasks: int, tick: Tick
) -> Tally:
  """Write the files of a task that was checked; return its counts."""
  checked = folders.spilled(_spilled(folder, rank))
  return _write(config, folder, checked, rank, tasks, tick)


def _task(
  config: FilterConfig, folder: AnyPath, rank: int, tasks: int, tick: Tick
) -> Tally:
  """Check and score documents, write the files of a task; return its counts."""
  checked = _checked(config, folder, rank)
  return _write(config, folder, checked, rank, tasks, tick)


def _write(
  config: FilterConfig,
  folder: AnyPath,
  checked: Iterable[Decision],
  rank: int,
  tasks: int,
  tick: Tick,
) -> Tally:
  """Score and write checked documents; return the counts, with those of the masks."""
  masks = Tally()

  def counted() -> Iterator[Decision]:
    for decision in _scored(config, checked) if config.classifier else checked:
      if isinstance(decision, Keep):
        for kind, number in decision.document.provenance.get("mask", {}).items():
          masks.count(number, "figures", kind)
      yield decision

  tally = folders.write(folder, counted(), rank, tasks, tick)
  tally.merge(masks.record())
  return tally


def check(decision: Decision, allowed: Sequence[str], mask: bool) -> Decision:
  """Drop a document for its licence or its form; mask the secrets in the others."""
  if isinstance(decision, Drop) or decision.document.kind != "code":
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


def _scored(config: FilterConfig, checked: Iterable[Decision]) -> Iterator[Decision]:
  """Yield the decisions of the classifier about code, in batches."""
  model = classifier.opened(str(config.classifier))
  iterator = iter(checked)
  while batch := list(itertools.islice(iterator, _BATCH)):
    texts = [d.document.text for d in batch if _is_code(d)]
    found = iter(model.probabilities(texts) if texts else ())
    for decision in batch:
      if _is_code(decision):
        yield decide(decision.document, float(next(found)), config.threshold or 0.0)
      else:
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
