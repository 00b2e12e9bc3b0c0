"""A document on its way through the stages, and a stage's decision about it."""

import collections
import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Any

KINDS = ("code", "textbook", "exercise")
_STRINGS = ("id", "text", "source", "licence", "kind", "repository")


@dataclasses.dataclass(frozen=True)
class Document:
  """A text, its origin, and the facts that stages found out about it.

  Attributes:
    id: 32 hex digits; see `identify`.
    text: the text.
    source: collection such as "cpython" or "grammar"; stages count by it.
    licence: SPDX expression, or "unknown".
    kind: one of `KINDS`.
    repository: repository of code; for generated texts the idea behind the text.
      Documents of one repository are held out together.
    provenance: stage -> facts such as prompt, model, scores, cluster or verdict.
  """

  id: str
  text: str
  source: str
  licence: str
  kind: str
  repository: str
  provenance: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  def __post_init__(self):
    """Refuse fields of other types."""
    for name in _STRINGS:
      if not isinstance(getattr(self, name), str):
        raise ValueError(f"{name} is {getattr(self, name)!r:.60}, expected a string")
    if self.kind not in KINDS:
      raise ValueError(f"kind is {self.kind!r:.60}, expected {', '.join(KINDS)}")
    if not isinstance(self.provenance, Mapping):
      raise ValueError(f"provenance is {self.provenance!r:.60}, expected an object")

  def noted(self, stage: str, facts: Mapping[str, Any]) -> "Document":
    """Return the document with a stage's facts in its provenance."""
    provenance = {**self.provenance, stage: dict(facts)}
    return dataclasses.replace(self, provenance=provenance)

  def record(self) -> dict[str, Any]:
    """Return the document as a JSON object."""
    return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

  @staticmethod
  def of(record: Mapping[str, Any]) -> "Document":
    """Return the document of a record; unknown keys are ignored.

    Records of earlier versions have `group` in place of `repository`.

    Raises:
      ValueError: a field is missing, or has another type.
    """
    if "repository" not in record and "group" in record:
      record = {**record, "repository": record["group"]}
    for name in _STRINGS:
      if name not in record:
        raise ValueError(f"it has no {name}")
    names = (*_STRINGS, "provenance")
    return Document(**{name: record[name] for name in names if name in record})


@dataclasses.dataclass(frozen=True)
class Keep:
  """A document that goes on to the next stage."""

  document: Document


@dataclasses.dataclass(frozen=True)
class Drop:
  """A document that ends here.

  Attributes:
    document: as far as it is known.
    reason: a few words that do not vary with the document; stages count by them.
    evidence: facts with which a person can check the reason.
  """

  document: Document
  reason: str
  evidence: Mapping[str, Any] = dataclasses.field(default_factory=dict)


Decision = Keep | Drop


def identify(source: str, text: str) -> str:
  """Return the id of a text: 32 hex digits of the sha256 of source and text."""
  content = f"{source}\0{text}".encode("utf-8", "surrogatepass")
  return hashlib.sha256(content).hexdigest()[:32]


class Tally:
  """Counts of documents that a stage read, kept and dropped."""

  def __init__(self):
    self.kept: collections.Counter[str] = collections.Counter()
    self.dropped: collections.Counter[tuple[str, str]] = collections.Counter()
    self.licences: collections.Counter[str] = collections.Counter()
    self.kinds: collections.Counter[str] = collections.Counter()
    self.figures: collections.Counter[str] = collections.Counter()
    self.characters = 0

  def add(self, decision: Decision) -> None:
    """Count a decision."""
    document = decision.document
    if isinstance(decision, Drop):
      self.dropped[document.source, decision.reason] += 1
      return
    self.kept[document.source] += 1
    self.licences[document.licence] += 1
    self.kinds[document.kind] += 1
    self.characters += len(document.text)

  def record(self) -> dict[str, Any]:
    """Return the counts as JSON that `merge` reads."""
    dropped = [[*names, count] for names, count in self.dropped.items()]
    return {**vars(self), "dropped": dropped}

  def merge(self, record: Mapping[str, Any]) -> None:
    """Add the counts of another tally's record."""
    for name in ("kept", "licences", "kinds", "figures"):
      getattr(self, name).update(record[name])
    for source, reason, count in record["dropped"]:
      self.dropped[source, reason] += count
    self.characters += record["characters"]

  def stats(self) -> dict[str, Any]:
    """Return the counts as `stats.json` holds them."""
    reasons: collections.Counter[str] = collections.Counter()
    lost: collections.Counter[str] = collections.Counter()
    for (source, reason), count in self.dropped.items():
      reasons[reason] += count
      lost[source] += count
    kept = sum(self.kept.values())
    return {
      "read": kept + sum(lost.values()),
      "kept": kept,
      "kept_characters": self.characters,
      "dropped": dict(sorted(reasons.items(), key=lambda r: (-r[1], r[0]))),
      "sources": {
        source: {"read": self.kept[source] + lost[source], "kept": self.kept[source]}
        for source in sorted(self.kept.keys() | lost.keys())
      },
      "licences": dict(sorted(self.licences.items())),
      "kinds": dict(sorted(self.kinds.items())),
      **({"figures": dict(sorted(self.figures.items()))} if self.figures else {}),
    }
