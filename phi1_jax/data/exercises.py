"""Exercises mined from real code: functions with a signature, docstring and body.

They have the form of the paper's CodeExercises (section 2.2). A function is taken if it

- is at the top level of its file, undecorated, and at most 80 lines long,
- has a docstring and at least one statement after it,
- returns or yields a value,
- stands alone: each global name it uses is a builtin, itself, or imported from the
  standard library at the top of the file. Those imports are put before it.
"""

from __future__ import annotations

import ast
import builtins
import itertools
import re
import symtable
import sys
import warnings
from collections.abc import Iterator

from phi1_jax.text.source import FunctionNode, parse

MAXIMUM_LINES = 80


def mine(source: str, tree: ast.Module) -> list[str]:
  """Return the exercises in a Python file and its tree, in order."""
  # The parser's lines: a form feed or U+2028 ends none.
  lines = source.replace("\r\n", "\n").replace("\r", "\n").split("\n")
  imports = dict(_standard_imports(tree))
  found = (
    _exercise(node, lines, imports)
    for node in tree.body
    if isinstance(node, ast.FunctionDef)
  )
  return [text for text in found if text is not None]


def bodies(text: str) -> list[tuple[int, int]]:
  """Return the bodies of a program's functions as ranges of bytes of its UTF-8.

  A body begins on the line after the docstring. Functions without one, and those inside
  others, are left out.
  """
  tree = parse(text)
  if tree is None:
    return []
  lines = re.split("(?<=\n)|(?<=\r)(?!\n)", text)  # the parser's
  ends = [0, *itertools.accumulate(len(line.encode()) for line in lines)]
  found = []
  for node in tree.body:
    if isinstance(node, FunctionNode) and ast.get_docstring(node):
      first, last = node.body[0].end_lineno, node.end_lineno
      if first is not None and last is not None and last > first:
        found.append((ends[first], ends[last]))
  return found


def _exercise(
  node: ast.FunctionDef, lines: list[str], imports: dict[str, str]
) -> str | None:
  """Return the function after its imports, or None if it does not have the form."""
  assert node.end_lineno is not None
  if (
    node.decorator_list
    or node.end_lineno - node.lineno >= MAXIMUM_LINES
    or len(node.body) < 2
    or not ast.get_docstring(node)
    or not _gives_a_value(node)
  ):
    return None
  first, last = node.lineno - 1, node.end_lineno
  docstring_end = node.body[0].end_lineno
  if docstring_end is None or node.body[1].lineno <= docstring_end:
    return None  # `"""Doc."""; return 1`: no line to cut at
  names = _global_names("\n".join(lines[first:last]) + "\n") - {node.name}
  needed = names - vars(builtins).keys()
  if not needed <= imports.keys():
    return None
  # A dict, because two names can come from the same statement.
  header = dict.fromkeys(imports[name] for name in imports if name in needed)
  top = "".join(f"{line}\n" for line in header) + ("\n\n" if header else "")
  return top + "\n".join(lines[first:last]) + "\n"


def _gives_a_value(function: ast.FunctionDef) -> bool:
  """Return whether the function itself, not one inside it, gives a value."""
  inner = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda
  nodes: list[ast.AST] = list(function.body)
  while nodes:
    node = nodes.pop()
    if isinstance(node, inner):
      continue
    if isinstance(node, (ast.Return, ast.Yield)) and node.value is not None:
      return True
    nodes.extend(ast.iter_child_nodes(node))
  return False


def _global_names(source: str) -> set[str]:
  """Return the names that a function takes from its module, by Python's scoping."""
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    tables = [symtable.symtable(source, "exercise", "exec")]
  names = set()
  while tables:
    table = tables.pop()
    tables.extend(table.get_children())
    for symbol in table.get_symbols():
      at_top = table.get_type() == "module"
      if symbol.is_referenced() and (at_top or symbol.is_global()):
        names.add(symbol.get_name())
      if symbol.is_declared_global():  # it keeps state in its module
        names.add(f"global {symbol.get_name()}")
  return names


def _standard_imports(tree: ast.Module) -> Iterator[tuple[str, str]]:
  """Yield each name from the standard library and the statement that imports it."""
  for node in tree.body:
    if isinstance(node, ast.Import):
      for alias in node.names:
        if alias.name.split(".")[0] in sys.stdlib_module_names:
          name = alias.asname or alias.name.split(".")[0]
          yield name, f"import {_spelled(alias)}"
    elif isinstance(node, ast.ImportFrom) and not node.level:
      module = node.module or ""  # None only in a relative import
      for alias in node.names:
        if module.split(".")[0] in sys.stdlib_module_names:
          name = alias.asname or alias.name
          yield name, f"from {module} import {_spelled(alias)}"


def _spelled(alias: ast.alias) -> str:
  return f"{alias.name} as {alias.asname}" if alias.asname else alias.name
