"""One document on its way through the stages, and what a stage decides about it."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

KINDS = ("code", "textbook", "exercise")


@dataclasses.dataclass(frozen=True)
class Document:
  """A text, where it is from, and what every stage found out about it.

  Attributes:
    id: 32 hex digits that name it; see `identify`.
    text: the text.
    source: the collection that it belongs to, such as "cpython" or "grammar"; what
      stages count by.
    licence: SPDX identifier, or "unknown".
    kind: one of `KINDS`.
    group: documents of one group are held out together, e.g. those made from a file.
    provenance: stage -> facts, in the order of the stages: prompt, model, request,
      scores, cluster, verdict.
  """

  id: str
  text: str
  source: str
  licence: str
  kind: str
  group: str
  provenance: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  def __post_init__(self):
    for name in ("id", "text", "source", "licence", "kind", "group"):
      if not isinstance(getattr(self, name), str):
        raise ValueError(f"{name} is {getattr(self, name)!r:.60}, expected a string")
    if self.kind not in KINDS:
      raise ValueError(f"kind is {self.kind!r:.60}, expected {', '.join(KINDS)}")
    if not isinstance(self.provenance, Mapping):
      raise ValueError(f"provenance is {self.provenance!r:.60}, expected an object")

  def noted(self, stage: str, facts: Mapping[str, Any]) -> Document:
    """The same document with what a stage found out."""
    provenance = {**self.provenance, stage: dict(facts)}
    return dataclasses.replace(self, provenance=provenance)

  def record(self) -> dict[str, Any]:
    """The document as JSON."""
    return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

  @staticmethod
  def of(record: Mapping[str, Any]) -> Document:
    """The document of a record; keys that are no field are left out.

    Raises:
      ValueError: a field is missing, or is of another type.
    """
    names = [field.name for field in dataclasses.fields(Document)]
    missing = [name for name in names[:-1] if name not in record]
    if missing:
      raise ValueError(f"it has no {missing[0]}")
    return Document(**{name: record[name] for name in names if name in record})


@dataclasses.dataclass(frozen=True)
class Keep:
  """The document goes on.

  Attributes:
    document: with what the stage noted.
  """

  document: Document


@dataclasses.dataclass(frozen=True)
class Drop:
  """The document ends here.

  Attributes:
    document: as far as it was known.
    reason: a few words that do not vary with the document; stages count by them.
    evidence: what a person needs to see that it was right.
  """

  document: Document
  reason: str
  evidence: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  def record(self) -> dict[str, Any]:
    """The document as JSON, with the reason and the evidence."""
    dropped = {"reason": self.reason, "evidence": dict(self.evidence)}
    return {**self.document.record(), "dropped": dropped}


Decision = Keep | Drop


def identify(source: str, text: str) -> str:
  """The id of a text of a source: 32 hex digits of the sha256 of both."""
  content = f"{source}\0{text}".encode("utf-8", "surrogatepass")
  return hashlib.sha256(content).hexdigest()[:32]


class LossError(RuntimeError):
  """A source would lose more than it may; nothing was published."""


class Tally:
  """Counts of a stage: what it read, kept and dropped, by source and by licence."""

  def __init__(self):
    self.kept: collections.Counter[str] = collections.Counter()
    self.dropped: collections.Counter[tuple[str, str]] = collections.Counter()
    self.licences: collections.Counter[str] = collections.Counter()
    self.kinds: collections.Counter[str] = collections.Counter()
    self.characters = 0

  def add(self, decision: Decision) -> None:
    """Counts one decision."""
    document = decision.document
    if isinstance(decision, Drop):
      self.dropped[document.source, decision.reason] += 1
      return
    self.kept[document.source] += 1
    self.licences[document.licence] += 1
    self.kinds[document.kind] += 1
    self.characters += len(document.text)

  def add_all(self, other: Tally) -> None:
    """Adds another tally's counts."""
    for name in ("kept", "dropped", "licences", "kinds"):
      getattr(self, name).update(getattr(other, name))
    self.characters += other.characters

  def stats(self) -> dict[str, Any]:
    """The counts as `stats.json` holds them."""
    kept, dropped = sum(self.kept.values()), sum(self.dropped.values())
    reasons: collections.Counter[str] = collections.Counter()
    lost: collections.Counter[str] = collections.Counter()
    for (source, reason), count in self.dropped.items():
      reasons[reason] += count
      lost[source] += count
    sources = sorted(self.kept.keys() | lost.keys())
    return {
      "read": kept + dropped,
      "kept": kept,
      "kept_characters": self.characters,
      "dropped": dict(reasons.most_common()),
      "sources": {
        source: {"read": self.kept[source] + lost[source], "kept": self.kept[source]}
        for source in sources
      },
      "licences": dict(sorted(self.licences.items())),
      "kinds": dict(sorted(self.kinds.items())),
    }


def tally(decisions: Iterable[Decision]) -> Tally:
  """The counts of decisions."""
  counts = Tally()
  for decision in decisions:
    counts.add(decision)
  return counts
