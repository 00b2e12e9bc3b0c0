"""Pipelines whose test or change is a function that the prompt gives already."""

import random

from phi1_jax.grammar import pipelines, plan, sources
from phi1_jax.grammar.draft import Draft
from phi1_jax.grammar.draws import chance, pick
from phi1_jax.grammar.english import singular
from phi1_jax.grammar.parts import Bound
from phi1_jax.grammar.pipeline_code import variable
from phi1_jax.grammar.plan import Plan
from phi1_jax.grammar.reserve import Gate
from phi1_jax.grammar.wording import NOUN_FRAMES, Frames, named, quoted, worded

_TESTS = ("is_wanted", "fits", "passes", "is_good", "matches", "accept", "qualifies")
_CHANGES = (
  "transform",
  "convert",
  "change",
  "adjust",
  "rework",
  "apply_rule",
  "step_up",
)
_KIND = {"int": ("int", "n"), "word": ("str", "text"), "char": ("str", "char")}
_CHAINS = ((2, "F"), (2, "M"), (5, "FM"))
_FRAMES: Frames = (
  *(frame for frame in NOUN_FRAMES if frame[0] not in ("np-story", "np-bare")),
  ("helper-use", "Use {helpers} to return {np}."),
  ("helper-with", "With the help of {helpers}, return {np}."),
  ("helper-above", "Return {np}. {Cap_helpers} can be called."),
)


def helper(rng: random.Random, gate: Gate) -> Draft | None:
  """ "Return the sum of transform(n) for all numbers n for which fits(n) is true." """
  source = pick(rng, (sources.numbers, sources.numbers, sources.word_list))
  task = plan.draw(rng, False, source, _CHAINS)
  if task is None:
    return None
  composition = (f"helper_{task.setting.id}", *task.composition[1:])
  if not gate.composition(composition):
    return None
  names = [
    pick(rng, _TESTS if stage.part.role == "filter" else _CHANGES)
    for stage in task.stages
  ]
  hinted = chance(rng, 0.7)
  before = "\n\n".join(
    _defined(rng, stage, name, _kinds(task)[i], hinted)
    for i, (stage, name) in enumerate(zip(task.stages, names, strict=True))
  )
  a = quoted(rng, task.setting.noun.argument)
  var = variable(rng, task.setting)
  np = _noun_phrase(rng, task, names, a)
  fields = {"np": np, "given": task.setting.given.format(a=a)}
  fields["helpers"] = " and ".join(f"`{name}`" for name in names)
  made = worded(rng, gate, _FRAMES, fields)
  if made is None:
    return None
  return Draft(
    composition,
    "helper",
    *made,
    task.setting.arguments,
    task.aggregate.returns(task.kind),
    task.aggregate.say(rng, "short"),
    _body(rng, task, names, var),
    lambda rng: pipelines.name(rng, task) + named(rng, "", "", "_with_helper"),
    lambda rng, count: pipelines.inputs(rng, task, count),
    before=before,
  )


def _kinds(task: Plan) -> list[str]:
  """What each stage gets, and what comes out in the end."""
  kinds = [task.setting.kind]
  for stage in task.stages:
    kinds.append(stage.out(kinds[-1]))
  return kinds


def _defined(
  rng: random.Random, stage: Bound, name: str, kind: str, hinted: bool
) -> str:
  """The source of a helper, with a docstring of one line."""
  hint, var = _KIND[kind]
  if stage.part.role == "filter":
    out, text = "bool", f"Tell whether {var} {singular(stage.say(rng, 'verbs'))}."
  else:
    out = _KIND[stage.out(kind)][0]
    text = f"Return {stage.say(rng, 'its', var)}."
  head = f"def {name}({var}: {hint}) -> {out}:" if hinted else f"def {name}({var}):"
  return f'{head}\n    """{text}"""\n    return {stage.code(var)}\n'


def _noun_phrase(rng: random.Random, task: Plan, names: list[str], a: str) -> str:
  """ "the sum of the results of transform(n), taken for all numbers n of values"."""
  many, var = task.setting.noun.many, pick(rng, ("x", "v"))
  some = f"{many} {var} of {a}"
  if task.stages[0].part.role == "filter":
    some = f"{some} for which {names[0]}({var}) is true"
  if task.chain.endswith("M"):
    bare = f"results of {names[-1]}({var}), taken for all {some}"
    return task.aggregate.say(rng, "nouns", f"the {bare}", bare)
  return task.aggregate.say(rng, "nouns", f"those {some}", some)


def _body(rng: random.Random, task: Plan, names: list[str], var: str) -> list[str]:
  """A comprehension or a loop that calls the helpers."""
  filtered, mapped = task.chain[0] == "F", task.chain[-1] == "M"
  test = f"{names[0]}({var})" if filtered else ""
  value = f"{names[-1]}({var})" if mapped else var
  it, row = task.setting.iterable, task.aggregate.row
  if not row.reads_twice and chance(rng, 0.4):
    lines = [line for line in task.aggregate.code("start").split("\n") if line]
    lines.append(f"for {var} in {it}:")
    lines += [f"    if {test}:"] if test else []
    indent = "        " if test else "    "
    update = task.aggregate.code("update", e=value)
    lines += [f"{indent}{line}" for line in update.split("\n")]
    return [*lines, f"return {task.aggregate.code('result')}"]
  listed = f"[{value} for {var} in {it}{f' if {test}' if test else ''}]"
  if row.comprehension and not row.imports:
    code = task.aggregate.code("comprehension", g=listed[1:-1])
    return [f"return {code}"]
  if row.id == "list":
    return [f"return {listed}"]
  name = pick(rng, ("found", "results", "kept"))
  lines = [f"{name} = {listed}"]
  if row.imports:
    lines.insert(0, f"import {row.imports}")
  return [*lines, f"return {task.aggregate.code('whole', it=name)}"]
