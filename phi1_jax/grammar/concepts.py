"""Textbook sections about a concept: what it is for, and two functions that use it."""

import dataclasses
import random
from collections.abc import Callable

from phi1_jax.grammar import (
  cases,
  given_helpers,
  orders,
  recursions,
  repeats,
  scalars,
  searches,
  section_texts,
  specials,
  tables,
)
from phi1_jax.grammar.draft import Draft
from phi1_jax.grammar.draws import chance, pick, several
from phi1_jax.grammar.exercise import Exercise
from phi1_jax.grammar.finish import finish
from phi1_jax.grammar.reserve import Gate
from phi1_jax.grammar.section import Section, fenced, shown

_TRIES = 400


@dataclasses.dataclass(frozen=True)
class Concept:
  """What a section can be about.

  Attributes:
    topic: its name.
    titles: headings.
    openings: what it is, and what it is for.
    notes: what to look at in the code.
    families: make the functions of the section.
  """

  topic: str
  titles: tuple[str, ...]
  openings: tuple[str, ...]
  notes: tuple[str, ...]
  families: tuple[Callable[[random.Random, Gate], Draft | None], ...]


TABLE = (
  Concept(
    "conditions",
    ("If, or else", "Two cases", "A decision", "What `if` is for", "Choosing a result"),
    (
      "Many functions have to decide. A condition is either true or false, and the "
      "result depends on which.",
      "The statement `if` runs its lines only when a condition holds. What comes after "
      "`else` is for the other case.",
      "A function with two cases is best read as a sentence: if this, then that, "
      "otherwise something else.",
    ),
    (
      "Since `return` ends the function, no `else` is needed after it.",
      "Both cases return something. A case that is forgotten would return None.",
      "A conditional expression, `a if test else b`, puts both cases on one line.",
      "The condition is tested once, before either result is computed.",
    ),
    (scalars.conditional, cases.two_numbers),
  ),
  Concept(
    "labels",
    (
      "More than two cases",
      "One label of three",
      "The order of tests",
      "Sorting into kinds",
    ),
    (
      "Where there are three or more cases, tests follow one another, and the first "
      "that succeeds decides.",
      "To classify a value is to give it one of a few names. The tests are made in a "
      "fixed order.",
      "A chain of conditions is like a row of doors: one goes through the first that "
      "is open.",
    ),
    (
      "A value may pass both tests. The first one decides, so their order matters.",
      "The last line is reached only if all tests have failed.",
      "Try to exchange the two tests: for which inputs does the answer change?",
    ),
    (cases.label,),
  ),
  Concept(
    "chains of steps",
    (
      "One step after another",
      "The output becomes the input",
      "Small steps",
      "A chain",
    ),
    (
      "A computation can be cut into steps, each of which works on the result of the "
      "one before.",
      "Complicated expressions are hard to read. With a name for each intermediate "
      "result they become a list of simple steps.",
      "What comes out of one step goes into the next. The order of the steps matters.",
    ),
    (
      "Exchange two of the steps, and in most cases the answer is another one.",
      "An intermediate value has a name, so it can be printed when something goes "
      "wrong.",
      "Each line can be checked by itself with pencil and paper.",
    ),
    (scalars.chain,),
  ),
  Concept(
    "true or false",
    ("Functions that answer yes or no", "And, or, not", "Questions about a value"),
    (
      "A function may answer a question with True or False. Such functions often begin "
      "with `is` or `has`.",
      "With `and` both conditions must hold; with `or` one of them is enough.",
      "A comparison such as `x > 3` has a value itself: True or False. It can be "
      "returned as it is.",
    ),
    (
      "There is no need to write `if test: return True`; `return test` says the same.",
      "`or` also holds if both sides do.",
      "Python looks at the second condition only if the first one has not decided.",
    ),
    (scalars.check, searches.quantifier),
  ),
  Concept(
    "early return",
    (
      "Stop when you know",
      "Searching a list",
      "The first that fits",
      "Returning early",
    ),
    (
      "A search can stop as soon as it has found something. A `return` inside the loop "
      "does just that.",
      "To find the first element that fits, look at them in turn and return at once.",
      "If the loop ends and nothing was found, the line after it says what to return "
      "then.",
    ),
    (
      "What is returned in the loop belongs to one case, what is returned after it to "
      "the other.",
      "An index counts from 0, so the first element has index 0.",
      "A frequent mistake is to put the last `return` inside the loop: then only the "
      "first element is ever looked at.",
    ),
    (searches.position, searches.quantifier, searches.stretch),
  ),
  Concept(
    "sorting",
    (
      "In what order?",
      "Sorting by a key",
      "Keys for sorting",
      "Putting things in order",
    ),
    (
      "`sorted` compares elements. With a key function it compares what that function "
      "makes of them instead.",
      "Words can be sorted by length, numbers by their last digit: the key says what "
      "counts.",
      "A sorted list has the same elements as before, in another order.",
    ),
    (
      "Elements with equal keys keep their order; Python's sort is stable.",
      "`reverse=True` turns the order around, largest first.",
      "`sorted` makes a new list. The method `sort` changes a list in place.",
      "The key is computed once for each element.",
    ),
    (orders.sort,),
  ),
  Concept(
    "grouping",
    ("Groups in a dictionary", "Collecting by a key", "One entry for each group"),
    (
      "To group elements, compute a key for each, and keep in a dictionary what "
      "belongs to that key.",
      "Elements that share a property go into the same group. The property becomes "
      "the key.",
      "A dictionary can hold a list, a count or a sum for every group.",
    ),
    (
      "The first time a key comes up, it has no entry yet. The code must provide for "
      "that.",
      "`get` with a default and `setdefault` both deal with keys that are not there "
      "yet.",
      "The groups appear in the order in which their keys were met.",
    ),
    (orders.group,),
  ),
  Concept(
    "dictionaries",
    (
      "Keys and values",
      "Choosing entries",
      "Working with dictionaries",
      "Tables of values",
    ),
    (
      "A dictionary stores a value for each key. `items()` gives both at once in a "
      "loop.",
      "Entries are chosen by looking at the key, at the value, or at both.",
      "From one dictionary another can be built, entry by entry.",
    ),
    (
      "The old dictionary is not changed; a new one is returned.",
      "A key occurs at most once. Assigning to it again replaces its value.",
      "In a loop over `items()`, two variables take the key and the value.",
    ),
    (tables.entries, tables.keys),
  ),
  Concept(
    "merging",
    ("Two dictionaries become one", "When both have the key", "Joining tables"),
    (
      "When two dictionaries are merged, a key may be in both. A rule must say what "
      "happens then.",
      "Two tables with the same kind of keys can be joined into one.",
    ),
    (
      "Copy the first dictionary before adding to it, so that the caller's stays as "
      "it was.",
      "Test the rule with a key that only one side has, and with one that both have.",
    ),
    (tables.merge,),
  ),
  Concept(
    "while loops",
    ("Until it is enough", "As long as", "Loops without a count", "Again and again"),
    (
      "A `while` loop repeats as long as its condition holds. Nobody needs to know in "
      "advance how often.",
      "Use `while` when the number of rounds depends on what happens in them.",
      "Before each round the condition is tested; if it fails, the loop is over.",
    ),
    (
      "Something in the loop must bring its end nearer, or it runs for ever.",
      "If the condition fails at the very start, the body is not run at all.",
      "When the loop has ended, the opposite of its condition is true.",
    ),
    (repeats.until,),
  ),
  Concept(
    "repeating",
    (
      "So many times",
      "Rounds",
      "A loop with a counter",
      "The same step in every round",
    ),
    (
      "To do something a fixed number of times, loop over a `range`.",
      "The variable of a loop that only counts is often called `_`: nobody looks at "
      "it.",
      "In each round the value is replaced by a new one, which the next round starts "
      "from.",
    ),
    (
      "With zero rounds nothing happens, and the value that was given is returned.",
      "Write down the value after each round, and the pattern becomes clear.",
    ),
    (repeats.times,),
  ),
  Concept(
    "recursion",
    (
      "A function that calls itself",
      "One step, and the rest",
      "Recursion",
      "The base case",
    ),
    (
      "A recursive function solves a small part and leaves the rest to itself.",
      "Every recursion needs a case that is answered directly. All others lead "
      "towards it.",
      "To do something with a list, do it with the first element, and call yourself "
      "for the others.",
    ),
    (
      "Find the line without a call of the function: it ends the recursion.",
      "The argument of the inner call must be smaller, or the calls never end.",
      "Believe that the call for the rest is right, and check one step only.",
    ),
    (recursions.over_list, recursions.nested, recursions.downwards),
  ),
  Concept(
    "helper functions",
    (
      "Functions that use functions",
      "A helper",
      "One task, two functions",
      "Naming a test",
    ),
    (
      "A part of the work that has a name of its own deserves a function of its own.",
      "Large functions become readable when small ones do parts of the work.",
      "A helper can be tested by itself before anything is built on it.",
    ),
    (
      "The second function does not repeat how the first one works. It only calls it.",
      "If the rule changes, only the helper has to be rewritten.",
      "The names of both functions say what they do, not how.",
    ),
    (given_helpers.helper,),
  ),
  Concept(
    "classic tasks",
    (
      "A small classic",
      "Try it before you read it",
      "A task with a twist",
      "Worth knowing",
    ),
    (
      "Some tasks come up so often that it pays to have solved them once.",
      "Read the docstring, close the book, write your own solution, and compare.",
      "There is more than one way to do this. Here is one that is easy to check.",
    ),
    (
      "Ask what happens with an empty input before you trust a function.",
      "Follow one call by hand, line by line, and note every variable.",
      "Shorter is not always clearer. Could a friend read this code?",
    ),
    (specials.draft,),
  ),
)


def section(rng: random.Random, gate: Gate) -> Section:
  """A section about one of the concepts."""
  concept = pick(rng, TABLE)
  audience = pick(rng, section_texts.AUDIENCES)
  family = pick(rng, concept.families)
  count = 2 if chance(rng, 0.7) else 1
  examples = [_example(rng, gate, family) for _ in range(count)]
  notes = several(rng, concept.notes, count + 1)
  opening = [*several(rng, concept.openings, 1 if chance(rng, 0.4) else 2)]
  if chance(rng, 0.5):
    opening.append(section_texts.FOR[audience])
  blocks = [" ".join(opening)]
  for number, (exercise, code) in enumerate(examples, 1):
    lead = pick(rng, _FIRST if number == 1 else _NEXT).format(name=exercise.name)
    blocks += [f"**Example {number}.** {lead}", fenced(code), notes.pop()]
    reading = section_texts.reading(rng, exercise, 1)
    if reading and chance(rng, 0.5):
      blocks[-1] += f" {reading}"
  blocks.append(
    notes.pop() if notes and chance(rng, 0.3) else section_texts.closing(rng)
  )
  title = pick(rng, concept.titles)
  text = "\n\n".join([f"## {title}", *blocks]) + "\n"
  return Section(title, concept.topic, audience, text, tuple(c for _, c in examples))


_FIRST = (
  "Look at `{name}`.",
  "The function `{name}` shows it.",
  "Read `{name}` and its docstring.",
  "We begin with `{name}`.",
  "This is done by `{name}`:",
)
_NEXT = (
  "The same idea again, in `{name}`.",
  "Now compare it with `{name}`.",
  "Another function of this kind is `{name}`.",
  "`{name}` goes the same way.",
)


def _example(
  rng: random.Random, gate: Gate, family: Callable[[random.Random, Gate], Draft | None]
) -> tuple[Exercise, str]:
  """An exercise of a family, and code that shows it at work."""
  for _ in range(_TRIES):
    draft = family(rng, gate)
    exercise = draft and finish(draft, rng, gate)
    code = exercise and shown(exercise, 3)
    if exercise and code:
      return exercise, code
  raise RuntimeError(f"no example for a section in {_TRIES} draws")
