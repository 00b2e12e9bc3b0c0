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
import builtins
import dataclasses
import itertools
import re
import symtable
import textwrap
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator

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
_REPAIRS = 4  # how often a block that does not parse is cut at the line to blame
_ENDS = 64  # places that are tried as the end of an answer's code
_UNPARSED = (SyntaxError, ValueError, RecursionError, MemoryError)

# Builtins that change what they are given; all others leave it as it was.
_CHANGING = {"delattr", "eval", "exec", "filter", "list", "map", "next", "setattr"}
_BUILTINS = frozenset(dir(builtins)) | {"__name__", "__file__"}
# Calls that set up the interpreter rather than anything that has a name.
_SETTINGS = {"getcontext", "setcontext", "setrecursionlimit", "stack_size"}
_SETTINGS |= {"set_int_max_str_digits", "setlocale"}
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_IMPORTS = (ast.Import, ast.ImportFrom)


@dataclasses.dataclass(frozen=True)
class Extraction:
  """A program made of a model's answer."""

  code: str  # the program to judge; "" where the entry point is not defined
  # one line for each piece left out: how it begins, and the reason
  dropped: tuple[str, ...]
  answered: bool = True  # whether anything of the answer is in the program


@dataclasses.dataclass
class _Block:
  """A top-level block, and its names: those of the module, not of functions.

  An action is a name that is perhaps changed (the argument of a call, the owner of a
  method), or "name()", a call of it.
  """

  source: str
  statement: ast.stmt | None = None  # the first
  cut: str = ""  # the end that is not Python
  reason: str = ""  # why it is left out in any case
  begun: bool = False  # by the prompt, and the answer adds nothing to it
  answers: bool = False  # has code of the answer
  binds: set[str] = dataclasses.field(default_factory=set)
  reads: set[str] = dataclasses.field(default_factory=set)  # in definitions too
  changes: set[str] = dataclasses.field(default_factory=set)  # by `a.b =` or `a.b()`
  actions: set[str] = dataclasses.field(default_factory=set)  # when it is executed
  # when what it defines is called; None if it is not a definition
  of_calls: set[str] | None = None
  sets_up: bool = False  # whether it sets up the interpreter


def extract(
  program: str,
  entry_point: str,
  also: Iterable[str] = (),
  border: int = 0,
  chat: bool = False,
) -> Extraction:
  """Keep what `entry_point`, the function that the tests call, needs of a program.

  Args:
    program: what stands before the completion, and the completion.
    entry_point: its name.
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
  tree = _parsed(code) if "__future__" in code else None
  if tree is None:
    return code
  lines, first = [line + "\n" for line in code.split("\n")], []
  for node in tree.body:
    if isinstance(node, ast.ImportFrom) and node.module == "__future__":
      place = slice(node.lineno - 1, node.end_lineno)
      first += lines[place]
      lines[place] = [""] * len(lines[place])
  return "".join(first + lines)[:-1]


def code_block(answer: str, entry_point: str) -> str:
  """Return the code block of a chat answer that defines a function.

  Of several it is the last that does something. Without such a block it is the first
  block, and without any the whole answer.
  """
  blocks = [block for _, block in _fenced(answer, entry_point)]
  defines = _definition(entry_point)
  found = [block for block in blocks if defines.search(block)]
  return _choose(found, entry_point, True) if found else (blocks or [answer])[0]


def _parsed(source: str) -> ast.Module | None:
  try:
    return parse(source)
  except _UNPARSED:
    return None


def _beginning(source: str) -> str:
  return source.strip().splitlines()[0].strip()[:80]


def _defines(program: str, entry_point: str) -> bool:
  """Return whether it is a program that defines the entry point, without prose."""
  body = getattr(_parsed(program), "body", ())
  return any(getattr(node, "name", None) == entry_point for node in body)


def _plain(program: str, entry_point: str, border: int, chat: bool):
  """Take thoughts, end tokens, and markdown off the answer.

  Returns:
    The pieces of code, where in the first the answer begins, and what was cut off.
  """
  prompt, answer = program[:border], program[border:]
  found = _THOUGHTS.match(answer)
  thoughts = found.group() if found else ""
  answer = answer[len(thoughts) :]
  if re.match(r" +(def|class|import|from|@) *\w", answer) and not prompt.strip():
    answer = textwrap.dedent(answer)
  pieces = _unfence(prompt, answer, entry_point, chat)
  border = min(len(prompt), len(pieces[0]))
  pieces[0], rest = _ended(pieces[0], entry_point, border)
  if rest:
    del pieces[1:]
  elif len(pieces) > 1:
    pieces[-1], rest = _ended(pieces[-1], entry_point, 0)
  cut = [(thoughts, "a thought"), (rest, "after the end")]
  dropped = [f"{_beginning(text)}: {why}" for text, why in cut if text.strip()]
  return pieces, border, dropped


def _definition(entry_point: str) -> re.Pattern:
  return re.compile(rf"^(async )?def {re.escape(entry_point)}\b", re.MULTILINE)


def _ended(code: str, entry_point: str, border: int) -> tuple[str, str]:
  """Split code at the first end token that leaves a program which is Python.

  So tokens in strings end nothing, nor do those in comments.
  """
  defines = _definition(entry_point)
  begin = defines.search(code, border)
  if border and not begin:  # but indented, it goes on with the prompt
    begin = re.compile(r"\s*(?<!\n)\S").match(code, border) and defines.search(code)
  if begin:
    tokens = _END.finditer(code, max(border, begin.start()))
    for token in itertools.islice(tokens, _ENDS):
      line = code[code.rfind("\n", 0, token.start()) + 1 : token.start()]
      if "#" not in line and _parsed(code[begin.start() : token.start()]):
        return code[: token.start()], code[token.start() :]
  return code, ""


def _fenced(answer: str, entry_point: str) -> list[tuple[int, str]]:
  """Return the texts behind fences, each with the place of its fence.

  A text ends where it is a program that defines the entry point, since strings may
  hold fences; other texts end at the next fence.
  """
  found, place, tries = [], 0, _ENDS
  while opening := _FENCE.search(answer, place):
    start = min(opening.end() + 1, len(answer))
    closings = (match.span() for match in _ANY_FENCE.finditer(answer, start))
    ends = itertools.chain(closings, [(len(answer), len(answer))])
    first, whole = next(ends), None
    for end in itertools.islice(itertools.chain([first], ends), tries):
      tries -= 1
      if _defines(_dedented(answer[start : end[0]]), entry_point):
        whole = end
        break
    end, place = whole or first
    found.append((opening.start(), answer[start:end]))
  return found


def _dedented(text: str) -> str:
  indented = text.lstrip("\n")[:1] in (" ", "\t")
  return textwrap.dedent(text) if indented else text


def _unfence(prompt: str, answer: str, entry_point: str, chat: bool) -> list[str]:
  """Take markdown off: the fenced block with the entry point, or text up to a fence."""
  fenced = _fenced(answer, entry_point)
  texts, defines = [_dedented(text) for _, text in fenced], _definition(entry_point)
  if found := [text for text in texts if defines.search(text)]:
    # What comes before is the prompt, whose imports and helpers the code may use.
    chosen = _choose(found, entry_point, chat)
    others = itertools.takewhile(lambda text: text is not chosen, texts)
    before = prompt + answer[: fenced[0][0]]
    helpers = [text.rstrip() + "\n\n" for text in others if text not in found]
    return [before.rstrip() + "\n\n", *helpers, chosen]
  if fenced and prompt.strip():
    ahead, (_, body) = answer[: fenced[0][0]], fenced[0]
    if body[:1] in (" ", "\t") and not re.search(r"^[ \t]+\S", ahead, re.MULTILINE):
      return [prompt + body]  # the fence has the body alone
  for fence in itertools.islice(_ANY_FENCE.finditer(answer), _ENDS):
    if _defines(code := prompt + answer[: fence.start()], entry_point):
      return [code]
  return [prompt + answer]


def _choose(parts: list[str], entry_point: str, chat: bool) -> str:
  """Return the first part that does something, of a chat answer the last."""

  def does(part: str) -> bool:
    entry = _entry([_read(source) for source in _split(part)], entry_point)
    statement = entry and entry.statement
    return bool(statement) and not _is_stub(statement)

  ordered = parts[::-1] if chat else parts
  return next(filter(does, ordered), ordered[0])


def _split(program: str) -> list[str]:
  """Return top-level blocks: a statement, with the lines that belong to it."""
  starts, place, depth = [0], 0, 0
  decorated = program.startswith("@")
  while match := _TOKEN.search(program, place):
    place = match.end()
    kind = match.lastgroup
    if kind == "triple":
      place = _end_of_string(program, match)
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


def _end_of_string(text: str, quotes: re.Match) -> int:
  """Return the end of a string in triple quotes; that of the text if it never ends."""
  closing = re.compile(rf"(?:[^\\]|\\[\s\S])*?{quotes.group()}")
  found = closing.match(text, quotes.end())
  return found.end() if found else len(text)


def _read(source: str) -> _Block:
  """Parse a block, cut off an end that is not Python, and find its names."""
  whole = source
  for _ in range(_REPAIRS + 1):
    try:
      tree = parse(source)
    except SyntaxError as error:
      lines = source.splitlines(keepends=True)
      # A statement that is never finished is reported where it begins.
      source = "".join(lines[: min((error.lineno or 1), len(lines)) - 1])
    except _UNPARSED:  # NUL bytes, absurd nesting
      break
    else:
      block = _Block(source, next(iter(tree.body), None), whole[len(source) :])
      _find_names(block, tree)
      return block
  return _Block("", cut=whole)


def _find_names(block: _Block, tree: ast.Module) -> None:
  block.binds, block.reads, assigned = _scopes(block.source, tree)
  first = block.statement
  if isinstance(first, _DEFINITIONS):
    own = [n for n in ast.iter_child_nodes(first) if not isinstance(n, ast.stmt)]
    block.changes, block.actions = _done(n for part in own for n in ast.walk(part))
    for called in (*first.decorator_list, *getattr(first, "bases", ())):
      name = isinstance(called, ast.Name) and f"{called.id}()"
      block.actions.add(name or _base(called) or "")
    # What its body does happens when it is called.
    stores, actions = _done(n for part in first.body for n in ast.walk(part))
    actions = {a for a in actions if a.removesuffix("()") in block.reads}
    block.of_calls = assigned | (stores & block.reads) | actions
    return
  nodes = list(_executed(tree))
  block.changes, block.actions = _done(nodes)
  block.sets_up = any(isinstance(n, ast.Call) and _sets_up(n) for n in nodes)
  stars = (n for n in nodes if isinstance(n, ast.ImportFrom))
  block.binds |= {"*"} if any(n.names[0].name == "*" for n in stars) else set()
  test = ast.walk(first.test) if isinstance(first, ast.If) else ()
  if any(isinstance(node, ast.Name) and node.id == "__name__" for node in test):
    block.reason = "main block"
  elif "input()" in block.actions:
    block.reason = "asks for input"
  if block.reason:
    block.binds = block.actions = set()


def _scopes(source: str, tree: ast.Module) -> tuple[set[str], set[str], set[str]]:
  """Return the module's names that are bound, read, and assigned in functions."""
  try:
    with warnings.catch_warnings():
      warnings.simplefilter("ignore")  # see problems.problem.parse
      top = symtable.symtable(source, "block", "exec")
  except _UNPARSED:  # parses, but does not compile, as `return` outside of a function
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
    reads = {node.id for node in found if isinstance(node.ctx, ast.Load)}
    return {node.id for node in found} - reads, reads, set()
  symbols = top.get_symbols()
  binds = {s.get_name() for s in symbols if s.is_assigned() or s.is_imported()}
  reads = {s.get_name() for s in symbols if s.is_referenced()}
  assigned, waiting = set(), list(top.get_children())
  while waiting:
    table = waiting.pop()
    waiting += table.get_children()
    symbols = [symbol for symbol in table.get_symbols() if symbol.is_global()]
    reads |= {s.get_name() for s in symbols if s.is_referenced()}
    assigned |= {s.get_name() for s in symbols if s.is_assigned()}
  return binds, reads, assigned


def _executed(tree: ast.AST) -> Iterator[ast.AST]:
  """Yield nodes, but not those of asserts, of prints and in definitions."""
  waiting = [tree]
  while waiting:
    node = waiting.pop()
    called = getattr(getattr(node, "value", None), "func", None)
    prints = isinstance(node, ast.Expr) and getattr(called, "id", "") == "print"
    if not prints and not isinstance(node, (*_DEFINITIONS, ast.Assert)):
      yield node
      waiting.extend(ast.iter_child_nodes(node))


def _done(nodes: Iterable[ast.AST]) -> tuple[set[str], set[str]]:
  """Return names that are changed in place, and actions; see `_Block`."""
  changes, actions = set(), set()
  for node in nodes:
    if isinstance(node, ast.Attribute | ast.Subscript):
      # Only of the last link, or a long chain would take quadratic time.
      if not isinstance(node.ctx, ast.Load):
        changes.add(_base(node))
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
      changes.add(_base(node.value.func))
    elif isinstance(node, ast.Call):
      actions.add(_base(node.func))
      if isinstance(node.func, ast.Name):
        actions.add(f"{node.func.id}()")
        if node.func.id in _BUILTINS - _CHANGING:
          continue
      for argument in [*node.args, *(keyword.value for keyword in node.keywords)]:
        actions.add(argument.id if isinstance(argument, ast.Name) else _base(argument))
  return changes - {None}, actions - {None}


def _base(node: ast.AST) -> str | None:
  """Return the name that `a.b[c].d` begins with; None if it is the whole or none."""
  inside = False
  while isinstance(node, ast.Attribute | ast.Subscript):
    node, inside = node.value, True
  return node.id if inside and isinstance(node, ast.Name) else None


def _sets_up(call: ast.Call) -> bool:
  name = getattr(call.func, "attr", getattr(call.func, "id", ""))
  seeds = name == "seed" and _base(call.func) in (None, "random")
  return seeds or name in _SETTINGS


def _entry(blocks: list[_Block], name: str, chat: bool = False) -> _Block | None:
  """Return the first definition that does something, else the first.

  Of a chat answer it is the last that is whole, as in Python.
  """
  found = [block for block in blocks if name in block.binds]
  does = [b for b in found if not b.begun and not _is_stub(b.statement)]
  if chat and does:
    definitions = [block for block in does if not _wraps(block, name)] or does
    return max(reversed(definitions), key=lambda block: not block.cut.strip())
  return (does or found or [None])[0]


def _is_stub(node: ast.stmt | None) -> bool:
  def does_nothing(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.Raise):
      raised = getattr(statement.exc, "func", statement.exc)
      return getattr(raised, "id", "") == "NotImplementedError"
    value = statement.value if isinstance(statement, ast.Expr) else None
    return isinstance(statement, ast.Pass) or isinstance(value, ast.Constant)

  functions = (ast.FunctionDef, ast.AsyncFunctionDef)
  return isinstance(node, functions) and all(map(does_nothing, node.body))


def _wraps(block: _Block, name: str) -> bool:
  """Return whether it is `name = wrap(name)`."""
  value = block.statement.value if isinstance(block.statement, ast.Assign) else None
  return isinstance(value, ast.Call) and name in block.reads


def _settle(blocks: list[_Block], entry: _Block, name: str) -> None:
  """Decide about the other blocks that bind the entry point's name.

  `f = wrap(f)`, `setattr(f, ...)` and `@f.register` after the entry point, before
  another definition, change it.
  """
  goes_on = False
  for block in blocks:
    adds = block.of_calls is not None or "setattr()" in block.actions
    if block is entry:
      goes_on = True
    elif goes_on and name in block.actions and adds:
      block.changes |= {name}
    elif name in block.binds:
      if goes_on and _wraps(block, name):
        block.binds, block.changes = block.binds - {name}, block.changes | {name}
      else:
        block.reason, goes_on = f"another {name}", False


def _reached(
  blocks: list[_Block], entry: _Block, entry_point: str, also: Iterable[str]
) -> set[int]:
  """Return the indices of the blocks that the entry point needs.

  A name or an action leads to the blocks that bind it or do it, and to the calls of
  functions that do it. Each is followed once, so the time is linear.
  """
  live = {i: block for i, block in enumerate(blocks) if not block.reason}
  bound = _BUILTINS.union(*(block.binds for block in live.values()), [entry_point])
  imports = (b for b in live.values() if isinstance(b.statement, _IMPORTS))
  imported = set().union(*(block.binds for block in imports))
  needed, doing = defaultdict(list), defaultdict(list)  # name or action -> indices
  callers: dict[str, set[str]] = defaultdict(set)  # -> calls of functions that do it
  for index, block in live.items():
    for name in block.binds | block.changes:
      needed[name].append(index)
    # Not what must fail, or tries the entry point out; that may do whatever it likes.
    tries_out = entry_point in block.reads
    sound = block.of_calls is not None or "*" in bound or block.reads <= bound
    for action in block.actions - imported if sound and not tries_out else ():
      doing[action].append(index)
    if not {entry_point, "input"} & (block.reads | block.binds):
      for action in (block.of_calls or set()) - imported:
        callers[action].update(f"{name}()" for name in block.binds)
    if block.sets_up and sound and not tries_out:
      needed["*"].append(index)
    if block is entry or block.source.startswith("from __future__"):
      needed["*"].append(index)  # future imports change how all is read
  kept: set[int] = set()
  followed: set[str] = set()
  waiting = ["*", entry_point, *also]  # star imports bind what nobody knows
  while waiting:
    name = waiting.pop()
    if name not in followed:
      followed.add(name)
      for index in {*needed[name], *doing[name]} - kept:
        kept.add(index)
        waiting.extend(live[index].reads)
      waiting += callers[name]
  return kept
