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
from collections.abc import Mapping, Sequence
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
) -> dict[str, Any]:
  """Reads gin files and command-line bindings and builds one object per class.

  Args:
    files: paths, relative to the working directory or to the repository root.
    bindings: (name, value) pairs of `--gin.NAME=VALUE`, applied after the files.
    classes: gin name -> frozen dataclass; bindings of other `PARTS` are left alone.

  Returns:
    gin name -> the dataclass built from its bindings and defaults.

  Raises:
    InputError: a file that cannot be read, a name that does not exist, a macro that
      nothing reads, a parameter left unbound, or a value of the wrong type.
  """
  found = _read(files, bindings, classes)
  sources = _Sources([str(_located(name)) for name in found.files], bindings)
  _refuse_scopes(found)
  _refuse_unread_macros(found, sources)
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


class _Sources:
  """Where each name was last bound, for error messages."""

  def __init__(self, files: Sequence[str], bindings: Sequence[tuple[str, str]]):
    self._lines = [
      (f"{path}, line {number}", line)
      for path in files
      for number, line in enumerate(Path(path).read_text().splitlines(), 1)
    ]
    self._lines += [(f"--gin.{name}", f"{name} = {value}") for name, value in bindings]

  def find(self, name: str) -> str | None:
    """The place that bound `name` last, or None."""
    return self._last(name)[0]

  def macro_of(self, name: str) -> str | None:
    """The macro whose value `name` takes, if it takes one."""
    macro = re.fullmatch(r"%([\w.]+)", (self._last(name)[1] or "").strip())
    return macro.group(1) if macro else None

  def _last(self, name: str) -> tuple[str | None, str | None]:
    pattern = re.compile(rf"\s*{re.escape(name)}\s*=([^#]*)")
    bound = [(place, m.group(1)) for place, x in self._lines if (m := pattern.match(x))]
    return bound[-1] if bound else (None, None)

  def read_macros(self) -> set[str]:
    """Every macro that some binding reads."""
    return {
      name
      for _, line in self._lines
      for name in re.findall(r"%([\w.]+)", line.split("#")[0])
    }


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
