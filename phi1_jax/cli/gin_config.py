"""gin at the edge: files and flags in, frozen dataclasses out.

gin lets much through (a macro nobody reads, a value of the wrong type, `REQUIRED`
bound to None), so everything is checked here, before any device is touched, and
every complaint is an `InputError` that names the place.
"""

import dataclasses
import math
import re
import tokenize
import types
import typing
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from phi1_jax import InputError
from phi1_jax.cli import bindings as bound
from phi1_jax.cli.bindings import PARTS, ROOT, Bindings

try:  # from the repository root, `import gin` alone would find the folder gin/
  from phi1_jax.cli import gin_library as reader
except ModuleNotFoundError:
  from phi1_jax.cli import plain_gin as reader

__all__ = ["PARTS", "load", "text"]

Config = TypeVar("Config")


def load(
  files: Sequence[str],
  bindings: Sequence[tuple[str, str]],
  classes: Mapping[str, type],
  *,
  partial: bool = False,
) -> dict[str, Any]:
  """Reads gin files and command-line bindings and builds one object per class.

  Args:
    files: paths, relative to the working directory or to the repository root.
    bindings: (name, value) pairs of `--gin.NAME=VALUE`, applied after the files.
    classes: gin name -> frozen dataclass; bindings of other `PARTS` in files are left
      alone.
    partial: the command builds other parts of the same bindings elsewhere.

  Returns:
    gin name -> the dataclass built from its bindings and defaults.

  Raises:
    InputError: a file that cannot be read, a name that does not exist, a macro that
      nothing reads, an override without effect, a parameter left unbound, or a value
      of the wrong type.
  """
  found = _read(files, bindings, classes)
  sources = _Sources([str(_located(name)) for name in found.files], bindings)
  _refuse_scopes(found)
  _refuse_unread_macros(found, sources)
  _refuse_overrides_without_effect(bindings, sources, PARTS if partial else classes)
  return {name: _build(name, cls, found, sources) for name, cls in classes.items()}


def files(named: Sequence[str]) -> dict[str, Path]:
  """Gin files and all that they include, by the names they go by, and where they are.

  Raises:
    InputError: as `load`.
  """
  return {name: _located(name) for name in _read(named, (), {}).files}


def _located(name: str) -> Path:
  return Path(name) if Path(name).is_file() else ROOT / name


def text(objects: Mapping[str, Any]) -> str:
  """Writes built objects back as gin, every field explicit and no macro left."""
  blocks = []
  for name, config in sorted(objects.items()):
    lines = [
      f"{name}.{field.name} = {getattr(config, field.name)!r}"
      for field in dataclasses.fields(config)
    ]
    blocks.append("\n".join(lines) + "\n")
  return "\n".join(blocks)


@dataclasses.dataclass(frozen=True)
class _Binding:
  """One binding in a file or on the command line.

  Attributes:
    place: for error messages: "gin/pretrain.gin, line 31", or "--gin.SEED".
    name: `MACRO` or `Part.parameter`.
    text: its value, without comments.
  """

  place: str
  name: str
  text: str

  @property
  def macros(self) -> list[str]:
    """The macros that the value reads."""
    return re.findall(r"%([\w.]+)", self.text)


class _Sources:
  """Where each name was bound, for error messages and for overrides without effect."""

  def __init__(self, files: Sequence[str], bindings: Sequence[tuple[str, str]]):
    self.all: list[_Binding] = []
    for path in files:
      for number, line in enumerate(Path(path).read_text().splitlines(), 1):
        line = line.split("#")[0]
        if found := re.match(r"\s*([\w./]+)\s*=(.*)", line):
          place = f"{path}, line {number}"
          self.all.append(_Binding(place, found[1], found[2].strip()))
        elif self.all:  # a value over several lines
          last = self.all[-1]
          self.all[-1] = dataclasses.replace(last, text=f"{last.text} {line}")
    self.all += [_Binding(f"--gin.{name}", name, value) for name, value in bindings]
    self.last = {binding.name: binding for binding in self.all}

  def find(self, name: str) -> str | None:
    """Return the place that bound `name` last, or None."""
    return self.last[name].place if name in self.last else None

  def macro_of(self, name: str) -> str | None:
    """Return the macro whose value `name` takes, if it takes one."""
    text = self.last[name].text if name in self.last else ""
    macro = re.fullmatch(r"%([\w.]+)", text.strip())
    return macro.group(1) if macro else None

  def read_macros(self) -> set[str]:
    """Return every macro that some binding reads."""
    return {name for binding in self.all for name in binding.macros}

  def effective_macros(self, parts: Collection[str]) -> set[str]:
    """Return the macros that decide a parameter of these parts in the end."""
    found: set[str] = set()
    left = [
      binding
      for name, binding in self.last.items()
      if "." in name and name.partition(".")[0] in parts
    ]
    while left:
      new = set(left.pop().macros) - found
      found |= new
      left += [self.last[name] for name in new if name in self.last]
    return found

  def instead_of(self, macro: str) -> _Binding | None:
    """Return the binding that replaced one which reads this macro, if any did."""
    for binding in self.all:
      last = self.last[binding.name]
      if macro in binding.macros and macro not in last.macros:
        return last
    return None


def _read(
  files: Sequence[str],
  bindings: Sequence[tuple[str, str]],
  classes: Mapping[str, type],
) -> Bindings:
  for name, value in bindings:
    if not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)?", name):
      raise InputError(
        f"--gin.{name}={value}: got the name {name!r}, expected Part.parameter or MACRO"
      )
  if not files and not bindings:
    raise InputError("got no --gin_file, expected one, such as gin/quickstart.gin")
  lines = [f"{name} = {_literal(value)}" for name, value in bindings]
  named = ", ".join(files)
  try:
    return reader.read(files, lines, classes)
  except OSError as error:
    raise InputError(
      f"{error.filename or named}: {error.strerror or error}; expected a readable "
      "gin file"
    ) from None
  except UnicodeDecodeError as error:
    raise InputError(f"{named}: not a text file ({error})") from None
  except IndentationError as error:
    raise InputError(
      f"{named}: line {error.lineno} is indented; expected bindings that begin a line"
    ) from None
  except tokenize.TokenError as error:
    raise InputError(
      f"{named}: a bracket or quote is never closed ({error.args[0]})"
    ) from None


def _literal(value: str) -> str:
  """A flag's value as gin text; a bare word or path is taken as a string."""
  if "\n" in value:  # what follows would be a binding of its own
    return repr(value)
  return value if reader.is_value(value) else repr(value)


def _refuse_scopes(found: Bindings) -> None:
  """Refuses `scope/Part.parameter`: gin takes it, and nothing here enters a scope."""
  if scoped := sorted(name for name in found.names if "/" in name):
    raise InputError(
      f"{scoped[0]}: nothing reads a binding with a scope; expected "
      "Part.parameter or MACRO"
    )


def _refuse_unread_macros(found: Bindings, sources: _Sources) -> None:
  read = sources.read_macros()
  for name in sorted(found.names - read):
    if "." not in name:
      known = ", ".join(sorted(read - {"gin.REQUIRED"})) or "none"
      raise InputError(
        f"{sources.find(name) or name}: nothing reads the macro {name}; "
        f"these are read: {known}"
      )


def _refuse_overrides_without_effect(
  bindings: Sequence[tuple[str, str]], sources: _Sources, parts: Collection[str]
) -> None:
  """Refuse what the command line binds and the run does not depend on."""
  effective = sources.effective_macros(parts)
  for name, value in bindings:
    part, dot, _ = name.partition(".")
    if dot and part not in parts:
      raise InputError(
        f"--gin.{name}={value} has no effect: this command reads "
        f"{', '.join(sorted(parts))}"
      )
    if not dot and name not in effective:
      other = sources.instead_of(name)
      reason = (
        f"{other.place} binds {other.name} = {other.text}"
        if other
        else (
          f"this command reads {', '.join(sorted(parts))}, which do not depend on it"
        )
      )
      advice = f"; give --gin.{other.name}={value}" if other else ""
      raise InputError(f"--gin.{name}={value} has no effect: {reason}{advice}")


def _build(name: str, cls: type[Config], found: Bindings, sources: _Sources) -> Config:
  """Builds one dataclass from what is bound after checking each value's type."""
  values = found.look_up(name)
  hints = typing.get_type_hints(cls)
  for field in dataclasses.fields(cls):  # pyright: ignore[reportArgumentType]
    full = f"{name}.{field.name}"
    if field.name in values:
      place = sources.find(sources.macro_of(full) or full)
      values[field.name] = _checked(
        full, values[field.name], hints[field.name], f" ({place})" if place else ""
      )
    elif (
      field.default is dataclasses.MISSING
      and field.default_factory is dataclasses.MISSING
    ):
      raise bound.required(full)
  return cls(**values)


def _checked(name: str, value: Any, hint: Any, place: str) -> Any:
  """Returns the value, ints widened to float and lists to tuples, or refuses it."""
  if typing.get_origin(hint) is tuple and isinstance(value, list):
    value = tuple(value)
  if hint is float and type(value) is int:
    value = float(value)
  if not _fits(value, hint):
    expected = getattr(hint, "__name__", None) if isinstance(hint, type) else None
    raise InputError(
      f"{name}{place}: got {value!r} ({type(value).__name__}), "
      f"expected {expected or str(hint).replace('typing.', '')}"
    )
  return value


def _fits(value: Any, hint: Any) -> bool:
  origin, arguments = typing.get_origin(hint), typing.get_args(hint)
  if origin in (typing.Union, types.UnionType):
    return any(_fits(value, option) for option in arguments)
  if origin is typing.Literal:
    return value in arguments
  if origin is tuple:
    return isinstance(value, tuple) and all(_fits(v, arguments[0]) for v in value)
  if origin is dict:
    key, item = arguments
    return isinstance(value, dict) and all(
      _fits(k, key) and _fits(v, item) for k, v in value.items()
    )
  if hint is float:  # NaN would pass every later comparison
    return type(value) in (int, float) and math.isfinite(value)
  return type(value) is hint  # `True` is no int
