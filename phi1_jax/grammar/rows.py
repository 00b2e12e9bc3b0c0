"""The tables: TOML files of kinds, parts, frames and tasks, read and checked.

`docs/exercises.md` describes the format. The code in a table is run, so a table is
trusted like any other program of its author.
"""

from __future__ import annotations

import builtins
import contextlib
import dataclasses
import functools
import hashlib
import itertools
import keyword
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from phi1_jax import InputError
from phi1_jax.grammar.files import Row, listed, read
from phi1_jax.grammar.templates import PLACE, Template, parse_all, places

PACKAGED = Path(__file__).parent / "tables"
FORMS = ("noun", "when", "do", "ask")
SHAPES = ("-", "F", "M", "FM", "FF", "FFM", "FMM", "MM")
_TYPES = frozenset(
  {"bool", "dict", "float", "int", "list", "None", "set", "str", "tuple"}
)
_RESERVED = frozenset(dir(builtins)) | frozenset(keyword.kwlist)


@dataclasses.dataclass(frozen=True)
class Kind:
  """A kind of argument.

  Attributes:
    id: its name in the tables.
    type: Python type, such as "list[int]".
    given: phrases that introduce it, such as "a list of integers".
    noun: words for it, such as "list".
    names: names of arguments.
    pool: values that solutions are run on.
    item: kind of its items, or "" for a single value.
    items: plural words for its items.
    where: phrases that place items, such as "in $x".
    each: code that iterates over it.
    value: code of an item, given the loop variable as `$x`.
    var: loop variable for its items, or for values of this kind.
    like: kind whose filters and maps it takes.
    without: names of filters and maps that make no sense for its items.
    weight: how often it is drawn among sources with the same items.
    topics: names of lists of nouns that it may be about.
  """

  id: str
  type: str
  given: tuple[str, ...]
  noun: tuple[str, ...]
  names: tuple[str, ...]
  pool: tuple[Any, ...] = ()
  item: str = ""
  items: tuple[str, ...] = ()
  where: tuple[Template, ...] = ()
  each: str = "$x"
  value: str = "$x"
  var: str = "x"
  like: str = ""
  without: tuple[str, ...] = ()
  weight: float = 1.0
  topics: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Part:
  """A filter or a map.

  Attributes:
    id: role and name, such as "filter:even".
    kind: kind of the value that it takes.
    out: kind of the result, of a map.
    code: expression of `$x`.
    unless: a filter's negated expression.
    adj: a filter's adjectives, such as "even"; may be empty.
    post: a filter's phrases after a plural noun, such as "greater than $k".
    clause: a filter's predicate, such as "is even".
    of: a map's noun phrases of `$x`, such as "the square of $x".
    plural: a map's noun phrases of several items `$x`, such as "the squares of $x".
    do: a map's imperative, such as "square $x".
    name: pieces of function names.
    let: constants, name -> possible values.
    weight: how often it is drawn.
    place: file and line, for messages, of a user's row; "" of the package's.
  """

  id: str
  kind: str
  out: str
  code: str
  unless: str = ""
  adj: tuple[str, ...] = ()
  post: tuple[str, ...] = ()
  clause: tuple[str, ...] = ()
  of: tuple[str, ...] = ()
  plural: tuple[str, ...] = ()
  do: tuple[str, ...] = ()
  name: tuple[str, ...] = ()
  let: tuple[tuple[str, tuple[Any, ...]], ...] = ()
  weight: float = 1.0
  place: str = ""


@dataclasses.dataclass(frozen=True)
class Wording:
  """A row's wording: its form, an id for the reserve, and its alternatives."""

  form: str
  id: str
  templates: tuple[Template, ...]


@dataclasses.dataclass(frozen=True)
class Task:
  """A task: plain, or composed of parts.

  Attributes:
    id: its name in the tables.
    place: file and line, for messages.
    args: (label, kinds, own names) of each argument.
    wordings: what the docstring says.
    notes: sentences that follow, such as about an empty list.
    names: templates of function names.
    bodies: sources with places, without indentation.
    returns: the result's type; `$item` is that of the chain's items, `$f` that of a
      map's result, `$xs:item` that of an argument's items. Several, separated by
      spaces, must be equal.
    parts: (label, role, label of its subject, whether it is about each item).
    chain: label of the argument whose items may be filtered and mapped, or "".
    shapes: what a chain may hold, such as "FM".
    gives: kinds that a chain may result in; () is all.
    let: constants, name -> possible values.
    inputs: tuples of arguments that solutions are run on, beside the kinds' pools.
    modules: modules that the body imports.
    weight: how often it is drawn.
    check: Python expression of the arguments that inputs must fulfil, or "".
  """

  id: str
  place: str
  args: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...]
  wordings: tuple[Wording, ...]
  notes: tuple[Template, ...]
  names: tuple[Template, ...]
  bodies: tuple[str, ...]
  returns: str
  parts: tuple[tuple[str, str, str, bool], ...] = ()
  chain: str = ""
  shapes: tuple[str, ...] = ("-",)
  gives: tuple[str, ...] = ()
  let: tuple[tuple[str, tuple[Any, ...]], ...] = ()
  inputs: tuple[tuple[Any, ...], ...] = ()
  modules: tuple[str, ...] = ()
  weight: float = 1.0
  check: str = ""

  @property
  def composed(self) -> bool:
    """Whether the task has parts."""
    return bool(self.parts or self.chain)


@dataclasses.dataclass(frozen=True)
class Tables:
  """All rows.

  Attributes:
    kinds: by id.
    parts: (role, kind) -> filters or maps, and their cumulated weights.
    frames: form -> (id, template, weight) of each sentence around a wording, and the
      cumulated weights; the id of a reserved one ends in "!".
    tasks: in the order of the files.
    names: arguments' names of any kind, and how often they are drawn.
    topics: nouns by the name of their list.
  """

  kinds: Mapping[str, Kind]
  parts: Mapping[tuple[str, str], tuple[tuple[Part, ...], list[float]]]
  frames: Mapping[str, tuple[tuple[tuple[str, Template, float], ...], list[float]]]
  tasks: tuple[Task, ...]
  names: tuple[tuple[str, ...], float] = ((), 0.0)
  topics: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)


def cumulated(rows: Sequence[Any]) -> list[float]:
  """Return the sums of the rows' weights up to each of them."""
  return list(itertools.accumulate(row.weight for row in rows))


def _kind(row: Row) -> Kind:
  kind = Kind(
    id=row.id.partition(".")[2],
    type=row.take("type"),
    given=row.texts("given"),
    noun=row.texts("noun"),
    names=row.texts("names"),
    pool=row.literal("pool"),
    item=row.take("item", ""),
    items=row.texts("items", []),
    where=parse_all(listed(row.take("where", "in $x"))),
    each=row.take("each", "$x"),
    value=row.take("value", "$x"),
    var=row.take("var", "x"),
    without=tuple(row.take("without", "").split()),
    like=row.take("like", row.id.partition(".")[2]),
    weight=row.weight(),
    topics=row.texts("topic", []),
  )
  row.done()
  return kind


def _part(row: Row, role: str, kind: str) -> Part:
  is_filter = role == "filter"
  code = row.take("code")
  part = Part(
    id=f"{role}:{row.id.rpartition('.')[2]}",
    kind=kind,
    out=row.take("out", kind),
    code=code,
    unless=row.take("unless", f"not ({code})"),
    adj=row.texts("adj", []),
    post=row.texts("post", []),
    clause=row.texts("clause", None if is_filter else []),
    of=row.texts("of", [] if is_filter else None),
    plural=row.texts("plural", []),
    do=row.texts("do", []),
    name=row.texts("name"),
    let=row.let(),
    weight=row.weight(),
    place="" if Path(row.file).parent == PACKAGED else row.place,
  )
  row.done()
  if is_filter and not part.adj + part.post:
    raise row.wrong("post", "neither adj nor post", "either, or both")
  return part


def _check_part(row: Row, part: Part, kinds: Mapping[str, Kind]) -> None:
  """Raise if a part has a place that nothing fills, or fails for a kind's value."""
  for key, kind in (("", part.kind), ("out", part.out)):
    if kind not in kinds:
      raise row.wrong(key, f"kind {kind!r}", f"one of {', '.join(sorted(kinds))}")
  known = {"x", *(name for name, _ in part.let)}
  said = (*part.adj, *part.post, *part.clause, *part.of, *part.plural, *part.do)
  for place in places(" ".join((part.code, part.unless, *said, *part.name))) - known:
    raise row.wrong("", f"${place}", f"one of {', '.join(sorted(known))}")
  pool = [v for kind in kinds.values() if kind.like == part.kind for v in kind.pool]
  inputs = list(itertools.product(pool, *(values for _, values in part.let)))
  labels = ", ".join(["x", *(name for name, _ in part.let)])
  for key, code in (("code", part.code), ("unless", part.unless)):
    given: Any = ()
    try:
      function = eval(PLACE.sub(r"\1", f"lambda {labels}: {code}"))
      for given in inputs:
        with contextlib.suppress(IndexError):  # of an empty word
          function(*given)
    except Exception as error:
      values = ", ".join(map(repr, given))
      got = f"{type(error).__name__} ({error}) for {labels} = {values}"
      raise row.wrong(key, got, f"an answer for every {part.kind}") from error


def _task(row: Row) -> Task:
  try:
    given, arrow, returns = row.take("args", None, str).partition(" -> ")
    if not arrow:
      raise ValueError(repr(given))
    args = tuple(_argument(text) for text in _divided(given))
    parts = tuple(_slot(text) for text in _divided(row.take("parts", "")))
  except ValueError as error:
    raise row.wrong(
      "args", str(error), '"label: kind -> type", or parts as "p: filter n"'
    ) from None
  id = row.id.partition(".")[2]
  wordings = []
  for form in FORMS:
    for number, text in enumerate(listed(row.take(form, []))):
      try:
        templates = parse_all([text])
      except ValueError as error:
        raise row.wrong(form, str(error), "brackets in pairs") from None
      # The first wording of a row is never reserved.
      known = f"{id}/{form}/{number}" if wordings else ""
      wordings.append(Wording(form, known, templates))
  if not wordings:
    raise row.wrong("", f"none of {', '.join(FORMS)}", "a wording")
  chain = row.take("chain", "")
  task = Task(
    id=id,
    place=row.place,
    args=args,
    wordings=tuple(wordings),
    notes=parse_all(listed(row.take("note", []))),
    names=parse_all(listed(row.take("names"))),
    bodies=tuple(body.strip("\n") for body in listed(row.take("body"))),
    returns=returns.strip(),
    parts=parts,
    chain=chain,
    shapes=tuple(row.take("shapes", "- F M FM FF" if chain else "-").split()),
    gives=tuple(row.take("gives", "").split()),
    let=row.let(),
    inputs=row.literal("inputs"),
    modules=tuple(row.take("modules", "").split()),
    weight=row.weight(),
    check=row.take("check", ""),
  )
  row.done()
  _check_task(row, task)
  return task


def _divided(text: str) -> list[str]:
  return [each.strip() for each in text.split(",") if each.strip()]


def _argument(text: str) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
  """Read "xs: ints|words = scores|prices"."""
  match = re.fullmatch(r"([a-z]+):\s*([\w |]+?)\s*(?:=\s*([\w|]+))?", text)
  if not match:
    raise ValueError(repr(text))
  names = tuple(match[3].split("|")) if match[3] else ()
  return match[1], tuple(match[2].split("|")), names


def _slot(text: str) -> tuple[str, str, str, bool]:
  """Read "p: filter n" or "p: filter each xs"."""
  match = re.fullmatch(r"([a-z]+):\s*(filter|map)\s+(each\s+)?([a-z]+)", text)
  if not match:
    raise ValueError(repr(text))
  return match[1], match[2], match[4], bool(match[3])


def _check_task(row: Row, task: Task) -> None:
  """Raise if a wording, name or body has a place that nothing fills."""
  known = {label for label, _, _ in task.args} | {name for name, _ in task.let}
  known |= {label for label, *_ in task.parts} | (
    {"items", "var"} if task.chain else set()
  )
  if any(each for *_, each in task.parts):
    known.add("var")
  texts_of = {"names": task.names, "note": task.notes}
  for wording in task.wordings:
    texts_of[wording.form] = wording.templates + texts_of.get(wording.form, ())
  for key, templates in texts_of.items():
    for template in templates:
      for piece in template:
        if not isinstance(piece, str) and piece[0] not in known:
          raise row.wrong(key, f"${piece[0]}", f"one of {', '.join(sorted(known))}")
  for body in task.bodies:
    for place in places(body) - known:
      raise row.wrong("body", f"${place}", f"one of {', '.join(sorted(known))}")
  for word in re.findall(r"[A-Za-z_]\w*", PLACE.sub(" ", task.returns)):
    if word not in _TYPES and word not in {"item", *known}:
      expected = f"a Python type of {', '.join(sorted(_TYPES))}"
      raise row.wrong("args", f"-> {word}", expected)
  if task.chain and task.chain not in {label for label, _, _ in task.args}:
    raise row.wrong("chain", task.chain, "the label of an argument")
  for shape in task.shapes:
    if shape not in SHAPES:
      raise row.wrong("shapes", shape, f"some of {' '.join(SHAPES)}")


def _frames(row: Row) -> tuple[tuple[str, Template, float], ...]:
  form = row.id.partition(".")[2]
  if form not in FORMS:
    raise row.wrong("", form, f"one of {', '.join(FORMS)}")
  found = []
  reserved = row.take("reserved", "").split()
  for id, value in row.values.items():
    text, weight = (value, 1.0) if isinstance(value, str) else value
    options = parse_all([text])
    name = f"{form}:{id}{'!' if id in reserved else ''}"
    found += [(name, each, weight / len(options)) for each in options]
  return tuple(found)


def digest(files: Sequence[str]) -> str | None:
  """Return the sha256 (hex) of tables that `load` takes; None without tables."""
  if not files:
    return None
  load(files)
  texts = [Path(file).read_bytes() for file in files]
  return hashlib.sha256(b"\0".join(texts)).hexdigest()


@functools.lru_cache(8)
def load(files: Sequence[str] = ()) -> Tables:
  """Return the package's tables with those of the user's files.

  Args:
    files: paths of TOML files; their rows are added, or replace rows of the same id.

  Raises:
    InputError: a file or a row is wrong; the message names file and line.
  """
  kinds: dict[str, Kind] = {}
  parts: dict[tuple[str, str], dict[str, Part]] = {}
  frames: dict[str, tuple[tuple[str, Template, float], ...]] = {}
  tasks: dict[str, Task] = {}
  names: tuple[tuple[str, ...], float] = ((), 0.0)
  topics: dict[str, tuple[str, ...]] = {}
  kind_rows: dict[str, Row] = {}
  own_parts: list[tuple[Row, Part]] = []
  for file in [*sorted(PACKAGED.glob("*.toml")), *map(Path, files)]:
    for row in read(file):
      section, _, rest = row.id.partition(".")
      if section == "kind":
        kinds[rest], kind_rows[rest] = _kind(row), row
      elif section in ("filter", "map"):
        part = _part(row, section, rest.partition(".")[0])
        parts.setdefault((section, part.kind), {})[part.id] = part
        if part.place:
          own_parts.append((row, part))
      elif section == "frame":
        frames[rest] = frames.get(rest, ()) + _frames(row)
      elif section == "task":
        tasks[rest] = _task(row)
      elif section == "names":
        words = tuple(filter(usable, row.words("words")))
        names = words, row.weight("share", 0.0)
      elif section == "topic":
        topics[rest] = row.words("words")
      else:
        expected = "task, kind, frame, topic, filter.KIND or map.KIND"
        raise row.wrong("", f"[{row.id}]", expected)
  for kind in kinds.values():
    for topic in kind.topics:
      if topic not in topics:
        expected = f"one of {', '.join(sorted(topics))}"
        raise kind_rows[kind.id].wrong("topic", repr(topic), expected)
  for row, part in own_parts:
    _check_part(row, part, kinds)
  found = Tables(
    kinds,
    {key: (tuple(p.values()), cumulated(list(p.values()))) for key, p in parts.items()},
    {
      form: (each, list(itertools.accumulate(weight for _, _, weight in each)))
      for form, each in frames.items()
    },
    (),
    names,
    topics,
  )
  return dataclasses.replace(
    found, tasks=tuple(_linked(task, found) for task in tasks.values())
  )


def _linked(task: Task, tables: Tables) -> Task:
  """Return a task with its kinds looked up: "each int" is every source of numbers."""
  args = []
  words = words_of(task.bodies)
  for label, kinds, names in task.args:
    found: list[str] = []
    for kind in kinds:
      if kind.startswith("each "):
        item = kind.removeprefix("each ").strip()
        found += [id for id, each in tables.kinds.items() if each.item == item]
      elif kind.strip() in tables.kinds:
        found.append(kind.strip())
    if not found:
      raise InputError(
        f"{task.place} args: got kind {'|'.join(kinds)!r}, expected some of "
        f"{', '.join(sorted(tables.kinds))}; change the row"
      )
    for name in names:
      if name in words | _RESERVED or not name.isidentifier():
        raise InputError(
          f"{task.place} args: got the name {name!r}, expected a name that neither the "
          "body nor Python uses; change the row"
        )
    args.append((label, tuple(found), names))
  return dataclasses.replace(task, args=tuple(args))


@functools.lru_cache(1 << 10)
def words_of(bodies: tuple[str, ...]) -> frozenset[str]:
  """Return the names that bodies use, apart from their places."""
  return frozenset(re.findall(r"[A-Za-z_]\w*", PLACE.sub(" ", " ".join(bodies))))


def usable(name: str) -> bool:
  """Return whether a function or an argument may have this name."""
  return name.isidentifier() and name not in _RESERVED
