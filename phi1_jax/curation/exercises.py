"""Exercises: a signature and docstring to be completed, with a solution that was run.

The paper's were written by GPT-3.5, held to function names and kept as they came, with
"a high error rate" (sections 2.2 and 6). Here a solution is run against its own asserts
and doctests in the sandbox, and an exercise whose solution fails is dropped.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import re
import warnings
from collections.abc import Iterator
from typing import Any

from phi1_jax.curation import asserts, ideas
from phi1_jax.curation.config import ExercisesConfig
from phi1_jax.curation.desk import Desk
from phi1_jax.curation.document import Document, Drop, identify
from phi1_jax.curation.draft import Draft
from phi1_jax.curation.prompt import Prompt
from phi1_jax.grammar import teacher as grammar
from phi1_jax.llm.conversation import Answered, Malformed
from phi1_jax.llm.request import Request

STAGE, VERSION = "exercises", 1
PLACES = frozenset(("name", "topic_a", "topic_b", "profession"))


@dataclasses.dataclass(frozen=True)
class GrammarTeacher:
  """Exercises that `phi1_jax.grammar` composes: no model, no network, no cost.

  Attributes:
    config: how many, and their seed.
  """

  config: ExercisesConfig

  def identity(self) -> dict[str, Any]:
    """The grammar's version."""
    return {"grammar": grammar.VERSION}

  def facts(self) -> dict[str, Any]:
    """Says that no language model wrote them."""
    return {"models": [f"grammar teacher, version {grammar.VERSION} (no LLM)"]}

  def drafts(self) -> Iterator[Draft]:
    """One draft per exercise."""
    of = self.config
    made = grammar.exercises(of.seed, 0, of.exercises, menu=of.menu)
    for index, exercise in enumerate(made):
      facts = {
        "teacher": "grammar",
        "grammar": grammar.VERSION,
        "seed": self.config.seed,
        "index": index,
        "family": exercise.family,
        "composition": list(exercise.composition),
        "frame": exercise.frame,
        "tests": list(exercise.tests),
      }
      document = Document(
        id=identify("grammar", exercise.text),
        text=exercise.text,
        source="grammar",
        licence="MIT",
        kind="exercise",
        group=identify("grammar", repr(exercise.composition)),
        provenance={STAGE: facts},
      )
      yield Draft(document, exercise.text, exercise.tests)


@dataclasses.dataclass(frozen=True)
class Written:
  """An exercise as an LLM wrote it.

  Attributes:
    name: the function's.
    text: imports, signature, docstring and solution.
    tests: the asserts and doctest examples that are plain.
  """

  name: str
  text: str
  tests: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class LlmTeacher:
  """Exercises that an LLM writes, held to a function name, two topics, a profession.

  Attributes:
    config: how many, and their seed.
    desk: pays for the answers, and keeps them.
    prompt: with the places `PLACES`.
  """

  config: ExercisesConfig
  desk: Desk
  prompt: Prompt

  def identity(self) -> dict[str, Any]:
    """The model and the prompt."""
    return {**self.desk.identity(), "prompt": self.prompt.version}

  def facts(self) -> dict[str, Any]:
    """The model, the prompt, and what was paid."""
    return {**self.desk.facts(), "prompts": [self.prompt.record()]}

  def asked(self) -> Iterator[tuple[Request, dict[str, str]]]:
    """Requests, each with what its prompt was filled with."""
    for index in range(self.config.exercises):
      chance = ideas.dice(self.config.seed, index)
      topics = ideas.two_topics(chance)
      places = {
        "name": ideas.function_name(chance),
        "topic_a": topics[0],
        "topic_b": topics[1],
        "profession": chance.choice(ideas.PROFESSIONS),
      }
      config = self.config
      yield (
        self.prompt.request(places, config.max_tokens, config.temperature, index),
        places,
      )

  def drafts(self) -> Iterator[Draft | Drop]:
    """One draft per answer; why there is none where no answer could be used."""
    read = functools.partial(read_reply, fewest=self.config.minimum_asserts)
    requests = (request for request, _ in self.asked())
    answers = self.desk.ask(requests, read, self.config.exercises)
    for (_, places), answer in zip(self.asked(), answers, strict=True):
      facts: dict[str, Any] = {"teacher": "llm", "model": self.desk.model, **places}
      facts["prompt"] = self.prompt.version
      if isinstance(answer, Answered):
        written: Written = answer.value
        facts |= {"request": answer.reply.key, "tests": list(written.tests)}
        facts["as_asked"] = written.name == places["name"]
        yield Draft(self._document(written.text, facts), written.text, written.tests)
      else:
        facts["request"] = answer.key
        evidence = {"reason": answer.reason, "request": answer.key}
        yield Drop(self._document("", facts), "no usable answer", evidence)

  def _document(self, text: str, facts: dict[str, Any]) -> Document:
    return Document(
      id=identify(facts["request"] if not text else "llm", text),
      text=text,
      source=f"llm:{self.desk.model}",
      licence="unknown",
      kind="exercise",
      group=identify("name", facts["name"]),
      provenance={STAGE: facts},
    )


_BLOCK = re.compile(r"```[ \t]*[a-zA-Z0-9]*[ \t]*\n(.*?)```", re.DOTALL)


def read_reply(reply: str, fewest: int) -> Written:
  """The exercise in an answer.

  Args:
    reply: as the LLM wrote it: a code block, or nothing but code.
    fewest: plain asserts that there must be.

  Raises:
    Malformed: it is none; the message says what is wrong, for the LLM to mend it.
  """
  blocks = _BLOCK.findall(reply)
  source = ("\n".join(blocks) if blocks else reply).replace("\r\n", "\n")
  try:
    with warnings.catch_warnings():
      warnings.simplefilter("ignore")
      tree = ast.parse(source)
  except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
    raise Malformed(f"the code is not valid Python ({error})") from None
  function = _tested(tree)
  name = function.name
  docstring = ast.get_docstring(function) or ""
  tests = asserts.taken(tree.body, name) + asserts.of_examples(docstring, name)
  tests = tuple(dict.fromkeys(tests))
  if len(tests) < fewest:
    raise Malformed(
      f"got {len(tests)} plain asserts, expected at least {fewest} of the form "
      f"`assert {name}(...) == ...` with literal values"
    )
  if not asserts.expects_several(tests, name):
    raise Malformed("all asserts expect the same value")
  return Written(name, _program(source, tree), tests)


def _tested(tree: ast.Module) -> ast.FunctionDef:
  """The function that the exercise is about: documented, and asserted the most."""
  functions = [
    node
    for node in tree.body
    if isinstance(node, ast.FunctionDef)
    and ast.get_docstring(node)
    and len(node.body) > 1
  ]
  if not functions:
    raise Malformed("it defines no function with a docstring and a solution after it")
  return max(functions, key=lambda node: len(asserts.taken(tree.body, node.name)))


def _program(source: str, tree: ast.Module) -> str:
  """Imports and definitions as they were written; asserts and calls left out."""
  kept = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef)
  kept += (ast.Assign, ast.AnnAssign)
  lines = source.split("\n")
  parts = []
  for node in tree.body:
    if isinstance(node, kept):
      decorators = getattr(node, "decorator_list", [])
      first = min([node.lineno, *(d.lineno for d in decorators)])
      spaced = isinstance(node, (ast.FunctionDef, ast.ClassDef)) and parts
      parts.append(
        "\n\n" * bool(spaced) + "\n".join(lines[first - 1 : node.end_lineno])
      )
  return "\n".join(parts) + "\n"
