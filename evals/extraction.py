"""Extraction: from a model's answer, the requested function and what it needs.

Models add explanations, code fences, examples and other functions, or stop in the
middle of one. The answer is split into its top-level blocks, each is parsed alone, and
those that the entry point reaches by name are kept. The time is linear in the length of
the answer, and everything left out is listed with a reason.

Set-up code is kept with what it sets up: `fill(TABLE)`, a loop that fills it, a call of
a function that changes it as a global, and what sets up the interpreter itself, such as
sys.setrecursionlimit. What tries the entry point out is not.

Of several definitions of the entry point the first that does something is kept: stubs
before it are the prompt's, and models repeat themselves after it. `f = g(f)` belongs to
the definition before it. In a chat answer a sketch comes first, so there the last
definition that does something is kept.
"""

import ast
import dataclasses
import itertools
import re
import textwrap
from collections import defaultdict
from collections.abc import Iterable, Iterator

from evals.names import BUILTINS, Names, names
from phi1_jax.problems.problem import parse

# Strings (an open one ends with its line), comments, brackets: all that decides
# whether a new line is a new statement.
_TOKEN = re.compile(
  r"""
    (?P<triple>\"{3}|'{3})
  | (?P<string>"(?:\\[\s\S]|[^"\\\n])*"?|'(?:\\[\s\S]|[^'\\\n])*'?)
  | (?P<comment>\#[^\n]*)
  | (?P<open>[(\[{]) | (?P<close>[)\]}])
  | (?P<newline>\n)
  """,
  re.VERBOSE,
)
_FENCE = re.compile(r"^[ \t]*```[^\n]*$", re.MULTILINE)
_ANY_FENCE = re.compile(rf"{_FENCE.pattern}|(?<=[^\s`])```[ \t]*$", re.MULTILINE)
_THOUGHTS = re.compile(r"(\s*<think>[\s\S]*?</think>)*")
_END = re.compile(r"</s>|<\|(endoftext|im_end|eot_id|end)\|>")
# Lines at column 0 that go on with the block before them.
_CONTINUES = re.compile(r"(else|elif|except|finally)\b|[)\]}#]|\s|$")
# Words that begin a statement even where a bracket was left open by mistake.
_BEGINS = re.compile(r"(def|class|import|from|async|if|for|while|try|with)\b|@")
# How often a block that does not parse is cut at the line that is to blame.
_REPAIRS = 4
_NO_NAMES = Names()


@dataclasses.dataclass(frozen=True)
class Extraction:
  """A program made of a model's answer."""

  code: str  # the program to judge; "" where the entry point is not defined
  # one line for each piece left out: how it begins, and the reason
  dropped: tuple[str, ...]
  answered: bool = True  # whether anything of the answer is in the program


@dataclasses.dataclass
class _Block:
  source: str
  tree: ast.Module | None = None
  cut: str = ""
  reason: str = ""
  names: Names = _NO_NAMES
  begun: bool = False  # by the prompt, and the answer adds nothing to it
  answers: bool = False  # has code of the answer


def extract(
  program: str,
  entry_point: str,
  also: Iterable[str] = (),
  border: int = 0,
  chat: bool = False,
) -> Extraction:
  """Keep what `entry_point` needs.

  Args:
    program: what stands before the completion, and the completion.
    entry_point: the function that the tests call.
    also: other names that the tests use, kept where they are defined.
    border: where the completion begins.
    chat: whether the completion is a chat answer.
  """
  pieces, dropped = [program], []
  if not _defines(program, entry_point):
    pieces, border, dropped = _plain(program, entry_point, border, chat)
  blocks, place = [], 0
  for source in itertools.chain(*map(_split, pieces)):
    blocks.append(_read(source))
    ahead = max(0, border - place)
    blocks[-1].begun = ahead > 0 and not source[ahead:].strip()
    blocks[-1].answers = bool(blocks[-1].source[ahead:].strip())
    place += len(source)
  entry = _entry(blocks, entry_point, chat)
  if entry is None:
    dropped.append(f"everything: no definition of {entry_point}")
    return Extraction("", tuple(dropped), False)
  _settle(blocks, entry, entry_point)
  kept = _reached(blocks, entry, entry_point, also)
  for index, block in enumerate(blocks):
    if index not in kept and block.source.strip():
      dropped.append(f"{_beginning(block.source)}: {block.reason or 'not needed'}")
    if block.cut.strip():
      dropped.append(f"{_beginning(block.cut)}: not Python")
  code = futures_first("".join(blocks[index].source for index in sorted(kept)))
  answered = any(blocks[index].answers for index in kept)
  return Extraction(code, tuple(dropped), answered)


def futures_first(code: str) -> str:
  """Return a program with its imports from __future__ at the top.

  Elsewhere they are not Python, as where the prompt's stub stands before them.
  """
  if "__future__" not in code:
    return code
  try:
    tree = parse(code)
  except (SyntaxError, ValueError, RecursionError, MemoryError):
    return code
  lines, first = [line + "\n" for line in code.split("\n")], []
  for node in tree.body:
    if isinstance(node, ast.ImportFrom) and node.module == "__future__":
      place = slice(node.lineno - 1, node.end_lineno)
      first += lines[place]
      lines[place] = [""] * len(lines[place])
  return "".join(first + lines)[:-1]


def _beginning(source: str) -> str:
  return source.strip().splitlines()[0].strip()[:80]


def _defines(program: str, entry_point: str) -> bool:
  """Return whether it is a program that defines the entry point, without prose."""
  try:
    tree = parse(program)
  except (SyntaxError, ValueError, RecursionError, MemoryError):
    return False
  return any(getattr(node, "name", None) == entry_point for node in tree.body)


def _plain(program: str, entry_point: str, border: int, chat: bool):
  """Take thoughts, end tokens, and markdown off the answer.

  Returns:
    The pieces of code, where in the first the answer begins, and what was cut off.
  """
  prompt, answer = program[:border], program[border:]
  thoughts = _THOUGHTS.match(answer)
  assert thoughts  # possibly an empty one
  answer = answer[thoughts.end() :]
  if re.match(r" +(def|class|import|from|@) *\w", answer) and not prompt.strip():
    answer = textwrap.dedent(answer)
  pieces = _unfence(prompt, answer, entry_point, chat)
  border = min(len(prompt), len(pieces[0]))
  pieces[0], rest = _ended(pieces[0], entry_point, border)
  if rest:
    del pieces[1:]
  elif len(pieces) > 1:
    pieces[-1], rest = _ended(pieces[-1], entry_point, 0)
  cut = [(thoughts.group(), "a thought"), (rest, "after the end")]
  dropped = [f"{_beginning(text)}: {why}" for text, why in cut if text.strip()]
  return pieces, border, dropped


def _definition(entry_point: str) -> re.Pattern:
  return re.compile(rf"^(async )?def {re.escape(entry_point)}\b", re.MULTILINE)


def _ended(code: str, entry_point: str, border: int) -> tuple[str, str]:
  """Split code at the first end token behind the answer's first line of code.

  Tokens in strings and in comments end nothing.
  """
  begin = _definition(entry_point).search(code, border)
  if border and not begin:  # but indented, it goes on with the prompt
    begin = re.compile(r"\s*(?<!\n)\S").match(code, border)
  if begin:
    for start, end in _between_strings(code, border, set()):
      found = _END.search(code, max(start, begin.start()), end)
      if found:
        return code[: found.start()], code[found.start() :]
  return code, ""


def _between_strings(code: str, place: int, never: set) -> Iterator[tuple[int, int]]:
  """Yield spans from `place` on, none longer than a line, in no string or comment.

  Quotes that never close begin no string; `never` keeps them, for linear time.
  """
  start = place
  while match := _TOKEN.search(code, place):
    place = match.end()
    if match.lastgroup in ("triple", "string", "comment", "newline"):
      yield start, match.start()
      end = 0 if match.group() in never else _end_of(code, match)
      if not end:
        never.add(match.group())
      start = place = end or place
  yield start, len(code)


def _end_of(code: str, token: re.Match) -> int:
  """Return the end of a token, with the text in triple quotes; 0 if it never ends."""
  if token.lastgroup != "triple":
    return token.end()
  end = code.find(token.group(), token.end())
  while end > 0 and _escaped(code, end):
    end = code.find(token.group(), end + 1)
  return end + 3 if end > 0 else 0


def _fences(answer: str) -> list[re.Match]:
  """Return lines that open and close fences; strings of code hold no fences."""
  found, place, never = [], 0, set()
  while opening := _FENCE.search(answer, place):
    found.append(opening)
    spans = _between_strings(answer, opening.end(), never)
    closing = next(filter(None, (_ANY_FENCE.search(answer, *s) for s in spans)), None)
    if not closing:
      break
    found.append(closing)
    place = closing.end()
  return found


def _unfence(prompt: str, answer: str, entry_point: str, chat: bool) -> list[str]:
  """Take markdown off: the fenced block with the entry point, or text up to a fence.

  Of several see `_choose`. Where no fenced block has it, strings in
  prose count too, unless that leaves nothing: then a quote was prose.
  """
  every = list(_ANY_FENCE.finditer(answer))
  spans = _between_strings(answer, 0, set())
  outside = [fence for span in spans for fence in _ANY_FENCE.finditer(answer, *span)]
  defines = _definition(entry_point)
  for fences in (_fences(answer), outside, every):
    parts = _between(answer, fences)
    found = [part for part in parts[::2] if defines.search(part)]
    if found:
      break
  else:
    ahead = answer[: outside[0].start()] if outside else answer
    if outside and not re.search(r"^[ \t]+\S", ahead, re.MULTILINE):
      end = outside[1].start() if len(outside) > 1 else len(answer)
      body = answer[outside[0].end() + 1 : end]
      if body[:1] in (" ", "\t") and prompt.strip():  # the fence has the body alone
        return [prompt + body]
    return [prompt + ahead]
  # What comes before is the prompt, whose imports and helpers the fenced code may use.
  chosen = _choose(found, entry_point, chat)
  others = itertools.takewhile(lambda part: part is not chosen, parts[::2])
  before = prompt + answer[: fences[0].start()]
  helpers = [part.rstrip() + "\n\n" for part in others if part not in found]
  return [before.rstrip() + "\n\n", *helpers, chosen]


def _choose(parts: list[str], entry_point: str, chat: bool) -> str:
  """Return the first part that does something, of a chat answer the last."""
  ordered = parts[::-1] if chat else parts
  return next((p for p in ordered if not _only_begun(p, entry_point)), ordered[0])


def code_block(answer: str, entry_point: str) -> str:
  """Return the code block of a chat answer that defines a function.

  Of several it is the last that does something. Without such a block it is the first
  block, and without any the whole answer.
  """
  blocks = _between(answer, _fences(answer))[::2]
  defines = _definition(entry_point)
  found = [block for block in blocks if defines.search(block)]
  if found:
    return _choose(found, entry_point, chat=True)
  return blocks[0] if blocks else answer


def _between(answer: str, fences: list[re.Match]) -> list[str]:
  """Return the text behind each fence, up to the next; indented text is dedented."""
  ends = [fence.start() for fence in fences[1:]] + [len(answer)]
  parts = [answer[f.end() + 1 : end] for f, end in zip(fences, ends, strict=False)]
  return [
    textwrap.dedent(part) if part.lstrip("\n")[:1] in (" ", "\t") else part
    for part in parts
  ]


def _only_begun(part: str, entry_point: str) -> bool:
  """Return whether a block has the entry point as a stub, or in a string."""
  entry = _entry([_read(source) for source in _split(part)], entry_point)
  return not (entry and entry.tree) or _is_stub(entry.tree.body[0])


def _split(program: str) -> list[str]:
  """Return top-level blocks: a statement, with the lines that belong to it."""
  starts, place, depth = [0], 0, 0
  decorated = program.startswith("@")
  while match := _TOKEN.search(program, place):
    place = match.end()
    kind = match.lastgroup
    if kind == "triple":
      place = _end_of(program, match) or len(program)
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
  """Parse a block; cut off an end that is not Python."""
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
  """Add its names, or the reason not to look at them."""
  assert block.tree is not None
  block.names = found = names(block.source, block.tree)
  first = block.tree.body[0] if block.tree.body else None
  test = ast.walk(first.test) if isinstance(first, ast.If) else ()
  if any(isinstance(node, ast.Name) and node.id == "__name__" for node in test):
    block.reason, block.names = "main block", Names(reads=found.reads)
  elif found.of_calls is None and "input()" in found.actions:
    block.reason, block.names = "asks for input", Names(reads=found.reads)
  return block


def _entry(blocks: list[_Block], name: str, chat: bool = False) -> _Block | None:
  """Return the first definition that does something, else the first.

  Of a chat answer it is the last that is whole, as in Python.
  """
  found = [block for block in blocks if name in block.names.binds]
  does = [b for b in found if not b.begun and not (b.tree and _is_stub(b.tree.body[0]))]
  if chat and does:
    definitions = [block for block in does if not _wraps(block, name)] or does
    return max(reversed(definitions), key=lambda block: not block.cut.strip())
  return (does or found or [None])[0]


def _is_stub(node: ast.stmt) -> bool:
  def does_nothing(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.Raise):
      raised = statement.exc
      raised = raised.func if isinstance(raised, ast.Call) else raised
      return isinstance(raised, ast.Name) and raised.id == "NotImplementedError"
    value = statement.value if isinstance(statement, ast.Expr) else None
    return isinstance(statement, ast.Pass) or isinstance(value, ast.Constant)

  functions = (ast.FunctionDef, ast.AsyncFunctionDef)
  return isinstance(node, functions) and all(map(does_nothing, node.body))


def _settle(blocks: list[_Block], entry: _Block, name: str) -> None:
  """Decide about the other blocks that bind the entry point's name.

  `f = wrap(f)` after the entry point, before another definition, changes it.
  """
  goes_on = False
  for block in blocks:
    if block is entry:
      goes_on = True
    elif goes_on and _adds_to(block, name):
      found = block.names
      block.names = dataclasses.replace(found, changes=found.changes | {name})
    elif name in block.names.binds:
      if goes_on and _wraps(block, name):
        found = block.names
        block.names = dataclasses.replace(
          found, binds=found.binds - {name}, changes=found.changes | {name}
        )
      else:
        block.reason, goes_on = f"another {name}", False


def _first(block: _Block) -> ast.stmt | None:
  return block.tree.body[0] if block.tree and block.tree.body else None


def _wraps(block: _Block, name: str) -> bool:
  statement = _first(block)
  return (
    isinstance(statement, ast.Assign)
    and isinstance(statement.value, ast.Call)
    and name in block.names.reads
  )


def _adds_to(block: _Block, name: str) -> bool:
  """Return whether it is `setattr(name, ...)`, or decorated as `@name.register`."""
  statement = _first(block)
  if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
    called, given = statement.value.func, statement.value.args[:1]
    target = given[0] if given else None
    changes = isinstance(called, ast.Name) and called.id in ("setattr", "delattr")
    return changes and isinstance(target, ast.Name) and target.id == name
  for node in getattr(statement, "decorator_list", ()):
    node = node.func if isinstance(node, ast.Call) else node
    owner = node.value if isinstance(node, ast.Attribute) else None
    if isinstance(owner, ast.Name) and owner.id == name:
      return True
  return False


def _reached(
  blocks: list[_Block], entry: _Block, entry_point: str, also: Iterable[str]
) -> set[int]:
  """Return the indices of the blocks that the entry point needs.

  A name or an action leads to the blocks that bind it or do it, and to the calls of
  functions that do it. Each is followed once, so the time is linear.
  """
  live = {i: b.names for i, b in enumerate(blocks) if not b.reason}
  bound = BUILTINS.union(*(found.binds for found in live.values()), [entry_point])
  imported = {
    name
    for i, found in live.items()
    for name in found.binds
    if isinstance(_first(blocks[i]), ast.Import | ast.ImportFrom)
  }
  kept: set[int] = set()
  waiting: list[str] = []

  def keep(index: int) -> None:
    if index not in kept:
      kept.add(index)
      waiting.extend(blocks[index].names.reads)

  def keep_if_sound(index: int) -> None:
    """Keep a block that neither tries the entry point out nor must fail."""
    found = blocks[index].names
    sound = found.of_calls is not None or "*" in bound or found.reads <= bound
    if sound and entry_point not in found.reads:
      keep(index)

  needed, doing = defaultdict(list), defaultdict(list)  # name or action -> indices
  callers: dict[str, set[str]] = defaultdict(set)  # -> calls of functions that do it
  for index, found in live.items():
    for name in found.binds | found.changes:
      needed[name].append(index)
    for action in found.actions - imported:
      doing[action].append(index)
    # The entry point, and what tries it out, may change whatever it likes.
    if not {entry_point, "input"} & (found.reads | found.binds):
      for action in (found.of_calls or frozenset()) - imported:
        callers[action].update(f"{name}()" for name in found.binds)
  for index, block in enumerate(blocks):
    # Future imports change how everything after them is read.
    if block is entry or block.source.startswith("from __future__"):
      keep(index)
    elif block.names.sets_up and not block.reason:
      keep_if_sound(index)
  waiting += ["*", entry_point, *also]  # star imports bind what nobody knows
  followed: set[str] = set()
  while waiting:
    name = waiting.pop()
    if name not in followed:
      followed.add(name)
      for index in needed[name]:
        keep(index)
      for index in doing[name]:
        keep_if_sound(index)
      waiting += callers[name]
  return kept
