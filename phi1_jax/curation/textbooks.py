"""Textbook sections: prose with runnable code, after the paper's section 2.2.

Topic and audience vary; the code of a section is run in the sandbox, block after block
in one process, and a section whose code fails is dropped, or marked.
"""

import functools
import re
import textwrap
from collections.abc import Iterator

from phi1_jax.curation import ideas, local_teacher
from phi1_jax.curation.config import TextbooksConfig
from phi1_jax.curation.teaching import Subject, Written
from phi1_jax.llm.conversation import Malformed

STAGE = "textbooks"
PLACES = frozenset(("topic", "audience", "words"))


def subject(config: TextbooksConfig) -> Subject:
  """Return what a teacher is to write.

  An LLM gets a topic, an audience, and some words that have to occur.
  """
  return Subject(
    STAGE,
    "textbook",
    config.sections,
    config.seed,
    functools.partial(_composed, config.seed),
    functools.partial(_places, config.seed),
    "topic",
    read_reply,
    {"mark": config.failing_code == "mark"},
  )


def _composed(seed: int, start: int, stop: int) -> Iterator[Written]:
  for text, code, facts in local_teacher.sections(seed, start, stop):
    yield Written(text, code, idea=text, facts=facts)


def _places(seed: int, index: int) -> dict[str, str]:
  chance = ideas.dice(seed, index)
  return {
    "topic": chance.choice(ideas.TOPICS),
    "audience": chance.choice(ideas.AUDIENCES),
    "words": ", ".join(ideas.some(chance, ideas.WORDS, 3)),
  }


_BLOCK = re.compile(
  r"^[ \t]*```[ \t]*(?:python3?|py)\b[^\n]*\n(.*?)^[ \t]*```[ \t]*$",
  re.DOTALL | re.MULTILINE | re.IGNORECASE,
)


def code_of(text: str) -> list[str]:
  """Return the Python blocks of a Markdown text, in order, dedented."""
  return [textwrap.dedent(block) for block in _BLOCK.findall(text)]


_FENCED = re.compile(r"```(?:markdown|md)\n(.*)\n```", re.DOTALL)
_HEADING = re.compile(r"^#{1,3} ", re.MULTILINE)
_CHATTER = re.compile(
  r"(?:\n---+)?\n\n(?:let me know|i hope|hope this|feel free|would you like|"
  r"if you(?:'d| would) like|i can also)\b[^\n]*\Z",
  re.IGNORECASE,
)


def _without_chatter(text: str) -> str:
  """Drop what a model says before the first heading and after the section."""
  text = text.strip()
  if fenced := _FENCED.search(text):
    text = fenced[1].strip()
  heading = _HEADING.search(text)
  if heading and "```" not in text[: heading.start()]:
    text = text[heading.start() :]
  return _CHATTER.sub("", text).strip()


def read_reply(reply: str) -> Written:
  """Return the section in an answer: prose, and at least one block of code.

  Raises:
    Malformed: there is none.
  """
  text = _without_chatter(reply.replace("\r\n", "\n")) + "\n"
  blocks = code_of(text)
  if not any(block.strip() for block in blocks):
    raise Malformed("it has no ```python block with code in it")
  if len(text) - sum(map(len, blocks)) < 200:
    raise Malformed("it has hardly any prose")
  return Written(text, "\n\n".join(blocks))
