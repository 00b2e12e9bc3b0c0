"""Reads bindings with the library gin; the one importer of it."""

import importlib.util  # gin's resource reader needs it imported before gin is
import logging
import re
import tokenize
from collections.abc import Mapping, Sequence
from typing import Any

import gin
import gin.config
from gin import config_parser

from phi1_jax import InputError
from phi1_jax.cli import bindings
from phi1_jax.cli.bindings import PARTS, ROOT, Bindings

assert importlib.util is not None

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

_registered: dict[str, type] = {}


def read(
  files: Sequence[str], lines: Sequence[str], classes: Mapping[str, type]
) -> Bindings:
  """Reads files, then the command line's bindings; see `gin_config.load`.

  Raises:
    InputError: what gin says is no configuration.
    OSError: a file that cannot be read.
    UnicodeDecodeError: a file that is not text.
    tokenize.TokenError: a bracket or quote that is never closed.
  """
  gin.clear_config()
  for name, cls in classes.items():
    if name not in _registered:
      _registered[name] = cls
      gin.external_configurable(cls, name=name, module="phi1_jax")
  skip: Any = _Skipped(set(PARTS) - set(_registered))
  seen: list[str] = []
  # gin logs an error for each place it looks into before it finds a file.
  logging.getLogger().addFilter(_not_path_errors)
  try:
    with gin.unlock_config():
      gin.add_config_file_search_path(str(ROOT))
      for path in files:
        seen += _flatten(gin.parse_config_file(path, skip_unknown=skip))
      gin.parse_config(lines, skip_unknown=skip)
      gin.finalize()
  except OSError as error:
    missing = re.search(r"Unable to open file: (.*?)\. Searched", str(error))
    if missing:
      raise bindings.no_such_file(missing.group(1)) from None
    raise
  except (UnicodeDecodeError, tokenize.TokenError):
    raise
  except _GIN_ERRORS as error:
    raise _explained(error) from None
  finally:
    logging.getLogger().removeFilter(_not_path_errors)
  bound = gin.config_str(max_line_length=10_000)
  names = set(re.findall(r"^([\w./]+) =", bound, re.MULTILINE))
  return Bindings(seen, names, _look_up)


def is_value(text: str) -> bool:
  """Whether a flag's text is a gin value, not a bare word, a path or a version."""
  binding = f"X = {text}\n"
  try:
    gin.config.parse_value(text)
    # The value alone would be taken from what only begins like one: 2.0.0, 3d/models.
    list(config_parser.ConfigParser(binding, gin.config.ParserDelegate()))
  except (*_GIN_ERRORS, tokenize.TokenError):
    return False
  return True


class _Skipped(set):
  """Names of parts whose bindings are skipped.

  gin asks it two things: whether a name is in it, and, of a module that cannot be
  imported, whether it is true at all; that must stay an error.
  """

  def __bool__(self) -> bool:
    return False


def _flatten(parsed) -> list[str]:
  """Files in the order in which gin read them: what a file includes comes first."""
  included = [path for part in parsed.includes for path in _flatten(part)]
  return [*included, parsed.filename]


def _not_path_errors(record: logging.LogRecord) -> bool:
  return "Path not found" not in record.getMessage()


def _look_up(part: str) -> dict[str, Any]:
  try:
    values = gin.get_bindings(f"phi1_jax.{part}")
  except _GIN_ERRORS as error:  # it looks macros up
    raise _explained(error) from None
  for name, value in values.items():
    if value is gin.REQUIRED:
      raise bindings.required(f"{part}.{name}")
  return values


def _explained(error: Exception) -> InputError:
  """gin's message without its line breaks, signatures and memory addresses."""
  message = str(error)
  if isinstance(error, SyntaxError) and error.filename:
    reason = error.msg.split("\n")[-1].strip()  # before it, the address of an object
    return InputError(
      f"{error.filename}, line {error.lineno}: {reason} ({error.text!r})"
    )
  if isinstance(error, RecursionError):
    return bindings.circle()
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
    return bindings.no_such_parameter(where, name, unknown.group(1), _registered[name])
  unbound = re.search(r"(\S+) set to `%gin\.REQUIRED`", message)
  if unbound:
    return bindings.required(unbound.group(1).removesuffix("/macro.value"))
  missing = re.search(r"No bindings specified for '([\w.]+)/gin\.macro'", message)
  if missing:
    return bindings.unbound_macro(missing.group(1))
  known = f"; known parts are {', '.join(PARTS)}" if "configurable" in message else ""
  return InputError(where + " ".join(message.split("\n")[0].split()) + known)
