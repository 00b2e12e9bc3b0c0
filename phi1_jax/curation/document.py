"""A document on its way through the stages, and a stage's decision about it."""

import collections
import dataclasses
import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

KINDS = ("code", "textbook", "exercise")


@dataclasses.dataclass(frozen=True)
class Document:
  """A text, its origin, and the facts that stages found out about it."""

  id: str  # 32 hex digits; see `identify`
  text: str
  source: str  # collection such as "cpython" or "grammar"; stages count by it
  licence: str  # SPDX expression, or "unknown"
  kind: str  # one of `KINDS`
  # Repository of code; for generated texts the idea behind the text. Documents of one
  # repository are held out together.
  repository: str
  # Stage -> facts such as prompt, model, scores, cluster or verdict.
  provenance: Mapping[str, Any] = dataclasses.field(default_factory=dict)

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
    record = {"repository": record.get("group"), "provenance": {}, **record}
    names = [field.name for field in dataclasses.fields(Document)]
    fields: dict[str, Any] = {name: record.get(name) for name in names}
    for name, value in fields.items():
      expected = Mapping if name == "provenance" else str
      if not isinstance(value, expected):
        raise ValueError(f"{name} is {value!r:.60}, expected {expected.__name__}")
    if fields["kind"] not in KINDS:
      raise ValueError(f"kind is {fields['kind']!r:.60}, expected {', '.join(KINDS)}")
    return Document(**fields)


@dataclasses.dataclass(frozen=True)
class Keep:
  """A document that goes on to the next stage."""

  document: Document


@dataclasses.dataclass(frozen=True)
class Drop:
  """A document that ends here."""

  document: Document  # as far as it is known
  reason: str  # a few words that do not vary with the document; stages count by them
  # Facts with which a person can check the reason.
  evidence: Mapping[str, Any] = dataclasses.field(default_factory=dict)


Decision = Keep | Drop


def identify(source: str, text: str) -> str:
  """Return the id of a text: 32 hex digits of the sha256 of source and text."""
  content = f"{source}\0{text}".encode("utf-8", "surrogatepass")
  return hashlib.sha256(content).hexdigest()[:32]


class Tally:
  """Counts of documents that a stage read, kept and dropped."""

  def __init__(self, record: Iterable[Iterable[Any]] = ()):
    self._counts: collections.Counter[tuple[str, ...]] = collections.Counter()
    self.merge(record)

  def add(self, decision: Decision) -> None:
    """Count a decision."""
    document = decision.document
    if isinstance(decision, Drop):
      self.count(1, "dropped", document.source, decision.reason)
      return
    self.count(1, "kept", document.source)
    self.count(1, "licences", document.licence)
    self.count(1, "kinds", document.kind)
    self.count(len(document.text), "characters", "")

  def count(self, number: int, *key: str) -> None:
    """Add a number to a count, such as ("figures", "edges")."""
    self._counts[key] += number

  def record(self) -> list[list[Any]]:
    """Return the counts as JSON that `merge` reads."""
    return [[*key, number] for key, number in self._counts.items()]

  def merge(self, record: Iterable[Iterable[Any]]) -> None:
    """Add the counts of another tally's record."""
    for *key, number in record:
      self._counts[tuple(key)] += number

  def of(self, kind: str, place: int = 1) -> dict[str, int]:
    """Return the counts of a kind by a part of their keys, sorted by name."""
    found: collections.Counter[str] = collections.Counter()
    for key, number in self._counts.items():
      if key[0] == kind:
        found[key[place]] += number
    return dict(sorted(found.items()))

  def stats(self) -> dict[str, Any]:
    """Return the counts as `stats.json` holds them."""
    kept, lost = self.of("kept"), self.of("dropped")
    reasons, figures = self.of("dropped", 2), self.of("figures")
    return {
      "read": sum(kept.values()) + sum(lost.values()),
      "kept": sum(kept.values()),
      "kept_characters": sum(self.of("characters").values()),
      "dropped": dict(sorted(reasons.items(), key=lambda item: -item[1])),
      "sources": {
        source: {
          "read": kept.get(source, 0) + lost.get(source, 0),
          "kept": kept.get(source, 0),
        }
        for source in sorted({*kept, *lost})
      },
      "licences": self.of("licences"),
      "kinds": self.of("kinds"),
      **({"figures": figures} if figures else {}),
    }
