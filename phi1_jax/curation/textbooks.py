"""Textbook sections: prose with runnable code, after the paper's section 2.2.

Topic and audience vary; the code of a section is run in the sandbox, block after block
in one process, and a section whose code fails is dropped, or marked.
"""

from __future__ import annotations

import dataclasses
import re
import textwrap
from collections.abc import Iterator
from typing import Any

from phi1_jax.curation import ideas
from phi1_jax.curation.config import TextbooksConfig
from phi1_jax.curation.desk import Desk
from phi1_jax.curation.document import Document, Drop, identify
from phi1_jax.curation.draft import Draft
from phi1_jax.curation.prompt import Prompt
from phi1_jax.grammar import teacher as grammar
from phi1_jax.llm.conversation import Answered, Malformed
from phi1_jax.llm.request import Request

STAGE, VERSION = "textbooks", 1
PLACES = frozenset(("topic", "audience", "words"))


@dataclasses.dataclass(frozen=True)
class GrammarTeacher:
  """Sections that `phi1_jax.grammar` composes: no model, no network, no cost.

  Attributes:
    config: how many, and their seed.
  """

  config: TextbooksConfig

  def identity(self) -> dict[str, Any]:
    """The grammar's version."""
    return {"grammar": grammar.VERSION}

  def facts(self) -> dict[str, Any]:
    """Says that no language model wrote them."""
    return {"models": [f"grammar teacher, version {grammar.VERSION} (no LLM)"]}

  def drafts(self) -> Iterator[Draft]:
    """One draft per section."""
    for index in range(self.config.sections):
      section = grammar.section(self.config.seed, index)
      facts = {
        "teacher": "grammar",
        "grammar": grammar.VERSION,
        "seed": self.config.seed,
        "index": index,
        "topic": section.topic,
        "audience": section.audience,
      }
      document = Document(
        id=identify("grammar", section.text),
        text=section.text,
        source="grammar",
        licence="MIT",
        kind="textbook",
        group=identify("grammar", section.text),
        provenance={STAGE: facts},
      )
      yield Draft(document, "\n\n".join(section.code))


@dataclasses.dataclass(frozen=True)
class LlmTeacher:
  """Sections that an LLM writes about a topic, for an audience, around some words.

  Attributes:
    config: how many, and their seed.
    desk: pays for the answers, and keeps them.
    prompt: with the places `PLACES`.
  """

  config: TextbooksConfig
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
    for index in range(self.config.sections):
      chance = ideas.dice(self.config.seed, index)
      places = {
        "topic": chance.choice(ideas.TOPICS),
        "audience": chance.choice(ideas.AUDIENCES),
        "words": ", ".join(ideas.some(chance, ideas.WORDS, 3)),
      }
      config = self.config
      yield (
        self.prompt.request(places, config.max_tokens, config.temperature, index),
        places,
      )

  def drafts(self) -> Iterator[Draft | Drop]:
    """One draft per answer; why there is none where no answer could be used."""
    requests = (request for request, _ in self.asked())
    answers = self.desk.ask(requests, read_reply, self.config.sections)
    for (_, places), answer in zip(self.asked(), answers, strict=True):
      facts: dict[str, Any] = {"teacher": "llm", "model": self.desk.model, **places}
      facts["prompt"] = self.prompt.version
      if isinstance(answer, Answered):
        facts["request"] = answer.reply.key
        text: str = answer.value
        yield Draft(self._document(text, facts), "\n\n".join(code_of(text)))
      else:
        facts["request"] = answer.key
        evidence = {"reason": answer.reason, "request": answer.key}
        yield Drop(self._document("", facts), "no usable answer", evidence)

  def _document(self, text: str, facts: dict[str, Any]) -> Document:
    return Document(
      id=identify(facts["request"] if not text else "llm", text),
      text=text,
      source=f"llm:{self.desk.model}",
      licence="unknown",
      kind="textbook",
      group=identify("topic", facts["topic"]),
      provenance={STAGE: facts},
    )


_BLOCK = re.compile(
  r"^[ \t]*```[ \t]*(?:python3?|py)\b[^\n]*\n(.*?)^[ \t]*```[ \t]*$",
  re.DOTALL | re.MULTILINE | re.IGNORECASE,
)


def code_of(text: str) -> list[str]:
  """The Python blocks of a Markdown text, in order; indented ones moved to the left."""
  return [textwrap.dedent(block) for block in _BLOCK.findall(text)]


def read_reply(reply: str) -> str:
  """The section in an answer: a text with prose and at least one block of code.

  Raises:
    Malformed: it is none.
  """
  text = reply.replace("\r\n", "\n").strip() + "\n"
  blocks = code_of(text)
  if not any(block.strip() for block in blocks):
    raise Malformed("it has no ```python block with code in it")
  if len(text) - sum(map(len, blocks)) < 200:
    raise Malformed("it has hardly any prose")
  return text
