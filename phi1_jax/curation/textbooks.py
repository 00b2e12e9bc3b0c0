"""Textbook sections: prose with runnable code, after the paper's section 2.2.

Topic and audience vary; the code of a section is run in the sandbox, block after block
in one process, and a section whose code fails is dropped, or marked.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator

from phi1_jax.curation import ideas
from phi1_jax.curation.config import TextbooksConfig
from phi1_jax.curation.teachers import Lesson, Written
from phi1_jax.grammar import teacher as grammar
from phi1_jax.llm.conversation import Malformed

STAGE, VERSION = "textbooks", 1
PLACES = frozenset(("topic", "audience", "words"))


def lesson(config: TextbooksConfig) -> Lesson:
  """What a teacher is to write: of an LLM, a section on a topic, for an audience, in
  which some words occur.
  """

  def composed() -> Iterator[Written]:
    for index in range(config.sections):
      section = grammar.section(config.seed, index)
      facts = {"topic": section.topic, "audience": section.audience}
      code = "\n\n".join(section.code)
      yield Written(section.text, code, group=section.text, facts=facts)

  def places(index: int) -> dict[str, str]:
    chance = ideas.dice(config.seed, index)
    return {
      "topic": chance.choice(ideas.TOPICS),
      "audience": chance.choice(ideas.AUDIENCES),
      "words": ", ".join(ideas.some(chance, ideas.WORDS, 3)),
    }

  return Lesson(
    STAGE,
    "textbook",
    config.sections,
    config.seed,
    composed,
    places,
    "topic",
    read_reply,
  )


_BLOCK = re.compile(
  r"^[ \t]*```[ \t]*(?:python3?|py)\b[^\n]*\n(.*?)^[ \t]*```[ \t]*$",
  re.DOTALL | re.MULTILINE | re.IGNORECASE,
)


def code_of(text: str) -> list[str]:
  """The Python blocks of a Markdown text, in order; indented ones moved to the left."""
  return [textwrap.dedent(block) for block in _BLOCK.findall(text)]


def read_reply(reply: str) -> Written:
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
  return Written(text, "\n\n".join(blocks))
