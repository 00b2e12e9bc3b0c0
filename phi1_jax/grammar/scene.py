"""Scene: the choices of an exercise, and how places become English or Python."""

from __future__ import annotations

import bisect
import dataclasses
import functools
import itertools
import random
import re
from collections.abc import Sequence
from typing import Any

from phi1_jax.grammar.rows import Kind, Part, Tables, Task, cumulated, usable, words_of
from phi1_jax.grammar.templates import fill, parsed

# How arguments are mentioned, with cumulated weights.
STYLES = (("name", "tick", "noun name", "the", "a"), (50, 56, 70, 82, 100))
# How often chains of 0 to 3 parts are drawn: those of several parts have more to teach.
CHAINS = (1.0, 1.0, 4.0, 7.0)
TOPICAL = 0.35  # share of the arguments that are about a topic, where one suits
INVENTED = 0.15  # share of the topics that no table lists
_PIECES = re.compile("[A-Za-z0-9]+")
_PLURAL = {"is": "are", "has": "have", "does": "do"}


def choose(rng: random.Random, options: Sequence[Any], upto: Sequence[float]) -> Any:
  """Return an option; the weights are given as cumulated sums."""
  return options[min(bisect.bisect(upto, rng.random() * upto[-1]), len(upto) - 1)]


def pick(rng: random.Random, options: Sequence[Any]) -> Any:
  """Return an option; all are equally likely."""
  return options[int(rng.random() * len(options))]


@dataclasses.dataclass(frozen=True)
class Bound:
  """A part with its constants.

  Attributes:
    part: the row.
    subject: label of the argument or part that it is about; "" in a chain.
    each: whether it is about each item of the argument.
    constants: name -> value.
  """

  part: Part
  subject: str
  each: bool
  constants: dict[str, Any]


def negated(clause: str) -> str:
  """Return a predicate's negation: "is even" -> "is not even"."""
  verb, _, rest = clause.partition(" ")
  if verb == "is":
    return f"is not {rest}"
  return f"does not {'have' if verb == 'has' else verb.removesuffix('s')} {rest}"


def plural(clause: str) -> str:
  """Return a predicate for several: "is even" -> "are even".

  >>> plural("is a multiple of 3")
  'are multiples of 3'
  """
  if match := re.match(r"is an? ([\w-]+(?: letter| number)?)", clause):
    return f"are {match[1]}s{clause[match.end() :]}"
  verb, _, rest = clause.partition(" ")
  return f"{_PLURAL.get(verb) or verb.removesuffix('s')} {rest}"


def article(noun: str) -> str:
  """Return a noun with "a" or "an"."""
  return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def invented(rng: random.Random) -> str:
  """Return a word that means nothing, such as "rolin": it has to be copied."""
  syllables = [
    pick(rng, "bcdfghjklmnprstvw") + pick(rng, "aeiou")
    for _ in range(2 + (rng.random() < 0.4))
  ]
  return "".join(syllables) + (pick(rng, "bdgklmnprst") if rng.random() < 0.6 else "")


def _named(word: str, suffix: str, *prefixes: str) -> tuple[str, ...]:
  return (word + suffix, *(prefix + word for prefix in prefixes))


class Scene:
  """The choices of an exercise: kinds, names, parts and constants.

  Args:
    rng: makes the choices.
    tables: the rows.
    task: the row of the task.
  """

  def __init__(self, rng: random.Random, tables: Tables, task: Task):
    self.rng, self.tables, self.task = rng, tables, task
    self.kinds = {
      label: self._about(self._kind(ids), own) for label, ids, own in task.args
    }
    self.constants = {name: pick(rng, values) for name, values in task.let}
    self.chain: list[Bound] = []
    self.item: Kind | None = None  # of the chain's results
    if task.chain:
      self._draw_chain(self.kinds[task.chain])
    self.bound: dict[str, Bound] = {}
    for label, role, subject, each in task.parts:
      self.bound[label] = self._bind(
        role, self._subject_kind(subject, each), subject, each
      )

  def _kind(self, ids: Sequence[str]) -> Kind:
    kinds = [self.tables.kinds[id] for id in ids]
    return kinds[0] if len(kinds) == 1 else choose(self.rng, kinds, cumulated(kinds))

  def _about(self, kind: Kind, own: tuple[str, ...]) -> Kind:
    """Return a kind, now and then about a topic, such as prices."""
    rng = self.rng
    if own or not kind.topics or rng.random() >= TOPICAL:
      return kind
    topic = pick(rng, kind.topics)
    word = pick(rng, self.tables.topics[topic])
    if rng.random() < INVENTED:
      word = invented(rng) + "s" * (topic in ("numbers", "strings", "counted"))
    if word in words_of(self.task.bodies) or not usable(word):
      return kind
    said = word.replace("_", " ")
    if kind.item and kind.type != "str":
      container = kind.type.partition("[")[0]
      return dataclasses.replace(
        kind,
        given=(f"{article(container)} of {said}",),
        noun=(container, f"{container} of {said}"),
        items=(said,),
        names=(word, word, word, *_named(word, "_list", "list_of_", "all_")),
      )
    if topic == "counted":
      said, names = f"number of {said}", _named(word, "", "num_", "number_of_")
    else:
      names = (word, word, word, *_named(word, "_value", "the_", "current_"))
    return dataclasses.replace(
      kind, given=(article(said),), noun=(said,), names=(word, *names)
    )

  def _subject_kind(self, subject: str, each: bool) -> str:
    if subject in self.bound:
      return self.bound[subject].part.out
    kind = self.kinds[subject]
    return kind.item if each else kind.id

  def _bind(self, role: str, kind: str, subject: str = "", each: bool = False) -> Bound:
    """Draw a part for a kind of value."""
    part = choose(self.rng, *self.tables.parts[role, self.tables.kinds[kind].like])
    constants = {name: pick(self.rng, values) for name, values in part.let}
    return Bound(part, subject, each, constants)

  def _draw_chain(self, source: Kind) -> None:
    shapes = self.task.shapes
    upto = list(itertools.accumulate(CHAINS[len(shape.strip("-"))] for shape in shapes))
    shape = choose(self.rng, shapes, upto)
    kind = source.item
    for letter in shape.strip("-"):
      bound = self._bind("filter" if letter == "F" else "map", kind)
      self.chain.append(bound)
      kind = bound.part.out
    self.item = self.tables.kinds[kind]

  @functools.cached_property
  def composition(self) -> tuple[str, ...]:
    """What is computed, without constants."""
    parts = [bound.part.id for bound in self.bound.values()]
    if self.task.chain:
      source = self.kinds[self.task.chain].id
      return (source, *(b.part.id for b in self.chain), *parts, self.task.id)
    return (self.task.id, *parts) if parts else ("task", self.task.id)

  def sensible(self) -> bool:
    """Return whether no part occurs twice, and each suits the source."""
    if self.item and self.task.gives and self.item.id not in self.task.gives:
      return False
    if self.returns is None:
      return False
    ids = [b.part.id for b in (*self.chain, *self.bound.values())]
    bad = {name for kind in self.kinds.values() for name in kind.without}
    return len(set(ids)) == len(ids) and not any(
      id.partition(":")[2] in bad for id in ids
    )

  @functools.cached_property
  def returns(self) -> str | None:
    """The type of the result; None where the parts would give different ones."""
    kinds = self.tables.kinds

    def type_of(name: str, mode: str) -> str:
      if name == "item" and self.item:
        return self.item.type
      if name in self.bound:
        return kinds[self.bound[name].part.out].type
      kind = self.kinds[name]
      return kinds[kind.item].type if mode == "item" else kind.type

    text = self.task.returns
    if "$" not in text:
      return text
    if not text.startswith("$") or " | " in text:
      return fill(parsed(text), type_of)
    found = {fill(parsed(each), type_of) for each in text.split()}
    return found.pop() if len(found) == 1 else None

  # Names.

  def name_arguments(self, taken: str) -> bool:
    """Choose names of arguments; return False if they collide."""
    words = words_of(self.task.bodies)
    self.names: dict[str, str] = {}
    for label, _, own in self.task.args:
      names = own or self.kinds[label].names
      others, share = self.tables.names
      if self.rng.random() < share:
        point = self.rng.random()
        name = pick(self.rng, others) if point < 0.7 else invented(self.rng)
        if point < 0.25:
          name += f"_{pick(self.rng, others)}"
      else:
        name = names[int(self.rng.random() ** 1.5 * len(names))]
      if name in words or name == taken or name in self.names.values():
        name = label
      if name in self.names.values() or not usable(name) or name == taken:
        return False
      self.names[label] = name
    return True

  def function_name(self, template) -> str:
    """Return a name of the function."""
    text = fill(template, self._piece)
    pieces = _PIECES.findall(text)
    return "_".join(
      p for p, before in zip(pieces, ["", *pieces], strict=False) if p != before
    )

  def _piece(self, name: str, mode: str) -> str:
    rng = self.rng
    if name == "items":
      names = [self._part_name(b) for b in reversed(self.chain)]
      if not self.chain or rng.random() < 0.5:
        names.append(pick(rng, self.kinds[self.task.chain].items))
      return "_".join(names)
    if name in self.bound:
      return self._part_name(self.bound[name])
    if name in self.kinds:
      kind = self.kinds[name]
      return pick(rng, kind.items if mode == "items" and kind.items else kind.noun)
    return str(self.constants[name]).replace("-", "minus_")

  def _part_name(self, bound: Bound) -> str:
    template = parsed(pick(self.rng, bound.part.name))
    return fill(template, lambda name, _: str(bound.constants[name]))

  # English.

  def speak(self, given: bool) -> None:
    """Choose how the arguments are mentioned in the docstring.

    Args:
      given: whether the sentence introduces them first.
    """
    rng = self.rng
    self.nouns = {label: pick(rng, kind.noun) for label, kind in self.kinds.items()}
    self.plurals = {k: pick(rng, v.items) for k, v in self.kinds.items() if v.items}
    self.mentioned: set[str] = set()
    style = choose(rng, *STYLES)
    if len(set(self.nouns.values())) < len(self.nouns) and style != "tick":
      style = "name"
    self.style = "the" if given and style == "a" else style
    self.introduced = given

  def given(self) -> str:
    """Return the phrase that introduces the arguments."""
    phrases = []
    for label, kind in self.kinds.items():
      phrase = pick(self.rng, kind.given)
      if self.style != "the":
        tick = "`" if self.style == "tick" else ""
        phrase += f" {tick}{self.names[label]}{tick}"
      phrases.append(phrase)
    self.mentioned.update(self.kinds)
    if len(phrases) > 2:
      phrases = [", ".join(phrases[:-1]), phrases[-1]]
    return " and ".join(phrases)

  def text(self, name: str, mode: str) -> str:
    """Return the English of a place."""
    if name == "items":
      return self._items(mode)
    if name in self.bound:
      return self._part_text(self.bound[name], mode)
    if name in self.kinds:
      return self._mention(name, mode)
    value = self.constants[name]
    return str(value) if mode == "plain" else _spoken(value)

  def _mention(self, label: str, mode: str) -> str:
    kind, name = self.kinds[label], self.names[label]
    noun = self.nouns[label]
    if mode == "name":
      return name
    if mode == "noun":
      return noun
    if mode == "given":
      return pick(self.rng, kind.given)
    if mode == "items":
      return self.plurals[label]
    if mode == "item":
      return self.plurals[label].removesuffix("s")
    if mode == "where":
      return fill(pick(self.rng, kind.where), lambda *_: self._mention(label, ""))
    first = label not in self.mentioned
    self.mentioned.add(label)
    if self.style == "name":
      return name
    if self.style == "tick":
      return f"`{name}`"
    if self.style == "noun name":
      return f"the {noun} {name}" if first else name
    if self.style == "the" or not first:
      return (
        pick(self.rng, ("the ", "the given ", "the "))[: 4 if not first else 10] + noun
      )
    if kind.item and self.rng.random() < 0.5:
      return pick(self.rng, kind.given)
    return article(noun) if self.rng.random() < 0.8 else f"a given {noun}"

  def _items(self, mode: str) -> str:
    """Return the chain's items as a noun phrase.

    Modes: "" with an article and the place ("the even numbers in xs"), "bare" without
    the article, "what" only the items, "where" only the place.
    """
    rng, label = self.rng, self.task.chain
    kind, noun = self.kinds[label], self.plurals[label]
    if mode == "where":
      return self._mention(label, "where")
    filters = [b for b in self.chain if b.part.id.startswith("filter")]
    before, after = [], []
    for bound in filters:
      adjective = bound.part.adj and (not before or not bound.part.post)
      if adjective and (not bound.part.post or rng.random() < 0.75):
        before.append(self._filled(pick(rng, bound.part.adj), bound))
      else:
        options = bound.part.post
        if not options or rng.random() < 0.3:
          options = [f"that {plural(c)}" for c in bound.part.clause]
        after.append(self._filled(pick(rng, options), bound))
    what = " ".join([*before, noun])
    tail = " and ".join(after)
    if mode == "what":
      return f"{what} {tail}".strip()
    if not self.chain and mode == "" and kind.each == "$x" and rng.random() < 0.35:
      return self._mention(label, "")
    where = self._mention(label, "where")
    first = rng.random() < 0.5 or where.startswith("of ")
    ends = [where, tail] if first else [tail, where]
    phrase = " ".join([what, *filter(None, ends)])
    if mode != "bare":
      phrase = f"{pick(rng, ('the', 'the', 'the', 'all', 'all the'))} {phrase}"
    for bound in self.chain:
      if bound.part.id.startswith("map"):
        phrase = self._filled(pick(rng, bound.part.plural), bound, phrase)
    return phrase

  def _filled(self, text: str, bound: Bound, x: str = "") -> str:
    return fill(
      parsed(text),
      lambda name, mode: (
        x
        if name == "x"
        else (str if mode == "plain" else _spoken)(bound.constants[name])
      ),
    )

  def _part_text(self, bound: Bound, mode: str) -> str:
    rng, part = self.rng, bound.part
    if part.id.startswith("filter"):
      clause = self._filled(pick(rng, part.clause), bound)
      if mode == "is":
        return clause
      if mode == "are":
        return plural(clause)
      if mode == "not":
        return f"{self._subject(bound)} {negated(clause)}"
      if mode == "it":
        return f"it {clause}"
      if mode == "what":
        noun = self.plurals[bound.subject]
        if part.adj and (not part.post or rng.random() < 0.75):
          return f"{self._filled(pick(rng, part.adj), bound)} {noun}"
        options = part.post or [f"that {plural(c)}" for c in part.clause]
        return f"{noun} {self._filled(pick(rng, options), bound)}"
      return f"{self._subject(bound)} {clause}"
    if mode == "do":
      return self._filled(pick(rng, part.do), bound, self._subject(bound))
    if mode == "it":
      return self._filled(pick(rng, part.of), bound, "it")
    if mode == "its":
      return self._its(bound)
    if mode == "plural":
      where = self._mention(bound.subject, "where")
      items = f"the {self.plurals[bound.subject]} {where}"
      return self._filled(pick(rng, part.plural), bound, items)
    return self._filled(pick(rng, part.of), bound, self._subject(bound))

  def _its(self, bound: Bound) -> str:
    """Return "its length" for "the length of $x", "the word reversed" for others."""
    own = [
      of for of in bound.part.of if of.startswith("the ") and of.endswith(" of $x")
    ]
    if own:
      of = pick(self.rng, own).removeprefix("the ").removesuffix(" of $x")
      return self._filled(f"its {of}", bound)
    item = self.plurals[bound.subject].removesuffix("s")
    return self._filled(pick(self.rng, bound.part.of), bound, f"the {item}")

  def _subject(self, bound: Bound) -> str:
    if bound.subject in self.bound:
      return "the result"
    if bound.each:
      item = self.plurals[bound.subject].removesuffix("s")
      each = pick(self.rng, ("each", "each", "every"))
      return f"{each} {item} {self._mention(bound.subject, 'where')}"
    return self._mention(bound.subject, "")


def _spoken(value: Any) -> str:
  return f"'{value}'" if isinstance(value, str) else str(value)
