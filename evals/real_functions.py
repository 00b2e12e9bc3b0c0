"""Real functions with doctests, which nobody wrote for a benchmark: more-itertools.

A problem is a function as it stands in its file: the imports and constants that it
needs, its signature and its docstring. The rest of its body is what a model writes;
the examples of the docstring, which the model sees, decide.

The imports are part of the prompt rather than of `Problem.setup`, which is put before a
completion unseen: what a program is judged with is then what the model read, as in
HumanEval, whose stubs begin with the imports of their author, too. They give away which
parts of the standard library the author used.

Taken is every public function that

  is short           at most 15 lines of code below the docstring
  stands alone       its names are its own, builtins, constants (`_marker = object()`),
                     and imports from the standard library
  repeats itself     it uses nothing random and no clock
  has tests          at least one example gives an assert, whose other names are made
                     of the package's functions and the standard library alone

Each passes its tests in the sandbox and fails them with an empty body (tested). Python
3.10 is needed to judge them, as it is to run the package.

An example becomes an assert where its result is a literal (`==`, so a list is no tuple,
but 1 is True); an expected exception, a look for its class (messages are nobody's to
guess). Other examples are executed, as in doctest, and their output is not looked at.
Skipped ones are left out.

The package is parsed and never imported. The problems are frozen by digest.
"""

from __future__ import annotations

import ast
import builtins
import dataclasses
import doctest
import functools
import importlib.metadata
import importlib.util
import sys
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path

from evals.names import BUILTINS, names
from phi1_jax import InputError
from phi1_jax.problems.problem import Problem, parse
from phi1_jax.text import settings_file

VERSION = "11.2.1"
NUMBER = 75
TASK_SET = f"doctests-{NUMBER}"
# Of the problems of that version (see `digest`).
SHA256 = "f8072080d333f0257943c96ec111829681140df9b7bf629c4bb310bc90a3b7da"
PACKAGE, _MODULES = "more_itertools", ("recipes", "more")
_MOST_LINES = 15
_UNREPEATABLE = frozenset(("random", "secrets", "time", "threading", "queue"))
_INSTALL = "pip install -c constraints.txt more-itertools"
# Their examples pass functions, or look at what is left of an iterator they passed.
_IN_PROCESS = (
  "all_equal all_unique argmin before_and_after consume difference doublestarmap "
  "duplicates_everseen exactly_n filter_map first_true groupby_transform iter_suppress "
  "iterate lstrip map_if map_reduce one quantify repeatfunc rstrip tabulate "
  "takewhile_inclusive unique_everseen unique_justseen"
)


@dataclasses.dataclass(frozen=True)
class _Definition:
  """A top-level statement of the package: a function, a constant or an import.

  Attributes:
    source: its text; of an import, only the one name.
    reads: the module's names that it uses.
    function: its tree, if it is a function.
    module: that it is imported from; "" for the others.
  """

  source: str
  reads: frozenset[str] = frozenset()
  function: ast.FunctionDef | None = None
  module: str = ""


@functools.cache
def load(task_set: str = TASK_SET) -> tuple[Problem, ...]:
  """The problems, in the order of the package's files.

  Args:
    task_set: `TASK_SET`.

  Raises:
    InputError: the package is not installed, or is not the one pinned here.
  """
  assert task_set == TASK_SET, task_set
  problems = tuple(_problems())
  got = digest(problems)
  if got != SHA256:
    raise InputError(
      f"{PACKAGE} {VERSION}: its {len(problems)} functions have sha256 {got[:16]}, "
      f"expected {NUMBER} with {SHA256[:16]}; {_INSTALL} --force-reinstall"
    )
  return problems


def digest(problems: Iterable[Problem]) -> str:
  """sha256 over what is asked and what decides."""
  fields = ("entry_point", "prompt", "reference", "tests", "in_process")
  return settings_file.digest([[getattr(p, f) for f in fields] for p in problems])


def _problems() -> list[Problem]:
  found: list[Problem] = []
  definitions: dict[str, _Definition] = {}
  for text in _texts():
    definitions |= dict(_read(text))
  for name, definition in definitions.items():
    problem = _problem(name, definition, definitions)
    found += [problem] if problem else []
  return found


def _texts() -> list[str]:
  spec = importlib.util.find_spec(PACKAGE)  # finds; does not execute
  if spec is None or not spec.submodule_search_locations:
    raise InputError(f"{TASK_SET} needs the package more-itertools: {_INSTALL}")
  version = importlib.metadata.version("more-itertools")
  if version != VERSION:
    raise InputError(
      f"more-itertools: got version {version}, {TASK_SET} is of {VERSION}; {_INSTALL}"
    )
  folder = Path(spec.submodule_search_locations[0])
  return [(folder / f"{m}.py").read_text(encoding="utf-8") for m in _MODULES]


def _read(text: str) -> Iterator[tuple[str, _Definition]]:
  """What a module defines that a problem may be made of, by name."""
  lines = text.splitlines(keepends=True)
  for node in parse(text).body:
    source = "".join(lines[node.lineno - 1 : node.end_lineno])
    if isinstance(node, ast.FunctionDef) and not node.decorator_list:
      yield node.name, _Definition(source, names(source, parse(source)).reads, node)
    elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
      if len(node.targets) == 1 and isinstance(node.value, ast.Call | ast.Constant):
        reads = names(source, parse(source)).reads
        yield node.targets[0].id, _Definition(source, reads)
    elif isinstance(node, ast.Import):
      for alias in node.names:
        yield from _imported("", alias)
    elif isinstance(node, ast.ImportFrom) and not node.level:
      for alias in node.names:
        yield from _imported(node.module or "", alias)


def _imported(module: str, alias: ast.alias) -> Iterator[tuple[str, _Definition]]:
  top = (module or alias.name).split(".")[0]
  if top in sys.stdlib_module_names and "." not in (alias.asname or alias.name):
    name = alias.name + (f" as {alias.asname}" if alias.asname else "")
    source = f"from {module} import {name}\n" if module else f"import {name}\n"
    yield alias.asname or alias.name, _Definition(source, module=top)


def _problem(
  name: str, definition: _Definition, definitions: dict[str, _Definition]
) -> Problem | None:
  """The problem of one function, None if a rule leaves it out."""
  function = definition.function
  docstring = ast.get_docstring(function, clean=False) if function else None
  if not (function and docstring) or name.startswith("_"):
    return None
  needs = _needs(definition.reads - {name}, definitions)
  if needs is None or any(definitions[n].function for n in needs):
    return None
  prompt, body = _cut(definition.source)
  tests = _tests(name, docstring, definitions)
  if not tests or _lines(body) > _MOST_LINES or not body.strip():
    return None
  before = _header(needs, definitions)
  return Problem(
    id=f"doctests/{name}",
    entry_point=name,
    prompt=before + prompt,
    reference=body,
    solution=before + prompt + body,
    tests=tests,
    in_process=name in _IN_PROCESS.split(),
  )


def _cut(source: str) -> tuple[str, str]:
  """A function up to the end of its docstring, and the rest."""
  function = parse(source).body[0]
  assert isinstance(function, ast.FunctionDef)
  lines = source.splitlines(keepends=True)
  end = function.body[0].end_lineno or 0
  return "".join(lines[:end]), "".join(lines[end:])


def _lines(body: str) -> int:
  """How many lines of code there are, without blank ones and comments."""
  lines = (line.strip() for line in body.splitlines())
  return sum(bool(line) and not line.startswith("#") for line in lines)


def _needs(
  wanted: Iterable[str], definitions: dict[str, _Definition], own: str = ""
) -> list[str] | None:
  """Names of all definitions that `wanted` rests on, each after those it uses itself.

  None if one of them is unknown, or neither repeatable nor plain. `own` is not
  followed.
  """
  found: dict[str, None] = {}

  def follow(name: str, above: tuple[str, ...]) -> bool:
    there = definitions.get(name)
    if name in found or name in above or name == own:
      return True
    if there is None or there.module in _UNREPEATABLE:
      return there is None and name in BUILTINS
    if not all(follow(n, (*above, name)) for n in sorted(there.reads)):
      return False
    found[name] = None
    return True

  return list(found) if all(follow(n, ()) for n in sorted(wanted)) else None


def _header(needs: Iterable[str], definitions: dict[str, _Definition]) -> str:
  """Imports, then everything else, with the empty lines of a file in between."""
  parts = [definitions[name] for name in needs]
  imports = sorted(part.source for part in parts if part.module)
  others = [part.source for part in parts if not part.module]
  blocks = ["".join(imports), *others]
  return "".join(f"{block}\n\n" for block in blocks if block)


def _tests(
  name: str, docstring: str, definitions: dict[str, _Definition]
) -> tuple[str, ...]:
  """The docstring's examples as tests; () if there is nothing to assert."""
  try:
    examples = doctest.DocTestParser().get_examples(docstring)
  except ValueError:
    return ()
  wanted = [e for e in examples if not e.options.get(doctest.SKIP)]
  sources = [s for e in wanted if (s := _statement(e))]
  if not any(source.startswith(("assert", "try")) for source in sources):
    return ()
  whole = "pass\n" + "".join(sources)  # or a first definition would be all there is
  try:
    used = names(whole, parse(whole))
  except SyntaxError:
    return ()
  needs = _needs(used.reads - used.binds, definitions, own=name)
  if needs is None or name not in used.reads:
    return ()
  header = _header(needs, definitions)
  return (header, *sources) if header else tuple(sources)


def _statement(example: doctest.Example) -> str:
  """One example as a test; "" where it only imports from the package itself."""
  source = example.source
  try:
    [node] = parse(source).body
  except (SyntaxError, ValueError):
    return source
  if isinstance(node, ast.ImportFrom) and node.module == PACKAGE:
    return ""
  if example.exc_msg:
    return _raises(source, example.exc_msg)
  if not isinstance(node, ast.Expr):
    return source
  code = ast.get_source_segment(source, node) or ""
  if not isinstance(node.value, ast.Call | ast.Name | ast.Subscript | ast.Attribute):
    code = f"({code})"
  if not example.want:
    return f"assert {code} is None\n"
  want = example.want.strip()
  shown = _is_literal(want) and not code.startswith("print(")
  return f"assert {code} == {want}\n" if shown else source


def _raises(source: str, message: str) -> str:
  """A test that the source raises what the message names."""
  kind = message.split(":")[0].strip()
  if not isinstance(getattr(builtins, kind, None), type):
    return source
  return (
    f"try:\n{textwrap.indent(source, '  ')}except {kind}:\n  pass\n"
    f'else:\n  assert False, "expected {kind}"\n'
  )


def _is_literal(text: str) -> bool:
  """Whether a result can be written as it is shown: `...` stands for anything."""
  try:
    tree = ast.parse(text, mode="eval")
    ast.literal_eval(tree)
  except (SyntaxError, ValueError, TypeError):
    return False
  return not any(getattr(n, "value", None) is Ellipsis for n in ast.walk(tree))
