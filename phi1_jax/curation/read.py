"""Documents of a place: a task's part of JSONL, parquet, Arrow, code or a corpus.

A row that gives no document is dropped with a reason; nothing else is lost.
"""

import contextlib
import dataclasses
import gzip
import io
import json
import os
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from phi1_jax import InputError, how_to_install, storage
from phi1_jax.curation import inputs, licences
from phi1_jax.curation.document import Decision, Document, Drop, Keep, identify
from phi1_jax.curation.inputs import Place
from phi1_jax.storage import AnyPath

# Longer documents, and longer lines of JSON, are data, not code.
MAXIMUM_BYTES = 8 << 20
_DEEPEST = 50  # levels of a document's provenance
# Names of columns in published sets; the first that is there counts: ours, The Stack
# v1 and v2, starcoderdata, GitHub's code set.
_TEXT = ("text", "content", "code")
_REPOSITORY = ("repository", "source", "max_stars_repo_name", "repo_name")
_REPOSITORY += ("repository_name", "repo")
_LICENCE = ("licence", "license", "licenses", "max_stars_repo_licenses")
_LICENCE += ("detected_licenses",)
_PATH = ("path", "max_stars_repo_path", "file_path")
_OURS = ("id", "kind", "group", "provenance")
_WANTED = {*_TEXT, *_REPOSITORY, *_LICENCE, *_PATH, *_OURS}
_STACK_V2 = {"blob_id", "src_encoding"}
_ERRORS = (OSError, EOFError, ValueError, zlib.error)  # pyarrow's are ValueErrors
CELL = "# %%"  # before each cell of a notebook, as Jupytext and editors write it
_MAGIC = re.compile(r"^\s*(?:%|!|\?|[\w.]+\?\s*$)")


@dataclasses.dataclass(frozen=True)
class Read:
  """A step: a task's places to decisions.

  Attributes:
    plan: folder that `inputs.save` wrote.
  """

  plan: AnyPath

  def __call__(self, data: Any, rank: int, world_size: int) -> Iterator[Decision]:
    """Read the task's places, one after the other."""
    del data, world_size
    for place in inputs.load(self.plan, rank):
      yield from documents(place)


def read(wanted: Sequence[str]) -> Iterator[Decision]:
  """Yield the decisions of all inputs, in this process."""
  for place in inputs.plan("inputs", wanted):
    yield from documents(place)


def documents(place: Place) -> Iterator[Decision]:
  """Yield the documents of a place, or the reasons why there are none.

  Raises:
    InputError: a file cannot be read, or ends early.
  """
  readers = {"embedded": _embedded, "parquet": _parquet, "jsonl": _lines}
  readers |= {"arrow": _arrow, "files": _files}
  yield from readers[place.kind](place)


def _embedded(place: Place) -> Iterator[Decision]:
  from phi1_jax.data import corpora

  corpus = next(c for c in corpora.embedded() if c.name == place.source)
  for path, repository in place.names:
    found = corpora.code(corpus, path)
    if isinstance(found, corpora.Drop):
      yield _nothing(place, found.reason, f"{corpus.name}/{path}")
      continue
    for each in found:
      yield Keep(
        Document(
          id=identify(corpus.name, each.text),
          text=each.text,
          source=corpus.name,
          licence=corpus.licence,
          kind="code",
          repository=repository,
          provenance={"raw": {"path": path, "version": corpus.version}},
        )
      )


def _files(place: Place) -> Iterator[Decision]:
  for name, repository in place.names:
    path = storage.parse(place.path) / name
    where = os.fspath(path)
    try:
      content = storage.read_bytes(path)
      if len(content) > MAXIMUM_BYTES:
        yield _nothing(place, f"over {MAXIMUM_BYTES >> 20} MiB", where)
        continue
      text = content.decode("utf-8-sig")
      if name.endswith(".ipynb"):
        text = notebook(text)
    except FileNotFoundError:
      raise InputError(f"{where}: gone since the stage began") from None
    except UnicodeDecodeError:
      yield _nothing(place, "not UTF-8", where)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
      yield _nothing(place, "not a notebook", where, str(error)[:200])
    else:
      row = {"text": text, "repository": repository, "path": name}
      yield _of_row(place, row, where)


def notebook(content: str) -> str:
  """Return the code cells of a notebook, each after a line `# %%`; no magics.

  Raises:
    ValueError, KeyError, TypeError, AttributeError: the content is no notebook.
  """
  parsed = json.loads(content)
  cells = parsed["cells"] if "cells" in parsed else parsed["worksheets"][0]["cells"]
  texts = []
  for cell in cells:
    if cell["cell_type"] != "code":
      continue
    found = cell["source"] if "source" in cell else cell["input"]
    text = found if isinstance(found, str) else "".join(found)
    if text.lstrip().startswith("%%"):  # another language, or timing
      continue
    lines = [line for line in text.splitlines() if not _MAGIC.match(line)]
    if any(line.strip() for line in lines):
      texts.append("\n".join([CELL, *lines]).rstrip())
  return "\n\n".join(texts) + "\n"


def _lines(place: Place) -> Iterator[Decision]:
  number, after = 0, f" after byte {place.start}" if place.start else ""
  try:
    with _opened(place.path) as file:
      if place.start:  # the line that begins before belongs to the place before
        file.seek(place.start - 1)
        while (rest := file.readline(1 << 16)) and not rest.endswith(b"\n"):
          pass
      for number, line in enumerate(_bounded_lines(file, place), 1):
        where = f"{place.path}{after}, line {number}"
        if line is None:
          yield _nothing(place, f"over {MAXIMUM_BYTES >> 20} MiB", where)
        elif line.strip():
          yield _of_line(place, line, where)
  except _ERRORS as error:
    raise InputError(
      f"{place.path}: not readable after line {number}{after} ({error})"
    ) from None


@contextlib.contextmanager
def _opened(name: str) -> Iterator[Any]:
  path = storage.parse(name)
  with path.open("rb") as file:
    if storage.is_remote(path):  # gcsfs has no readline with a limit
      file = io.BufferedReader(file, 1 << 20)  # pyright: ignore[reportArgumentType]
    if name.endswith(".gz"):
      with gzip.open(file) as opened:
        yield opened
    elif name.endswith(".zst"):
      try:
        import zstandard
      except ImportError:
        raise InputError(f"{name} needs zstandard: {how_to_install('curate')}") from (
          None
        )
      try:
        with zstandard.ZstdDecompressor().stream_reader(
          file, read_across_frames=True
        ) as s:
          yield io.BufferedReader(s, 1 << 20)
      except zstandard.ZstdError as error:
        raise ValueError(error) from None
    else:
      yield file


def _bounded_lines(file: Any, place: Place) -> Iterator[bytes | None]:
  """Yield the lines that begin in a place; None for a line that is too long."""
  stop = float("inf") if place.stop is None else place.stop
  where = file.tell() if place.stop or place.start else 0
  while where < stop and (line := file.readline(MAXIMUM_BYTES)):
    where += len(line)
    if line.endswith(b"\n") or len(line) < MAXIMUM_BYTES:
      yield line
      continue
    line = b""  # frees the memory
    while (rest := file.readline(1 << 16)) and not rest.endswith(b"\n"):
      where += len(rest)
    where += len(rest)
    yield None


def _of_line(place: Place, line: bytes, where: str) -> Decision:
  try:
    row = json.loads(line.decode("utf-8-sig"))
  except UnicodeDecodeError:
    return _nothing(place, "not UTF-8", where)
  except (ValueError, RecursionError):
    return _nothing(place, "not JSON", where, line[:200].decode(errors="replace"))
  if not isinstance(row, dict):
    return _nothing(place, "not a JSON object", where)
  return _of_row(place, row, where)


def parquet(path: AnyPath) -> pq.ParquetFile:
  """Open a parquet file.

  Raises:
    InputError: it is none, or it is The Stack v2 without text.
  """
  try:
    opened = pq.ParquetFile(path.open("rb"))
  except (OSError, pa.ArrowException) as error:
    raise InputError(f"{path}: no parquet file ({error})") from None
  names = set(opened.schema_arrow.names)
  if not names & set(_TEXT):
    found = ", ".join(sorted(names)[:8])
    if names & _STACK_V2:
      raise InputError(
        f"{path}: The Stack v2 has no text, only {found}, ...; download the contents "
        "by blob_id from Software Heritage (see the set's card) into a column `content`"
      )
    raise InputError(
      f"{path}: got the columns {found}; expected one of {', '.join(_TEXT)}"
    )
  return opened


def _parquet(place: Place) -> Iterator[Decision]:
  opened = parquet(storage.parse(place.path))
  columns = [name for name in opened.schema_arrow.names if name in _WANTED]
  groups = range(place.start, place.stop or opened.num_row_groups)
  number = 0
  try:
    for batch in opened.iter_batches(128, row_groups=list(groups), columns=columns):
      for row in batch.to_pylist():
        number += 1
        where = f"{place.path}, row group {place.start}, row {number}"
        yield _of_row(place, row, where)
  except _ERRORS as error:
    raise InputError(
      f"{place.path}: not readable after row {number} of row group {place.start} "
      f"({error})"
    ) from None


def _arrow(place: Place) -> Iterator[Decision]:
  """Yield the rows of a file that `datasets.save_to_disk` wrote."""
  number = 0
  try:
    with storage.parse(place.path).open("rb") as file:
      for batch in pa.ipc.open_stream(file):
        names = [name for name in batch.schema.names if name in _WANTED]
        for row in batch.select(names).to_pylist():
          number += 1
          yield _of_row(place, row, f"{place.path}, row {number}")
  except _ERRORS as error:
    raise InputError(
      f"{place.path}: not readable after row {number} ({error})"
    ) from None


def _of_row(place: Place, row: Mapping[str, Any], where: str) -> Decision:
  """Return a document of ours as it is, or the document in a row of another set."""
  if row.get("id") is not None and row.get("kind") is not None:
    try:
      if isinstance(row.get("provenance"), str):
        row = {**row, "provenance": json.loads(row["provenance"])}
      return _checked(place, Document.of(row), where)
    except ValueError as error:
      return _nothing(place, "not a document", where, str(error))
  text = _first(row, _TEXT)
  if not isinstance(text, str):
    return _nothing(place, f"no text under {', '.join(_TEXT)}", where)
  text = text.removeprefix("\ufeff")
  named = _first(row, _REPOSITORY)
  path = str(_first(row, _PATH) or "")
  source = place.source
  if place.kind == "files":
    source = named = str(named)
  return _checked(
    place,
    Document(
      id=identify(str(named or source), text),
      text=text,
      source=source,
      licence=licences.parse(_first(row, _LICENCE)),
      kind="code",
      repository=str(named or "") or f"unknown: {identify('', text)}",
      provenance={"raw": {"path": path}},
    ),
    where,
  )


def _checked(place: Place, document: Document, where: str) -> Decision:
  """Return the document, if every stage can write it."""
  try:
    content = json.dumps(document.record(), ensure_ascii=False, allow_nan=False)
    size = len(content.encode())
  except UnicodeEncodeError:
    return _nothing(place, "lone surrogates", where)
  except (TypeError, ValueError, RecursionError) as error:
    return _nothing(place, "not JSON", where, str(error)[:200])
  if size > MAXIMUM_BYTES:
    return _nothing(place, f"over {MAXIMUM_BYTES >> 20} MiB", where)
  if _depth(document.provenance) > _DEEPEST:
    return _nothing(place, f"provenance nested over {_DEEPEST} deep", where)
  return Keep(document)


def _depth(value: Any) -> int:
  """Return how deep lists and objects are nested."""
  depth, level = 0, [value]
  while level := [
    inner
    for outer in level
    if isinstance(outer, (dict, list))
    for inner in (outer.values() if isinstance(outer, dict) else outer)
  ]:
    depth += 1
  return depth


def _first(row: Mapping[str, Any], names: Sequence[str]) -> Any:
  return next((row[name] for name in names if row.get(name) is not None), None)


def _nothing(place: Place, reason: str, where: str, detail: str = "") -> Drop:
  """Return the reason why there is no document."""
  empty = Document(identify(where, ""), "", place.source, "unknown", "code", "")
  evidence = {"where": where} | ({"detail": detail} if detail else {})
  return Drop(empty, reason, evidence)
