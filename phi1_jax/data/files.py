"""Files as training data, without a registry: `Data.files`.

    .jsonl .json     a row per line (or one array of rows), with "text", "content" or
                     "code", or with "prompt" and "completion"; also .gz and .zst
    .parquet         the same columns; no others are read
    .py .txt         a file is a document; also .gz and .zst

Rows and files that give no document are dropped and counted by reason. The documents
depend on the contents of the files and their names below the pattern's folder, not on
where that folder is.
"""

from __future__ import annotations

import collections
import dataclasses
import glob
import gzip
import hashlib
import io
import itertools
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from phi1_jax import InputError, storage
from phi1_jax.data.documents import Document, Drop
from phi1_jax.storage import AnyPath, paths
from phi1_jax.text import source
from phi1_jax.text.tokenizer import Tokenizer

_TEXT = ("text", "content", "code")
_PAIR = ("prompt", "completion")
_ROWS, _WHOLE = (".jsonl", ".json", ".parquet"), (".py", ".txt")
_PACKED = (".gz", ".zst")
_NO_COLUMN = "no "  # begins the reason of a row without the columns
_FIRST_ROWS = 1000  # so many without a document are taken for a wrong name of a column
_EXPECTED = "text, content or code, or prompt and completion"
_KNOWN = f"{', '.join(_ROWS + _WHOLE)} (all but .parquet also with .gz or .zst)"


@dataclasses.dataclass(frozen=True)
class _File:
  """A file: its place, its name below the pattern's folder, its kind (a suffix)."""

  path: AnyPath
  name: str
  kind: str


class FileSource:
  """The documents of the files that match patterns.

  Args:
    patterns: paths with `*`, `?`, `[..]` and `**`, local or gs://. A file that several
      patterns or links lead to is read once.
    columns: names of a row's text, or of its prompt and completion; () takes the names
      at the top of this file.

  Raises:
    InputError: a pattern that matches no file, or a file of another kind.
  """

  def __init__(self, patterns: Sequence[str], columns: Sequence[str] = ()):
    self._columns = tuple(columns)
    unique: dict[str, _File] = {}
    for file in (file for pattern in patterns for file in _matches(pattern)):
      unique.setdefault(paths.real(file.path), file)
    self._files = list(unique.values())

  def describe(self) -> list[dict[str, Any]]:
    """Return the number of the files, their size, and a hash of names and contents."""
    hasher, size = hashlib.sha256(), 0
    for file in self._files:
      stream: Any
      with file.path.open("rb") as stream:
        content = hashlib.file_digest(stream, "sha256").hexdigest()
        size += stream.tell()
      hasher.update(f"{file.name}\0{content}\0".encode())
    facts = {"files": len(self._files), "bytes": size, "sha256": hasher.hexdigest()}
    columns = {"columns": list(self._columns)} if self._columns else {}
    return [{"name": "files", **facts, **columns}]

  def size(self) -> tuple[int, int]:
    """Return the number of the files and their size in bytes, without reading them."""
    stats = [storage.stat(file.path) for file in self._files]
    return len(stats), sum(length for length, _ in stats)

  def newest(self) -> float:
    """Return when a file was last changed or put in its place, in Unix seconds."""
    return max(map(_changed, (file.path for file in self._files)))

  def check(self) -> None:
    """Read rows until one gives a document, the first 1,000 at most.

    Raises:
      InputError: none of them has the columns of a text.
    """
    reasons = collections.Counter[str]()
    for row in itertools.islice(self.read(0, 1), _FIRST_ROWS):
      if not isinstance(row, Drop):
        return
      reasons[row.reason] += 1
    if reasons and all(reason.startswith(_NO_COLUMN) for reason in reasons):
      counts = ", ".join(f"{count} {reason}" for reason, count in reasons.items())
      raise InputError(
        f"Data.files: no document in the first {reasons.total()} rows ({counts}); name "
        "the columns of the text with Data.columns, or leave these files out"
      )

  def num_shards(self, wanted: int) -> int:
    """Return `wanted`, or the number of files if none of them has rows."""
    if any(file.kind in _ROWS for file in self._files):
      return wanted
    return min(wanted, len(self._files))

  def read(
    self, shard: int, shards: int, tokenizer: Tokenizer | None = None
  ) -> Iterator[Document | Drop]:
    """Yield documents of every n-th file; of few files with rows, every n-th row."""
    del tokenizer
    by_row = sum(file.kind in _ROWS for file in self._files) < shards
    for number, file in enumerate(self._files):
      try:
        if file.kind in _ROWS and by_row:
          yield from self._rows(file, (shard - number) % shards, shards)
        elif number % shards == shard:
          yield from self._rows(file, 0, 1) if file.kind in _ROWS else [_whole(file)]
      except InputError:
        raise
      except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        raise InputError(
          f"Data.files: {file.path} needs {package}: pip install {package}"
        ) from None
      except Exception as error:  # each library has its own for a broken file
        raise InputError(
          f"Data.files: {file.path} cannot be read ({error}); mend it, or leave it out"
        ) from None

  def _rows(self, file: _File, start: int, step: int) -> Iterator[Document | Drop]:
    """Yield every `step`-th row from `start`: a document, or the reason of a drop."""
    if file.kind == ".parquet":
      rows = _parquet_rows(file, start, step, self._columns)
    else:
      rows = _json_rows(file, start, step)
    for number, row in enumerate(rows):
      found = row if isinstance(row, Drop) else _document(row, self._columns)
      if isinstance(found, Drop):
        place = f"{file.name}, row {start + number * step + 1}"
        found = dataclasses.replace(found, place=place)
      yield found


def _changed(path: AnyPath) -> float:
  """Return the time of a file's last change, also of one copied with an older time."""
  _, changed = storage.stat(path)
  return changed if storage.is_remote(path) else max(changed, os.stat(path).st_ctime)


def _matches(pattern: str) -> list[_File]:
  """Return the files of a pattern, sorted by name."""
  parts = os.fspath(storage.parse(pattern)).split("/")
  literal = not storage.is_remote(pattern) and Path(pattern).expanduser().is_file()
  magic = (i for i, part in enumerate(parts) if glob.has_magic(part) and not literal)
  cut = next(magic, len(parts) - 1)
  top, below = "/".join(parts[:cut]), "/".join(parts[cut:])
  folder = storage.parse(top or ("/" if cut else "."))
  if storage.is_remote(folder):
    system, bucket, name = paths.object_of(folder / below)
    found = system.glob(f"{bucket}/{name}")
    names = [f"gs://{path}"[len(top) + 1 :] for path in found]
    # As glob does; gcsfs finds hidden files.
    names = [x for x in names if not any(y.startswith(".") for y in x.split("/"))]
  else:
    below = glob.escape(below) if literal else below
    names = paths.matching(below, folder)
  places = [(name, folder / name) for name in sorted(names)]
  files = [_File(path, name, _kind(path)) for name, path in places if path.is_file()]
  if not files and [path for _, path in places if path.is_dir()]:
    raise InputError(
      f"Data.files: {pattern!r} is a folder, expected a pattern of files, such as "
      f"'{pattern.rstrip('/')}/**/*.py'"
    )
  if not files:
    raise InputError(
      f"Data.files: no file matches {pattern!r}; expected files that end in {_KNOWN}, "
      "such as 'src/**/*.py'"
    )
  return files


def _kind(path: AnyPath) -> str:
  """Return the suffix that decides how a file is read."""
  suffixes = [suffix.lower() for suffix in path.suffixes]
  packed = bool(suffixes) and suffixes[-1] in _PACKED
  kind = "".join(suffixes[:-1][-1:] if packed else suffixes[-1:])
  if kind not in _ROWS + _WHOLE or (packed and kind == ".parquet"):
    raise InputError(
      f"Data.files: got {path}, expected a name that ends in {_KNOWN}; narrow the "
      "pattern"
    )
  return kind


def _unpacked(file: _File) -> IO[bytes]:
  """Open a file for reading; decompress it by its suffix."""
  stream = file.path.open("rb")
  if file.name.lower().endswith(".gz"):
    return io.BufferedReader(gzip.GzipFile(fileobj=stream))
  if file.name.lower().endswith(".zst"):
    import zstandard

    made = zstandard.ZstdDecompressor()
    return io.BufferedReader(made.stream_reader(stream, read_across_frames=True))
  return stream


def _whole(file: _File) -> Document | Drop:
  """Return a file as a document, with line ends as Python reads them, or a reason."""
  with _unpacked(file) as stream:
    try:
      content = stream.read()
      code = file.kind == ".py"
      text = source.decode(content) if code else content.decode("utf-8-sig")
    except UnicodeError:
      return Drop("not UTF-8", file.name)
  text = text.replace("\r\n", "\n").replace("\r", "\n")
  return Document(text) if text else Drop("empty", file.name)


def _json_rows(file: _File, start: int, step: int) -> Iterator[Any]:
  with _unpacked(file) as stream:
    first = stream.readline().removeprefix(b"\xef\xbb\xbf")
    lines: Iterable[bytes] = itertools.chain([first], stream)
    if file.kind == ".json":
      content = first + stream.read()
      rows = _whole_json(content)
      if rows is not None:
        yield from rows[start::step]
        return
      lines = content.splitlines(keepends=True)
    filled = (line for line in lines if not line.isspace() and line)
    for line in itertools.islice(filled, start, None, step):
      try:
        yield json.loads(line.decode())
      except UnicodeDecodeError:
        yield Drop("not UTF-8")
      except (ValueError, RecursionError):
        yield Drop("not JSON")


def _whole_json(content: bytes) -> list[Any] | None:
  """Return the rows of one JSON array or object; None if each line is a row.

  Raises:
    ValueError: the content begins like an array but is not JSON.
  """
  try:
    value = json.loads(content)
  except ValueError:
    if content.lstrip().startswith(b"["):
      raise
    return None
  return value if isinstance(value, list) else [value]


def _parquet_rows(
  file: _File, start: int, step: int, columns: Sequence[str]
) -> Iterator[Any]:
  import pyarrow.parquet as pq

  with file.path.open("rb") as stream:
    table = pq.ParquetFile(stream)
    there = table.schema_arrow.names
    names = [name for name in columns or (*_TEXT, *_PAIR) if name in there]
    if not names or (columns and len(names) < len(columns)):
      raise InputError(
        f"Data.files: {file.path} has the columns {', '.join(there)}; expected "
        f"{_expected(columns)}"
      )
    number = 0
    for batch in table.iter_batches(batch_size=1024, columns=names):
      yield from batch.slice((start - number) % step).to_pylist()[::step]
      number += len(batch)


def _expected(columns: Sequence[str]) -> str:
  return " and ".join(columns) or _EXPECTED


def _document(row: Any, columns: Sequence[str]) -> Document | Drop:
  """Return the document of a row, or the reason why there is none."""
  if not isinstance(row, Mapping):
    return Drop("not an object")
  pairs = [columns] if columns else [_PAIR, *((name,) for name in _TEXT)]
  for names in pairs:
    if all(isinstance(row.get(name), str) for name in names):
      prompt, text = ("", *(row[name] for name in names))[-2:]
      break
  else:
    named = bool(columns) and all(row.get(name) is not None for name in columns)
    return Drop(f"{_NO_COLUMN}{'text in ' * named}{_expected(columns)}")
  if columns and prompt and not prompt.endswith("\n"):
    prompt += "\n"  # such as an instruction
  if not text:
    return Drop("empty")
  if re.search("[\ud800-\udfff]", prompt + text):
    return Drop("no UTF-8 form")
  return Document(text, prompt=prompt)
