"""Inputs as people have them: cut into places, which tasks read apart from each other.

A row that gives no document is dropped with a reason; nothing else is lost.
"""

import contextlib
import dataclasses
import functools
import glob
import io
import itertools
import json
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from phi1_jax import InputError, storage
from phi1_jax.curation import folder as folders
from phi1_jax.curation import licences
from phi1_jax.curation.document import Decision, Document, Drop, Keep, identify
from phi1_jax.storage import AnyPath
from phi1_jax.storage.paths import matching, object_of, real
from phi1_jax.text import settings_file, source

log = logging.getLogger(__name__)

EMBEDDED = "embedded"
JSONL = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".json.gz", ".json.zst")
TABLES = (".parquet", ".arrow")
CODE = (".py", ".ipynb")
EXPECTED = (
  "expected embedded, the folder of a stage, a folder of code or of a data set, or "
  f"files that end in {', '.join((*JSONL, *TABLES, *CODE))}"
)
_CELL = "# %%"  # before each cell of a notebook, as Jupytext and editors write it
# Longer documents, and longer lines of JSON, are data, not code.
MAXIMUM_BYTES = 8 << 20
_TOO_LONG = f"over {MAXIMUM_BYTES >> 20} MiB"
_CODECS = {"gz": "gzip", "zst": "zstd"}
_SPLIT = 16 << 20  # bytes of a plain JSONL file that one task reads
_FILES = 64  # files of a folder that are read together
# Names of columns in published sets; the first that is there counts: ours, The Stack
# v1 and v2, starcoderdata, GitHub's code set.
_TEXT = ("text", "content", "code")
_REPOSITORY = ("repository", "source", "max_stars_repo_name", "repo_name")
_REPOSITORY += ("repository_name", "repo")
_LICENCE = ("licence", "license", "licenses", "max_stars_repo_licenses")
_LICENCE += ("detected_licenses",)
_PATH = ("path", "max_stars_repo_path", "file_path")
_WANTED = {*_TEXT, *_REPOSITORY, *_LICENCE, *_PATH, "id", "kind", "group", "provenance"}
_DATA_SET = {"dataset_info.json", "dataset_dict.json", "state.json"}
_MAGIC = re.compile(r"^\s*(?:%|!|\?|[\w.]+\?\s*$)")


@dataclasses.dataclass(frozen=True)
class Place:
  """A part of an input."""

  kind: str  # "embedded", "jsonl", "parquet", "arrow" or "files"
  path: str  # the file; for "files" and "embedded" their root or corpus
  source: str = ""  # collection that the documents are counted under by default
  size: int = 0  # bytes, about
  start: int = 0  # first byte of JSONL, first row group of parquet
  stop: int | None = None  # byte or row group after the last; None = to the end
  names: tuple[tuple[str, str], ...] = ()  # files below `path`, with their repositories
  documents: int | None = None  # number of documents, None if unknown


def places(wanted: str) -> list[Place]:
  """Return the places of an input.

  It is "embedded", the folder of a complete stage, a folder of code or of a data set,
  or a file or glob pattern.

  Raises:
    InputError: nothing is there, a stage is not complete, or it kept nothing.
  """
  if wanted == EMBEDDED:
    return list(_embedded_places())
  path, found = storage.parse(wanted), list[Place]()
  if _is_stage(path):
    if not folders.read_stats(path).get("kept"):
      raise InputError(f"{path}: kept no document, so there is nothing to read")
    found = [place for file in folders.kept_files(path) for place in _of_file(file)]
  elif path.is_dir():
    found = list(_of_folder(path))
  elif glob.has_magic(wanted) or storage.exists(path):
    found = [place for file in _matching(path) for place in _of_file(file)]
  elif not path.suffix:
    folders.read_stats(path)  # says that there is no such folder
  if not found:
    raise InputError(f"{wanted}: nothing there; {EXPECTED}")
  return found


def plan(setting: str, inputs: Sequence[str]) -> list[Place]:
  """Return the places of all inputs of a setting, each file once.

  Raises:
    InputError: as `places`, with the setting's name.
  """
  with folders.naming(setting):
    every = [place for wanted in inputs for place in places(wanted)]
  seen, found = set[tuple[str, int]](), list[Place]()

  def first(path: str, start: int = 0) -> bool:
    key = real(path), start
    new = key not in seen
    seen.add(key)
    return new

  for place in every:
    if not place.names:
      found += [place] * first(place.path, place.start)
    elif names := [n for n in place.names if first(os.path.join(place.path, n[0]))]:
      count = len(names)
      found.append(dataclasses.replace(place, names=tuple(names), documents=count))
  return found


def cut(
  found: Sequence[Place], count: Callable[[int, int], int]
) -> list[tuple[Place, ...]]:
  """Return the places of each task: contiguous, with about the same bytes."""
  total = sum(place.size + 1 for place in found)
  parts: list[list[Place]] = [[] for _ in range(count(total, len(found)))]
  seen = 0
  for place in found:
    middle = seen + place.size // 2
    parts[min(middle * len(parts) // total, len(parts) - 1)].append(place)
    seen += place.size + 1
  return list(map(tuple, parts))


def save(folder: AnyPath, parts: Sequence[Sequence[Place]]) -> None:
  """Write each task's places, so that a resumed run reads the same."""
  folder.mkdir(parents=True, exist_ok=True)
  for rank, part in enumerate(parts):
    content = json.dumps([dataclasses.asdict(place) for place in part])
    storage.write_text(folder / f"{rank:05d}.json", content)
  counts = [place.documents for part in parts for place in part]
  total = None if None in counts else sum(count or 0 for count in counts)
  storage.write_json(folder / "plan.json", {"tasks": len(parts), "documents": total})


def of_task(folder: AnyPath, rank: int) -> Iterator[Decision]:
  """Yield the decisions of a task's places, which `save` wrote."""
  for place in json.loads(storage.read_text(folder / f"{rank:05d}.json")):
    yield from documents(Place(**place))


def read(wanted: Sequence[str]) -> Iterator[Decision]:
  """Yield the decisions of all inputs, in this process."""
  for place in plan("inputs", wanted):
    yield from documents(place)


def identity(setting: str, inputs: Sequence[str]) -> dict[str, Any]:
  """Return facts that are equal only if the inputs of a setting are.

  Sizes and times stand in for the content of files that no stage wrote.

  Raises:
    InputError: as `places`, with the setting's name.
  """
  with folders.naming(setting):
    return {wanted: _identity(wanted) for wanted in inputs}


def _identity(wanted: str) -> Any:
  if wanted == EMBEDDED:
    from phi1_jax.data import corpora

    return [c.describe()["sha256"] for c in corpora.embedded()]
  if _is_stage(path := storage.parse(wanted)):
    folders.kept_files(path)
    return storage.read_json(path / folders.COMPLETED)
  parts = places(wanted)
  files = {place.path for place in parts if not place.names}
  files |= {os.path.join(p.path, name) for p in parts for name, _ in p.names}
  versions = {file: _version(storage.parse(file)) for file in sorted(files)}
  return {"files": len(files), "sizes and times": settings_file.digest(versions)}


def _version(path: AnyPath) -> list[Any]:
  """Return the size of a file, and when it was changed."""
  if storage.is_remote(path):
    size, changed = storage.stat(path)
    return [size, str(changed)]
  found = os.stat(path)
  return [found.st_size, found.st_mtime_ns]


def lineage(inputs: Sequence[str]) -> list[dict[str, Any]]:
  """Return the stats of the stages among the inputs."""
  paths = [storage.parse(name) for name in inputs if name != EMBEDDED]
  return [folders.read_stats(path) for path in paths if _is_stage(path)]


def _is_stage(path: AnyPath) -> bool:
  return storage.exists(path / folders.STAGE)


def _in_groups(
  kind: str, root: AnyPath, path: str, source: str, files: Sequence[tuple[str, str]]
) -> Iterator[Place]:
  """Yield places of some files each, given with their repositories."""
  for start in range(0, len(files), _FILES):
    names = tuple(files[start : start + _FILES])
    size = sum(storage.stat(root / name)[0] for name, _ in names)
    yield Place(kind, path, source, size, names=names, documents=len(names))


def _embedded_places() -> Iterator[Place]:
  from phi1_jax.data import corpora

  for corpus in corpora.embedded():
    # The corpora are five projects; packages (asyncio, sympy/physics) of a project
    # count as repositories, and are held out together.
    depth = 1 if corpus.name == "cpython" else 2
    pairs = [
      (name, "/".join((corpus.name, *Path(name).with_suffix("").parts[:depth])))
      for name in corpus.paths
    ]
    yield from _in_groups(EMBEDDED, corpus.root, corpus.name, corpus.name, pairs)


def _matching(path: AnyPath) -> list[AnyPath]:
  if not glob.has_magic(os.fspath(path)):
    return [path]
  if not storage.is_remote(path):
    found = matching(str(path))
    return [Path(each) for each in _present(str(path), "", found)]
  system, _, _ = object_of(path)
  return [storage.parse(f"gs://{found}") for found in sorted(system.glob(str(path)))]


def _of_file(file: AnyPath) -> list[Place]:
  name, path, (size, _) = file.name, os.fspath(file), storage.stat(file)
  if name.endswith(JSONL):
    source = name.split(".")[0]
    starts = [*range(0, size, _SPLIT)] if name.endswith(".jsonl") and size else [0]
    return [
      Place("jsonl", path, source, min(size, _SPLIT), start, stop)
      for start, stop in zip(starts, [*starts[1:], None], strict=True)
    ]
  if name.endswith(".parquet"):
    metadata, source = _table(file).metadata, name.removesuffix(".parquet")
    groups = [metadata.row_group(n) for n in range(metadata.num_row_groups)]
    return [
      Place("parquet", path, source, g.total_byte_size, n, n + 1, documents=g.num_rows)
      for n, g in enumerate(groups)
    ]
  folder = file.parent
  if name.endswith(".arrow"):
    return [Place("arrow", path, folder.name, size)]
  if name.endswith(CODE):
    pairs = [(name, folder.name)]
    return list(_in_groups("files", folder, os.fspath(folder), folder.name, pairs))
  raise InputError(f"{file}: got another kind of file; {EXPECTED}")


def _of_folder(path: AnyPath) -> Iterator[Place]:
  """Yield the places of a folder: of code if most of its files are code.

  The files of the other kind are left out with a warning: code comes with data that is
  no code, and data sets come with scripts.
  """
  checkouts: list[str] = []
  if storage.is_remote(path):
    system, _, _ = object_of(path)
    root = os.fspath(path).removeprefix("gs://") + "/"
    files = sorted(name.removeprefix(root) for name in system.find(root))
  else:
    files, checkouts = _walked(Path(path))
  files = _listed(path, files)
  code = [file for file in files if file.endswith(CODE)]
  data = [file for file in files if file.endswith((*JSONL, *TABLES))]
  is_data = len(data) > len(code) or (data and _DATA_SET & set(storage.names(path)))
  if rest := code if is_data else data:
    text = (
      "%s: read as a folder of %s; %d other files are left out, such as %s; to read "
    )
    text += "them too, name them in the inputs"
    kind = "data" if is_data else "code"
    _warn(text, os.fspath(path), kind, len(rest), rest[0])
  if is_data:
    for file in data:
      yield from _of_file(path / file)
    return
  pairs: list[tuple[str, str]] = []
  for file in code:  # in a git checkout, else in its first folder, else in this one
    inside = [place.rstrip("/") for place in checkouts if file.startswith(place)]
    first = file.rpartition("/")[0].split("/")[0]
    pairs.append((file, (max(inside, key=len) if inside else first) or path.name))
  yield from _in_groups("files", path, os.fspath(path), path.name, pairs)


def _listed(path: AnyPath, files: Sequence[str]) -> list[str]:
  """Return files without those of `datasets.save_to_disk` that it does not list.

  They are caches, such as those of `map`.
  """
  wanted: dict[str, set[str]] = {}  # by folder
  folders = {file.rpartition("/")[0] for file in files if file.endswith(".arrow")}
  for folder in folders:
    with contextlib.suppress(InputError, KeyError, TypeError):  # not one of these
      listed = storage.read_json(path / folder / "state.json")["_data_files"]
      wanted[folder] = {each["filename"] for each in listed}

  def is_cache(file: str) -> bool:
    folder, _, name = file.rpartition("/")
    return name.endswith(".arrow") and name not in wanted.get(folder, {name})

  return list(itertools.filterfalse(is_cache, files))


def _present(where: str, root: str, names: Sequence[str]) -> list[str]:
  """Return the names without broken links, which are counted in a warning."""
  gone = [name for name in names if not os.path.exists(os.path.join(root, name))]
  if gone:
    text = "%s: %d broken links are left out, such as %s"
    _warn(text, where, len(gone), gone[0])
  return sorted(set(names).difference(gone))


# A folder is listed more than once in a stage.
_warn = functools.lru_cache(maxsize=64)(log.warning)


def _walked(root: Path) -> tuple[list[str], list[str]]:
  """Return the files below a folder, and the git checkouts among the folders."""
  files, checkouts = [], []
  for place, inner, names in os.walk(root):
    below = os.path.relpath(place, root) + "/"
    below = "" if below == "./" else below
    if ".git" in inner or ".git" in names:
      checkouts.append(below)
    inner[:] = [n for n in inner if not n.startswith(".") and n != "__pycache__"]
    files += [below + name for name in names if not name.startswith(".")]
  return _present(str(root), str(root), sorted(files)), checkouts


def documents(place: Place) -> Iterator[Decision]:
  """Yield the documents of a place, or the reasons why there are none.

  Raises:
    InputError: a file cannot be read, or ends early.
  """
  readers = {EMBEDDED: _embedded, "files": _files, "jsonl": _lines}
  number = 0
  try:
    for decision in readers.get(place.kind, _rows)(place):
      yield decision
      number += 1
  except InputError:
    raise
  except (OSError, EOFError, ValueError) as error:  # pyarrow's are of these
    raise InputError(
      f"{place.path}: not readable after {number} documents ({error})"
    ) from None


def _embedded(place: Place) -> Iterator[Decision]:
  from phi1_jax.data import corpora

  corpus = next(c for c in corpora.embedded() if c.name == place.source)
  for path, repository in place.names:
    found = corpora.code(corpus, path)
    if isinstance(found, corpora.Drop):
      yield _nothing(place, found.reason, f"{corpus.name}/{path}")
      continue
    raw = {"raw": {"path": path, "version": corpus.version}}
    for each in found:
      name = identify(corpus.name, each.text)
      facts = (corpus.name, corpus.licence, "code", repository, raw)
      yield Keep(Document(name, each.text, *facts))


def _files(place: Place) -> Iterator[Decision]:
  for name, repository in place.names:
    path = storage.parse(place.path) / name
    where = os.fspath(path)
    try:
      content = storage.read_bytes(path)
      if len(content) > MAXIMUM_BYTES:
        yield _nothing(place, _TOO_LONG, where)
        continue
      if name.endswith(".ipynb"):
        text = notebook(content.decode("utf-8-sig"))
      else:
        text = source.decode(content)
    except FileNotFoundError:
      raise InputError(f"{where}: gone since the stage began") from None
    except UnicodeError:
      yield _nothing(place, "not UTF-8", where)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
      yield _nothing(place, "not a notebook", where, str(error)[:200])
    else:
      row = {"text": text, "repository": repository, "path": name}
      yield _of_row(place, row, where)


def notebook(content: str) -> str:
  """Return the code cells of a notebook, each after a line `# %%`; no magics.

  Raises:
    ValueError, KeyError, TypeError, AttributeError: the content is not a notebook.
  """
  parsed = json.loads(content)
  cells = parsed["cells"] if "cells" in parsed else parsed["worksheets"][0]["cells"]
  texts = []
  for cell in cells:
    if cell["cell_type"] != "code":
      continue
    found = cell["source"] if "source" in cell else cell["input"]
    text = found if isinstance(found, str) else "".join(found)
    lines = [line for line in text.splitlines() if not _MAGIC.match(line)]
    # Cells after %% are of another language, or timed.
    if any(map(str.strip, lines)) and not text.lstrip().startswith("%%"):
      texts.append("\n".join([_CELL, *lines]).rstrip())
  return "\n\n".join(texts) + "\n"


def _lines(place: Place) -> Iterator[Decision]:
  after = f" after byte {place.start}" if place.start else ""
  with storage.parse(place.path).open("rb") as raw:
    opened: Any = raw
    if codec := _CODECS.get(place.path.rpartition(".")[2]):
      opened = pa.CompressedInputStream(pa.PythonFile(raw, "r"), codec)
    file = io.BufferedReader(opened, 1 << 20)  # gcsfs has no readline with a limit
    byte = number = 0
    if place.start:  # the line that begins before belongs to the place before
      file.seek(place.start - 1)
      byte = place.start - 1 + _line(file)[1]
    while place.stop is None or byte < place.stop:
      line, size = _line(file)
      if not size:
        return
      byte += size
      number += 1
      where = f"{place.path}{after}, line {number}"
      if size > len(line):
        yield _nothing(place, _TOO_LONG, where)
      elif line.strip():
        yield _of_line(place, line, where)


def _line(file: io.BufferedReader) -> tuple[bytes, int]:
  """Return the first bytes of the next line, and how many it has; 0 at the end."""
  line = rest = file.readline(MAXIMUM_BYTES)
  size = len(line)
  while rest and not rest.endswith(b"\n"):
    rest = file.readline(1 << 16)
    size += len(rest)
  return line, size


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


def _table(path: AnyPath) -> pq.ParquetFile:
  """Open a parquet file; refuse another file, and The Stack v2 without text."""
  try:
    opened = pq.ParquetFile(path.open("rb"))
  except (OSError, pa.ArrowException) as error:
    raise InputError(f"{path}: no parquet file ({error})") from None
  names = set(opened.schema_arrow.names)
  if names & set(_TEXT):
    return opened
  found = ", ".join(sorted(names)[:8])
  if names & {"blob_id", "src_encoding"}:
    raise InputError(
      f"{path}: The Stack v2 has no text, only {found}, ...; download the contents "
      "by blob_id from Software Heritage (see the set's card) into a column `content`"
    )
  raise InputError(
    f"{path}: got the columns {found}; expected one of {', '.join(_TEXT)}"
  )


def _rows(place: Place) -> Iterator[Decision]:
  """Yield the rows of parquet, or of a file that `datasets.save_to_disk` wrote."""
  path, number, group = storage.parse(place.path), 0, ""
  if place.kind == "parquet":
    table, group = _table(path), f"row group {place.start}, "
    columns = [name for name in table.schema_arrow.names if name in _WANTED]
    batches = table.iter_batches(128, [place.start], columns)
  else:
    batches = pa.ipc.open_stream(path.open("rb"))
  for batch in batches:
    names = [name for name in batch.schema.names if name in _WANTED]
    for row in batch.select(names).to_pylist():
      number += 1
      yield _of_row(place, row, f"{place.path}, {group}row {number}")


def _of_row(place: Place, row: Mapping[str, Any], where: str) -> Decision:
  """Return a document of ours as it is, or the document in a row of another set.

  It is dropped if a stage could not write it.
  """
  if row.get("id") is not None and row.get("kind") is not None:
    try:
      if isinstance(row.get("provenance"), str):
        row = {**row, "provenance": json.loads(row["provenance"])}
      document = Document.of(row)
      folders.compact(document.provenance)
    except (ValueError, RecursionError) as error:
      return _nothing(place, "not a document", where, str(error)[:200])
  else:
    text, source = _first(row, _TEXT), place.source
    if not isinstance(text, str):
      return _nothing(place, f"no text under {', '.join(_TEXT)}", where)
    text, named = text.removeprefix("\ufeff"), str(_first(row, _REPOSITORY) or "")
    source = named if place.kind == "files" else source
    document = Document(
      id=identify(named or source, text),
      text=text,
      source=source,
      licence=licences.parse(_first(row, _LICENCE)),
      kind="code",
      repository=named or f"unknown: {identify('', text)}",
      provenance={"raw": {"path": str(_first(row, _PATH) or "")}},
    )
  texts = (value for value in document.record().values() if isinstance(value, str))
  try:
    size = sum(len(value.encode()) for value in texts)
  except UnicodeEncodeError:
    return _nothing(place, "lone surrogates", where)
  return _nothing(place, _TOO_LONG, where) if size > MAXIMUM_BYTES else Keep(document)


def _first(row: Mapping[str, Any], names: Sequence[str]) -> Any:
  return next((row[name] for name in names if row.get(name) is not None), None)


def _nothing(place: Place, reason: str, where: str, detail: str = "") -> Drop:
  """Return the reason why there is no document."""
  empty = Document(identify(where, ""), "", place.source, "unknown", "code", "")
  evidence = {"where": where} | ({"detail": detail} if detail else {})
  return Drop(empty, reason, evidence)
