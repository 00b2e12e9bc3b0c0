"""Settings: frozen dataclasses whose annotations say which values are allowed.

    @dataclasses.dataclass(frozen=True)
    class TrainConfig(Settings):
      batch_size: PositiveInt
      z_loss: NotNegative = 0.0
      schedule: Literal["linear", "cosine"] = "linear"

Values out of range are refused when the object is made, and by the gin reader with the
line of the file.
"""

import dataclasses
import math
import types
import typing
from collections.abc import Iterable
from typing import Annotated, Any, ClassVar, Literal

from phi1_jax import InputError


@dataclasses.dataclass(frozen=True)
class Range:
  """Bounds of a number in an `Annotated` type; None is no bound."""

  least: float | None = None
  above: float | None = None
  most: float | None = None
  below: float | None = None

  def holds(self, value: float) -> bool:
    """Return whether a number is within the bounds; NaN never is."""
    return (
      (self.least is None or value >= self.least)
      and (self.above is None or value > self.above)
      and (self.most is None or value <= self.most)
      and (self.below is None or value < self.below)
    )

  def __str__(self) -> str:
    bounds = {">=": self.least, ">": self.above, "<=": self.most, "<": self.below}
    return " and ".join(f"{sign} {x}" for sign, x in bounds.items() if x is not None)


PositiveInt = Annotated[int, Range(least=1)]
Count = Annotated[int, Range(least=0)]
Seed = Annotated[int, Range(least=0, below=2**32)]
Positive = Annotated[float, Range(above=0)]
NotNegative = Annotated[float, Range(least=0)]
Share = Annotated[float, Range(least=0, below=1)]

_PLAIN = {int: "an integer", float: "a number", bool: "True or False", str: "a string"}


class Settings:
  """Base class of settings; their gin name is the class name without "Config"."""

  gin_name: ClassVar[str]

  def __init_subclass__(cls):
    cls.gin_name = cls.__name__.removesuffix("Config")

  def __post_init__(self):
    hints = typing.get_type_hints(type(self), include_extras=True)
    for field in dataclasses.fields(self):  # pyright: ignore[reportArgumentType]
      name = f"{self.gin_name}.{field.name}"
      value = checked(name, getattr(self, field.name), hints[field.name])
      object.__setattr__(self, field.name, value)

  def without_effect(self, field: str) -> str:
    """Return why a value of a field does not matter beside the others, or ""."""
    del field
    return ""

  def wrong(self, field: str, expected: str) -> InputError:
    """Return the error for a field whose value does not fit the others."""
    got = getattr(self, field)
    return InputError(f"{self.gin_name}.{field}: got {got!r}, expected {expected}")


def checked(name: str, value: Any, hint: Any) -> Any:
  """Return a value of a type; an int may become a float, and a list a tuple.

  Args:
    name: of the setting, for the error.
    value: what the user gave.
    hint: a type such as `int`, `PositiveInt | None` or `tuple[str, ...]`.

  Raises:
    InputError: it is of another type or out of range.
  """
  if isinstance(value, list) and typing.get_origin(hint) is tuple:
    value = tuple(value)
  if type(value) is int and _base(hint) is float:
    value = float(value)
  if not fits(value, hint):
    expected = describe(hint)
    if type(value) is str and typing.get_origin(hint) is tuple:
      expected += f', such as "({value!r},)"'
    raise InputError(f"{name}: got {value!r}, expected {expected}")
  return value


def fits(value: Any, hint: Any) -> bool:
  """Return whether a value is of a type, within the bounds of its `Range`."""
  origin, arguments = typing.get_origin(hint), typing.get_args(hint)
  if origin is Annotated:
    return fits(value, arguments[0]) and all(x.holds(value) for x in arguments[1:])
  if origin in (typing.Union, types.UnionType):
    return any(fits(value, option) for option in arguments)
  if origin is Literal:
    return any(type(value) is type(x) and value == x for x in arguments)
  if origin is tuple:
    return isinstance(value, tuple) and _all(value, arguments[0])
  if origin is dict:
    key, item = arguments
    return type(value) is dict and _all(value, key) and _all(value.values(), item)
  if hint is Any:  # JSON
    items = value.values() if type(value) is dict else value
    nested = type(value) in (dict, list, tuple)
    return value is None or type(value) in _PLAIN or (nested and _all(items, Any))
  if hint is float:
    return type(value) in (int, float) and math.isfinite(value)
  return type(value) is hint  # bool is a subclass of int


def _base(hint: Any) -> Any:
  """Return the number type of `float`, of `Positive` and of `Positive | None`."""
  origin, arguments = typing.get_origin(hint), typing.get_args(hint)
  if origin in (typing.Union, types.UnionType):
    return next((_base(a) for a in arguments if a is not types.NoneType), None)
  return arguments[0] if origin is Annotated else hint


def describe(hint: Any) -> str:
  """Return a type in words, for errors."""
  origin, arguments = typing.get_origin(hint), typing.get_args(hint)
  if origin is Annotated:
    return " ".join([describe(arguments[0]), *map(str, arguments[1:])])
  if origin in (typing.Union, types.UnionType):
    return " or ".join(map(describe, arguments))
  if origin is Literal:
    return f"one of {', '.join(map(str, arguments))}"
  if origin is tuple:
    return f"a tuple in which each item is {describe(arguments[0])}"
  if origin is dict:
    key, item = map(describe, arguments)
    return f"a dict in which each key is {key} and each value {item}"
  return _PLAIN.get(hint) or str(getattr(hint, "__name__", hint)).replace("Type", "")


def _all(values: Iterable[Any], hint: Any) -> bool:
  return all(fits(value, hint) for value in values)
