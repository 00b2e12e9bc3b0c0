"""Textbook sections: an idea, its idiom on its own, and a function built on it."""

import random

from phi1_jax.grammar import english, inputs, pipelines, plan, section_texts, sources
from phi1_jax.grammar.draws import chance, pick
from phi1_jax.grammar.exercise import Exercise, literal
from phi1_jax.grammar.finish import finish
from phi1_jax.grammar.parts import Bound
from phi1_jax.grammar.plan import Plan
from phi1_jax.grammar.reserve import Gate
from phi1_jax.grammar.section import Section, fenced, printed, shown

_TRIES = 400
_NOUNS = {"int": "number", "word": "word", "char": "character"}
_SOURCES = (
  sources.numbers,
  sources.numbers,
  sources.word_list,
  sources.letters,
  sources.text_words,
  sources.number_tuple,
  sources.table_values,
)


def pipeline(rng: random.Random, gate: Gate) -> Section:
  """A section about a pipeline: its parts one by one, then all of it, then a trace."""
  for _ in range(_TRIES):
    task = plan.draw(rng, False, pick(rng, _SOURCES))
    draft = task and pipelines.worded(task, rng, gate)
    exercise = draft and finish(draft, rng, gate)
    made = task and exercise and _about(rng, task, exercise)
    if made:
      return made
  raise RuntimeError(f"no section in {_TRIES} draws")


def _about(rng: random.Random, task: Plan, exercise: Exercise) -> Section | None:
  topic = section_texts.topic(task)
  audience = pick(rng, section_texts.AUDIENCES)
  blocks, code = [section_texts.opening(rng, task, topic, audience)], []
  stage = pick(rng, task.stages)
  kind = _kind_before(task, stage)
  idiom = _idiom(rng, stage, kind)
  if idiom is not None:
    prose, block = idiom
    blocks += [prose, f"**Example {len(code) + 1}.** {pick(rng, _TRY)}", fenced(block)]
    code.append(block)
  block = shown(exercise, 3)
  if block is None:
    return None
  blocks.append(section_texts.aggregate(rng, task))
  lead = pick(rng, _WHOLE).format(name=exercise.name)
  blocks += [f"**Example {len(code) + 1}.** {lead}", fenced(block)]
  code.append(block)
  blocks.append(section_texts.reading(rng, exercise))
  if task.setting.id in ("list", "words") and chance(rng, 0.7):
    blocks.append(_trace(rng, task))
  blocks.append(section_texts.closing(rng))
  title = section_texts.title(rng, task, topic)
  text = "\n\n".join([f"## {title}", *filter(None, blocks)]) + "\n"
  return Section(title, topic, audience, text, tuple(code))


_TRY = (
  "Here is the idiom on its own.",
  "We try it on a few values.",
  "Before we use it in a function, we look at it alone.",
  "A small experiment shows what it does.",
  "Run these lines and compare the output with the comments.",
)
_WHOLE = (
  "The function `{name}` puts the pieces together.",
  "Now the whole task, solved by `{name}`.",
  "With this in hand we can write `{name}`.",
  "`{name}` uses the idea in a complete function.",
  "Read the docstring of `{name}` first, then its body.",
)


def _kind_before(task: Plan, stage: Bound) -> str:
  """What the elements are when a stage gets them."""
  kind = task.setting.kind
  for each in task.stages:
    if each is stage:
      break
    kind = each.out(kind)
  return kind


def _value(rng: random.Random, stage: Bound, kind: str) -> int | str:
  hot = list(stage.constants.values())
  if kind == "int":
    return inputs.number(rng, hot)
  if kind == "word":
    return inputs.word(rng, hot)
  return pick(rng, "aeiobcdnrstAEKXyz7 ?")


def _idiom(rng: random.Random, stage: Bound, kind: str) -> tuple[str, str] | None:
  """What a stage means and how it is written, and code that prints it for values."""
  values: list[int | str] = []
  for _ in range(40):
    value = _value(rng, stage, kind)
    if value not in values:
      values.append(value)
  if stage.part.role == "filter":
    holds = [v for v in values if eval(stage.code("x"), {"x": v})]
    fails = [v for v in values if v not in holds]
    if not holds or not fails:
      return None
    values = [fails[0], holds[0], *fails[1:2], *holds[1:2]]
  elif len({str(eval(stage.code("x"), {"x": v})) for v in values[:3]}) < 2:
    return None
  noun = _NOUNS[kind]
  block = printed("", [stage.code(literal(value)) for value in values[:4]])
  prose = section_texts.idiom(rng, stage, noun, stage.code("x"))
  return (prose, block) if block else None


def _trace(rng: random.Random, task: Plan) -> str:
  """What happens to each element of an input, in sentences."""
  ((values,),) = [task.setting.inputs(rng, task.hot, 5)[0]]
  lines = []
  for value in values:
    current, said = value, [f"`{literal(value)}`"]
    for stage in task.stages:
      result = eval(stage.code("x"), {"x": current})
      if stage.part.role == "filter":
        verb = stage.say(rng, "verbs")
        if not result:
          said.append(f"is left out, because it {english.negated(verb)}")
          break
        said.append(f"{english.singular(verb)}, so it stays")
      else:
        said.append(f"becomes `{literal(result)}`")
        current = result
    lines.append(f"- {said[0]} {', and '.join(said[1:])}.")
  lead = pick(rng, section_texts.TRACES).format(values=literal(values))
  return "\n".join([lead, "", *lines])
