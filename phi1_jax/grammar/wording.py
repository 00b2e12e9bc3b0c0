"""Wordings that tasks of several families share, and the choice among wordings."""

import functools
import random
import re
from collections.abc import Mapping

from phi1_jax.grammar import english, words
from phi1_jax.grammar.draws import pick
from phi1_jax.grammar.reserve import Gate

Frames = tuple[tuple[str, str], ...]

# Over `np` (what is returned), `given` (the arguments) and `verb`.
NOUN_FRAMES: Frames = (
  ("np-return", "{verb} {np}."),
  ("np-return-plain", "Return {np}."),
  ("np-returns", "Returns {np}."),
  ("np-bare", "{Cap_np}."),
  ("np-given", "Given {given}, return {np}."),
  ("np-take", "Take {given} and return {np}."),
  ("np-takes", "Takes {given} and gives back {np}."),
  ("np-should", "The function should return {np}."),
  ("np-called-with", "Called with {given}, the function returns {np}."),
  ("np-write", "Write a function that returns {np}."),
  ("np-question", "What is {np}?"),
  ("np-question-given", "You are given {given}. What is {np}?"),
  ("np-task", "You are given {given}. Your task is to find {np}."),
  ("np-determine", "Determine {np} and return it."),
  ("np-result", "The result is {np}."),
  ("np-for", "For {given}, the answer is {np}."),
  ("np-story", "{holder} has {given} and needs {np}. Return it."),
  ("np-story-wants", "{holder} asks for {np}."),
  ("np-interest", "We have {given}. We are interested in {np}."),
  ("np-answer", "Answer with {np}."),
)
# Over `test`: "the number is even".
TEST_FRAMES: Frames = (
  ("test-check", "Check whether {test}."),
  ("test-return", "Return True if {test}, and False otherwise."),
  ("test-returns", "Returns True if {test}, otherwise False."),
  ("test-tell", "Tell whether {test}."),
  ("test-question", "Is it true that {test}?"),
  ("test-given", "Given {given}, decide whether {test}."),
  ("test-only", "The answer is True only if {test}."),
  ("test-exactly", "True exactly when {test}."),
  ("test-story", "{holder} has {given} and asks whether {test}. Return a bool."),
  ("test-write", "Write a function that tells if {test}."),
  ("test-else", "If {test}, the result is True. In all other cases it is False."),
)
_VERBS = ("Return", "Compute", "Calculate", "Determine", "Find", "Give", "Get")


class _Fields(dict[str, str]):
  """Fields of a template; "Cap_x" is "x" with a capital letter."""

  def __missing__(self, name: str) -> str:
    if name.startswith("Cap_"):
      return english.capital(self[name[4:]])
    raise KeyError(name)


@functools.lru_cache(1 << 10)
def _allowed(frames: Frames, tier_frames: Gate) -> Frames:
  return tuple(frame for frame in frames if tier_frames.frame(frame[0]))


def worded(
  rng: random.Random, gate: Gate, frames: Frames, fields: Mapping[str, str]
) -> tuple[str, str] | None:
  """Picks a wording that the tier allows; returns its id and the sentences.

  Args:
    rng: picks.
    gate: knows which wordings are reserved.
    frames: pairs of an id and a template.
    fields: of the templates; `verb` and `holder` are added.
  """
  allowed = _allowed(frames, gate)
  if not allowed:
    return None
  id, template = pick(rng, allowed)
  full = _Fields(fields)
  full.setdefault("verb", pick(rng, _VERBS))
  full.setdefault("holder", pick(rng, words.HOLDERS))
  return id, asked(template.format_map(full))


_ABOUT_MANY = re.compile(
  "What is (?=(?:the|those) [^?]*, (?:as a |joined with|concatenated|written in))"
)


def asked(text: str) -> str:
  """ "What is how many ...?" -> "How many ...?"; "What is" -> "What are" of many."""
  for word in ("how", "what", "which"):
    text = text.replace(f"What is {word} ", f"{word.capitalize()} ")
  return _ABOUT_MANY.sub("What are ", text)


def quoted(rng: random.Random, name: str) -> str:
  """An argument's name in prose, sometimes in backticks."""
  return f"`{name}`" if rng.random() < 0.35 else name


def named(rng: random.Random, *patterns: str) -> str:
  """A function name from a pattern; "[a|b]" inside stands for one of these."""
  text = pick(rng, patterns)
  while "[" in text:
    before, _, rest = text.partition("[")
    inside, _, after = rest.partition("]")
    text = before + pick(rng, inside.split("|")) + after
  return text
