"""Who writes drafts: a grammar, or an LLM. What they are to write, a lesson says."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from phi1_jax.curation.config import ExercisesConfig, TextbooksConfig
from phi1_jax.curation.desk import Desk
from phi1_jax.curation.document import Document, Drop, identify
from phi1_jax.curation.draft import Draft
from phi1_jax.curation.prompt import Prompt
from phi1_jax.grammar import teacher as grammar
from phi1_jax.llm.conversation import Answered
from phi1_jax.llm.request import Request


@dataclasses.dataclass(frozen=True)
class Written:
  """A document's text, as a teacher wrote it.

  Attributes:
    text: of the document.
    code: what is run of it.
    tests: what must pass after it.
    group: what documents have in common that may not be split between training and
      held-out data; an LLM's are grouped by what they were asked about.
    facts: for its provenance.
  """

  text: str
  code: str
  tests: tuple[str, ...] = ()
  group: str = ""
  facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Lesson:
  """What a stage has a teacher write.

  Attributes:
    stage: its name.
    kind: of the documents.
    number: how many.
    seed: of all choices.
    composed: what the grammar writes, in order.
    places: what the prompt of a document, named by its index, is filled with.
    grouped_by: the place by which an LLM's documents are grouped.
    read: finds the document in an LLM's reply; raises `Malformed` where there is none.
  """

  stage: str
  kind: str
  number: int
  seed: int
  composed: Callable[[], Iterator[Written]]
  places: Callable[[int], dict[str, str]]
  grouped_by: str
  read: Callable[[str], Written]


@dataclasses.dataclass(frozen=True)
class GrammarTeacher:
  """Has `phi1_jax.grammar` write: no model, no network, no cost.

  Attributes:
    lesson: what it writes.
  """

  lesson: Lesson

  def identity(self) -> dict[str, Any]:
    """The grammar's version."""
    return {"grammar": grammar.VERSION}

  def facts(self) -> dict[str, Any]:
    """Says that no language model wrote them."""
    return {"models": [f"grammar teacher, version {grammar.VERSION} (no LLM)"]}

  def drafts(self) -> Iterator[Draft]:
    """One draft per document."""
    for index, written in enumerate(self.lesson.composed()):
      facts = {
        "teacher": "grammar",
        "grammar": grammar.VERSION,
        "seed": self.lesson.seed,
        "index": index,
        **written.facts,
      }
      document = Document(
        id=identify("grammar", written.text),
        text=written.text,
        source="grammar",
        licence="MIT",
        kind=self.lesson.kind,
        group=identify("grammar", written.group),
        provenance={self.lesson.stage: facts},
      )
      yield Draft(document, written.code, written.tests)


@dataclasses.dataclass(frozen=True)
class LlmTeacher:
  """Has an LLM write, every document from other places of one prompt.

  Attributes:
    lesson: what it writes.
    config: how long a reply may be, and its temperature.
    desk: pays for the answers, and keeps them.
    prompt: with the places of the lesson.
  """

  lesson: Lesson
  config: ExercisesConfig | TextbooksConfig
  desk: Desk
  prompt: Prompt

  def identity(self) -> dict[str, Any]:
    """The model and the prompt."""
    return {**self.desk.identity(), "prompt": self.prompt.version}

  def facts(self) -> dict[str, Any]:
    """The model, the prompt, and what was paid."""
    return {**self.desk.facts(), "prompts": [self.prompt.record()]}

  def asked(self) -> Iterator[tuple[Request, dict[str, str]]]:
    """Requests, each with what its prompt was filled with."""
    limits = self.config.max_tokens, self.config.temperature
    for index in range(self.lesson.number):
      places = self.lesson.places(index)
      yield self.prompt.request(places, *limits, index), places

  def drafts(self) -> Iterator[Draft | Drop]:
    """One draft per answer; why there is none where no answer could be used."""
    requests = (request for request, _ in self.asked())
    answers = self.desk.ask(requests, self.lesson.read, self.lesson.number)
    for (_, places), answer in zip(self.asked(), answers, strict=True):
      facts: dict[str, Any] = {"teacher": "llm", "model": self.desk.model, **places}
      facts["prompt"] = self.prompt.version
      if isinstance(answer, Answered):
        written: Written = answer.value
        facts |= {"request": answer.reply.key, **written.facts}
        yield Draft(self._document(written.text, facts), written.code, written.tests)
      else:
        facts["request"] = answer.key
        evidence = {"reason": answer.reason, "request": answer.key}
        yield Drop(self._document("", facts), "no usable answer", evidence)

  def _document(self, text: str, facts: dict[str, Any]) -> Document:
    by = self.lesson.grouped_by
    return Document(
      id=identify(facts["request"] if not text else "llm", text),
      text=text,
      source=f"llm:{self.desk.model}",
      licence="unknown",
      kind=self.lesson.kind,
      group=identify(by, facts[by]),
      provenance={self.lesson.stage: facts},
    )
