"""Topics, professions, audiences and function names for an LLM's prompts.

The paper got diversity from constraints: topics and audiences for textbooks, function
names for exercises (section 2.2). Its lists are not published; ideas.txt holds
ours. A choice is a function of seed and index, so a larger set holds a smaller one.
"""

import random
from collections.abc import Sequence
from pathlib import Path

_TEXT = (Path(__file__).parent / "ideas.txt").read_text(encoding="utf-8")
_PARTS = (part.strip().split("\n") for part in _TEXT.split("[") if part.strip())
_LISTS = {head.rstrip("]"): tuple(items) for head, *items in _PARTS}
TOPICS, PROFESSIONS = _LISTS["topics"], _LISTS["professions"]
AUDIENCES, WORDS = _LISTS["audiences"], _LISTS["words"]


def function_name(chance: random.Random) -> str:
  """Return a name such as "count_rising_scores"; there are 30,720."""
  return "_".join(chance.choice(_LISTS[n]) for n in ("verbs", "qualities", "things"))


def two_topics(chance: random.Random) -> tuple[str, str]:
  """Return two different topics."""
  first = chance.randrange(len(TOPICS))
  second = (first + 1 + chance.randrange(len(TOPICS) - 1)) % len(TOPICS)
  return TOPICS[first], TOPICS[second]


def some(chance: random.Random, of: Sequence[str], number: int) -> list[str]:
  """Return different items in random order."""
  left = list(of)
  return [left.pop(chance.randrange(len(left))) for _ in range(number)]


def dice(seed: int, index: int) -> random.Random:
  """Return random numbers that follow from seed and index, on every machine."""
  return random.Random(f"ideas {seed} {index}")
