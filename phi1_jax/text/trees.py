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
import hashlib
from collections.abc import Iterator, Mapping

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
_Tokens = tuple[str, ...]
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
    bound = _bound(function)
    written, ordered = (
      _Writer(bound, order).function(function) for order in (False, True)
    )
    return Shape(_text(written), _text(ordered))
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


def _bound(function: FunctionNode) -> frozenset[str]:
  """The names that a function assigns, and its arguments."""
  found = set()
  left: list = [function]
  while left:  # faster than ast.walk, which took a third of the time of a shape
    node = left.pop()
    if isinstance(node, list):
      left += node
    elif isinstance(node, ast.Name):
      if not isinstance(node.ctx, ast.Load):
        found.add(node.id)
    elif isinstance(node, ast.AST):
      if isinstance(node, ast.arg):
        found.add(node.arg)
      left += [getattr(node, name, None) for name in node._fields]
  return frozenset(found)


def _text(tokens: _Tokens) -> str:
  return "".join(map(_characters.__getitem__, tokens))


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
    bound: names that mean nothing fixed, though a builtin may be called so.
    ordered: whether independent parts come in a fixed order.
  """

  def __init__(self, bound: frozenset[str], ordered: bool):
    self._bound, self._ordered = bound, ordered

  def function(self, node: FunctionNode) -> _Tokens:
    """Return the tokens of a function."""
    arguments = node.args
    count = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    starred = bool(arguments.vararg) + bool(arguments.kwarg)
    defaults = [*arguments.defaults, *(d for d in arguments.kw_defaults if d)]
    return (
      type(node).__name__,
      *["arg"] * len(count),
      *["starred"] * starred,
      *(token for default in defaults for token in self.node(default)),
      *self._block(node.body),
    )

  def node(self, node: ast.AST) -> _Tokens:
    """Return the tokens of a node and all below it."""
    if isinstance(node, FunctionNode):
      return self.function(node)
    if isinstance(node, ast.Name):
      fixed = node.id in _BUILTINS and node.id not in self._bound
      return (node.id if fixed else "Name",)
    if isinstance(node, ast.Constant):
      return (self._constant(node.value),)
    if isinstance(node, ast.Attribute):
      return f".{node.attr}", *self.node(node.value)
    if isinstance(node, ast.JoinedStr):  # how its text is cut depends on the text
      parts = (part for part in node.values if not isinstance(part, ast.Constant))
      return "JoinedStr", *self._all(parts)
    if isinstance(node, ast.AnnAssign):
      value = [node.value] if node.value else []
      return "Assign", *self._all([node.target, *value])
    if self._ordered and (tokens := self._in_order(node)):
      return tokens
    return type(node).__name__, *self._fields(node)

  def _constant(self, value: object) -> str:
    if isinstance(value, (str, bytes)):
      return "str"
    if isinstance(value, int) and value.bit_length() > _PLAIN_BITS:
      return hex(value)  # Python refuses to write thousands of decimal digits
    return repr(value)

  def _fields(self, node: ast.AST) -> Iterator[str]:
    for name in node._fields:
      value = getattr(node, name, None)
      if isinstance(value, list):
        if name in _BLOCKS:
          yield from self._block(value) if value else ()
        else:
          yield from self._all(part for part in value if isinstance(part, ast.AST))
      elif isinstance(value, ast.AST) and not isinstance(value, ast.expr_context):
        yield from self.node(value)

  def _all(self, nodes) -> Iterator[str]:
    for node in nodes:
      yield from self.node(node)

  def _block(self, body: list) -> _Tokens:
    kept = [s for s in body if not isinstance(s, _LEFT_OUT) and not _is_text(s)]
    if self._ordered:
      parts = sorted(map(self.node, _folded(kept)))
    else:
      parts = map(self.node, kept)
    return *(token for part in parts for token in part), _END

  def _in_order(self, node: ast.AST) -> _Tokens | None:
    """Return the tokens of a node whose children may be reordered, or None."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, _COMMUTATIVE):
      return "BinOp", type(node.op).__name__, *self._sorted(_operands(node))
    if isinstance(node, ast.BoolOp):
      return "BoolOp", type(node.op).__name__, *self._sorted(node.values)
    if isinstance(node, ast.AugAssign):
      whole = ast.BinOp(node.target, node.op, node.value)
      return "Assign", *self.node(node.target), *self.node(whole)
    if isinstance(node, ast.Compare) and len(node.ops) == 1:
      return self._compare(node, _SAME)
    if isinstance(node, (ast.If, ast.IfExp)) and node.orelse:
      return self._branches(node)
    return None

  def _sorted(self, nodes: list[ast.expr]) -> Iterator[str]:
    for part in sorted(self.node(node) for node in nodes):
      yield from part

  def _compare(self, node: ast.Compare, same: _Comparisons) -> _Tokens:
    left, right, kind = node.left, node.comparators[0], type(node.ops[0])
    kind, swapped = same.get(kind, (kind, False))
    if swapped:
      left, right = right, left
    if kind in (ast.Eq, ast.NotEq):
      return "Compare", kind.__name__, *self._sorted([left, right])
    return "Compare", kind.__name__, *self.node(left), *self.node(right)

  def _branches(self, node: ast.If | ast.IfExp) -> _Tokens:
    """Return a test without its negation, and both branches in the order of tokens."""
    test = node.test
    while isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
      test = test.operand
    if isinstance(test, ast.Compare) and len(test.ops) == 1:
      tokens = self._compare(test, _SAME_BRANCHES)
    else:
      tokens = self.node(test)
    if isinstance(node, ast.If):
      branches = sorted(map(self._block, (node.body, node.orelse)))
    else:
      branches = sorted(map(self.node, (node.body, node.orelse)))
    return type(node).__name__, *tokens, *branches[0], *branches[1]


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
