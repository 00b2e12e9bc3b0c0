"""Exercises: a signature and docstring to complete, with a solution that was run.

The paper's were written by GPT-3.5, held to function names and kept as they came, with
"a high error rate" (sections 2.2 and 6). Here a solution is run against its own asserts
and doctests in the sandbox, and an exercise whose solution fails is dropped.

A teacher's asserts are not trusted either. Those that are kept compare calls of the
function with literal values, so they can do nothing but call it; and together they
expect more than one value, so that no constant passes.
"""

import ast
import contextlib
import doctest
import functools
import re
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

from phi1_jax.curation import teaching
from phi1_jax.curation.config import ExercisesConfig
from phi1_jax.curation.teaching import Subject, Written
from phi1_jax.grammar import teacher
from phi1_jax.llm.conversation import Malformed

_BLOCK = re.compile(r"```[ \t]*[a-zA-Z0-9]*[ \t]*\n(.*?)```", re.DOTALL)
_KEPT = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.Assign)
_KEPT += (ast.AnnAssign,)
# Builtins that a check may use around the call, and the syntax that it may have.
_BUILTINS = """
abs dict float frozenset int isinstance len list round set sorted str sum tuple bool
"""
_AROUND = frozenset(_BUILTINS.split())
_NODES = (ast.Assert, ast.BinOp, ast.BoolOp, ast.Call, ast.Compare, ast.Constant)
_NODES += (ast.Dict, ast.List, ast.Name, ast.Set, ast.Subscript, ast.Tuple, ast.UnaryOp)
_NODES += (ast.boolop, ast.cmpop, ast.expr_context, ast.keyword, ast.operator)
_NODES += (ast.unaryop,)
_LONGEST = 2000  # characters of a check


def _compose(config: ExercisesConfig, start: int, stop: int) -> Iterator[Written]:
  for made in teacher.exercises(config.seed, start, stop, menu=config.menu):
    facts = {"family": made.family, "composition": list(made.composition)}
    facts |= {"frame": made.frame, "tests": list(made.tests)}
    idea = repr(made.composition)
    yield Written(made.text, made.text, tuple(made.tests), idea, facts)


def _places(config: ExercisesConfig, index: int) -> dict[str, str]:
  chance = teaching.dice(config.seed, index)
  first, second = teaching.two_topics(chance)
  return {
    "name": teaching.function_name(chance),
    "topic_a": first,
    "topic_b": second,
    "profession": chance.choice(teaching.PROFESSIONS),
  }


def subject(config: ExercisesConfig) -> Subject:
  """Return functions to complete: a name, two topics, a profession that needs it."""
  return Subject(
    stage="exercises",
    kind="exercise",
    config=config,
    number=config.exercises,
    compose=functools.partial(_compose, config),
    places=functools.partial(_places, config),
    read=functools.partial(read_reply, fewest=config.minimum_asserts),
    grouped_by="name",
    together=config.teacher != "llm",
    cpu_seconds=config.cpu_seconds,
  )


run = functools.partial(teaching.run, subject)
requests = functools.partial(teaching.requests, subject)


def read_reply(reply: str, fewest: int) -> Written:
  """Return the exercise in an answer, which has so many plain asserts or more.

  The last code block that is an exercise counts, else all blocks together. Its facts
  name the function and the tests.

  Raises:
    Malformed: it is none; the message says what is wrong, for the LLM to mend it.
  """
  reply = reply.replace("\r\n", "\n")
  blocks = _BLOCK.findall(reply)
  if len(blocks) > 1:
    try:
      return _read(blocks[-1], fewest)
    except Malformed:
      pass
  return _read("\n".join(blocks) or reply, fewest)


def _read(source: str, fewest: int) -> Written:
  try:
    tree = _parse(source)
  except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
    raise Malformed(f"the code is not valid Python ({error})") from None
  documented = [n for n in tree.body if isinstance(n, ast.FunctionDef)]
  documented = [n for n in documented if ast.get_docstring(n) and len(n.body) > 1]
  if not documented:
    raise Malformed("it defines no function with a docstring and a solution after it")
  function = max(documented, key=lambda node: len(plain_asserts(tree.body, node.name)))
  name, docstring = function.name, ast.get_docstring(function) or ""
  tests = plain_asserts([*tree.body, *_examples(docstring)], name)
  if len(tests) < fewest:
    raise Malformed(
      f"got {len(tests)} plain asserts, expected at least {fewest} of the form "
      f"`assert {name}(...) == ...` with literal values"
    )
  if not expects_several(tests, name):
    raise Malformed("all asserts expect the same value")
  # Imports and definitions as they were written, without asserts and calls.
  lines, parts = source.split("\n"), []
  for node in filter(lambda node: isinstance(node, _KEPT), tree.body):
    decorators = getattr(node, "decorator_list", [])
    first = min([node.lineno, *(d.lineno for d in decorators)])
    spaced = isinstance(node, (ast.FunctionDef, ast.ClassDef)) and parts
    parts.append("\n\n" * bool(spaced) + "\n".join(lines[first - 1 : node.end_lineno]))
  text = "\n".join(parts) + "\n"
  return Written(text, text, tests, facts={"function": name, "tests": list(tests)})


def plain_asserts(statements: Iterable[ast.stmt], name: str) -> tuple[str, ...]:
  """Return the asserts about calls of a function with literal values, each once."""
  found: dict[str, None] = {}
  for statement in statements:
    try:
      if isinstance(statement, ast.Assert) and _is_plain(statement, name):
        source = ast.unparse(ast.Assert(test=statement.test, msg=None))
        if len(source) <= _LONGEST:
          found[source] = None
    except (RecursionError, ValueError):  # deeper, or a longer number, than any test
      continue
  return tuple(found)


def _is_plain(statement: ast.Assert, name: str) -> bool:
  called = False
  for node in ast.walk(statement):
    if isinstance(node, ast.Call):
      called |= isinstance(node.func, ast.Name) and node.func.id == name
    if isinstance(node, ast.Name) and node.id != name and node.id not in _AROUND:
      return False
    if not isinstance(node, _NODES) or isinstance(node, ast.Pow):
      return False  # 9**9**9 would never end
  return called


def _examples(docstring: str) -> Iterator[ast.stmt]:
  """Yield the doctest examples with one expression as a result, as asserts."""
  try:
    examples = doctest.DocTestParser().get_examples(docstring)
  except ValueError:  # prose that looks like a prompt
    return
  for example in examples:
    if example.exc_msg or doctest.SKIP in example.options:
      continue
    try:
      got = ast.parse(example.source.strip(), mode="eval").body
      wanted = ast.parse(example.want.strip() or "None", mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
      continue
    yield ast.Assert(test=ast.Compare(got, [ast.Eq()], [wanted]), msg=None)


def expects_several(asserts: Iterable[str], name: str) -> bool:
  """Return whether no constant answer could pass all of the asserts.

  Only asserts that say what a call gives count: `f(1) == 2`, `f(1) is None`, `f(1)`,
  `not f(1)`, and the same with something around the call, as in `abs(f(1) - 2) < 1e-9`.
  """
  expected = {_expectation(source, name) for source in asserts}
  return len(expected - {None}) > 1


class _Blank(ast.NodeTransformer):
  """A transformer that puts `_` in the place of every call of a function."""

  def __init__(self, name: str):
    self._name = name

  def visit_Call(self, node: ast.Call) -> ast.expr:
    if isinstance(node.func, ast.Name) and node.func.id == self._name:
      return ast.Name("_", ast.Load())
    self.generic_visit(node)
    return node


def _expectation(source: str, name: str) -> str | None:
  """Return the value that an assert expects of a call; None if it may be any."""
  statement = _parse(source).body[0]
  assert isinstance(statement, ast.Assert)
  test = _Blank(name).visit(statement.test)
  if isinstance(test, ast.Name):
    return f"_ == {float(True)}"
  if isinstance(test, ast.UnaryOp) and isinstance(test.operand, ast.Name):
    return f"_ == {float(False)}"
  if not (isinstance(test, ast.Compare) and len(test.ops) == 1):
    return None
  sides = [test.left, test.comparators[0]]
  calls = ["_" in {n.id for n in ast.walk(s) if isinstance(n, ast.Name)} for s in sides]
  if calls == [False, True]:
    sides.reverse()
  call, other = sides
  if calls[0] == calls[1]:
    return None
  if isinstance(test.ops[0], (ast.Eq, ast.Is)):
    value: Any = ast.unparse(other)
    with contextlib.suppress(Exception):  # 1 and 1.0 are the same answer
      value = ast.literal_eval(other)
      value = repr(float(value) if isinstance(value, (int, float)) else value)
    return f"{ast.unparse(call)} == {value}"
  nearly = isinstance(test.ops[0], (ast.Lt, ast.LtE)) and isinstance(call, ast.Call)
  return f"nearly {ast.unparse(call)}" if nearly else None


def _parse(source: str) -> ast.Module:
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    return ast.parse(source)
