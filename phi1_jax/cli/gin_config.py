"""gin at the edge: files and flags in, frozen dataclasses out.

The one importer of gin. gin lets much through (a macro nobody reads, a value of the
wrong type, `REQUIRED` bound to None), so everything is checked here, before any
device is touched, and every complaint is an `InputError` that names the place.
"""

import dataclasses
import importlib.util  # gin's resource reader needs it imported before gin is
import logging
import math
import re
import tokenize
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import gin
import gin.config

from phi1_jax import InputError

assert importlib.util is not None

# Every part that a gin file may configure, so that a command which builds only some
# of them (prepare: Data) reads a whole run's file and still knows a misspelt name.
PARTS = (
  "Checkpoint",
  "Data",
  "Evaluation",
  "Mesh",
  "Model",
  "Optimizer",
  "Runtime",
  "Train",
)

# What gin raises, or lets through, for text that is no configuration.
_GIN_ERRORS = (
  ValueError,
  TypeError,
  SyntaxError,
  LookupError,
  AttributeError,
  ImportError,
  RuntimeError,
)

Config = TypeVar("Config")
_registered: dict[str, type] = {}


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
  gin.clear_config()
  for name, cls in classes.items():
    if name not in _registered:
      _registered[name] = cls
      gin.external_configurable(cls, name=name, module="phi1_jax")
  sources = _parse(files, bindings, skip=_Skipped(set(PARTS) - set(_registered)))
  _refuse_scopes()
  _refuse_unread_macros(sources)
  return {name: _build(name, cls, sources) for name, cls in classes.items()}


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


class _Skipped(set):
  """Names of parts whose bindings are skipped.

  gin asks it two things: whether a name is in it, and, of a module that cannot be
  imported, whether it is true at all; that must stay an error.
  """

  def __bool__(self) -> bool:
    return False


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
    return macro.group(1) if macro and macro.group(1) != "gin.REQUIRED" else None

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


def _parse(files, bindings, *, skip) -> _Sources:
  for name, value in bindings:
    if not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)?", name):
      raise InputError(
        f"--gin.{name}={value}: got the name {name!r}, expected Part.parameter or MACRO"
      )
  if not files and not bindings:
    raise InputError("got no --gin_file, expected one, such as gin/quickstart.gin")
  root = Path(__file__).parents[2]
  read: list[str] = []
  # gin logs an error for each place it looks into before it finds a file.
  logging.getLogger().addFilter(_not_path_errors)
  try:
    with gin.unlock_config():
      gin.add_config_file_search_path(str(root))
      for path in files:
        read += _flatten(gin.parse_config_file(path, skip_unknown=skip))
      lines = [f"{name} = {_literal(value)}" for name, value in bindings]
      gin.parse_config(lines, skip_unknown=skip)
      gin.finalize()
  except OSError as error:
    raise InputError(_unreadable(error, files)) from None
  except UnicodeDecodeError as error:
    raise InputError(f"{', '.join(files)}: not a text file ({error})") from None
  except tokenize.TokenError as error:
    raise InputError(
      f"{', '.join(files)}: a bracket or quote is never closed ({error.args[0]})"
    ) from None
  except _GIN_ERRORS as error:
    raise InputError(_explain(error)) from None
  finally:
    logging.getLogger().removeFilter(_not_path_errors)
  located = [path if Path(path).is_file() else str(root / path) for path in read]
  return _Sources(located, bindings)


def _flatten(parsed) -> list[str]:
  """Files in the order in which gin read them: what a file includes comes first."""
  included = [path for part in parsed.includes for path in _flatten(part)]
  return [*included, parsed.filename]


def _not_path_errors(record: logging.LogRecord) -> bool:
  return "Path not found" not in record.getMessage()


def _literal(value: str) -> str:
  """A flag's value as gin text; a bare word or path is taken as a string."""
  if "\n" in value:  # what follows would be a binding of its own
    return repr(value)
  try:
    gin.config.parse_value(value)
  except (*_GIN_ERRORS, tokenize.TokenError):
    return repr(value)
  return value


def _unreadable(error: OSError, files: Sequence[str]) -> str:
  if error.filename:
    return f"{error.filename}: {error.strerror}; expected a readable gin file"
  missing = re.search(r"Unable to open file: (.*?)\. Searched", str(error))
  name = missing.group(1) if missing else ", ".join(files)
  return (
    f"{name}: no such gin file; expected a path from here or from the repository "
    "root, such as gin/quickstart.gin"
  )


def _explain(error: Exception) -> str:
  """gin's message without its line breaks, signatures and memory addresses."""
  message = str(error)
  if isinstance(error, SyntaxError) and error.filename:
    return f"{error.filename}, line {error.lineno}: {error.msg} ({error.text!r})"
  if isinstance(error, RecursionError):
    return "a gin file includes itself, or a macro reads itself, in a circle"
  place = re.search(r'In file "(.*?)", line (\d+)', message)
  if place is None:
    place = re.search(r"In bindings string line (\d+)", message)
    where = "on the command line: " if place else ""
  else:
    where = f"{place.group(1)}, line {place.group(2)}: "
  unknown = re.search(r"doesn't have a parameter named '(\w+)'", message)
  part = re.search(r"Configurable '([\w.]+)'", message)
  if unknown and part:
    name = part.group(1).rpartition(".")[2]
    fields = [field.name for field in dataclasses.fields(_registered[name])]
    return (
      f"{where}{name}.{unknown.group(1)}: no such parameter; {name} has "
      f"{', '.join(fields)}"
    )
  unbound = re.search(r"(\S+) set to `%gin\.REQUIRED`", message)
  if unbound:
    name = unbound.group(1).removesuffix("/macro.value")
    return f"{name}: required but not bound; give --gin.{name}=VALUE"
  missing = re.search(r"No bindings specified for '([\w.]+)/gin\.macro'", message)
  if missing:
    name = missing.group(1)
    return f"%{name}: the macro is read but never bound; give --gin.{name}=VALUE"
  known = f"; known parts are {', '.join(PARTS)}" if "configurable" in message else ""
  return where + " ".join(message.split("\n")[0].split()) + known


def _refuse_scopes() -> None:
  """Refuses `scope/Part.parameter`: gin takes it, and nothing here enters a scope."""
  bound = gin.config_str(max_line_length=10_000)
  if scoped := re.search(r"^(\w[\w.]*/[\w./]*) =", bound, re.MULTILINE):
    raise InputError(
      f"{scoped.group(1)}: nothing reads a binding with a scope; expected "
      "Part.parameter or MACRO"
    )


def _refuse_unread_macros(sources: _Sources) -> None:
  names = re.findall(r"^(\w+) =", gin.config_str(max_line_length=10_000), re.MULTILINE)
  for name in names:
    if name not in sources.read_macros():
      known = ", ".join(sorted(sources.read_macros() - {"gin.REQUIRED"})) or "none"
      raise InputError(
        f"{sources.find(name) or name}: nothing reads the macro {name}; "
        f"these are read: {known}"
      )


def _build(name: str, cls: type[Config], sources: _Sources) -> Config:
  """Builds one dataclass from gin's bindings after checking each value's type."""
  try:
    values = gin.get_bindings(f"phi1_jax.{name}")
  except _GIN_ERRORS as error:  # it looks macros up
    raise InputError(_explain(error)) from None
  hints = typing.get_type_hints(cls)
  for field in dataclasses.fields(cls):  # pyright: ignore[reportArgumentType]
    full = f"{name}.{field.name}"
    required = (
      field.default is dataclasses.MISSING
      and field.default_factory is dataclasses.MISSING
    )
    macro = sources.macro_of(full)
    if values.get(field.name) is gin.REQUIRED or (
      required and field.name not in values
    ):
      raise InputError(
        f"{full}: required but not bound; give --gin.{macro or full}=VALUE"
      )
    if field.name in values:
      place = sources.find(macro or full)
      values[field.name] = _checked(
        full, values[field.name], hints[field.name], f" ({place})" if place else ""
      )
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
