"""Textbook sections: prose with runnable code, after the paper's section 2.2.

Topic and audience vary; the code of a section is run in the sandbox, block after block
in one process, and a section whose code fails is dropped, or marked.
"""

import functools
import re
import textwrap
from collections.abc import Iterator

from phi1_jax.curation import teaching
from phi1_jax.curation.config import TextbooksConfig
from phi1_jax.curation.teaching import Subject, Written
from phi1_jax.grammar import teacher
from phi1_jax.llm.conversation import Malformed

_BLOCK = re.compile(
  r"^[ \t]*```[ \t]*(?:python3?|py)\b[^\n]*\n(.*?)^[ \t]*```[ \t]*$",
  re.DOTALL | re.MULTILINE | re.IGNORECASE,
)
_FENCED = re.compile(r"```(?:markdown|md)\n(.*)\n```", re.DOTALL)
_HEADING = re.compile(r"^#{1,3} ", re.MULTILINE)
_CHATTER = re.compile(
  r"(?:\n---+)?\n\n(?:let me know|i hope|hope this|feel free|would you like|"
  r"if you(?:'d| would) like|i can also)\b[^\n]*\Z",
  re.IGNORECASE,
)


def _compose(config: TextbooksConfig, start: int, stop: int) -> Iterator[Written]:
  for index in range(start, stop):
    made = teacher.section(config.seed, index)
    facts = {"topic": made.topic, "audience": made.audience}
    yield Written(made.text, "\n\n".join(made.code), idea=made.text, facts=facts)


def _places(config: TextbooksConfig, index: int) -> dict[str, str]:
  chance = teaching.dice(config.seed, index)
  return {
    "topic": chance.choice(teaching.TOPICS),
    "audience": chance.choice(teaching.AUDIENCES),
    "words": ", ".join(teaching.some(chance, teaching.WORDS, 3)),
  }


def subject(config: TextbooksConfig) -> Subject:
  """Return sections about a topic, for an audience, in which some words occur."""
  return Subject(
    stage="textbooks",
    kind="textbook",
    config=config,
    number=config.sections,
    compose=functools.partial(_compose, config),
    places=functools.partial(_places, config),
    read=read_reply,
    grouped_by="topic",
    mark=config.failing_code == "mark",
  )


run = functools.partial(teaching.run, subject)
requests = functools.partial(teaching.requests, subject)


def code_of(text: str) -> list[str]:
  """Return the Python blocks of a Markdown text, in order, dedented."""
  return [textwrap.dedent(block) for block in _BLOCK.findall(text)]


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
