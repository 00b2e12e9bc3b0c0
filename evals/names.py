"""The names that a block of Python binds, reads and changes in its module."""

import ast
import builtins
import dataclasses
import symtable
import warnings
from collections.abc import Iterable, Iterator

# Builtins that change what they are given; all others leave it as it was.
_CHANGING = {"delattr", "eval", "exec", "filter", "list", "map", "next", "setattr"}
BUILTINS = frozenset(dir(builtins)) | {"__name__", "__file__"}
_PURE = BUILTINS - _CHANGING
# Calls that set up the interpreter rather than anything that has a name.
_SETTINGS = {"getcontext", "seed", "setcontext", "setrecursionlimit", "stack_size"}
_SETTINGS |= {"set_int_max_str_digits", "setlocale"}
_SEEDED = {"random"}  # whose seed() it is; other packages may not be there
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


@dataclasses.dataclass(frozen=True)
class Names:
  """The module's names in a block, without names that are local to a function."""

  binds: frozenset[str] = frozenset()  # given a value, or defined
  # changed in place, by `a.b = `, `a[b] = ` or `a.b()`
  changes: frozenset[str] = frozenset()
  # perhaps changed: arguments of calls, and whose methods are called
  touches: frozenset[str] = frozenset()
  reads: frozenset[str] = frozenset()  # read, in the bodies of definitions too
  # called, or a decorator or base class, when the block is executed
  calls: frozenset[str] = frozenset()
  effects: frozenset[str] = frozenset()  # of a definition: what calling it may change
  body_calls: frozenset[str] = frozenset()  # of a definition: what calling it calls
  defines: bool = False  # whether it is a definition
  sets_up: bool = False  # whether it sets up the interpreter


def names(source: str, tree: ast.Module) -> Names:
  """Return the names of a block: a parsed source of one or a few statements."""
  binds, reads, assigned = _scopes(source, tree)
  first = tree.body[0] if tree.body else None
  if isinstance(first, _DEFINITIONS):
    # What its body does happens when it is called.
    inside = [node for part in first.body for node in ast.walk(part)]
    stores, bases, calls = _changed(inside)
    outer_stores, touches, executed = _changed(_own(first))
    executed |= {node.id for node in _applied(first) if isinstance(node, ast.Name)}
    touches |= {base for node in _applied(first) if (base := _base(node))}
    return Names(
      binds=frozenset({first.name}),
      changes=frozenset(outer_stores),
      touches=frozenset(touches),
      reads=frozenset(reads),
      calls=frozenset(executed),
      effects=frozenset(assigned | ((stores | bases) & reads)),
      body_calls=frozenset(calls & reads),
      defines=True,
    )
  changes: set[str] = set()
  touches, executed, sets_up = set(), set(), False
  for statement in _top_level(tree.body):
    if isinstance(statement, ast.Assert) or _prints(statement):
      continue
    if isinstance(statement, ast.ImportFrom) and statement.names[0].name == "*":
      binds.add("*")
    own = list(_own(statement))
    stores, bases, calls = _changed(own)
    changes |= stores
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
      base = _base(statement.value.func)
      changes |= {base} if base else set()
    touches |= bases
    executed |= calls
    sets_up |= any(_sets_up(node) for node in own)
  return Names(
    binds=frozenset(binds),
    changes=frozenset(changes),
    touches=frozenset(touches),
    reads=frozenset(reads),
    calls=frozenset(executed),
    sets_up=sets_up,
  )


def _scopes(source: str, tree: ast.Module) -> tuple[set[str], set[str], set[str]]:
  """Return the module's names that are bound, read, and assigned in functions."""
  try:
    with warnings.catch_warnings():
      warnings.simplefilter("ignore")  # see problems.problem.parse
      top = symtable.symtable(source, "block", "exec")
  except (SyntaxError, ValueError, RecursionError, MemoryError):
    # Parses, but does not compile, as `return` outside of a function.
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
    reads = {node.id for node in found if isinstance(node.ctx, ast.Load)}
    return {node.id for node in found} - reads, reads, set()
  symbols = top.get_symbols()
  binds = {s.get_name() for s in symbols if s.is_assigned() or s.is_imported()}
  reads = {s.get_name() for s in symbols if s.is_referenced()}
  assigned: set[str] = set()
  waiting = list(top.get_children())
  while waiting:
    table = waiting.pop()
    waiting += table.get_children()
    for symbol in table.get_symbols():
      if symbol.is_global():
        reads |= {symbol.get_name()} if symbol.is_referenced() else set()
        assigned |= {symbol.get_name()} if symbol.is_assigned() else set()
  return binds, reads, assigned


def _changed(nodes: Iterable[ast.AST]) -> tuple[set[str], set[str], set[str]]:
  """Return names whose parts are assigned, that calls may change, that are called."""
  stores, bases, calls = set(), set(), set()
  for node in nodes:
    if isinstance(node, ast.Attribute | ast.Subscript):
      # Only of the last link, or a long chain would take quadratic time.
      if not isinstance(node.ctx, ast.Load) and (base := _base(node)):
        stores.add(base)
    elif isinstance(node, ast.Call):
      base = _base(node.func)
      bases |= {base} if base else set()
      if isinstance(node.func, ast.Name):
        calls.add(node.func.id)
        if node.func.id in _PURE:
          continue
      for argument in [*node.args, *(keyword.value for keyword in node.keywords)]:
        if isinstance(argument, ast.Name):
          bases.add(argument.id)
        elif base := _base(argument):
          bases.add(base)
  return stores, bases, calls


def _base(node: ast.AST) -> str | None:
  """Return the name that `a.b[c].d` begins with; None if it is the whole or none."""
  inside = False
  while isinstance(node, ast.Attribute | ast.Subscript):
    node, inside = node.value, True
  return node.id if inside and isinstance(node, ast.Name) else None


def _applied(node: ast.stmt) -> Iterator[ast.expr]:
  """Yield decorators and base classes, which Python calls."""
  assert isinstance(node, _DEFINITIONS)
  for decorator in node.decorator_list:
    yield decorator.func if isinstance(decorator, ast.Call) else decorator
  if isinstance(node, ast.ClassDef):
    yield from node.bases


def _prints(statement: ast.stmt) -> bool:
  value = statement.value if isinstance(statement, ast.Expr) else None
  return (
    isinstance(value, ast.Call)
    and isinstance(value.func, ast.Name)
    and value.func.id == "print"
  )


def _sets_up(node: ast.AST) -> bool:
  if not isinstance(node, ast.Call):
    return False
  if isinstance(node.func, ast.Name):
    return node.func.id in _SETTINGS
  if not isinstance(node.func, ast.Attribute) or node.func.attr not in _SETTINGS:
    return False
  return node.func.attr != "seed" or _base(node.func) in _SEEDED


def _own(statement: ast.stmt) -> Iterator[ast.AST]:
  """Yield the expressions of a statement, without those of the statements in it."""
  inner = (ast.stmt, ast.excepthandler, ast.match_case)
  waiting = [n for n in ast.iter_child_nodes(statement) if not isinstance(n, inner)]
  while waiting:
    node = waiting.pop()
    yield node
    waiting.extend(ast.iter_child_nodes(node))


def _top_level(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
  """Yield statements of the module, those in its ifs, loops and tries included."""
  waiting: list[ast.AST] = list(body)
  while waiting:
    node = waiting.pop()
    if isinstance(node, ast.stmt):
      yield node
    if not isinstance(node, _DEFINITIONS):
      for field in ("body", "orelse", "finalbody", "handlers", "cases"):
        inner = getattr(node, field, None)
        waiting.extend(inner if isinstance(inner, list) else ())
