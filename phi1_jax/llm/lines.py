"""The lines of a journal's files: JSON, each sealed with a checksum of its own.

A file begins with a line that says what it is. A last line without its line end was
torn by a crash and is no line. Any other line that does not match its checksum was
damaged or edited, and is refused by number; a whole line may be deleted by hand.
"""

import json
import os
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from phi1_jax import InputError

_SEAL = re.compile(rb'\{"crc32": "([0-9a-f]{8})", ')
_SEAL_BYTES = len('{"crc32": "00000000", ')


def header(kind: str) -> bytes:
  """The first line of a file of this kind."""
  return json.dumps({"journal": f"phi1_jax.llm {kind}", "version": 1}).encode() + b"\n"


def seal(row: dict[str, Any]) -> bytes:
  """A row as the line that holds it, line end included."""
  rest = json.dumps(row).encode()[1:]
  return b'{"crc32": "%08x", ' % zlib.crc32(rest) + rest + b"\n"


def unseal(line: bytes) -> bytes | None:
  """What follows the checksum of a line; None if it does not match."""
  found = _SEAL.match(line)
  rest = line[_SEAL_BYTES:].rstrip(b"\n")
  if found is None or zlib.crc32(rest) != int(found[1], 16):
    return None
  return rest


def row(rest: bytes) -> dict[str, Any]:
  """The row in what `unseal` returned."""
  return json.loads(b"{" + rest)


def scan(path: Path, kind: str) -> Iterator[tuple[int, int, bytes]]:
  """Yields (number, offset, unsealed line) for the whole lines of a file.

  Raises:
    InputError: a file of something else, a damaged line, a file that cannot be read.
  """
  if not path.exists():
    return
  try:
    with path.open("rb") as file:
      offset = len(header(kind))
      first = file.readline()
      if first != header(kind):
        if first.endswith(b"\n") or not header(kind).startswith(first):
          raise _foreign(path, kind, first)
        return
      for number, line in enumerate(file, 2):
        if not line.endswith(b"\n"):
          return
        rest = unseal(line)
        if rest is None:
          raise damaged(path, number, line)
        yield number, offset, rest
        offset += len(line)
  except OSError as error:
    raise InputError(f"{path}: cannot be read ({error.strerror})") from None


def prepare(path: Path, kind: str) -> None:
  """Begins a file, or cuts off the torn end of one that `scan` has found to be sound.

  It is on the disk then, and so is its name.

  Raises:
    OSError: the disk does not take it.
  """
  with path.open("ab") as file:
    size = file.tell()
    whole = _whole(path, size)
    if whole < size:
      file.truncate(whole)
    if whole == 0:
      file.write(header(kind))
    file.flush()
    os.fsync(file.fileno())
  # A file that is new is on the disk only when its name is.
  folder = os.open(path.parent, os.O_RDONLY)
  try:
    os.fsync(folder)
  finally:
    os.close(folder)


def _whole(path: Path, size: int) -> int:
  """Bytes up to the last line end, looked for from the end."""
  with path.open("rb") as file:
    position = size
    while position > 0:
      length = min(1 << 16, position)
      position -= length
      file.seek(position)
      found = file.read(length).rfind(b"\n")
      if found >= 0:
        return position + found + 1
  return 0


def damaged(path: Path, number: int, line: bytes) -> InputError:
  """What to say of a line that is not as it was written."""
  return InputError(
    f"{path}, line {number}: damaged or edited, got {line[:60]!r}, expected a line "
    "that matches its checksum\ndelete that line to have its request paid for again, "
    "or put the file back from a copy"
  )


def _foreign(path: Path, kind: str, first: bytes) -> InputError:
  return InputError(
    f"{path}: got a first line {first[:60]!r}, expected that of a journal's {kind} "
    "(version 1)\nname another folder as Llm.journal"
  )
