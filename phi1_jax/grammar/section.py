"""Section: a piece of a textbook, and how its code is run to know what it prints."""

import contextlib
import dataclasses
import io

from phi1_jax.grammar.exercise import Exercise


@dataclasses.dataclass(frozen=True)
class Section:
  """A short textbook section in the form that the paper prints (section 2.2).

  Attributes:
    title: its heading.
    topic: what it is about, e.g. "filtering".
    audience: whom it is written for.
    text: Markdown: prose, "Example N", runnable code, and so on.
    code: its code blocks; each runs by itself and prints what its comments say.
  """

  title: str
  topic: str
  audience: str
  text: str
  code: tuple[str, ...]


def fenced(code: str) -> str:
  """A code block in Markdown."""
  return f"```python\n{code.rstrip()}\n```"


def printed(setup: str, expressions: list[str]) -> str | None:
  """Code that prints expressions, with what each prints in a comment behind it.

  Args:
    setup: definitions that the expressions need.
    expressions: Python.

  Returns:
    None where an answer is a set, whose order nothing fixes, or takes several lines.
  """
  space: dict[str, object] = {}
  exec(setup, space)
  lines = []
  for expression in expressions:
    value = eval(expression, space)
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
      print(value)
    text = out.getvalue().removesuffix("\n")
    if isinstance(value, set) or "\n" in text or not text.strip():
      return None
    lines.append(f"print({expression})  # {text}")
  return "\n".join([*([setup.rstrip(), "", ""] if setup else []), *lines]) + "\n"


def shown(exercise: Exercise, count: int) -> str | None:
  """The exercise's function and `count` calls of it, printed."""
  expressions = []
  for test in exercise.tests[:count]:
    call = test.removeprefix("assert ")
    sign = " is " if call.endswith((" is None", " is True", " is False")) else " == "
    expressions.append(call.rpartition(sign)[0])
  return printed(exercise.text, expressions)
