"""Documents from wherever they are: embedded corpora, stages, JSONL, parquet.

An input is cut into places, each a file or a part of one, which are read apart from
each other: here one after the other, in a pipeline by as many workers as there are.
What cannot be read as a document is dropped with a reason, and nothing else is lost.
"""

from __future__ import annotations

import dataclasses
import glob
import gzip
import io
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from phi1_jax import InputError, how_to_install
from phi1_jax.curation import folder as folders
from phi1_jax.curation.document import Decision, Document, Drop, Keep, identify

EMBEDDED = "embedded"
# Longer documents, and longer lines of JSON, are data, not code.
MAXIMUM_BYTES = 8 << 20
_DEEPEST = 50  # levels of a document's provenance
# Names that published sets give to what we need, the first that is there counts: ours,
# The Stack v1 and v2, starcoderdata, GitHub's code set.
_TEXT = ("text", "content", "code")
_SOURCE = ("source", "max_stars_repo_name", "repo_name", "repository_name")
_LICENCE = ("licence", "license", "licenses", "max_stars_repo_licenses")
_LICENCE += ("detected_licenses",)
_PATH = ("path", "max_stars_repo_path", "file_path")


@dataclasses.dataclass(frozen=True)
class Place:
  """A part of an input that one reader reads.

  Attributes:
    kind: "embedded", "jsonl" or "parquet".
    path: the file; of an embedded corpus, its name and the file in it.
    part: row group of a parquet file.
    source: what the documents are counted under where they do not say.
  """

  kind: str
  path: str
  part: int = 0
  source: str = ""


def places(wanted: str) -> list[Place]:
  """What there is to read of an input.

  Args:
    wanted: "embedded"; the folder of a complete stage; or a file or glob pattern of
      .jsonl, .jsonl.gz or .parquet.

  Raises:
    InputError: nothing is there, or a stage is not complete.
  """
  if wanted == EMBEDDED:
    from phi1_jax.data import corpora

    return [
      Place("embedded", f"{corpus.name}/{path}", source=corpus.name)
      for corpus in corpora.embedded()
      for path in corpus.paths
    ]
  path = Path(wanted).expanduser()
  if path.is_dir() or not (path.suffix or glob.has_magic(wanted)):
    files = [str(file) for file in folders.kept_files(path)]
  else:
    files = sorted(glob.glob(str(path), recursive=True))
  if not files:
    raise InputError(
      f"{wanted}: nothing there; expected embedded, the folder of a stage, or files "
      "that end in .jsonl, .jsonl.gz or .parquet"
    )
  return [place for file in files for place in _places_of(file)]


def identity(inputs: Sequence[str]) -> dict[str, Any]:
  """What the inputs are: equal values mean equal documents.

  Of files that are no stage's it is size and time of the last change: those of a
  cluster are too large to be read twice.
  """
  found: dict[str, Any] = {}
  for wanted in inputs:
    if wanted == EMBEDDED:
      from phi1_jax.data import corpora

      found[wanted] = [c.describe()["sha256"] for c in corpora.embedded()]
    elif (path := Path(wanted).expanduser()).is_dir():
      folders.kept_files(path)
      found[wanted] = json.loads((path / folders.COMPLETED).read_text())
    else:
      files = sorted({place.path for place in places(wanted)})
      stats = {file: Path(file).stat() for file in files}
      found[wanted] = {f: [s.st_size, s.st_mtime_ns] for f, s in stats.items()}
  return found


def lineage(inputs: Sequence[str]) -> list[dict[str, Any]]:
  """The stats of the stages among the inputs."""
  paths = [Path(name).expanduser() for name in inputs if name != EMBEDDED]
  return [folders.read_stats(path) for path in paths if path.is_dir()]


def documents(place: Place) -> Iterator[Decision]:
  """What is read at a place: documents to keep, or the reasons why there are none."""
  if place.kind == "embedded":
    yield from _embedded(place)
  elif place.kind == "parquet":
    yield from _parquet(place)
  else:
    yield from _lines(place)


def read(inputs: Sequence[str]) -> Iterator[Decision]:
  """Everything of some inputs, one place after the other."""
  for wanted in inputs:
    for place in places(wanted):
      yield from documents(place)


def _places_of(file: str) -> list[Place]:
  if file.endswith((".jsonl", ".jsonl.gz", ".json.gz")):
    return [Place("jsonl", file, source=Path(file).name.split(".")[0])]
  if file.endswith(".parquet"):
    groups = _opened_parquet(file).num_row_groups
    name = Path(file).stem
    return [Place("parquet", file, part, name) for part in range(groups)]
  raise InputError(f"{file}: expected a name that ends in .jsonl, .jsonl.gz, .parquet")


def _embedded(place: Place) -> Iterator[Decision]:
  from phi1_jax.data import corpora

  corpus = next(c for c in corpora.embedded() if c.name == place.source)
  path = place.path.partition("/")[2]
  found = corpora.code(corpus, path)
  if isinstance(found, corpora.Drop):
    yield _nothing(place, found.reason, place.path)
    return
  for text, group in ((document.text, document.group or "") for document in found):
    made = Document(
      id=identify(corpus.name, text),
      text=text,
      source=corpus.name,
      licence=corpus.licence,
      kind="code",
      group=group,
      provenance={"raw": {"path": path, "version": corpus.version}},
    )
    yield Keep(made)


def _lines(place: Place) -> Iterator[Decision]:
  opened: Any = gzip.open if place.path.endswith(".gz") else open
  number = 0
  try:
    with opened(place.path, "rb") as file:
      for number, line in enumerate(_bounded_lines(file), 1):
        where = f"{place.path}, line {number}"
        if line is None:
          yield _nothing(place, f"over {MAXIMUM_BYTES >> 20} MiB", where)
        elif line.strip():
          yield _of_line(place, line, where)
  except (OSError, EOFError, zlib.error) as error:
    raise InputError(f"{place.path}: not readable after line {number} ({error})") from (
      None
    )


def _bounded_lines(file: io.BufferedIOBase) -> Iterator[bytes | None]:
  """Lines of a file; None for one that is too long, of which little is ever held."""
  while line := file.readline(MAXIMUM_BYTES):
    if line.endswith(b"\n") or len(line) < MAXIMUM_BYTES:
      yield line
      continue
    line = b""  # nobody needs it any more
    while (rest := file.readline(1 << 16)) and not rest.endswith(b"\n"):
      pass
    yield None


def _of_line(place: Place, line: bytes, where: str) -> Decision:
  try:
    row = json.loads(line.decode())
  except UnicodeDecodeError:
    return _nothing(place, "not UTF-8", where)
  except (ValueError, RecursionError):
    return _nothing(place, "not JSON", where, line[:200].decode(errors="replace"))
  if not isinstance(row, dict):
    return _nothing(place, "not a JSON object", where)
  return _of_row(place, row, where)


def _opened_parquet(file: str) -> Any:
  try:
    import pyarrow.parquet
  except ImportError:
    raise InputError(
      f"reading parquet needs pyarrow: {how_to_install('curate')}"
    ) from None
  try:
    return pyarrow.parquet.ParquetFile(file)
  except (OSError, pyarrow.ArrowException) as error:
    raise InputError(f"{file}: no parquet file ({error})") from None


def _parquet(place: Place) -> Iterator[Decision]:
  opened = _opened_parquet(place.path)
  first = sum(opened.metadata.row_group(part).num_rows for part in range(place.part))
  number = first
  try:
    for batch in opened.iter_batches(256, row_groups=[place.part]):
      for row in batch.to_pylist():
        number += 1
        yield _of_row(place, row, f"{place.path}, row {number}")
  except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors
    raise InputError(
      f"{place.path}: not readable after row {number} ({error})"
    ) from None


def _of_row(place: Place, row: Mapping[str, Any], where: str) -> Decision:
  """A row of ours as it is, or the document in a row of somebody else's set."""
  if "id" in row and "kind" in row:
    try:
      return _checked(place, Document.of(row), where)
    except ValueError as error:
      return _nothing(place, "not a document", where, str(error))
  text = _first(row, _TEXT)
  if not isinstance(text, str):
    return _nothing(place, f"no text under {', '.join(_TEXT)}", where)
  source = _first(row, _SOURCE)
  name = str(source) if source else place.source
  made = Document(
    id=identify(name, text),
    text=text,
    source=place.source,
    licence=_licence(row),
    kind="code",
    group=identify("", text),
    provenance={"raw": {"source": name, "path": str(_first(row, _PATH) or "")}},
  )
  return _checked(place, made, where)


def _checked(place: Place, document: Document, where: str) -> Decision:
  """The document, if every stage can write it down again."""
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
  """How deep lists and objects are nested; without recursion."""
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


def _licence(row: Mapping[str, Any]) -> str:
  found = _first(row, _LICENCE)
  if isinstance(found, (list, tuple)):
    return " AND ".join(sorted({str(name) for name in found})) or "unknown"
  return str(found) if found else "unknown"


def _nothing(place: Place, reason: str, where: str, detail: str = "") -> Drop:
  """Why there is no document here."""
  empty = Document(identify(where, ""), "", place.source, "unknown", "code", "")
  evidence = {"where": where} | ({"detail": detail} if detail else {})
  return Drop(empty, reason, evidence)
