"""The prose of textbook sections."""

import random
import re

from phi1_jax.grammar import english
from phi1_jax.grammar.draws import chance, pick
from phi1_jax.grammar.exercise import Exercise
from phi1_jax.grammar.parts import Bound
from phi1_jax.grammar.plan import Plan

AUDIENCES = (
  "beginners",
  "school pupils",
  "students of biology",
  "office workers",
  "hobbyists",
  "people who know another language",
  "data analysts",
  "teachers",
  "engineers",
  "self-taught programmers",
  "students of economics",
  "musicians",
  "librarians",
)
FOR = {
  "beginners": "If you are new to Python, take your time with this one.",
  "school pupils": "You can do this with what you know from mathematics lessons.",
  "students of biology": "In the lab, lists of readings are handled in just this way.",
  "office workers": "Anyone who keeps a spreadsheet has met this task before.",
  "hobbyists": "Small projects are full of tasks like this one.",
  "people who know another language": "The idea is the same in every language.",
  "data analysts": "This pattern is the daily bread of data analysis.",
  "teachers": "A class can act this out with cards before anyone writes code.",
  "engineers": "Measured values rarely come in the form one needs.",
  "self-taught programmers": "You may have written this before without naming it.",
  "students of economics": "Tables of prices and amounts call for such functions.",
  "musicians": "Think of it as picking notes from a score and playing them changed.",
  "librarians": "It resembles going along a shelf and noting some of the books.",
}
_OPENINGS = {
  "filtering": (
    "To filter means to keep some elements and leave out the rest. A test decides "
    "about each element, one at a time.",
    "Often only a part of the data matters. A condition tells which part.",
    "A filter asks the same question of every element and keeps those that answer yes.",
  ),
  "mapping": (
    "To map means to make a new value from each element by the same rule.",
    "When every element is to be changed in the same way, one rule is enough.",
    "Applying one expression to all elements in turn is called mapping.",
  ),
  "filter and map": (
    "Two steps come up again and again: choose some elements, then change them.",
    "First we decide which elements count; then we compute something from each.",
    "A test and a rule, in this order, solve a surprising number of tasks.",
  ),
  "map, then filter": (
    "Sometimes the test is not about an element, but about what becomes of it. Then "
    "the change comes first.",
    "Order matters: here we compute first and choose afterwards.",
    "A value may have to be changed before one can tell whether it is wanted.",
  ),
  "two conditions": (
    "An element may have to pass more than one test. The word `and` joins conditions.",
    "Conditions can be combined: with `and`, both of them must hold.",
  ),
}
_TITLES = {
  "filtering": (
    "Choosing {many}",
    "Filtering {many}",
    "Which {many} count?",
    "Keeping some {many}",
    "A test for each {one}",
  ),
  "mapping": (
    "Changing all {many}",
    "One rule for all {many}",
    "Mapping over {many}",
    "From each {one} a new value",
  ),
  "filter and map": (
    "Choose, then change",
    "Filtering and mapping {many}",
    "Some {many}, changed",
    "A test and a rule for {many}",
  ),
  "map, then filter": (
    "Compute first, choose later",
    "Testing the results",
    "Change the {many}, then choose",
  ),
  "two conditions": (
    "Two tests for one {one}",
    "Combining conditions",
    "{Many} that pass two tests",
  ),
}
_AGGREGATES = {
  "sum": (
    "A sum starts at 0, and each value is added to it; `sum` does this for us.",
    "The sum of nothing is 0, which is why a total starts there.",
  ),
  "product": (
    "A product starts at 1, because multiplying by 1 changes nothing.",
    "The product of no values is 1, just as their sum is 0.",
  ),
  "count": (
    "To count, we add 1 for each value that is there.",
    "Counting does not look at a value, only at whether there is one.",
  ),
  "largest": (
    "To find the largest value, remember the best so far. What if there is "
    "none at all? The docstring has to say.",
    "`max` fails for an empty sequence unless it is given a default.",
  ),
  "smallest": (
    "The smallest value is the one that no other is below. With no values "
    "there is none, so the docstring names a substitute.",
    "`min` takes a default for the case that there is nothing.",
  ),
  "list": (
    "The results are collected in a new list; the old one stays as it was.",
    "A new list is built, and its order is that of the elements.",
  ),
  "set": (
    "A set holds each value once and has no order.",
    "Duplicates vanish when values are put into a set.",
  ),
  "average": (
    "An average is a sum divided by a count, and one must not divide by zero.",
    "Before dividing by the number of values, check that there are any.",
  ),
  "counts": (
    "A dictionary can hold a counter for each value: its key is the value.",
    "`get(key, 0)` treats a key that is not there yet as if it had 0.",
  ),
  "running": (
    "A running total is noted after every addition, not only at the end.",
    "Each entry of the result is the sum of all values up to this place.",
  ),
}
_ANY_AGGREGATE = (
  "What remains is to say what is made of the values: here, {short}.",
  "At the end the function returns {short}.",
  "The last step turns the values into {short}.",
)
TRACES = (
  "Let us follow `{values}` through the function:",
  "What happens for `{values}`?",
  "Take `{values}` as an input and look at the elements one by one:",
  "A trace for `{values}`:",
)
_FEATURES = (
  (
    "continue",
    (
      "`continue` skips the rest of the loop's body for this element.",
      "With `continue` the loop goes on with the next element at once.",
    ),
  ),
  (
    r"\n        +if ",
    (
      "Inside the loop, an `if` guards what is done.",
      "The indented lines after `if` run only when the condition holds.",
    ),
  ),
  (
    r"append\(",
    (
      "`append` puts one more value at the end of the list.",
      "The list grows by one with each call of `append`.",
    ),
  ),
  (r"\+=", ("`+=` adds to what the variable holds already.",)),
  (
    r"[\[(].* for ",
    (
      "The words `for ... in` inside the brackets make a comprehension: it reads "
      "like the sentence it stands for.",
      "A comprehension says in one line what a loop says in three or four.",
    ),
  ),
  (r"\.get\(", ("`get` with a second argument avoids an error for a new key.",)),
  (r"sorted\(", ("`sorted` returns a new list and leaves the old one alone.",)),
  ("lambda", ("`lambda` writes a small function without a name.",)),
  (r"\belse\b", ("The part after `else` covers every other case.",)),
  ("return", ("The function ends at the first `return` that it meets.",)),
)
_CLOSINGS = (
  "Try it: change the condition or the constant, and predict the output before you run "
  "the code.",
  "As an exercise, write the same function in another style: with a loop if it uses a "
  "comprehension, or the other way round.",
  "A good habit: call a new function with an empty input, a short one and a long one.",
  "Question: what does the function return when no element is left? Find the words of "
  "the docstring, or the line of code, that decide it.",
  "Note that the function does not change its argument. The caller can still use it.",
  "Remember: a docstring says what is returned; the body says how.",
  "Once it works, read it aloud. Code that can be read aloud is easy to check.",
  "Exercise: write two more `assert` lines for this function, one of them for an "
  "unusual input.",
)
_IDIOM_FILTERS = (
  "How do we test whether a {noun} `x` {verb}? In Python the condition is `{code}`.",
  "A {noun} `x` {verb} exactly when `{code}` is true.",
  "The condition `{code}` is true if the {noun} `x` {verb}, and false otherwise.",
  "For a {noun} `x`, the expression `{code}` tells whether it {verb}.",
)
_IDIOM_MAPS = (
  "To {does}, write `{code}`.",
  "The expression `{code}` gives {its}.",
  "In Python, {its} is written `{code}`.",
)


def topic(task: Plan) -> str:
  """What a section about a plan is about."""
  return {
    "F": "filtering",
    "M": "mapping",
    "FM": "filter and map",
    "MF": "map, then filter",
  }.get(task.chain, "two conditions")


def title(rng: random.Random, task: Plan, topic: str) -> str:
  """A heading."""
  noun = task.setting.noun
  template = pick(rng, _TITLES[topic])
  return template.format(one=noun.one, many=noun.many, Many=english.capital(noun.many))


def opening(rng: random.Random, task: Plan, topic: str, audience: str) -> str:
  """The first paragraph."""
  sentences = [pick(rng, _OPENINGS[topic])]
  if chance(rng, 0.6):
    sentences.insert(int(chance(rng, 0.5)), FOR[audience])
  given = task.setting.given.replace("{a}", "").replace("{b}", "").split(",")[0].strip()
  sentences.append(pick(rng, _GIVEN).format(given=given, many=task.setting.noun.many))
  return " ".join(sentences)


_GIVEN = (
  "In this section the data is {given}.",
  "We practise it on {given}.",
  "Our example works on {given}.",
  "Here the {many} come from {given}.",
)


def idiom(rng: random.Random, stage: Bound, noun: str, code: str) -> str:
  """What a part means and how it is written."""
  if stage.part.role == "filter":
    verb = english.singular(stage.say(rng, "verbs"))
    text = pick(rng, _IDIOM_FILTERS).format(noun=noun, verb=verb, code=code)
  else:
    subject = f"the {noun} `x`"
    text = pick(rng, _IDIOM_MAPS).format(
      does=stage.say(rng, "does", subject),
      its=stage.say(rng, "its", subject),
      code=code,
    )
  return english.capital(text)


def aggregate(rng: random.Random, task: Plan) -> str:
  """What is made of the values in the end."""
  known = _AGGREGATES.get(task.aggregate.id)
  if known and chance(rng, 0.75):
    return pick(rng, known)
  short = task.aggregate.say(rng, "short")
  return pick(rng, _ANY_AGGREGATE).format(short=short)


def reading(rng: random.Random, exercise: Exercise, count: int = 2) -> str:
  """At most `count` notes on what the body uses."""
  notes = [
    pick(rng, texts) for mark, texts in _FEATURES if re.search(mark, exercise.body)
  ]
  return " ".join(notes[:count])


def closing(rng: random.Random) -> str:
  """The last paragraph."""
  return pick(rng, _CLOSINGS)
