"""Inputs as people have them, cut into places that tasks read apart from each other."""

import dataclasses
import functools
import glob
import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from phi1_jax import InputError, storage
from phi1_jax.curation import folder as folders
from phi1_jax.storage import AnyPath
from phi1_jax.storage.paths import object_of
from phi1_jax.text import settings_file

log = logging.getLogger(__name__)

EMBEDDED = "embedded"
JSONL = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".json.gz", ".json.zst")
TABLES = (".parquet", ".arrow")
CODE = (".py", ".ipynb")
_SPLIT = 16 << 20  # bytes of a plain JSONL file that one task reads
_FILES = 64  # files of a folder that are read together
EXPECTED = (
  "expected embedded, the folder of a stage, a folder of code or of a data set, or "
  f"files that end in {', '.join((*JSONL, *TABLES, *CODE))}"
)


@dataclasses.dataclass(frozen=True)
class Place:
  """A part of an input.

  Attributes:
    kind: "embedded", "jsonl", "parquet", "arrow" or "files".
    path: the file; for "files" and "embedded" their root or corpus.
    start: first byte of JSONL, first row group of parquet.
    stop: byte or row group after the last; None = to the end.
    source: collection that the documents are counted under, where they name none.
    names: files below `path`, each with its repository.
    size: bytes, about.
    documents: number of documents, None if unknown.
  """

  kind: str
  path: str
  start: int = 0
  stop: int | None = None
  source: str = ""
  names: tuple[tuple[str, str], ...] = ()
  size: int = 0
  documents: int | None = None


def places(wanted: str) -> list[Place]:
  """Return the places of an input.

  Args:
    wanted: "embedded", the folder of a complete stage, a folder of code or of a data
      set, or a file or glob pattern.

  Raises:
    InputError: nothing is there, a stage is not complete, or it kept nothing.
  """
  if wanted == EMBEDDED:
    return list(_embedded())
  path = storage.parse(wanted)
  if _is_stage(path):
    return _of_stage(path)
  if path.is_dir():
    found = list(_of_folder(path))
  else:
    if not (glob.has_magic(wanted) or storage.exists(path)):
      if not path.suffix:
        folders.read_stats(path)  # says that it is no stage's folder
      raise InputError(f"{wanted}: nothing there; {EXPECTED}")
    found = [place for file in _matching(path) for place in _of_file(file)]
  if not found:
    raise InputError(f"{wanted}: nothing there; {EXPECTED}")
  return found


def plan(name: str, inputs: Sequence[str]) -> list[Place]:
  """Return the places of all inputs of a setting.

  Raises:
    InputError: as `places`, with the setting's name.
  """
  try:
    return [place for wanted in inputs for place in places(wanted)]
  except InputError as error:
    raise InputError(f"{name}: {error}") from None


def cut(found: Sequence[Place], tasks: int) -> list[list[Place]]:
  """Return the places of each task: contiguous, with about the same bytes."""
  total = sum(place.size + 1 for place in found)
  parts: list[list[Place]] = [[] for _ in range(tasks)]
  seen = 0
  for place in found:
    middle = seen + place.size // 2
    parts[min(middle * tasks // total, tasks - 1)].append(place)
    seen += place.size + 1
  return parts


def documents(found: Sequence[Place]) -> int | None:
  """Return the number of documents of places, None if it is not known of all."""
  counts = [place.documents for place in found]
  return None if None in counts else sum(count or 0 for count in counts)


def identity(inputs: Sequence[str]) -> dict[str, Any]:
  """Return facts that are equal only if the inputs are.

  Sizes and times stand in for the content of files that no stage wrote.
  """
  found: dict[str, Any] = {}
  for wanted in inputs:
    if wanted == EMBEDDED:
      from phi1_jax.data import corpora

      found[wanted] = [c.describe()["sha256"] for c in corpora.embedded()]
    elif _is_stage(path := storage.parse(wanted)):
      folders.kept_files(path)
      found[wanted] = storage.read_json(path / folders.COMPLETED)
    else:
      read = places(wanted)
      files = {place.path for place in read if not place.names}
      files |= {os.path.join(p.path, name) for p in read for name, _ in p.names}
      versions = {f: _version(storage.parse(f).stat()) for f in sorted(files)}
      digest = settings_file.digest(versions)
      found[wanted] = {"files": len(files), "sizes and times": digest}
  return found


def _version(stat: Any) -> list[Any]:
  if hasattr(stat, "st_size"):
    return [stat.st_size, stat.st_mtime_ns]
  return [stat.length, str(stat.mtime)]


def lineage(inputs: Sequence[str]) -> list[dict[str, Any]]:
  """Return the stats of the stages among the inputs."""
  paths = [storage.parse(name) for name in inputs if name != EMBEDDED]
  return [folders.read_stats(path) for path in paths if _is_stage(path)]


def _is_stage(path: AnyPath) -> bool:
  return storage.exists(path / folders.STAGE)


def _of_stage(path: AnyPath) -> list[Place]:
  files = folders.kept_files(path)
  kept = folders.read_stats(path).get("kept")
  if not kept:
    raise InputError(f"{path}: kept no document, so there is nothing to read")
  return [place for file in files for place in _of_file(file)]


def _embedded() -> Iterator[Place]:
  from phi1_jax.data import corpora

  for corpus in corpora.embedded():
    for start in range(0, len(corpus.paths), _FILES):
      names = corpus.paths[start : start + _FILES]
      size = sum((corpus.root / name).stat().st_size for name in names)
      pairs = tuple((name, _package(corpus.name, name)) for name in names)
      yield Place(
        *("embedded", corpus.name, 0, None, corpus.name, pairs, size, len(names))
      )


def _package(corpus: str, path: str) -> str:
  """Return the part of an embedded corpus that counts as its repository.

  There are five projects only; their packages (asyncio, sympy/physics) are held out
  together.
  """
  parts = Path(path).with_suffix("").parts
  depth = 1 if corpus == "cpython" else 2
  return "/".join((corpus, *parts[:depth]))


def _matching(path: AnyPath) -> list[AnyPath]:
  if not glob.has_magic(os.fspath(path)):
    return [path]
  if not storage.is_remote(path):
    return [Path(found) for found in sorted(glob.glob(str(path), recursive=True))]
  system, _, _ = object_of(path)
  return [storage.parse(f"gs://{found}") for found in sorted(system.glob(str(path)))]


def _of_file(file: AnyPath) -> list[Place]:
  name, (size, _) = file.name, storage.stat(file)
  if name.endswith(JSONL):
    source = name.split(".")[0]
    stops: list[int | None] = [None]
    if name.endswith(".jsonl"):
      stops = [*range(_SPLIT, size, _SPLIT), None]
    starts = [0, *(stop for stop in stops if stop)]
    return [
      Place("jsonl", os.fspath(file), a, b, source, (), min(size, _SPLIT))
      for a, b in zip(starts, stops, strict=True)
    ]
  if name.endswith(".parquet"):
    return _row_groups(file)
  if name.endswith(".arrow"):
    source = file.parent.name
    return [Place("arrow", os.fspath(file), source=source, size=size)]
  if name.endswith(CODE):
    pair = (name, file.parent.name)
    root = os.fspath(file.parent)
    return [Place("files", root, 0, None, pair[1], (pair,), size, 1)]
  raise InputError(f"{file}: got another kind of file; {EXPECTED}")


def _row_groups(file: AnyPath) -> list[Place]:
  from phi1_jax.curation import read

  metadata = read.parquet(file).metadata
  groups = [metadata.row_group(n) for n in range(metadata.num_row_groups)]
  source = file.name.removesuffix(".parquet")
  return [
    Place(
      *("parquet", os.fspath(file), n, n + 1, source, ()),
      *(group.total_byte_size, group.num_rows),
    )
    for n, group in enumerate(groups)
  ]


def _of_folder(path: AnyPath) -> Iterator[Place]:
  """Yield the places of a folder: of code if most of its files are code.

  The files of the other kind are left out with a warning: code comes with data that is
  no code, and data sets come with scripts.
  """
  if storage.is_remote(path):
    system, _, _ = object_of(path)
    root = os.fspath(path).removeprefix("gs://") + "/"
    files = sorted(name.removeprefix(root) for name in system.find(root))
    checkouts: list[str] = []
  else:
    files, checkouts = _walked(Path(path))
  code = [file for file in files if file.endswith(CODE)]
  data = [file for file in files if file.endswith((*JSONL, *TABLES))]
  if len(data) > len(code) or (data and _is_data_set(path)):
    _warn_of_rest(os.fspath(path), "data", tuple(code))
    for file in data:
      yield from _of_file(path / file)
    return
  _warn_of_rest(os.fspath(path), "code", tuple(data))
  for start in range(0, len(code), _FILES):
    names = code[start : start + _FILES]
    pairs = tuple((name, _repository(path.name, name, checkouts)) for name in names)
    size = sum(storage.stat(path / name)[0] for name in names)
    yield Place(
      *("files", os.fspath(path), 0, None, path.name, pairs, size, len(pairs))
    )


@functools.lru_cache(maxsize=64)  # a folder is listed more than once in a stage
def _warn_of_rest(path: str, kind: str, rest: tuple[str, ...]) -> None:
  if rest:
    log.warning(
      "%s: read as a folder of %s; %d other files are left out, such as %s; to read "
      "them too, name them in the inputs",
      *(path, kind, len(rest), rest[0]),
    )


def _walked(root: Path) -> tuple[list[str], list[str]]:
  """Return the files below a folder, and the git checkouts among the folders."""
  files, checkouts = [], []
  for place, inner, names in os.walk(root):
    below = os.path.relpath(place, root)
    below = "" if below == "." else below + "/"
    if ".git" in inner or ".git" in names:
      checkouts.append(below)
    inner[:] = sorted(
      name for name in inner if not name.startswith(".") and name != "__pycache__"
    )
    files += [below + name for name in names if not name.startswith(".")]
  return sorted(files), checkouts


def _is_data_set(path: AnyPath) -> bool:
  names = set(storage.names(path))
  return bool(names & {"dataset_info.json", "dataset_dict.json", "state.json"})


def _repository(root: str, file: str, checkouts: Sequence[str]) -> str:
  """Return the git checkout that a file lies in, else its first folder, else `root`."""
  inside = [place for place in checkouts if file.startswith(place)]
  if inside:
    return max(inside, key=len).rstrip("/") or root
  folders = Path(file).parts[:-1]
  return folders[0] if folders else root


def save(place: AnyPath, parts: Sequence[Sequence[Place]]) -> None:
  """Write each task's places, so that a resumed run reads the same."""
  place.mkdir(parents=True, exist_ok=True)
  for rank, part in enumerate(parts):
    content = json.dumps([dataclasses.astuple(each) for each in part])
    storage.write_text(place / f"{rank:05d}.json", content)
  total = documents([each for part in parts for each in part])
  storage.write_json(place / "plan.json", {"tasks": len(parts), "documents": total})


def load(place: AnyPath, rank: int) -> list[Place]:
  """Return a task's places."""
  found = json.loads(storage.read_text(place / f"{rank:05d}.json"))
  rows: list[list[Any]] = found
  for row in rows:
    row[5] = tuple(map(tuple, row[5]))
  return [Place(*row) for row in rows]


def prepare(
  work: AnyPath, name: str, wanted: Sequence[str], count: Callable[[int, int], int]
) -> tuple[int, int | None]:
  """Plan the tasks of a stage once; return how many, and the number of documents.

  Args:
    work: the stage's folder for unfinished work; gets `plan/`.
    name: of the setting, for errors.
    wanted: the inputs.
    count: returns the number of tasks for bytes and places.
  """
  if not storage.exists(work / "plan" / "plan.json"):
    found = plan(name, wanted)
    size = sum(place.size for place in found)
    save(work / "plan", cut(found, count(size, len(found))))
  made = storage.read_json(work / "plan" / "plan.json")
  return made["tasks"], made["documents"]
