"""Exercise, and how its asserts are made: the solution is run, and its answers kept."""

import dataclasses
import json
import random
from collections.abc import Callable, Sequence
from typing import Any

LONGEST_LITERAL = 70
FEWEST_TESTS, MOST_TESTS = 5, 6


@dataclasses.dataclass(frozen=True)
class Exercise:
  """A function to be completed, as in the paper's CodeExercises (section 2.2).

  Attributes:
    name: the function's name.
    prompt: imports and helpers, if any, signature and docstring, up to and with the
      newline after the docstring.
    body: the solution, indented by 4 spaces, with a newline at its end.
    tests: 5 or 6 sources `assert name(...) == literal`, which the solution passes and
      no function that always gives the same answer, or its argument, does.
    composition: what it computes, e.g. ("list", "filter:even", "map:square", "sum").
      Constants are no part of it.
    family: the kind of task, e.g. "list".
    frame: which wording the docstring has, e.g. "np-return".
  """

  name: str
  prompt: str
  body: str
  tests: tuple[str, ...]
  composition: tuple[str, ...]
  family: str
  frame: str

  @property
  def text(self) -> str:
    """The whole program: prompt and body."""
    return self.prompt + self.body


@dataclasses.dataclass(frozen=True)
class Call:
  """A call of the solution.

  Attributes:
    source: `name(...)`.
    answer: the literal of what it returned.
    key: the answer's literal with its type, so that 1 and True differ.
  """

  source: str
  answer: str
  key: str


def literal(value: Any) -> str:
  """Python source of a value, the same whatever the order of a set.

  >>> literal({"b", "a"})
  '{"a", "b"}'
  """
  if type(value) is int:
    return repr(value)
  if not isinstance(value, set):
    text = repr(value)
    if '"' not in text and "\\" not in text and "{" not in text:
      return text.replace("'", '"')  # every one of them begins or ends a string
  if isinstance(value, str):
    return json.dumps(value, ensure_ascii=False)
  if isinstance(value, list):
    return f"[{', '.join(map(literal, value))}]"
  if isinstance(value, tuple):
    return f"({', '.join(map(literal, value))}{',' * (len(value) == 1)})"
  if isinstance(value, dict):
    pairs = (f"{literal(key)}: {literal(each)}" for key, each in value.items())
    return f"{{{', '.join(pairs)}}}"
  if isinstance(value, set):
    return f"{{{', '.join(sorted(map(literal, value)))}}}" if value else "set()"
  return repr(value)


def compiled(source: str, name: str) -> Callable[..., Any]:
  """The function `name` of a program that this part wrote itself."""
  space: dict[str, Any] = {}
  exec(source, space)
  return space[name]


def calls(
  function: Callable[..., Any], name: str, inputs: Sequence[Sequence[Any]]
) -> list[Call]:
  """Calls with the inputs, each once; the solutions leave their arguments as they are.

  Long ones are left out. Of the calls whose answer equals an argument, at most half as
  many as there are others are kept.

  Returns:
    An empty list if the solution is not defined for one of the inputs.
  """
  made, seen, echoes = [], set(), []
  for arguments in inputs:
    source = f"{name}({', '.join(map(literal, arguments))})"
    if source in seen or len(source) > LONGEST_LITERAL + len(name):
      continue
    seen.add(source)
    try:
      value = function(*arguments)
    except IndexError:  # a word of which the task has left nothing
      return []
    answer = literal(value)
    if len(answer) <= LONGEST_LITERAL:
      call = Call(source, answer, f"{type(value).__name__} {answer}")
      echo = any(type(value) is type(a) and value == a for a in arguments)
      (echoes if echo else made).append(call)
  return made + echoes[: len(made) // 2]


def chosen(rng: random.Random, made: Sequence[Call]) -> list[Call] | None:
  """Calls for the asserts: as many distinct answers as there are, then repeats.

  Returns:
    None if there are too few calls or too few distinct answers: at least 3, or both
    where the answer is a bool, each of these at least twice.
  """
  groups: dict[str, list[Call]] = {}
  for call in made:
    groups.setdefault(call.key, []).append(call)
  if all(key.startswith("bool ") for key in groups):
    if len(groups) < 2 or min(map(len, groups.values())) < 2:
      return None
  elif len(groups) < 3:
    return None
  count = MOST_TESTS if rng.random() < 0.5 else FEWEST_TESTS
  taken: list[Call] = []
  depth = 0
  while len(taken) < count and depth < max(map(len, groups.values())):
    taken += [group[depth] for group in groups.values() if depth < len(group)]
    depth += 1
  return taken[:count] if len(taken) >= FEWEST_TESTS else None


def asserts(taken: Sequence[Call]) -> tuple[str, ...]:
  """The tests' sources; None, True and False are compared with `is`."""
  return tuple(
    f"assert {call.source} "
    f"{'is' if call.answer in ('None', 'True', 'False') else '=='} {call.answer}"
    for call in taken
  )
