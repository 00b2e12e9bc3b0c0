"""JSON on disk that survives being killed: lines that grow, files that appear whole.

A line is on the disk before the next one is begun, so a process may be killed at any
time: at most the last line is torn, and the next run cuts that off and goes on.
"""

import hashlib
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from phi1_jax import InputError


def digest(content: Any) -> str:
  """sha256 over anything that JSON can hold, whatever the order of its keys."""
  text = json.dumps(content, sort_keys=True, separators=(",", ":"))
  return hashlib.sha256(text.encode()).hexdigest()


class Journal:
  """An append-only file of JSON lines that survives being killed.

  Args:
    path: where it is; begun if it is not there.
    every: seconds between two waits for the disk. 0 waits for each line. A killed
      process loses no line either way; a machine without power, those of that time.
  """

  def __init__(self, path: Path, every: float = 0.0):
    self.rows = read_lines(path)
    self._every, self._synced = every, time.monotonic()
    self._file = path.open("ab")
    text = path.read_bytes()
    self._file.truncate(text.rfind(b"\n") + 1)  # without a torn last line

  def append(self, row: dict[str, Any]) -> None:
    """Adds one line."""
    self._file.write(json.dumps(row).encode() + b"\n")
    self._file.flush()
    if time.monotonic() - self._synced >= self._every:
      os.fsync(self._file.fileno())
      self._synced = time.monotonic()
    self.rows.append(row)

  def __enter__(self) -> "Journal":
    return self

  def __exit__(self, *exception: object) -> None:
    os.fsync(self._file.fileno())
    self._file.close()


def read_lines(path: Path) -> list[dict[str, Any]]:
  """Reads JSON lines; a last line without its line end is not one yet.

  Raises:
    InputError: a line that is no JSON object.
  """
  if not path.exists():
    return []
  try:
    return parse_lines(path.read_bytes(), path)
  except OSError as error:
    raise InputError(f"{path}: cannot be read ({error.strerror})") from None


def parse_lines(content: bytes, path: Path) -> list[dict[str, Any]]:
  """The JSON objects of a file's content; `path` is for complaints."""
  rows = []
  for number, line in enumerate(content.split(b"\n")[:-1], 1):
    if not line.strip():
      continue
    try:
      row = json.loads(line)
    except ValueError:
      row = None
    if not isinstance(row, dict):
      raise InputError(
        f"{path}, line {number}: got {line[:60]!r}, expected a JSON object; delete the "
        "line to have it made again"
      )
    rows.append(row)
  return rows


def read_json(path: Path) -> dict[str, Any]:
  """Reads one of a run's JSON files.

  Raises:
    InputError: it is not there or not JSON.
  """
  try:
    return json.loads(path.read_text())
  except FileNotFoundError:
    raise InputError(
      f"{path}: no such file; expected the folder of a run that wrote it"
    ) from None
  except (OSError, ValueError) as error:
    raise InputError(f"{path}: not readable as JSON ({error})") from None


def write_json(path: Path, content: Mapping[str, Any]) -> None:
  """Writes a file of JSON whole or not at all."""
  write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
  """Writes a file whole or not at all."""
  partial = path.with_name(f".{path.name}.partial")
  with partial.open("w", encoding="utf-8") as file:
    file.write(text)
    file.flush()
    os.fsync(file.fileno())
  partial.replace(path)


def begin(path: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
  """Writes down what the work of a folder is, or refuses a folder of another one.

  Args:
    path: the file, beside which the work's results lie.
    settings: everything that decides them.

  Returns:
    What the file holds.
  """
  wanted = json.loads(json.dumps(settings))
  if not path.exists():
    begun = {"format": 1, "settings": wanted}
    write_json(path, begun)
    return begun
  begun = read_json(path)
  check_settings(path.parent, begun, wanted)
  return begun


def check_settings(
  folder: Path, begun: Mapping[str, Any], wanted: Mapping[str, Any]
) -> None:
  """Refuses settings that differ from those which a folder was begun with."""
  found = begun.get("settings", {})
  for name, value in wanted.items():
    if found.get(name) != value:
      raise InputError(
        f"{folder}: begun with {name} = {_brief(found.get(name))}, now it is "
        f"{_brief(value)}; name another --workdir, or give the same settings"
      )


def _brief(value: Any) -> str:
  text = json.dumps(value)
  return text if len(text) <= 300 else f"{text[:300]}..."
