"""The filter: licence, form, masks and classifier for raw code.

A classifier that needs a model runs in one process, on all devices. Textbooks and
exercises pass: their code was run.
"""

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any

from phi1_jax import storage
from phi1_jax.curation import classifier, form, licences
from phi1_jax.curation import folder as folders
from phi1_jax.curation.config import FilterConfig
from phi1_jax.curation.document import Decision, Drop, Keep, Tally
from phi1_jax.curation.engine import Job, Task
from phi1_jax.storage import AnyPath

STAGE, VERSION = "filter", 5
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
    with folders.naming("Filter.classifier (Filter.classifier=None does without)"):
      opened = classifier.Classifier(place)
      opened.check()  # before anything is read
    about, on_device = opened.about, opened.on_device
    facts |= {"models": [about["name"]], "classifier": folders.read_stats(place)}
    if config.threshold is None:
      config = dataclasses.replace(config, threshold=about["threshold"])
  facts["threshold"] = config.threshold
  settings = {"version": VERSION, "grammar": form.grammar()}
  settings |= {"threshold": config.threshold, "model": about.get("sha256")}

  def work() -> tuple[dict[str, Any], dict[str, Any]]:
    if on_device:  # all cores check; one process scores, with the model
      job.phase("check", _check, config)
    tally = job.phase("filter", _filter, config, on_device, one_process=on_device)
    stats = tally.stats()
    masked = stats.pop("figures", {}) if config.mask else "off"
    return stats, {**facts, "masked": masked}

  return job.run(STAGE, settings, work)


def _checked(config: FilterConfig, task: Task) -> Iterator[Decision]:
  """Drop documents for their licence or their form; mask the secrets in the others."""
  for decision in task.read():
    document = decision.document
    if not _is_code(decision):
      yield decision
    elif config.licences and not licences.allowed(document.licence, config.licences):
      yield Drop(document, "licence not allowed", {"licence": document.licence})
    elif reason := form.problem(document.text):
      yield Drop(document, reason)
    else:
      text, counts = form.mask(document.text) if config.mask else (document.text, {})
      if text is None:
        yield Drop(document, "a secret that cannot be masked", counts)
        continue
      if counts:
        document = dataclasses.replace(document, text=text).noted("mask", counts)
      yield Keep(document)


def _check(config: FilterConfig, task: Task) -> None:
  """Write the checked documents of a task, for `_filter`."""
  folders.spill(_path(task), _checked(config, task))


def _path(task: Task) -> AnyPath:
  return task.work / "checked" / f"{task.name}.parquet"


def _filter(config: FilterConfig, checked: bool, task: Task) -> Tally:
  """Score documents, which may be checked, write a task's files; return its counts."""
  masks = Tally()
  found = folders.spilled(_path(task)) if checked else _checked(config, task)
  decisions = _scored(config, found) if config.classifier else found

  def counted() -> Iterator[Decision]:
    for decision in decisions:
      if isinstance(decision, Keep):
        for kind, number in decision.document.provenance.get("mask", {}).items():
          masks.count(number, "figures", kind)
      yield decision

  tally = task.write(counted())
  tally.merge(masks.record())
  return tally


def _scored(config: FilterConfig, decisions: Iterator[Decision]) -> Iterator[Decision]:
  """Drop the code whose probability of high value is below the threshold."""
  model, threshold = classifier.opened(str(config.classifier)), config.threshold or 0.0
  while batch := list(itertools.islice(decisions, _BATCH)):
    texts = [d.document.text for d in batch if _is_code(d)]
    found = iter(model.probabilities(texts) if texts else ())
    for decision in batch:
      if _is_code(decision):
        value = round(float(next(found)), 4)
        noted = {"probability": value, "threshold": threshold}
        document = decision.document.noted(STAGE, noted)
        decision = Keep(document)
        if value < threshold:
          decision = Drop(document, "low educational value", noted)
      yield decision


def _is_code(decision: Decision) -> bool:
  return isinstance(decision, Keep) and decision.document.kind == "code"
