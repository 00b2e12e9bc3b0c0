"""Wordings of pipelines: templates over the pieces that `phrases` gives.

Each row names the frame, says for which chains of filters (F) and maps (M) it is fit,
as a regular expression, and gives the template.
"""

import dataclasses
import re

_NOUN = "F{0,2}M?"  # what a noun phrase can say
_ANY = "[FM]+"


@dataclasses.dataclass(frozen=True)
class Frame:
  """A wording.

  Attributes:
    id: its name.
    chains: which chains it can say.
    template: the sentences.
  """

  id: str
  chains: re.Pattern[str]
  template: str


def _frames(rows: tuple[tuple[str, str, str], ...]) -> tuple[Frame, ...]:
  return tuple(Frame(id, re.compile(chains), text) for id, chains, text in rows)


TABLE = _frames(
  (
    ("np-return", _NOUN, "{verb} {np}."),
    ("np-return-plain", _NOUN, "Return {np}."),
    ("np-returns", _NOUN, "Returns {np}."),
    ("np-bare", _NOUN, "{Cap_np}."),
    ("np-given", _NOUN, "Given {given}, return {np}."),
    ("np-take", _NOUN, "Take {given} and return {np}."),
    ("np-takes", _NOUN, "Takes {given} and gives back {np}."),
    ("np-should", _NOUN, "The function should return {np}."),
    ("np-called-with", _NOUN, "Called with {given}, the function returns {np}."),
    ("np-write", _NOUN, "Write a function that returns {np}."),
    ("np-question", _NOUN, "What is {np}?"),
    ("np-question-given", _NOUN, "You are given {given}. What is {np}?"),
    ("np-task", _NOUN, "You are given {given}. Your task is to find {np}."),
    ("np-determine", _NOUN, "Determine {np} and return it."),
    ("np-result", _NOUN, "The result is {np}."),
    ("np-for", _NOUN, "For {given}, the answer is {np}."),
    ("np-story", _NOUN, "{holder} has {given} and needs {np}. Return it."),
    ("np-story-wants", _NOUN, "{holder} asks for {np}."),
    ("np-interest", _NOUN, "We have {given}. We are interested in {np}."),
    ("np-answer", _NOUN, "Answer with {np}."),
    ("do", _NOUN, "{Cap_do}."),
    ("do-return", _NOUN, "{Cap_do} and return the result."),
    ("do-given", _NOUN, "Given {given}, {do}."),
    ("do-third", _NOUN, "{Cap_does}."),
    ("do-this-function", _NOUN, "This function {does}."),
    ("do-how", _NOUN, "How do you {do}? Return the result."),
    ("do-helps", _NOUN, "Helps to {do}."),
    ("doing", _NOUN, "Solve the task of {doing}."),
    ("do-story", _NOUN, "{holder} has to {do}. Write the function for it."),
    ("steps-inline", _ANY, "{Cap_inline}. Return {their}."),
    ("steps-one", _ANY, "{Cap_inline}, and return {their}."),
    ("steps-given", _ANY, "Given {given}, {inline}. Then return {their}."),
    ("steps-sentences", _ANY, "{sentences} Finally, return {their}."),
    ("steps-numbered", _ANY, "Process {given} in steps.\n\n{numbered}"),
    ("steps-follow", _ANY, "Follow these steps:\n\n{numbered}"),
    ("steps-bullets", _ANY, "Starting from {given}:\n\n{bullets}"),
    ("steps-task", _ANY, "You are given {given}. {Cap_inline}. What is {their}?"),
    ("steps-after", _ANY, "Do this: {inline}. Then return {their}."),
    ("steps-story", _ANY, "{holder} keeps {given}. {sentences} Report {their}."),
    ("each-if", "FM", "If {a_one} {where} {is_}, take {its}. Return {the_values}."),
    (
      "each-for",
      "F{1,2}M",
      "For every {one} {where} that {is_}, take {its}. Return {the_values}.",
    ),
    (
      "each-skip",
      "FM",
      "Go through {arg} and skip every {one} that {is_not}. For the others, take "
      "{its}. Return {the_values}.",
    ),
    (
      "each-ignore",
      "FM",
      "Ignore all {many} {where} that {are_not}. Of the others, {change_them}. "
      "Return {the_results}.",
    ),
    (
      "each-whenever",
      "FM",
      "Whenever {a_one} {where} {is_}, {change_it}; all others do not count. "
      "Return {the_results}.",
    ),
    (
      "each-matter",
      "F{1,2}M",
      "Of the {many} {where}, only those that {are} matter: {change_them}. "
      "The function returns {the_results}.",
    ),
    ("each-take", "M", "For each {one} {where}, take {its}. Return {the_values}."),
    (
      "each-story",
      "F{1,2}M",
      "{holder} looks at {given}. Only {many} that {are} are used; {change_them}. "
      "Report {the_results}.",
    ),
    (
      "only-count",
      "F{1,2}",
      "Only the {many} {where} that {are} count. Return {their}.",
    ),
    ("only-ignore", "F", "Ignore all {many} {where} that {are_not}. Return {their}."),
    (
      "only-loop",
      "F",
      "Loop over {arg}, leaving out every {one} that {is_not}, and return {their}.",
    ),
    (
      "only-story",
      "F{1,2}",
      "{holder} goes through {given}, but cares only for {many} that {are}. "
      "Return {their}.",
    ),
  )
)
EMPTY = (
  "If there is nothing to use, return {empty}.",
  "Return {empty} if nothing is left.",
  "If no {one} remains, the result is {empty}.",
  "The result is {empty} if there is no such {one}.",
  "When there are no such {many}, return {empty}.",
)
EMPTY_WITHOUT_FILTER = (
  "If there are no {many}, return {empty}.",
  "Return {empty} if there are no {many}.",
  "Without any {many}, the result is {empty}.",
)
