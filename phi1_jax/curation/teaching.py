"""What the stages that write have in common: drafts, judged, counted, kept."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from phi1_jax.curation import folder as folders
from phi1_jax.curation.config import ExercisesConfig, TextbooksConfig
from phi1_jax.curation.document import Drop
from phi1_jax.curation.draft import Draft, Teacher
from phi1_jax.curation.judging import Judge
from phi1_jax.text import diversity

# Documents that are looked at for figures of diversity.
_SAMPLE = 1000


def run(
  stage: str,
  version: int,
  config: ExercisesConfig | TextbooksConfig,
  folder: Path,
  teacher: Teacher,
  judge: Judge,
) -> dict[str, Any]:
  """Has a teacher write, runs what it wrote, and keeps what is right; gives the stats.

  Args:
    stage: "textbooks" or "exercises".
    version: of the stage: another one may decide otherwise.
    config: part of the folder's settings.
    folder: the stage's folder; complete, it is only read.
    teacher: who writes.
    judge: who runs it.

  Raises:
    InputError: the folder was begun with other settings.
  """
  settings = {**dataclasses.asdict(config), "version": version, **teacher.identity()}
  if folders.begin(folder, stage, settings):
    return folders.read_stats(folder)
  facts: dict[str, Any] = {}
  with folders.measured(facts):
    drafts = without_copies(teacher.drafts())
    counts = folders.write(folder, judge.decisions(drafts))
    kept = itertools.islice(folders.kept(folder), _SAMPLE)
    facts["judged"] = judge.sandbox.record()
    facts["diversity"] = diversity.figures([document.text for document in kept])
    facts |= teacher.facts()
  return folders.finish(folder, stage, counts.stats(), facts)


def without_copies(drafts: Iterator[Draft | Drop]) -> Iterator[Draft | Drop]:
  """Drops what was written before, letter by letter."""
  seen: set[str] = set()
  for draft in drafts:
    if isinstance(draft, Draft):
      name = draft.document.id
      yield Drop(draft.document, "written before") if name in seen else draft
      seen.add(name)
    else:
      yield draft
