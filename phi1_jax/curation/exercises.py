"""Exercises: a signature and docstring to complete, with a solution that was run.

The paper's were written by GPT-3.5, held to function names and kept as they came, with
"a high error rate" (sections 2.2 and 6). Here a solution is run against its own asserts
and doctests in the sandbox, and an exercise whose solution fails is dropped.
"""

import ast
import functools
import re
import warnings
from collections.abc import Iterator

from phi1_jax.curation import asserts, ideas, local_teacher
from phi1_jax.curation.config import ExercisesConfig
from phi1_jax.curation.teaching import Subject, Written
from phi1_jax.llm.conversation import Malformed

STAGE = "exercises"
PLACES = frozenset(("name", "topic_a", "topic_b", "profession"))


def subject(config: ExercisesConfig) -> Subject:
  """Return what a teacher is to write.

  An LLM gets the name of a function, two topics, and a profession that needs it.
  """
  return Subject(
    STAGE,
    "exercise",
    config.exercises,
    config.seed,
    functools.partial(_composed, config),
    functools.partial(_places, config.seed),
    "name",
    functools.partial(read_reply, fewest=config.minimum_asserts),
    {"together": config.teacher != "llm", "cpu_seconds": config.cpu_seconds},
  )


def _composed(config: ExercisesConfig, start: int, stop: int) -> Iterator[Written]:
  for text, tests, idea, facts in local_teacher.exercises(
    config.seed, start, stop, config.menu
  ):
    yield Written(text, text, tests, idea, facts)


def _places(seed: int, index: int) -> dict[str, str]:
  chance = ideas.dice(seed, index)
  first, second = ideas.two_topics(chance)
  return {
    "name": ideas.function_name(chance),
    "topic_a": first,
    "topic_b": second,
    "profession": chance.choice(ideas.PROFESSIONS),
  }


_BLOCK = re.compile(r"```[ \t]*[a-zA-Z0-9]*[ \t]*\n(.*?)```", re.DOTALL)


def read_reply(reply: str, fewest: int) -> Written:
  """Return the exercise in an answer; its facts name the function, and the tests.

  The last code block that is an exercise counts, else all blocks together.

  Args:
    reply: as the LLM wrote it: a code block, or nothing but code.
    fewest: plain asserts that there must be.

  Raises:
    Malformed: it is none; the message says what is wrong, for the LLM to mend it.
  """
  blocks = _BLOCK.findall(reply.replace("\r\n", "\n"))
  if len(blocks) > 1:
    try:
      return _read(blocks[-1], fewest)
    except Malformed:
      pass
  return _read("\n".join(blocks) or reply.replace("\r\n", "\n"), fewest)


def _read(source: str, fewest: int) -> Written:
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
  text = _program(source, tree)
  return Written(text, text, tests, facts={"function": name, "tests": list(tests)})


def _tested(tree: ast.Module) -> ast.FunctionDef:
  """Return the documented function with the most asserts."""
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
  """Return imports and definitions as they were written, without asserts and calls."""
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
