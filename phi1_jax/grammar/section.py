"""Textbook sections: prose around an exercise whose code was run."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import random
import re
import tomllib
from typing import Any

from phi1_jax.grammar.exercise import Exercise
from phi1_jax.grammar.rows import PACKAGED
from phi1_jax.grammar.scene import pick


@dataclasses.dataclass(frozen=True)
class Section:
  """A short textbook section in the form that the paper prints (section 2.2).

  Attributes:
    title: its heading.
    topic: the family of its exercise, such as "count".
    audience: the readers it is written for.
    text: Markdown: prose, "Example N", runnable code.
    code: its code blocks; each runs by itself and prints what its comments say.
  """

  title: str
  topic: str
  audience: str
  text: str
  code: tuple[str, ...]


@functools.cache
def _prose() -> dict[str, Any]:
  file = PACKAGED / "sections" / "sections.toml"
  return tomllib.loads(file.read_text(encoding="utf-8"))


def printed(setup: str, expressions: list[str]) -> str | None:
  """Return code that prints expressions, with the output in comments.

  Args:
    setup: definitions that the expressions need.
    expressions: Python.

  Returns:
    None where an answer is a set, whose order nothing fixes, or not on one line.
  """
  space: dict[str, Any] = {}
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


def section(rng: random.Random, exercise: Exercise) -> Section | None:
  """Return a section about an exercise, or None where its answers cannot be shown."""
  prose = _prose()
  calls = [call for call in exercise.calls[:3] if call.answer != "None"]
  code = printed(exercise.text, [f"{exercise.name}({c.arguments})" for c in calls])
  if code is None:
    return None
  known = [
    (name, row) for name, row in prose["explain"].items() if _occurs(row, exercise.body)
  ]
  name, row = pick(rng, known[:-1] or known)  # the last one fits every solution
  audience = pick(rng, prose["audience"])
  words = exercise.name.replace("_", " ")
  small = printed("", row["examples"])
  title = pick(rng, prose["title"]).format(topic=row["topic"], words=words)
  title = title[0].upper() + title[1:]
  blocks = [small, code] if small else [code]
  listed = [
    f"## {title}",
    " ".join(
      (
        pick(rng, prose["open"]).format(audience=audience, topic=row["topic"]),
        pick(rng, row["say"]),
      )
    ),
  ]
  for number, block in enumerate(blocks, 1):
    lead = pick(rng, prose["small" if number < len(blocks) else "large"])
    listed.append(f"**Example {number}.** {lead.format(name=exercise.name)}")
    listed.append(f"```python\n{block}```")
  others = [say for other, row in known if other != name for say in row["say"]]
  if others:
    listed.append(pick(rng, others))
  listed.append(pick(rng, prose["close"]))
  text = "\n\n".join(listed) + "\n"
  return Section(title, exercise.family, audience, text, tuple(blocks))


def _occurs(row: dict[str, Any], body: str) -> bool:
  return re.search(row["pattern"], body) is not None
