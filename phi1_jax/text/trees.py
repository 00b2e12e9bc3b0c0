"""Functions as strings of syntax, compared by edit distance: the AST match rate.

The paper (section 5.2, appendix C) compares snippets by the edit distance between their
syntax trees, which sees no names, comments or docstrings; it gives no formula. Here a
function becomes a string with one character per token of its tree in prefix order, and

    match rate = 1 - levenshtein(one, other) / max(len(one), len(other))

No tokens are: names the author chose, docstrings, comments, annotations, decorators,
imports, the content of strings, `pass`. Tokens are: the kind of every node, operators,
names of builtins and attributes (renaming `append` or `sorted` gives another program,
so they tell functions apart), numbers (they need no translation; a changed number is a
changed function, and costs one token), and where a block ends.

Statements may be in another order and still be the same program: of each function there
is a second string, with independent parts in a fixed order: statements of a block,
operands of commutative operators, both branches of an `if`; `+=`, guards and variables
that are only returned are written in one way. It compares as well.
"""

from __future__ import annotations

import ast
import builtins
import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from rapidfuzz.distance import Levenshtein

from phi1_jax.text.source import FunctionNode

_BUILTINS = frozenset(dir(builtins))
_END = "end"
_BLOCKS = ("body", "orelse", "finalbody", "handlers", "cases")
_LEFT_OUT = (ast.Import, ast.ImportFrom, ast.Pass, ast.Global, ast.Nonlocal)
_LEAVING = (ast.Return, ast.Raise, ast.Continue, ast.Break)
_PLAIN_BITS = 1024
_COMMUTATIVE = (ast.Add, ast.Mult, ast.BitAnd, ast.BitOr, ast.BitXor)
# Comparison -> the same one written otherwise, and whether its sides change places.
_SAME = {ast.Gt: (ast.Lt, True), ast.GtE: (ast.LtE, True)}
# Comparison -> one that chooses between the same two branches.
_SAME_BRANCHES = {
  ast.Gt: (ast.Lt, True),
  ast.GtE: (ast.Lt, False),
  ast.LtE: (ast.Lt, True),
  ast.NotEq: (ast.Eq, False),
  ast.NotIn: (ast.In, False),
  ast.IsNot: (ast.Is, False),
}
_Tokens = list[str]
_Write = Callable[[Any, _Tokens], None]  # appends the tokens of a node or a block
_Comparisons = Mapping[type[ast.cmpop], tuple[type[ast.cmpop], bool]]


@dataclasses.dataclass(frozen=True)
class Shape:
  """The syntax of a function without its words.

  Attributes:
    written: one character per token, in the order of the source.
    ordered: the same with independent parts in a fixed order.
  """

  written: str
  ordered: str


def shape(function: FunctionNode) -> Shape | None:
  """Return the shape of a function; None if it is too deep or too large."""
  try:
    found = _Writer(frozenset(), ordered=False)
    written = found.write(function)
    bound = frozenset(found.rebound)
    if bound:
      written = _Writer(bound, ordered=False).write(function)
    return Shape(written, _Writer(bound, ordered=True).write(function))
  except (RecursionError, ValueError, MemoryError):
    return None


def match_rate(one: Shape, other: Shape, least: float = 0.0) -> float:
  """Return the AST match rate of two functions, 0 to 1: the better of both orders.

  Args:
    one: a function's shape.
    other: another's.
    least: what is less counts as 0, and is found out faster.
  """
  rate = Levenshtein.normalized_similarity
  written = rate(one.written, other.written, score_cutoff=least)
  return max(written, rate(one.ordered, other.ordered, score_cutoff=least))


class _Characters(dict[str, str]):
  """A character for each token, the same in every process."""

  def __missing__(self, token: str) -> str:
    digest = hashlib.blake2b(token.encode("utf-8", "surrogatepass"), digest_size=4)
    number = int.from_bytes(digest.digest(), "little")
    # Outside of the first plane, which has the surrogates. Two tokens share one of the
    # million characters with a chance of 1e-6.
    self[token] = character = chr(0x10000 + number % 0x100000)
    return character


_characters = _Characters()


class _Writer:
  """Writes one function down as tokens.

  Args:
    bound: names of builtins that mean something else, as the function assigns them.
    ordered: whether independent parts come in a fixed order.

  Attributes:
    rebound: the names of builtins that the function assigns, or has as arguments.
  """

  def __init__(self, bound: frozenset[str], ordered: bool):
    self._fixed, self._ordered = _BUILTINS - bound, ordered
    self.rebound: set[str] = set()

  def write(self, function: FunctionNode) -> str:
    """Return the tokens of a function, one character each."""
    tokens: _Tokens = []
    self._function(function, tokens)
    return "".join(map(_characters.__getitem__, tokens))

  def _function(self, node: FunctionNode, out: _Tokens) -> None:
    arguments = node.args
    count = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    starred = [each for each in (arguments.vararg, arguments.kwarg) if each]
    for each in (*count, *starred):
      self._bind(each.arg)
    out += (type(node).__name__, *["arg"] * len(count), *["starred"] * len(starred))
    for default in (*arguments.defaults, *arguments.kw_defaults):
      if default:
        self._node(default, out)
    self._block(node.body, out)

  def _bind(self, name: str) -> None:
    if name in _BUILTINS:
      self.rebound.add(name)

  def _node(self, node: Any, out: _Tokens) -> None:
    """Append the tokens of a node and of all below it."""
    kind = type(node)
    if kind is ast.Name:
      out.append(node.id if node.id in self._fixed else "Name")
      if type(node.ctx) is not ast.Load:
        self._bind(node.id)
    elif kind is ast.Constant:
      out.append(_constant(node.value))
    elif kind is ast.Attribute:
      out.append(f".{node.attr}")
      self._node(node.value, out)
    elif kind is ast.arg:  # of a lambda
      out.append("arg")
      self._bind(node.arg)
    elif isinstance(node, FunctionNode):
      self._function(node, out)
    elif kind is ast.JoinedStr:  # how its text is cut depends on the text
      out.append("JoinedStr")
      self._all((x for x in node.values if not isinstance(x, ast.Constant)), out)
    elif kind is ast.AnnAssign:
      out.append("Assign")
      self._all((node.target, *([node.value] if node.value else ())), out)
    elif not (self._ordered and self._in_order(node, out)):
      out.append(kind.__name__)
      for name, is_block in _fields(kind):
        value = getattr(node, name, None)
        if isinstance(value, ast.AST):
          self._node(value, out)
        elif not isinstance(value, list):
          continue
        elif not is_block:
          self._all((part for part in value if isinstance(part, ast.AST)), out)
        elif value:
          self._block(value, out)

  def _all(self, nodes: Iterable[ast.AST], out: _Tokens) -> None:
    for node in nodes:
      self._node(node, out)

  def _block(self, body: list, out: _Tokens) -> None:
    kept = [s for s in body if not isinstance(s, _LEFT_OUT) and not _is_text(s)]
    if self._ordered:
      self._sorted(_folded(kept), out)
    else:
      self._all(kept, out)
    out.append(_END)

  def _sorted(
    self, nodes: Sequence[Any], out: _Tokens, write: _Write | None = None
  ) -> None:
    """Append the tokens of each node, or block, in the order of these tokens."""
    parts: list[_Tokens] = [[] for _ in nodes]
    for node, part in zip(nodes, parts, strict=True):
      (write or self._node)(node, part)
    for part in sorted(parts):
      out += part

  def _in_order(self, node: ast.AST, out: _Tokens) -> bool:
    """Append the tokens of a node whose parts may be reordered, or return False."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, _COMMUTATIVE):
      out += ("BinOp", type(node.op).__name__)
      self._sorted(_operands(node), out)
    elif isinstance(node, ast.BoolOp):
      out += ("BoolOp", type(node.op).__name__)
      self._sorted(node.values, out)
    elif isinstance(node, ast.AugAssign):
      whole = ast.BinOp(node.target, node.op, node.value)
      out.append("Assign")
      self._all((node.target, whole), out)
    elif isinstance(node, ast.Compare) and len(node.ops) == 1:
      self._compare(node, _SAME, out)
    elif isinstance(node, (ast.If, ast.IfExp)) and node.orelse:
      self._branches(node, out)
    else:
      return False
    return True

  def _compare(self, node: ast.Compare, same: _Comparisons, out: _Tokens) -> None:
    left, right, kind = node.left, node.comparators[0], type(node.ops[0])
    kind, swapped = same.get(kind, (kind, False))
    if swapped:
      left, right = right, left
    out += ("Compare", kind.__name__)
    (self._sorted if kind in (ast.Eq, ast.NotEq) else self._all)([left, right], out)

  def _branches(self, node: ast.If | ast.IfExp, out: _Tokens) -> None:
    """Append a test without its negation, and both branches in the order of tokens."""
    test = node.test
    while isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
      test = test.operand
    out.append(type(node).__name__)
    if isinstance(test, ast.Compare) and len(test.ops) == 1:
      self._compare(test, _SAME_BRANCHES, out)
    else:
      self._node(test, out)
    write = self._block if isinstance(node, ast.If) else self._node
    self._sorted((node.body, node.orelse), out, write)


@functools.cache
def _fields(kind: type[ast.AST]) -> tuple[tuple[str, bool], ...]:
  """Return the fields of a kind of node, and whether each is a block."""
  return tuple((name, name in _BLOCKS) for name in kind._fields if name != "ctx")


def _constant(value: object) -> str:
  if isinstance(value, (str, bytes)):
    return "str"
  if isinstance(value, int) and value.bit_length() > _PLAIN_BITS:
    return hex(value)  # Python refuses to write thousands of decimal digits
  return repr(value)


def _folded(body: list[ast.stmt]) -> list[ast.stmt]:
  """Return a block with `x = a; return x` as `return a`, and `else` after a guard."""
  for place, statement in enumerate(body[:-1]):
    if isinstance(statement, ast.If) and isinstance(statement.body[-1], _LEAVING):
      rest = [*statement.orelse, *body[place + 1 :]]
      return [*body[:place], ast.If(statement.test, statement.body, rest)]
  match body:
    case [*before, ast.Assign([ast.Name(name)], value), ast.Return(ast.Name(returned))]:
      return [*before, ast.Return(value)] if name == returned else body
  return body


def _operands(node: ast.BinOp) -> list[ast.expr]:
  """Return the terms of a sum or the factors of a product, whatever its brackets."""
  found = []
  for side in (node.left, node.right):
    if isinstance(side, ast.BinOp) and type(side.op) is type(node.op):
      found += _operands(side)
    else:
      found.append(side)
  return found


def _is_text(statement: ast.AST) -> bool:
  """Return whether a node is a string that stands alone, as docstrings do."""
  return (
    isinstance(statement, ast.Expr)
    and isinstance(statement.value, ast.Constant)
    and isinstance(statement.value.value, str)
  )
