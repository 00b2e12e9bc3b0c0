"""A plan in English: the pieces that the wordings of pipelines are made of."""

import random

from phi1_jax.grammar import english, words
from phi1_jax.grammar.draws import chance, pick
from phi1_jax.grammar.parts import Bound, negative
from phi1_jax.grammar.plan import Plan

_IMPERATIVES = ("Return", "Compute", "Calculate", "Determine", "Find", "Work out")
_COLLECTING = ("Return", "Build", "Create", "Produce", "Construct", "Make")


class Phrases:
  """Looks up pieces by name, as `str.format_map` asks for them.

  Args:
    plan: what is to be said.
    rng: chooses among synonyms.
  """

  def __init__(self, plan: Plan, rng: random.Random):
    self.plan, self.rng = plan, rng
    quote = "`" if chance(rng, 0.35) else ""
    self.arguments = [f"{quote}{a.name}{quote}" for a in plan.setting.arguments]
    self.filters = [s for s in plan.stages if s.part.role == "filter"]
    self.maps = [s for s in plan.stages if s.part.role == "map"]
    self._nameless = bool(plan.setting.holder) and chance(rng, 0.2)
    self.where = self._place(pick(rng, plan.setting.where))

  def __getitem__(self, name: str) -> str:
    if name.startswith("Cap_"):
      return english.capital(self[name[4:]])
    value = getattr(self, name)
    return value if isinstance(value, str) else value()

  # The arguments.

  def _place(self, template: str) -> str:
    names = dict(zip("ab", self.arguments, strict=False))
    if self._nameless:
      names["a"] = pick(self.rng, ("the {}", "the given {}", "a {}")).format(
        self.plan.setting.holder
      )
    return template.format(**names)

  def arg(self) -> str:
    """The first argument: "`values`" or "the list"."""
    return self._place("{a}")

  def given(self) -> str:
    """ "a list of integers `values`"."""
    names = dict(zip("ab", self.arguments, strict=False))
    return self.plan.setting.given.format(**names)

  def holder(self) -> str:
    """Somebody who could want this, for stories."""
    return pick(self.rng, words.HOLDERS)

  # The elements.

  def one(self) -> str:
    """What one element is called."""
    return self.plan.setting.noun.one

  def a_one(self) -> str:
    """One element with its article."""
    return english.article(self.one())

  def many(self) -> str:
    """What the elements are called."""
    return self.plan.setting.noun.many

  def is_(self) -> str:
    """ "is even", "is even and is greater than 5"."""
    return " and ".join(
      english.singular(f.say(self.rng, "verbs")) for f in self.filters
    )

  def are(self) -> str:
    """ "are even"."""
    return english.both(
      [english.plural(f.say(self.rng, "verbs")) for f in self.filters]
    )

  def is_not(self) -> str:
    """ "is not even"; for one filter."""
    return negative(self.rng, self.filters[0])

  def are_not(self) -> str:
    """ "are not even"; for one filter."""
    return negative(self.rng, self.filters[0], many=True)

  def kept(self) -> tuple[str, str, str]:
    """What passes the filters: "the even numbers", "even numbers", "each even number".

    All three say where the elements are.
    """
    one, many, where = self.one(), self.many(), self.where
    every = pick(self.rng, ("each", "every"))
    if not self.filters:
      return f"the {many} {where}", f"{many} {where}", f"{every} {one} {where}"
    first = self.filters[0]
    adjective = first.say(self.rng, "adjective")
    if len(self.filters) == 1:
      if adjective and chance(self.rng, 0.6):
        rest = f"{many} {where}"
        each = f"{every} {adjective} {one} {where}"
        return f"the {adjective} {rest}", f"{adjective} {rest}", each
      each = f"{every} {one} {where} that {self.is_()}"
      after = first.say(self.rng, "after")
      if not self._long_place() and chance(self.rng, 0.55):
        bare = f"{many} {where} {after}"
        if not after.startswith(("that", "whose", "in which")):
          bare = f"{many} {after} {where}"
        return f"the {bare}", bare, each
    each = f"{every} {one} {where} that {self.is_()}"
    if self._long_place():
      bare = f"those of the {many} {where} that {self.are()}"
      return bare, bare, each
    bare = f"{many} {where} that {self.are()}"
    return f"those {bare}", bare, each

  def _long_place(self) -> bool:
    """Whether what follows the place would seem to belong to it."""
    return len(self.where.split()) > 4

  def mapped(self) -> tuple[str, str]:
    """What comes out of filters and at most one map, definite and bare."""
    definite, bare, each = self.kept()
    if not self.maps:
      return definite, bare
    change = self.maps[0]
    nouns = change.say(self.rng, "nouns", definite)
    if not nouns or chance(self.rng, 0.25):
      nouns = f"results of {self._changing(change, each)}"
    return f"the {nouns}", nouns

  def _changing(self, change: Bound, each: str) -> str:
    """ "squaring each number", "taking each number that is odd and adding 3 to it"."""
    does = change.say(self.rng, "does", "{x}")
    if does.endswith("{x}") or len(each.split()) < 5:
      return english.gerund(does.format(x=each))
    return f"taking {each} and {english.gerund(does.format(x='it'))}"

  # The answer.

  def np(self) -> str:
    """ "the sum of the squares of the even numbers in `values`"."""
    return self.plan.aggregate.say(self.rng, "nouns", *self.mapped())

  def do(self) -> str:
    """ "add up the squares of the even numbers in `values`"."""
    return self.plan.aggregate.say(self.rng, "does", self.mapped()[0])

  def doing(self) -> str:
    """ "adding up the squares of the even numbers in `values`"."""
    return english.gerund(self.do())

  def does(self) -> str:
    """ "adds up the squares of the even numbers in `values`"."""
    return english.third_person(self.do())

  def verb(self) -> str:
    """ "Return", or what suits the answer as well."""
    returns = self.plan.aggregate.row.returns
    collects = returns.startswith(("list", "set", "tuple", "dict"))
    return pick(self.rng, _COLLECTING if collects else _IMPERATIVES)

  def their(self) -> str:
    """The aggregate of what the steps before have left."""
    if self.plan.chain[-1] == "F":
      left = self.many() if len(self.plan.chain) == 1 else "values"
      rest = pick(self.rng, (f"remaining {left}", f"{left} that are left"))
    else:
      rest = pick(self.rng, ("results", "resulting values"))
    return self.plan.aggregate.say(self.rng, "nouns", f"the {rest}", rest)

  def short(self) -> str:
    """ "the sum"."""
    return self.plan.aggregate.say(self.rng, "short")

  def empty(self) -> str:
    """What comes out of nothing."""
    return self.plan.aggregate.say(self.rng, "empty")

  # Steps.

  def steps(self) -> list[str]:
    """One imperative for each stage."""
    lines, subject = [], f"{self.many()} {self.where}"
    for position, stage in enumerate(self.plan.stages):
      if stage.part.role == "filter":
        lines.append(self._filtering(stage, subject))
        after_map = "M" in self.plan.chain[:position]
        subject = "remaining values" if after_map else f"remaining {self.many()}"
      else:
        each = f"each of the {subject}" if position else self._each()
        lines.append(stage.say(self.rng, "does", each))
        subject = "results"
    return lines

  def _each(self) -> str:
    return f"{pick(self.rng, ('each', 'every'))} {self.one()} {self.where}"

  def _filtering(self, stage: Bound, subject: str) -> str:
    verbs = stage.say(self.rng, "verbs")
    if chance(self.rng, 0.2):
      return f"drop the {subject} that {english.negated(verbs, many=True)}"
    keep = pick(self.rng, ("keep only", "keep", "select", "take only"))
    return f"{keep} the {subject} that {english.plural(verbs)}"

  def inline(self) -> str:
    """The steps in one clause: "keep ..., square ... and then ..."."""
    return english.listed(self.steps(), pick(self.rng, ("and", "and then")))

  def sentences(self) -> str:
    """The steps as sentences."""
    starts = ["First, ", pick(self.rng, ("Then ", "Next, ")), "After that, ", "Then "]
    steps = self.steps()
    if len(steps) == 1:
      return f"{english.capital(steps[0])}."
    return " ".join(f"{start}{s}." for start, s in zip(starts, steps, strict=False))

  def numbered(self) -> str:
    """The steps and the answer as a numbered list."""
    steps = [*self.steps(), f"return {self.their()}"]
    return "\n".join(f"{i}. {english.capital(s)}." for i, s in enumerate(steps, 1))

  def bullets(self) -> str:
    """The steps and the answer as bullets."""
    steps = [*self.steps(), f"return {self.their()}"]
    return "\n".join(f"- {s}" for s in steps)

  # One map, spoken of a single element.

  def change_it(self) -> str:
    """ "square it"; for one map."""
    return self.maps[0].say(self.rng, "does", "it")

  def change_them(self) -> str:
    """ "square each of them"; for one map."""
    return self.maps[0].say(self.rng, "does", "each of them")

  def its(self) -> str:
    """ "the square of that number"; for one map."""
    return self.maps[0].say(self.rng, "its", f"that {self.one()}")

  def the_results(self) -> str:
    """The aggregate of "the results"."""
    return self.plan.aggregate.say(self.rng, "nouns", "the results", "results")

  def the_values(self) -> str:
    """The aggregate of "these values"."""
    return self.plan.aggregate.say(self.rng, "nouns", "these values", "these values")
