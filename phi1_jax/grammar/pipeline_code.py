"""A plan as Python: the same computation in several styles."""

import random
import re

from phi1_jax.grammar.draft import SELF
from phi1_jax.grammar.draws import chance, pick, weighted
from phi1_jax.grammar.parts import Bound, opposite
from phi1_jax.grammar.plan import Plan
from phi1_jax.grammar.sources import Setting

_VARIABLES = {
  "int": ("x", "n", "num", "number", "value", "v"),
  "word": ("word", "w", "s", "item"),
  "char": ("char", "c", "ch", "letter"),
}
_CHANGED = ("changed", "updated", "value", "mapped", "current")
_LISTS = ("kept", "selected", "results", "found", "mapped")
_STYLES = (
  (0.42, "comprehension"),
  (0.3, "loop"),
  (0.1, "continue"),
  (0.1, "staged"),
  (0.04, "index"),
  (0.04, "inner"),
)


def body(rng: random.Random, plan: Plan) -> tuple[list[str], list[str]]:
  """Lines of the solution, and the modules it imports."""
  style = weighted(rng, _STYLES)
  if style == "index" and not plan.setting.indexed:
    style = "loop"
  if style in ("comprehension", "staged", "inner"):
    lines = _comprehension(rng, plan, style)
    if max(map(len, lines)) < 80:
      used = "\n".join(lines)
      module = plan.aggregate.row.imports
      return lines, [module] if module and f"{module}." in used else []
  return _loop(rng, plan, style), []


def variable(rng: random.Random, setting: Setting) -> str:
  """A name for one element that no argument has."""
  taken = {argument.name for argument in setting.arguments}
  if setting.local[0]:
    return setting.local[0]
  one = setting.noun.one
  if one.isidentifier() and one not in taken and chance(rng, 0.45):
    return one
  return pick(rng, [v for v in _VARIABLES[setting.kind] if v not in taken])


def conjunction(tests: list[str]) -> str:
  """Conditions joined by `and`."""
  if len(tests) == 1:
    return tests[0]
  return " and ".join(f"({test})" if " or " in test else test for test in tests)


def _fresh(rng: random.Random, options: tuple[str, ...], taken: set[str]) -> str:
  name = pick(rng, [option for option in options if option not in taken])
  taken.add(name)
  return name


def _comprehension(rng: random.Random, plan: Plan, style: str) -> list[str]:
  """Comprehensions; where "staged", one statement for each stage."""
  setting, lines = plan.setting, []
  taken = {argument.name for argument in setting.arguments}
  it, var = setting.iterable, variable(rng, plan.setting)
  if setting.element:
    name = setting.local[1]
    lines.append(f"{name} = [{setting.element} for {setting.target} in {it}]")
    it, var = name, pick(rng, ("v", "value", "x"))
  taken.add(it)
  tests, expression = [], var
  for stage in plan.stages:
    if expression != var or (style == "staged" and tests):
      name = _fresh(rng, _LISTS, taken)
      lines.append(f"{name} = {_listed(expression, var, it, tests)}")
      it, tests, expression = name, [], var
    if stage.part.role == "filter":
      tests.append(_call(lines, stage, var, "keep", style))
    else:
      expression = _call(lines, stage, var, "change", style)
  generator = _generator(expression, var, it, tests)
  row = plan.aggregate.row
  if row.comprehension and style != "staged":
    return [*lines, f"return {plan.aggregate.code('comprehension', g=generator)}"]
  if row.id == "list":
    return [*lines, f"return [{generator}]"]
  name = _fresh(rng, _LISTS, taken)
  lines.append(f"{name} = {_listed(expression, var, it, tests)}")
  return [*lines, f"return {plan.aggregate.code('whole', it=name)}"]


def _call(lines: list[str], stage: Bound, var: str, name: str, style: str) -> str:
  """A stage's code; as a function of its own in the style "inner"."""
  if style != "inner" or any(line.startswith(f"def {name}") for line in lines):
    return stage.code(var)
  lines += [f"def {name}({var}):", f"    return {stage.code(var)}", ""]
  return f"{name}({var})"


def _generator(expression: str, var: str, it: str, tests: list[str]) -> str:
  condition = f" if {conjunction(tests)}" if tests else ""
  return f"{expression} for {var} in {it}{condition}"


def _listed(expression: str, var: str, it: str, tests: list[str]) -> str:
  return f"[{_generator(expression, var, it, tests)}]"


def _loop(rng: random.Random, plan: Plan, style: str) -> list[str]:
  """A loop with a condition around what is done, or one that skips with `continue`."""
  setting, aggregate = plan.setting, plan.aggregate
  taken = {argument.name for argument in setting.arguments}
  var = variable(rng, plan.setting)
  taken.add(var)
  lines = [line for line in aggregate.code("start").split("\n") if line]
  taken |= {line.split(" ")[0] for line in lines}
  depth, current, pending = 1, var, []
  if style == "index":
    lines.append(f"for i in range(len({setting.iterable})):")
    lines.append(f"    {var} = {setting.iterable}[i]")
  else:
    lines.append(f"for {setting.target or var} in {setting.iterable}:")
    if setting.element:
      lines.append(f"    {var} = {setting.element}")
  for position, stage in enumerate(plan.stages):
    if stage.part.role == "filter":
      pending.append(stage.code(current))
      continue
    depth += _open(lines, pending, depth, style)
    last = position == len(plan.stages) - 1
    expression = stage.code(current)
    if last and not aggregate.row.reads_twice:
      current = expression
    else:
      current = _fresh(rng, _CHANGED, taken)
      lines.append(f"{'    ' * depth}{current} = {expression}")
  depth += _open(lines, pending, depth, style)
  update = aggregate.code("update", e=current)
  lines += [f"{'    ' * depth}{line}" for line in update.split("\n")]
  return [*lines, f"return {aggregate.code('result')}"]


def _open(lines: list[str], tests: list[str], depth: int, style: str) -> int:
  """Writes the tests down; returns how much deeper what follows is."""
  if not tests:
    return 0
  condition = conjunction(tests)
  tests.clear()
  if style == "continue":
    lines.append(f"{'    ' * depth}if {opposite(condition)}:")
    lines.append(f"{'    ' * (depth + 1)}continue")
    return 0
  lines.append(f"{'    ' * depth}if {condition}:")
  return 1


def bracketed(expression: str) -> str:
  """The expression, in parentheses unless it is one name, number or call."""
  simple = re.fullmatch(r"[\w.]+(\([^()]*\)|\[[^\[\]]*\])?", expression)
  return expression if simple else f"({expression})"


def recursive(rng: random.Random, plan: Plan, base: str, step: str) -> list[str]:
  """The plan as a function that calls itself on the rest of its argument.

  Args:
    rng: names the first element.
    plan: a pipeline over a list or a string, with a chain of at most one filter and
      one map, in this order.
    base: the answer for nothing.
    step: combines the element `{e}` with the answer `{r}` for the rest.
  """
  argument = plan.setting.arguments[0].name
  var = pick(rng, ("first", "head"))
  expression, tests = var, []
  for stage in plan.stages:
    if stage.part.role == "filter":
      tests.append(stage.code(expression))
    else:
      expression = stage.code(expression)
  rest = f"{SELF}({argument}[1:])"
  inside = step.startswith("[") or "({e}" in step or "[{e}" in step
  joined = step.format(e=expression if inside else bracketed(expression), r=rest)
  lines = [f"if not {argument}:", f"    return {base}", f"{var} = {argument}[0]"]
  if tests:
    lines += [f"if {opposite(conjunction(tests))}:", f"    return {rest}"]
  return [*lines, f"return {joined}"]
