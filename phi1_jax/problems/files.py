"""Finds a benchmark's file in a folder or downloads it once; reads files, gzip too."""

import gzip
import os
import urllib.error
import urllib.request
import zlib
from pathlib import Path

from phi1_jax import InputError, storage
from phi1_jax.storage import AnyPath

ENVIRONMENT = "PHI1_JAX_BENCHMARKS"
CACHE = Path("~/.cache/phi1_jax/benchmarks")


def find(name: str, folder: str | AnyPath | None, url: str) -> AnyPath:
  """Return the path of a file that no package ships.

  Args:
    name: of the file, such as "mbpp.jsonl".
    folder: the folder that has it, itself or in its folder `evalplus`; None takes the
      one that PHI1_JAX_BENCHMARKS names, or the cache, which is filled from `url`.
    url: where it is published.

  Raises:
    InputError: it is not in the folder, or cannot be downloaded.
  """
  if named := folder or os.environ.get(ENVIRONMENT):
    places = [storage.parse(named) / name, storage.parse(named) / "evalplus" / name]
    found = [path for path in places if path.is_file()]
    if not found:
      raise InputError(f"{places[0]}: no such file; expected there what {url} has")
    return found[0]
  path = CACHE.expanduser() / name
  if not path.is_file():
    _download(url, path)
  return path


def read(path: AnyPath, expected: str) -> bytes:
  """Return the content of a file, decompressed if it is gzip.

  Raises:
    InputError: it cannot be read; the message ends with what is expected.
  """
  try:
    content = storage.read_bytes(path)
    return gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
  except (OSError, EOFError, zlib.error) as error:
    reason = getattr(error, "strerror", None) or error
    raise InputError(f"{path}: cannot be read ({reason}); {expected}") from None


def read_text(path: AnyPath, expected: str) -> str:
  """Return the text of a file in UTF-8, without a byte order mark; see `read`."""
  try:
    return read(path, expected).decode("utf-8-sig")
  except UnicodeDecodeError as error:
    raise InputError(
      f"{path}: cannot be read ({error}); {expected}, in UTF-8"
    ) from None


def _download(url: str, path: Path) -> None:
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    with urllib.request.urlopen(url, timeout=60) as answer:
      storage.write_bytes(path, answer.read())
  except OSError as error:  # URLError and timeouts are of this kind
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    raise InputError(
      f"{path.name} cannot be downloaded ({reason}); put it from {url} into a folder "
      f"and name the folder with --benchmarks=FOLDER or {ENVIRONMENT}"
    ) from None
