"""Reads gin files and `--gin.NAME=VALUE` flags into frozen dataclasses.

The only module that imports gin-config. It uses gin's parser and none of gin's global
state. gin alone accepts macros that nothing reads and values of the wrong type. Here
each of these is an `InputError` that names file and line, before JAX sees a device.

    include 'gin/models/micro.gin'    # from here, or a recipe of this package
    STEPS = 400                       # a macro
    Train.total_steps = %STEPS        # a parameter of a configurable
    Train.seed = %gin.REQUIRED        # must be bound again by a later line or a flag
"""

import dataclasses
import importlib.util  # gin fails to import unless this was imported before
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from tokenize import TokenError
from typing import Any, TypeVar

from gin import config_parser

import phi1_jax
from phi1_jax import InputError, settings
from phi1_jax.settings import Settings

# All names. A command that builds some of them (prepare: Data) reads the gin file of a
# whole run and still refuses a misspelt name.
CONFIGURABLES = (
  *("Annotate", "Checkpoint", "Classifier", "Data", "Decontaminate", "Deduplicate"),
  *("Evaluation", "Exercises", "Filter", "Grade", "Llm", "Mesh", "Model", "Optimizer"),
  *("Publish", "Runtime", "Study", "Textbooks", "Train"),
)
# The folder gin/ of a checkout, which an installed package has too.
RECIPES = Path(phi1_jax.__file__).with_name("recipes")

# What gin's parser raises for text that is not gin.
_PARSE_ERRORS = (SyntaxError, TypeError, ValueError, RecursionError, TokenError)

Config = TypeVar("Config")
Flags = Sequence[tuple[str, str]]


def load(
  files: Sequence[str],
  bindings: Flags,
  classes: Mapping[str, type],
  *,
  partial: bool = False,
) -> dict[str, Any]:
  """Build one object per class from gin files and command-line flags.

  Args:
    files: paths from the working directory, or names of recipes ("quickstart.gin").
    bindings: (name, value) pairs of `--gin.NAME=VALUE`, applied after the files.
    classes: gin name -> frozen dataclass; bindings of other `CONFIGURABLES` in files
      are ignored.
    partial: another command builds the others, so flags for those are allowed.

  Returns:
    gin name -> the dataclass built from its bindings and defaults.

  Raises:
    InputError: a file that cannot be read, an unknown name, a macro that nothing
      reads, a flag without effect, an unbound parameter, or a value of the wrong type.
  """
  if not files and not bindings:
    raise InputError("got no --gin_file, expected one, such as gin/quickstart.gin")
  bound = _Bindings(classes)
  for name in files:
    bound.read_file(name)
  given: dict[str, str] = {}
  for name, value in bindings:
    if name in given:
      raise InputError(
        f"--gin.{name}: got it twice, with {given[name]} and {value}; expected it once"
      )
    given[name] = value
    bound.read_flag(name, value)
  bound.refuse_unread_macros()
  parts = {name: _build(name, cls, bound) for name, cls in classes.items()}
  for name, value in bindings:
    bound.refuse_without_effect(name, value, partial=partial)
    owner, _, field = name.partition(".")
    part = parts.get(owner)
    if isinstance(part, Settings) and (reason := part.without_effect(field)):
      raise InputError(f"--gin.{name}={value} has no effect: {reason}")
  return parts


def find(name: str) -> Path:
  """Return the path of a gin file: from here, or of the package's recipes.

  Raises:
    InputError: there is no such file.
  """
  for path in (Path(name), RECIPES / name, RECIPES / name.removeprefix("gin/")):
    if path.is_file():
      return path
  folder = Path(name.removeprefix("gin/")).parent.name  # such as meshes/
  found = [*(RECIPES / folder).glob("*.gin")] or [*RECIPES.glob("*.gin")]
  recipes = ", ".join(sorted(str(path.relative_to(RECIPES)) for path in found))
  raise InputError(
    f"{name}: no such gin file; expected a path from here, or a recipe of this "
    f"package: {recipes}"
  )


def files(named: Sequence[str]) -> dict[str, Path]:
  """Return the paths of gin files and of all files that they include, by name.

  Raises:
    InputError: as `load`.
  """
  bound = _Bindings({})
  for name in named:
    bound.read_file(name)
  return bound.files


def text(objects: Mapping[str, Any]) -> str:
  """Return objects as gin text that states every field and has no macros."""
  return "\n".join(
    "".join(
      f"{name}.{field.name} = {getattr(config, field.name)!r}\n"
      for field in dataclasses.fields(config)
    )
    for name, config in sorted(objects.items())
  )


@dataclasses.dataclass(frozen=True)
class Macro:
  """`%NAME` in a value."""

  name: str

  def __repr__(self) -> str:
    return f"%{self.name}"


class Reference(str):
  """`@name` or `@name()` in a value. Every parameter refuses this type."""


class _Delegate(config_parser.ParserDelegate):
  """Makes macros and references for gin's parser."""

  def macro(self, macro_name: str) -> Macro:
    return Macro(macro_name)

  def configurable_reference(
    self, scoped_configurable_name: str, evaluate: bool
  ) -> Reference:
    return Reference(f"@{scoped_configurable_name}{'()' * evaluate}")


@dataclasses.dataclass(frozen=True)
class _Binding:
  """One binding of a gin file or flag."""

  name: str  # `MACRO` or `Part.parameter`
  value: Any  # with macros not yet replaced
  place: str  # for errors: "gin/pretrain.gin, line 31", or "--gin.SEED"


class _Bindings:
  """All bindings of gin files and flags, in the order in which they were read."""

  def __init__(self, classes: Mapping[str, type]):
    self._classes = classes
    self.files: dict[str, Path] = {}  # a file comes after those that it includes
    self.all: list[_Binding] = []
    self.last: dict[str, _Binding] = {}  # the last binding of each name
    self.used: set[str] = set()  # macros that one of `classes` depends on

  def read_file(self, name: str, outer: tuple[Path, ...] = ()) -> None:
    """Read a file that the files `outer` include."""
    path = find(name)
    if path.resolve() in outer:
      raise _circle()
    for statement in _statements(path):
      place = f"{path}, line {statement.location.line_num}"
      if isinstance(statement, config_parser.IncludeStatement):
        self.read_file(statement.filename, (*outer, path.resolve()))
      elif isinstance(statement, config_parser.ImportStatement):
        try:
          importlib.import_module(statement.module)
        except ImportError as error:
          raise InputError(f"{place}: {error}") from None
      elif isinstance(statement, config_parser.BindingStatement):
        scope, *words, value, _ = statement
        bound = ".".join(filter(None, words))
        if scope:
          raise InputError(
            f"{scope}/{bound}: nothing reads a binding with a scope; expected "
            f"Part.parameter or MACRO ({place})"
          )
        self._bind(_Binding(bound, value, place))
    self.files[name] = path

  def read_flag(self, name: str, value: str) -> None:
    """Read `--gin.name=value`."""
    if not all(word.isidentifier() for word in name.split(".")) or name.count(".") > 1:
      raise InputError(
        f"--gin.{name}={value}: got the name {name!r}, expected Part.parameter or MACRO"
      )
    self._bind(_Binding(name, _flag_value(value), f"--gin.{name}"))

  def _bind(self, binding: _Binding) -> None:
    owner, _, parameter = binding.name.rpartition(".")
    if owner and owner not in CONFIGURABLES:
      raise InputError(
        f"{binding.place}: no configurable has the name {owner!r}; there are "
        f"{', '.join(CONFIGURABLES)}"
      )
    if owner in self._classes:
      known = [field.name for field in dataclasses.fields(self._classes[owner])]
      if parameter not in known:
        raise InputError(
          f"{binding.place}: {binding.name}: no such parameter; {owner} has "
          f"{', '.join(known)}"
        )
    self.all.append(binding)
    self.last[binding.name] = binding

  def resolve(self, value: Any, names: tuple[str, ...]) -> Any:
    """Replace macros by their values; `names` lead from a parameter to this value."""
    if isinstance(value, Macro):
      if value.name == "gin.REQUIRED":
        raise _required(names[-1])
      if value.name in names:
        raise _circle()
      if value.name not in self.last:
        raise InputError(
          f"%{value.name}: the macro is read but never bound; give "
          f"--gin.{value.name}=VALUE"
        )
      self.used.add(value.name)
      return self.resolve(self.last[value.name].value, (*names, value.name))
    if isinstance(value, dict):
      return {key: self.resolve(item, names) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
      return type(value)(self.resolve(item, names) for item in value)
    return value

  def place_of(self, name: str) -> str:
    """Return where the value of a parameter stands, which may be a macro's place."""
    binding = self.last[name]
    if isinstance(binding.value, Macro):
      return self.place_of(binding.value.name)
    inside = [self.place_of(macro) for macro in sorted(_macros(binding.value))]
    return next((x for x in inside if x.startswith("--gin.")), binding.place)

  def refuse_unread_macros(self) -> None:
    read = set().union(*(_macros(binding.value) for binding in self.all))
    for name in sorted(self.last.keys() - read):
      if "." not in name:
        known = ", ".join(sorted(read - {"gin.REQUIRED"})) or "none"
        raise InputError(
          f"{self.last[name].place}: nothing reads the macro {name}; "
          f"these are read: {known}"
        )

  def refuse_without_effect(self, name: str, value: str, *, partial: bool) -> None:
    """Refuse a flag that nothing depends on; `partial` counts all as built."""
    owner, dot, _ = name.partition(".")
    if dot:
      effective = partial or owner in self._classes
    else:
      others = self.last.values() if partial else ()
      effective = name in self.used.union(*(_macros(x.value) for x in others))
    if effective:
      return
    refused = f"--gin.{name}={value} has no effect: "
    # A later binding may have replaced one that read the macro.
    for binding in self.all:
      other = self.last[binding.name]
      if name in _macros(binding.value) - _macros(other.value):
        raise InputError(
          f"{refused}{other.place} binds {other.name} = {other.value!r}; give "
          f"--gin.{other.name}={value}"
        )
    without = "" if dot else ", which do not depend on it"
    names = ", ".join(sorted(self._classes))
    raise InputError(f"{refused}this command reads {names}{without}")


def _statements(path: Path) -> list[Any]:
  """Return gin's parsed statements of a file."""
  try:
    content = path.read_text("utf-8")
    return list(config_parser.ConfigParser(content, _Delegate()))
  except OSError as error:
    reason = f": {error.strerror}; expected a readable gin file"
  except UnicodeDecodeError as error:
    reason = f": not a text file ({error})"
  except TokenError as error:
    reason = f": a bracket or quote is never closed ({error.args[0]})"
  except SyntaxError as error:
    # gin puts the address of an object into the first lines of a message.
    message = error.msg.split("\n")[-1].strip()
    reason = f", line {error.lineno}: {message} ({error.text!r})"
  except _PARSE_ERRORS as error:
    reason = f": {error}"
  raise InputError(f"{path}{reason}")


def _flag_value(value: str) -> Any:
  """Return a flag's value, or the text itself if it is not gin, such as a path."""
  if "\n" in value:  # the next line could be another binding
    return value
  try:
    statement: Any
    (statement,) = config_parser.ConfigParser(f"X = {value}\n", _Delegate())
    return statement.value
  except _PARSE_ERRORS:
    return value


def _macros(value: Any) -> set[str]:
  if isinstance(value, Macro):
    return {value.name}
  items = value.values() if isinstance(value, dict) else value
  nested = isinstance(value, (dict, list, tuple))
  return set().union(*map(_macros, items)) if nested else set()


def _required(name: str) -> InputError:
  return InputError(f"{name}: required but not bound; give --gin.{name}=VALUE")


def _circle() -> InputError:
  return InputError("a gin file includes itself, or a macro reads itself, in a circle")


def _build(name: str, cls: type[Config], bound: _Bindings) -> Config:
  """Build one dataclass; check the types of its values first."""
  values, hints = {}, typing.get_type_hints(cls, include_extras=True)
  for field in dataclasses.fields(cls):  # pyright: ignore[reportArgumentType]
    full = f"{name}.{field.name}"
    if full in bound.last:
      value = bound.resolve(bound.last[full].value, (full,))
      place = f"{full} ({bound.place_of(full)})"
      values[field.name] = settings.checked(place, value, hints[field.name])
    elif field.default is field.default_factory is dataclasses.MISSING:
      raise _required(full)
  return cls(**values)
