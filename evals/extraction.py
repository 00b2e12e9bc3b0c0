"""Finds, in a model's answer, the function that was asked for and what it needs.

Models add explanations, code fences, examples, and functions that nobody asked for,
or stop in the middle of one. The answer is split into its top-level blocks, each is
parsed alone, and those are kept which the entry point reaches by name. The time is
linear in the length of the answer, and everything left out is listed with a reason.

Of several definitions of the entry point the first that does something is kept: what
comes later is rambling, and what comes before is the prompt's own stub.
"""

import ast
import dataclasses
import itertools
import re
from collections import defaultdict
from collections.abc import Iterable

from phi1_jax.problems.problem import parse

# Strings, comments, brackets: all that decides whether a new line is a new statement.
_TOKEN = re.compile(
  r"""
    (?P<triple>\"{3}|'{3})
  | (?P<string>"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')
  | (?P<comment>\#[^\n]*)
  | (?P<open>[(\[{]) | (?P<close>[)\]}])
  | (?P<newline>\n)
  """,
  re.VERBOSE,
)
_FENCE = re.compile(r"^[ \t]*```[^\n]*$", re.MULTILINE)
# Lines at column 0 that go on with the block before them.
_CONTINUES = re.compile(r"(else|elif|except|finally)\b|[)\]}#]|\s|$")
# Words that begin a statement even where a bracket was left open by mistake.
_BEGINS = re.compile(r"(def|class|import|from|async|if|for|while|try|with)\b|@")
# How often a block that does not parse is cut at the line that is to blame.
_REPAIRS = 4


@dataclasses.dataclass(frozen=True)
class Extraction:
  """What was found.

  Attributes:
    code: the program to judge; "" where the entry point is not defined.
    dropped: one line for each piece left out: how it begins, and the reason.
  """

  code: str
  dropped: tuple[str, ...]


@dataclasses.dataclass
class _Block:
  source: str
  tree: ast.Module | None = None
  cut: str = ""
  reason: str = ""
  binds: frozenset[str] = frozenset()
  changes: frozenset[str] = frozenset()
  reads: frozenset[str] = frozenset()


def extract(program: str, entry_point: str, also: Iterable[str] = ()) -> Extraction:
  """Keeps what `entry_point` needs.

  Args:
    program: what stands before the completion, and the completion.
    entry_point: the function that the tests call.
    also: other names that the tests use, kept where they are defined.
  """
  blocks = [_read(source) for source in _split(_unfence(program, entry_point))]
  entry = _entry(blocks, entry_point)
  if entry is None:
    return Extraction("", (f"everything: no definition of {entry_point}",))
  for block in blocks:
    if block is not entry and entry_point in block.binds:
      block.reason = f"another {entry_point}"
  kept = _reached(blocks, entry, also)
  dropped = []
  for index, block in enumerate(blocks):
    if index not in kept and block.source.strip():
      dropped.append(f"{_beginning(block.source)}: {block.reason or 'not needed'}")
    if block.cut.strip():
      dropped.append(f"{_beginning(block.cut)}: not Python")
  code = "".join(blocks[index].source for index in sorted(kept))
  return Extraction(code, tuple(dropped))


def _beginning(source: str) -> str:
  return source.strip().splitlines()[0].strip()[:80]


def _unfence(program: str, entry_point: str) -> str:
  """Takes markdown off: the fenced block that defines the entry point, or up to one."""
  fences = list(_FENCE.finditer(program))
  if not fences:
    return program
  ends = [fence.start() for fence in fences] + [len(program)]
  parts = [program[: ends[0]]] + [
    program[fence.end() + 1 : end] for fence, end in zip(fences, ends[1:], strict=True)
  ]
  defines = re.compile(rf"^(async )?def {re.escape(entry_point)}\b", re.MULTILINE)
  # Inside of fences are the odd parts. The first one is the prompt, whose imports and
  # helpers the fenced code may rely on.
  for part in parts[1::2]:
    if defines.search(part):
      return parts[0].rstrip() + "\n\n" + part
  return parts[0]


def _split(program: str) -> list[str]:
  """Top-level blocks: a statement, with the lines that belong to it."""
  starts, place, depth = [0], 0, 0
  decorated = program.startswith("@")
  while match := _TOKEN.search(program, place):
    place = match.end()
    kind = match.lastgroup
    if kind == "triple":
      end = program.find(match.group(), place)
      while end > 0 and _escaped(program, end):
        end = program.find(match.group(), end + 1)
      place = len(program) if end < 0 else end + 3
    elif kind == "open":
      depth += 1
    elif kind == "close":
      depth = max(depth - 1, 0)
    elif kind == "newline":
      rest = program[place : place + 16]
      if _CONTINUES.match(rest) or (depth and not _BEGINS.match(rest)):
        continue
      depth = 0
      if not decorated:
        starts.append(place)
      decorated = rest.startswith("@")
  bounds = [*starts, len(program)]
  blocks = [program[a:b] for a, b in itertools.pairwise(bounds)]
  if len(blocks) > 1 and not blocks[0].strip():
    blocks[:2] = [blocks[0] + blocks[1]]
  return blocks


def _escaped(text: str, place: int) -> bool:
  backslashes = 0
  while place > backslashes and text[place - backslashes - 1] == "\\":
    backslashes += 1
  return backslashes % 2 == 1


def _read(source: str) -> _Block:
  """Parses one block, cutting off an end that is not Python."""
  whole = source
  for _ in range(_REPAIRS + 1):
    try:
      tree = parse(source)
    except SyntaxError as error:
      lines = source.splitlines(keepends=True)
      # A statement that is never finished is reported where it begins.
      source = "".join(lines[: min((error.lineno or 1), len(lines)) - 1])
    except (ValueError, RecursionError, MemoryError):  # NUL bytes, absurd nesting
      break
    else:
      return _described(_Block(source, tree, cut=whole[len(source) :]))
  return _Block("", cut=whole)


def _described(block: _Block) -> _Block:
  """Adds the names that a block binds, reads, and changes in place."""
  assert block.tree is not None
  binds, changes, reads = set(), set(), set()
  for node in ast.walk(block.tree):
    if isinstance(node, ast.Name):
      (reads if isinstance(node.ctx, ast.Load) else binds).add(node.id)
    elif isinstance(node, ast.Attribute | ast.Subscript):
      base = _base(node)
      if base and not isinstance(node.ctx, ast.Load):
        changes.add(base)
  for statement in _top_level(block.tree.body):
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
      binds.add(statement.name)
    elif isinstance(statement, ast.Import | ast.ImportFrom):
      binds |= {(a.asname or a.name).partition(".")[0] for a in statement.names}
    elif isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
      base = _base(statement.value.func)
      changes |= {base} if base else set()
  first = block.tree.body[0] if block.tree.body else None
  if isinstance(first, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
    binds, changes = {first.name}, set()  # what its body does happens when it is called
  if isinstance(first, ast.If) and "__name__" in ast.dump(first.test):
    block.reason, binds, changes = "main block", set(), set()
  block.binds, block.changes = frozenset(binds), frozenset(changes)
  block.reads = frozenset(reads)
  return block


def _base(node: ast.AST) -> str | None:
  """The name that `a.b[c].d` begins with, None where it is the whole or no name."""
  inside = False
  while isinstance(node, ast.Attribute | ast.Subscript):
    node, inside = node.value, True
  return node.id if inside and isinstance(node, ast.Name) else None


def _top_level(body: Iterable[ast.stmt]) -> Iterable[ast.stmt]:
  """Statements of the module itself, those in its ifs, loops and tries included."""
  for statement in body:
    yield statement
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
      continue
    for field in ("body", "orelse", "finalbody"):
      yield from _top_level(getattr(statement, field, ()))
    for handler in getattr(statement, "handlers", ()):
      yield from _top_level(handler.body)


def _entry(blocks: list[_Block], name: str) -> _Block | None:
  """The first definition that does something, else the first there is."""
  found = [block for block in blocks if name in block.binds]
  for block in found:
    if not (block.tree and _is_stub(block.tree.body[0])):
      return block
  return found[0] if found else None


def _is_stub(node: ast.stmt) -> bool:
  if not isinstance(node, ast.FunctionDef):
    return False
  return all(
    isinstance(s, ast.Pass)
    or (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))
    for s in node.body
  )


def _reached(blocks: list[_Block], entry: _Block, also: Iterable[str]) -> set[int]:
  """Indices of the blocks that the entry point needs, through any number of names."""
  of_name: dict[str, list[int]] = defaultdict(list)
  for index, block in enumerate(blocks):
    # Star imports bind what nobody knows.
    if block.tree and "*" in block.binds:
      of_name["*"].append(index)
    if not block.reason:
      for name in block.binds | block.changes:
        of_name[name].append(index)
  kept, names, waiting = {blocks.index(entry)}, set(), {"*", *also, *entry.reads}
  # Future imports change how everything after them is read.
  kept |= {i for i, b in enumerate(blocks) if b.source.startswith("from __future__")}
  while waiting:
    name = waiting.pop()
    names.add(name)
    for index in of_name[name]:
      if index not in kept:
        kept.add(index)
        waiting |= blocks[index].reads - names
  return kept
