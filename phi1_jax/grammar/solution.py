"""Solutions: the Python of a scene."""

from __future__ import annotations

import functools
from typing import Any

from phi1_jax.grammar.rows import words_of
from phi1_jax.grammar.scene import Scene
from phi1_jax.grammar.solve import literal
from phi1_jax.grammar.templates import fill, parsed

_VARIABLES = ("x", "item", "value", "y")


@functools.lru_cache(1 << 14)
def wrapped(code: str) -> str:
  """Return an expression that may stand inside of another."""
  depth = 0
  for place, character in enumerate(code):
    depth += (character in "([{") - (character in ")]}")
    if not depth and (character == " " or (character == "-" and not place)):
      return f"({code})"
  return code


def substituted(code: str, inner: str, constants: dict[str, str]) -> str:
  """Return a part's code with its value and constants."""
  code = code.replace("($x)", f"({inner})")
  inner = wrapped(inner)
  return fill(parsed(code), lambda name, _: inner if name == "x" else constants[name])


def symbols(scene: Scene) -> dict[str, Any]:
  """Return the constants by the names of the parameters that stand for them."""
  found = {f"_t_{name}": value for name, value in scene.constants.items()}
  for place, bound in enumerate(scene.chain):
    found |= {f"_c{place}_{k}": v for k, v in bound.constants.items()}
  for label, bound in scene.bound.items():
    found |= {f"_{label}_{k}": v for k, v in bound.constants.items()}
  return found


def mistakes(scene: Scene) -> list[tuple[str, str]]:
  """Return changes after which a solution is wrong: a filter, and its value always."""
  found = []
  for place, bound in enumerate(scene.chain):
    if bound.part.id.startswith("filter"):
      found.append((f"_c{place}", "True"))
  if len(scene.bound) > 1:
    for label, bound in scene.bound.items():
      if bound.part.id.startswith("filter"):
        found += [(label, "True"), (label, "False")]
  return found


class Solution:
  """Writes the bodies of a scene.

  Args:
    scene: the choices.
    names: label -> name of the argument.
    symbolic: whether constants are parameters, not literals.
    changed: a filter, and the code that takes its place.
  """

  def __init__(
    self,
    scene: Scene,
    names: dict[str, str],
    symbolic: bool = False,
    changed: tuple[str, str] = ("", ""),
  ):
    self.scene, self.names = scene, names
    self.symbolic, self.changed = symbolic, changed
    self.variable = self._variable()

  def body(self, template: str) -> str:
    """Return a body of the task, without indentation."""
    return fill(parsed(template), self._value)

  def _variable(self) -> str:
    scene = self.scene
    each = (bound.subject for bound in scene.bound.values() if bound.each)
    label = scene.task.chain or next(each, "")
    if not label:
      return "x"
    taken = {*self.names.values(), *words_of(scene.task.bodies)}
    options = (scene.kinds[label].var, *_VARIABLES)
    return next(name for name in options if name not in taken)

  def _constants(self, values: dict[str, Any], prefix: str) -> dict[str, str]:
    if self.symbolic:
      return {name: f"{prefix}_{name}" for name in values}
    return {name: literal(value) for name, value in values.items()}

  def _item(self, label: str) -> str:
    """Return the code of an item, given the loop variable."""
    kind = self.scene.kinds[label]
    return kind.value.replace("$x", self.variable) if kind.item else self.variable

  def _value(self, name: str, mode: str) -> str:
    scene = self.scene
    if name == "var":
      return self.variable
    if name == "items":
      return self._items(mode)
    if name in scene.bound:
      return self._part(name, mode)
    if name in scene.kinds:
      if mode == "value":
        return self._item(name)
      each = scene.kinds[name].each if mode == "each" else "$x"
      return each.replace("$x", self.names[name])
    if self.symbolic:
      return f"_t_{name}"
    value = scene.constants[name]
    return str(value) if mode == "plain" else literal(value)

  def _items(self, mode: str) -> str:
    """Return the items of the chain as a generator, or as a list."""
    scene, label = self.scene, self.scene.task.chain
    kind = scene.kinds[label]
    source = kind.each.replace("$x", self.names[label])
    if not scene.chain and kind.value == "$x":
      is_list = kind.each == "$x" and kind.type.startswith("list")
      return f"list({source})" if mode == "list" and not is_list else source
    value, tests = self._item(label), []
    for place, bound in enumerate(scene.chain):
      if self.changed[0] == f"_c{place}":
        continue
      known = self._constants(bound.constants, f"_c{place}")
      if bound.part.id.startswith("filter"):
        tests.append(substituted(bound.part.code, value, known))
      else:
        value = substituted(bound.part.code, value, known)
    if len(tests) > 1:
      tests = [f"({test})" if " or " in test else test for test in tests]
    condition = f" if {' and '.join(tests)}" if tests else ""
    generator = f"{value} for {self.variable} in {source}{condition}"
    return f"[{generator}]" if mode == "list" else generator

  def _part(self, name: str, mode: str) -> str:
    bound = self.scene.bound[name]
    if self.changed[0] == name:
      return self.changed[1]
    if bound.subject in self.scene.bound:
      subject = self._part(bound.subject, "")
    else:
      subject = self.names[bound.subject]
      subject = self._item(bound.subject) if bound.each else subject
    code = bound.part.unless if mode == "not" else bound.part.code
    return substituted(code, subject, self._constants(bound.constants, f"_{name}"))
