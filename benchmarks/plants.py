"""Benchmark problems in disguise: what decontamination has to find.

Each disguise is a rule that changes a program's writing and not what it does. One that
finds nothing to change gives None, and is not counted.
"""

import ast
import builtins
import copy
import hashlib
import re
import textwrap
from collections.abc import Callable

from phi1_jax.curation.references import without_docstrings
from phi1_jax.problems.problem import Problem, parse

_FUNCTION = ast.FunctionDef | ast.AsyncFunctionDef
_CHANGES = """
write=implement a=one function=routine find=determine given=supplied list=sequence
returns=yields return=yield number=value numbers=values string=text strings=texts
the=that check=decide integer=whole_number integers=whole_numbers array=series
elements=entries element=entry if=when of=belonging_to using=by_means_of all=every
count=tally sum=total first=leading last=final maximum=greatest minimum=least
largest=greatest smallest=least remove=delete and=as_well_as or=otherwise
whether=when from=out_of to=in_order_to get=obtain create=build convert=turn_into
sort=arrange sorted=arranged are=happen_to_be is=happens_to_be positive=above_zero
negative=below_zero words=terms word=term characters=letters character=letter
tuple=record tuples=records lists=sequences dictionary=mapping with=having
in=within for=concerning each=every by=through that=which this=such you=one
example=instance should=must two=a_couple_of
"""
_SYNONYMS = {old: new for old, _, new in (c.partition("=") for c in _CHANGES.split())}
_NEW_NAMES = """
amber basin cedar delta ember fjord grove haven islet jetty knoll ledge maple north
olive petal quarry ridge slate thorn umber vista wharf yearly zephyr
"""
_GERMAN = """
Apfel Birne Haus Garten Wasser Stein Himmel Feuer Wolke Fluss Berg Wald Sonne Mond Stern
Blume Wiese Vogel Fisch Brot gefunden nicht passt richtig falsch leer voll
"""
_OPPOSITE = {ast.Lt: ast.Gt, ast.Gt: ast.Lt, ast.LtE: ast.GtE, ast.GtE: ast.LtE}
_OPPOSITE |= {ast.Eq: ast.Eq, ast.NotEq: ast.NotEq}


def verbatim(problem: Problem) -> str:
  """HumanEval: prompt and solution. MBPP: its text as docstring, and the solution."""
  if problem.prompt in problem.solution:
    return problem.solution
  return f'"""{problem.prompt}"""\n{problem.solution}'


def renamed(problem: Problem) -> str:
  """Every name that the author chose is another one, in code and text alike."""
  tree = parse(problem.solution)
  names = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}
  stored = {
    node.id
    for node in ast.walk(tree)
    if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)
  }
  stored |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
  stored |= {node.name for node in ast.walk(tree) if isinstance(node, _FUNCTION)}
  chosen = sorted((stored & names) | stored)
  new = {
    name: f"{_pick(_NEW_NAMES, name)}_{number}"
    for number, name in enumerate(chosen)
    if name not in ("self", "_") and (name in stored or not hasattr(builtins, name))
  }
  pattern = re.compile(r"(?<![.\w])(" + "|".join(map(re.escape, new)) + r")\b")
  return pattern.sub(lambda match: new[match[1]], verbatim(problem))


def reformatted(problem: Problem) -> str | None:
  """Other quotes, indentation, line ends, line breaks; no comments or annotations."""
  tree = parse(verbatim(problem))
  for node in ast.walk(tree):
    if isinstance(node, ast.arg):
      node.annotation = None
    elif isinstance(node, _FUNCTION):
      node.returns = None
  lines = []
  for line in ast.unparse(tree).split("\n"):
    rest = line.lstrip(" ")
    lines.append("\t" * ((len(line) - len(rest)) // 4) + rest)
    if rest.startswith(("for ", "while ", "if ")):
      lines.insert(-1, "")
  return "\r\n".join(lines) + "\r\n"


def paraphrased(problem: Problem) -> str | None:
  """The text in other words and without its examples; the code as it is."""
  tree = parse(problem.solution)
  docstring = ast.get_docstring(_entry(tree, problem.entry_point))
  text = paraphrase(docstring or problem.prompt)
  return f'"""{text}"""\n{without_docstrings(problem.solution)}'


def paraphrase(text: str) -> str:
  """Other words, the second half first, no examples."""
  prose = re.split(r">>>|Examples?\b|For example|\[input|==>|➞", text)[0]
  words = [
    str(_SYNONYMS.get(word.lower(), word)).replace("_", " ")
    for word in re.findall(r"[\w']+", prose)
  ]
  half = len(words) // 2
  return textwrap.fill(" ".join([*words[half:], "-", *words[:half]]), 70)


def reordered(problem: Problem) -> str | None:
  """Independent statements, branches and operands change places."""
  return _rewritten(problem, lambda tree: _Reorder().visit(tree))


def translated(problem: Problem) -> str | None:
  """The words in strings are words of another language."""
  return _rewritten(problem, lambda tree: _Translate().visit(tree))


def disguised(problem: Problem) -> str | None:
  """Reordered, reformatted, translated and renamed, and no text is left."""
  return _bare(problem, _Reorder())


def restructured(problem: Problem) -> str | None:
  """Renamed, without text; no `+=`, `return` of a variable, no `else` after one."""
  return _bare(problem, _Restructure())


def other_loops(problem: Problem) -> str | None:
  """Renamed, without text; loops over indices, and loops for comprehensions."""
  return _bare(problem, _Loops())


def _bare(problem: Problem, rewrite: ast.NodeTransformer) -> str | None:
  """Rewritten, translated and renamed, without text; None if nothing is rewritten."""
  tree = rewrite.visit(_without_text(parse(problem.solution)))
  code = ast.unparse(ast.fix_missing_locations(tree))
  if code == without_text(problem.solution):
    return None
  tree = ast.fix_missing_locations(_Translate().visit(parse(code)))
  bare = Problem("", problem.entry_point, "", "", ast.unparse(tree), ())
  return renamed(bare)


def retold(problem: Problem) -> str | None:
  """The text with a body that is something else: a solution of one's own."""
  name = problem.entry_point
  docstring = ast.get_docstring(_entry(parse(problem.solution), name))
  text = textwrap.indent(docstring or problem.prompt, "  ")
  body = "  raise NotImplementedError\n"
  return f'def {name}(*arguments):\n  """\n{text}\n  """\n{body}'


KINDS: dict[str, Callable[[Problem], str | None]] = {
  "verbatim": verbatim,
  "renamed": renamed,
  "reformatted": reformatted,
  "paraphrased docstring": paraphrased,
  "reordered": reordered,
  "translated literals": translated,
  "text alone": retold,
  "all at once, no text": disguised,
  "restructured, no text": restructured,
  "other loops, no text": other_loops,
}


def in_host(plant: str, host: str, seed: str) -> str:
  """A module with the plant between two of its statements."""
  plant = plant.replace("\r\n", "\n")
  starts = [node.lineno for node in parse(host).body[1:]]
  place = _number(seed) % len(starts) if starts else 0
  lines = host.split("\n")
  at = starts[place] - 1 if starts else len(lines)
  while at and lines[at - 1].startswith("@"):
    at -= 1
  return "\n".join([*lines[:at], "", plant, "", *lines[at:]])


def without_text(plant: str) -> str:
  """A plant without docstrings and comments."""
  return ast.unparse(_without_text(parse(plant)))


def _without_text(tree: ast.Module) -> ast.Module:
  for node in ast.walk(tree):
    if isinstance(node, ast.Module | ast.ClassDef | _FUNCTION):
      kept = [s for s in node.body if not _is_text(s)]
      node.body = kept or ([] if isinstance(node, ast.Module) else [ast.Pass()])
  return tree


def _is_text(node: ast.AST) -> bool:
  value = node.value if isinstance(node, ast.Expr) else None
  return isinstance(value, ast.Constant) and isinstance(value.value, str)


def _entry(tree: ast.Module, name: str) -> ast.FunctionDef:
  return next(
    node
    for node in tree.body
    if isinstance(node, ast.FunctionDef) and node.name == name
  )


def _rewritten(
  problem: Problem, rewrite: Callable[[ast.Module], ast.Module]
) -> str | None:
  tree = parse(verbatim(problem))
  before = ast.unparse(tree)
  after = ast.unparse(ast.fix_missing_locations(rewrite(copy.deepcopy(tree))))
  return None if after == before else after


class _Translate(ast.NodeTransformer):
  def visit_Expr(self, node: ast.Expr) -> ast.AST:
    """Leaves docstrings alone."""
    return node if _is_text(node) else self.generic_visit(node)

  def visit_Constant(self, node: ast.Constant) -> ast.AST:
    """Replaces words of two letters and more."""
    if not isinstance(node.value, str):
      return node
    new = re.sub(r"[A-Za-z]{2,}", lambda m: _pick(_GERMAN, m[0]), node.value)
    return ast.Constant(new)


class _Restructure(ast.NodeTransformer):
  def visit_AugAssign(self, node: ast.AugAssign) -> ast.AST:
    """`a += b` becomes `a = a + b`."""
    read = copy.deepcopy(node.target)
    read.ctx = ast.Load()
    return ast.Assign([node.target], ast.BinOp(read, node.op, node.value))

  def visit_Return(self, node: ast.Return) -> ast.AST | list[ast.stmt]:
    """`return a + b` becomes `c = a + b` and `return c`."""
    if node.value is None or isinstance(node.value, ast.Name | ast.Constant):
      return node
    name = ast.Name("outcome", ast.Store())
    return [ast.Assign([name], node.value), ast.Return(ast.Name("outcome", ast.Load()))]

  def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt]:
    """After a branch that returns, `else:` goes."""
    self.generic_visit(node)
    if node.orelse and isinstance(node.body[-1], ast.Return):
      return [ast.If(node.test, node.body, []), *node.orelse]
    return node


class _Loops(ast.NodeTransformer):
  def visit_For(self, node: ast.For) -> ast.AST:
    """`for a in b:` becomes `for place in range(len(b)): a = b[place]`."""
    self.generic_visit(node)
    if not (isinstance(node.iter, ast.Name) and isinstance(node.target, ast.Name)):
      return node
    place = f"place_{node.target.id}"
    name = node.iter.id
    first = parse(f"{node.target.id} = {name}[{place}]").body
    loop = parse(f"for {place} in range(len({name})): pass").body[0]
    assert isinstance(loop, ast.For)
    loop.body = [*first, *node.body]
    return loop

  def visit_Return(self, node: ast.Return) -> ast.AST | list[ast.stmt]:
    """`return [a for b in c]` becomes a loop that appends."""
    comprehension = node.value
    if not isinstance(comprehension, ast.ListComp) or len(comprehension.generators) > 1:
      return node
    made = comprehension.generators[0]
    body: list[ast.stmt] = parse("made.append(0)").body
    call = next(node for node in ast.walk(body[0]) if isinstance(node, ast.Call))
    call.args = [comprehension.elt]
    for test in made.ifs:
      body = [ast.If(test, body, [])]
    loop = ast.For(made.target, made.iter, body, [])
    return [*parse("made = []").body, loop, ast.Return(ast.Name("made", ast.Load()))]


class _Reorder(ast.NodeTransformer):
  def visit_If(self, node: ast.If) -> ast.AST:
    """`if a: b else: c` becomes `if not a: c else: b`."""
    self.generic_visit(node)
    if node.orelse and not (
      len(node.orelse) == 1 and isinstance(node.orelse[0], ast.If)
    ):
      test = ast.UnaryOp(ast.Not(), node.test)
      return ast.If(test, node.orelse, node.body)
    return node

  def visit_Compare(self, node: ast.Compare) -> ast.AST:
    """`a < b` becomes `b > a`."""
    self.generic_visit(node)
    if len(node.ops) == 1 and type(node.ops[0]) in _OPPOSITE:
      opposite = _OPPOSITE[type(node.ops[0])]()
      return ast.Compare(node.comparators[0], [opposite], [node.left])
    return node

  def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
    """`a * b` becomes `b * a`; so does a sum with a number."""
    self.generic_visit(node)
    number = isinstance(node.right, ast.Constant) and not isinstance(
      node.right.value, str
    )
    if isinstance(node.op, ast.Mult) or (isinstance(node.op, ast.Add) and number):
      return ast.BinOp(node.right, node.op, node.left)
    return node

  def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
    """Neighbouring assignments of a function that share no name change places."""
    self.generic_visit(node)
    body = node.body
    for place in range(len(body) - 1):
      if _independent(body[place], body[place + 1]):
        body[place : place + 2] = body[place + 1], body[place]
    return node


def _independent(one: ast.stmt, other: ast.stmt) -> bool:
  if not (isinstance(one, ast.Assign) and isinstance(other, ast.Assign)):
    return False
  names = [
    {node.id for node in ast.walk(each) if isinstance(node, ast.Name)}
    for each in (one, other)
  ]
  calls = any(isinstance(node, ast.Call) for s in (one, other) for node in ast.walk(s))
  return not names[0] & names[1] and not calls


def _number(text: str) -> int:
  return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def _pick(names: str, text: str) -> str:
  words = names.split()
  return words[_number(text) % len(words)]
