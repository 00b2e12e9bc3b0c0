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
  """The module's names in a block, without names that are local to a function.

  An action is a name that is perhaps changed (the argument of a call, the owner of a
  method), or "name()", a call of it.
  """

  binds: frozenset[str] = frozenset()  # given a value, or defined
  # changed in place, by `a.b = `, `a[b] = ` or `a.b()`
  changes: frozenset[str] = frozenset()
  reads: frozenset[str] = frozenset()  # read, in the bodies of definitions too
  actions: frozenset[str] = frozenset()  # when the block is executed
  # when what the block defines is called; None if the block is not a definition
  of_calls: frozenset[str] | None = None
  sets_up: bool = False  # whether it sets up the interpreter


def names(source: str, tree: ast.Module) -> Names:
  """Return the names of a block: a parsed source of one or a few statements."""
  binds, reads, assigned = _scopes(source, tree)
  first = tree.body[0] if tree.body else None
  changes, actions, sets_up, of_calls = set(), set(), False, None
  if isinstance(first, _DEFINITIONS):
    binds = {first.name}
    # What its body does happens when it is called.
    stores, acts = _done(node for part in first.body for node in ast.walk(part))
    acts = {action for action in acts if action.removesuffix("()") in reads}
    of_calls = frozenset(assigned | (stores & reads) | acts)
    changes, actions = _done(_own(first))
    for node in _applied(first):  # is called
      actions.add(f"{node.id}()" if isinstance(node, ast.Name) else _base(node) or "")
  for statement in _top_level(tree.body) if of_calls is None else ():
    if isinstance(statement, ast.Assert) or _prints(statement):
      continue
    if isinstance(statement, ast.ImportFrom) and statement.names[0].name == "*":
      binds.add("*")
    own = list(_own(statement))
    stores, acts = _done(own)
    changes, actions = changes | stores, actions | acts
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
      changes.add(_base(statement.value.func) or "")
    sets_up |= any(_sets_up(node) for node in own)
  fields = (binds, changes, reads, actions)
  return Names(*map(frozenset, fields), of_calls=of_calls, sets_up=sets_up)


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


def _done(nodes: Iterable[ast.AST]) -> tuple[set[str], set[str]]:
  """Return names whose parts are assigned, and actions; see `Names`."""
  stores, actions = set(), set()
  for node in nodes:
    if isinstance(node, ast.Attribute | ast.Subscript):
      # Only of the last link, or a long chain would take quadratic time.
      if not isinstance(node.ctx, ast.Load):
        stores.add(_base(node))
    elif isinstance(node, ast.Call):
      actions.add(_base(node.func))
      if isinstance(node.func, ast.Name):
        actions.add(f"{node.func.id}()")
        if node.func.id in _PURE:
          continue
      for argument in [*node.args, *(keyword.value for keyword in node.keywords)]:
        actions.add(argument.id if isinstance(argument, ast.Name) else _base(argument))
  return stores - {None}, actions - {None}


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
