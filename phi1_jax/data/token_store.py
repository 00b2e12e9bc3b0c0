"""The token store: a folder of memory-mapped uint16 tokens with a digest.

    tokens-00000-of-00016.npy      uint16 [tokens]     np.load(..., mmap_mode="r")
    documents-00000-of-00016.npy   int64 [documents]   offset where each one starts
    loss-00000-of-00016.npy        uint8 [tokens]      1 = completion, 0 = prompt; there
                                                       if Data.loss_on = "completions"
    tokenizer.json                 the tokenizer that made the tokens
    manifest.json                  what is inside, with a sha256 for every file
    COMPLETED                      sha256 of manifest.json; written last

A shard is one (task, source shard) unit: the documents for training in source order,
then the held-out documents in source order, each ended by the end-of-text id. The
sha256 of manifest.json is the digest of the store; it depends on every token, and not
on the time or the machine.

A shard is done once its record exists (shard-00000-of-00016.json, removed at the end of
a build), so a build that was killed goes on from the last finished shard.
"""

from __future__ import annotations

import bisect
import contextlib
import dataclasses
import hashlib
import json
import logging
import threading
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from phi1_jax import InputError, storage
from phi1_jax.storage import AnyPath

log = logging.getLogger(__name__)

FORMAT = 1
SPLITS = ("train", "held_out")
_BUILD_AGAIN = "run `python -m phi1_jax.prepare` again with the same --gin_file"
_REBUILD = "build it again, in a new folder, with `python -m phi1_jax.prepare`"

# The arrays of a shard: type, the unit of their elements, and the keys of an entry for
# the name of the file and its sha256.
_ARRAYS = {
  "tokens": ("uint16", "tokens", "file", "sha256"),
  "documents": ("int64", "documents", "documents_file", "documents_sha256"),
  "loss": ("uint8", "tokens", "loss_file", "loss_sha256"),
}


class Encoded(NamedTuple):
  """A document as tokens.

  Attributes:
    ids: [T] ids below 65,536; the last is the end-of-text id.
    num_bytes: length of the document's text in UTF-8.
    held_out: whether it belongs to the held-out split.
    marks: uint8 [T], 1 = completion; None in a store without marks.
  """

  ids: np.ndarray | Sequence[int]
  num_bytes: int
  held_out: bool = False
  marks: np.ndarray | None = None


def write_shard(
  directory: str | Path,
  index: int,
  count: int,
  task: str,
  documents: Iterable[Encoded],
  *,
  marked: bool = False,
  dropped: Mapping[str, int] | None = None,
  first: Mapping[str, str] | None = None,
) -> dict[str, Any]:
  """Write a shard to the disk and return its entry for the manifest.

  Args:
    directory: folder of the store; created if missing.
    index: number of this shard, 0 <= index < count.
    count: number of shards in the store.
    task: name of the documents' task.
    documents: in source order; all are in memory until the shard is written.
    marked: write which tokens are completions.
    dropped: number of documents left out, by reason; `finish` removes it. Read after
      the documents, so it may be filled while they are made.
    first: the place of the first of them, by reason; as `dropped`.

  Raises:
    InputError: an id does not fit into uint16.
  """
  kept: dict[str, list[Encoded]] = {split: [] for split in SPLITS}
  for document in documents:
    document = document._replace(ids=_narrowed(task, document.ids))
    kept["held_out" if document.held_out else "train"].append(document)
  ordered = [document for split in SPLITS for document in kept[split]]
  lengths = np.array([len(document.ids) for document in ordered], dtype=np.int64)
  content: dict[str, list[Any]] = {
    "tokens": [document.ids for document in ordered],
    "documents": [np.cumsum(lengths) - lengths],
  }
  if marked:
    content["loss"] = [document.marks for document in ordered]
  directory = Path(directory)
  directory.mkdir(parents=True, exist_ok=True)
  entry: dict[str, Any] = {"task": task}
  entry |= {"dropped": dict(dropped or {}), "first_dropped": dict(first or {})}
  for name, values in content.items():
    dtype, _, file_key, sha256_key = _ARRAYS[name]
    path = directory / f"{name}-{index:05d}-of-{count:05d}.npy"
    with storage.writing(path) as file:
      np.save(file, np.concatenate([np.zeros(0, dtype), *values]))
    entry |= {file_key: path.name, sha256_key: _sha256(path)}
  for split, some in kept.items():
    entry[split] = {
      "documents": len(some),
      "tokens": sum(len(document.ids) for document in some),
      "bytes": sum(document.num_bytes for document in some),
    }
  storage.write_bytes(_record(directory, index, count), _canonical(entry))
  return entry


def _narrowed(task: str, ids: Any) -> np.ndarray:
  """Return a copy of ids as uint16; a view would keep a whole batch in memory."""
  ids = np.asarray(ids)
  if int(ids.min()) < 0 or int(ids.max()) >= 1 << 16:
    raise InputError(
      f"task {task}: token ids {ids.min()}..{ids.max()} do not fit into uint16; use a "
      "tokenizer with at most 65,536 ids"
    )
  return np.array(ids, dtype=np.uint16)


def finished_shard(directory: str | Path, index: int, count: int) -> dict | None:
  """Return the entry of a shard that an earlier build finished, or None."""
  record = _record(Path(directory), index, count)
  if not record.exists():
    return None
  entry = json.loads(record.read_bytes())
  there = all((record.parent / name).exists() for name in _files([entry]))
  return entry if there and "dropped" in entry else None


def finish(directory: str | Path, manifest_fields: dict, shards: list[dict]) -> str:
  """Write manifest.json and COMPLETED, return the digest.

  Args:
    directory: folder of the store.
    manifest_fields: "mixture", "tasks", "tokenizer", "held_out_fraction" and other
      facts that depend on the inputs alone.
    shards: the entries from `write_shard`, in shard order.
  """
  directory = Path(directory)
  totals = {
    unit: sum(shard[split][unit] for shard in shards for split in SPLITS)
    for unit in ("documents", "tokens", "bytes")
  }
  left = ("dropped", "first_dropped")
  kept = [{k: v for k, v in shard.items() if k not in left} for shard in shards]
  manifest = _canonical({**manifest_fields, **totals, "format": FORMAT, "shards": kept})
  digest = hashlib.sha256(manifest).hexdigest()
  storage.write_bytes(directory / "manifest.json", manifest)
  storage.write_bytes(directory / "COMPLETED", _canonical({"manifest_sha256": digest}))
  return digest


def _record(directory: Path, index: int, count: int) -> Path:
  return directory / f"shard-{index:05d}-of-{count:05d}.json"


def _canonical(value: Any) -> bytes:
  """Return a value as JSON that does not depend on the order of keys."""
  return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()


def _sha256(path: Path) -> str:
  with path.open("rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()


class TokenStream:
  """Ranges of memory-mapped shards read as one sequence of tokens, or of marks."""

  def __init__(self, parts: Iterable[np.ndarray]):
    self._parts = [part for part in parts if len(part)]
    self._ends = np.cumsum([len(part) for part in self._parts], dtype=int).tolist()

  def __len__(self) -> int:
    return self._ends[-1] if self._ends else 0

  def read(self, start: int, stop: int) -> np.ndarray:
    """Return tokens [start, stop) as uint16 [stop - start]; marks as uint8.

    Inside one shard this is a view on the memory map; across a border, a new array.

    Raises:
      IndexError: the range is not within the stream.
    """
    if not 0 <= start <= stop <= len(self):
      raise IndexError(f"[{start}, {stop}) is not within [0, {len(self)})")
    if start == stop:
      return np.zeros(0, np.uint16)
    first = bisect.bisect_right(self._ends, start)
    last = bisect.bisect_left(self._ends, stop)
    pieces = []
    for i in range(first, last + 1):
      begin = self._ends[i] - len(self._parts[i])
      pieces.append(self._parts[i][max(start - begin, 0) : stop - begin])
    return pieces[0] if first == last else np.concatenate(pieces)


@dataclasses.dataclass(frozen=True)
class TokenStore:
  """A finished token store, opened for reading by `TokenStore.open`.

  Attributes:
    directory: the local folder.
    digest: sha256 (hex) of manifest.json.
    manifest: the parsed manifest.json.
  """

  directory: Path
  digest: str
  manifest: dict[str, Any]
  _shards: tuple[dict[str, np.ndarray], ...] = dataclasses.field(repr=False)

  @classmethod
  def open(
    cls,
    directory: str | AnyPath,
    *,
    verify: bool = True,
    verified: AnyPath | None = None,
  ) -> TokenStore:
    """Open a store and check that it is complete.

    The shards of a store on cloud storage are copied into a local cache first. Those
    that are damaged there are downloaded again once.

    Args:
      directory: folder written by `python -m phi1_jax.prepare`, local or gs://.
      verify: hash every shard, about a second per GB. Without it only the manifest's
        digest and the type and length of every shard are checked.
      verified: a JSON file for sizes and times of the hashed files; while they stay the
        same, they are not hashed again. A cached copy has its own.

    Raises:
      InputError: a file is missing or wrong.
    """
    place = storage.parse(directory)
    digest, manifest = _read_manifest(place)

    def opened(local: Path, note: AnyPath | None) -> TokenStore:
      shards = tuple(_open_shard(local, shard) for shard in manifest["shards"])
      if verify:
        _verify(local, digest, _files(manifest["shards"]), note)
      store = cls(local, digest, manifest, shards)
      _ = store.tasks, store.eos_id, store.vocabulary_size
      return store

    try:
      if not storage.is_remote(place):
        return opened(Path(place), verified)
      local = storage.cache_folder() / "stores" / digest[:16]
      for damaged in (False, True):
        _download(place, local, _files(manifest["shards"]), damaged=damaged)
        try:
          return opened(local, local / "verified.json")
        except InputError as error:
          message = str(error).replace(str(local), str(place))
          log.warning("%s: the copy in %s is damaged", place, local)
      raise InputError(message)
    except (KeyError, TypeError) as error:
      raise InputError(
        f"{place / 'manifest.json'}: field {error} is missing or malformed; {_REBUILD}"
      ) from error

  @property
  def tasks(self) -> tuple[str, ...]:
    """Names of the tasks, sorted."""
    return tuple(sorted(self.manifest["tasks"]))

  @property
  def eos_id(self) -> int:
    """The id that ends every document."""
    return self.manifest["tokenizer"]["eos_id"]

  @property
  def vocabulary_size(self) -> int:
    """Number of ids in use; every token is below it."""
    return self.manifest["tokenizer"]["vocabulary_size"]

  def stream(self, task: str, split: str) -> TokenStream:
    """Return the tokens of a task's "train" or "held_out" split.

    Raises:
      InputError: the store has no such task.
    """
    return TokenStream(self._parts("tokens", task, split))

  def marks(self, task: str, split: str) -> TokenStream:
    """Return a mark for every token of `stream`, uint8: 1 = completion, 0 = prompt.

    Raises:
      InputError: the store has no such task, or no marks.
    """
    if not all("loss" in arrays for arrays in self._shards):
      raise InputError(
        f'token store {self.directory} was built without Data.loss_on = "completions", '
        "so it does not mark prompts; name another folder with Data.store, which is "
        "built with marks"
      )
    return TokenStream(self._parts("loss", task, split))

  def document_starts(self, task: str, split: str) -> np.ndarray:
    """Return where each document begins in `stream`, int64 [documents]."""
    lengths = [len(part) for part in self._parts("tokens", task, split)]
    begins = np.cumsum([0, *lengths], dtype=np.int64)
    starts = self._parts("documents", task, split)
    moved = (x - x[:1] + begin for x, begin in zip(starts, begins, strict=False))
    return np.concatenate([np.zeros(0, np.int64), *moved])

  def _parts(self, array: str, task: str, split: str) -> list[np.ndarray]:
    """Return the part of an array that belongs to a split, of each shard of a task."""
    if task not in self.tasks:
      raise InputError(
        f'token store {self.directory} has no task "{task}"; it holds: '
        f"{', '.join(self.tasks)}"
      )
    unit, parts = _ARRAYS[array][1], []
    for entry, arrays in zip(self.manifest["shards"], self._shards, strict=True):
      if entry["task"] == task:
        divided = np.split(arrays[array], [entry["train"][unit]])
        parts.append(divided[SPLITS.index(split)])
    return parts

  def num_targets(self, split: str, completions_only: bool) -> dict[str, int]:
    """Return how many tokens of a split are to be predicted, of tasks with any."""
    found = {}
    for task in self.tasks:
      found[task] = max(len(self.stream(task, split)) - 1, 0)
      if completions_only and found[task]:
        marks = self.marks(task, split)
        found[task] = int(marks.read(1, len(marks)).sum(dtype=np.int64))
    return {task: count for task, count in found.items() if count}

  def bytes_per_token(self, task: str, split: str) -> float:
    """Return UTF-8 bytes of text per token of a split, ends of documents included."""
    counts = [s[split] for s in self.manifest["shards"] if s["task"] == task]
    tokens = sum(count["tokens"] for count in counts)
    return sum(count["bytes"] for count in counts) / max(tokens, 1)


def _read_manifest(store: AnyPath) -> tuple[str, dict[str, Any]]:
  """Return digest and content of manifest.json, checked against COMPLETED."""
  if not all(storage.exists(store / name) for name in ("COMPLETED", "manifest.json")):
    raise InputError(
      f"token store {store} has no COMPLETED or no manifest.json: it is not there, or "
      f"its build did not finish; {_BUILD_AGAIN} to go on, or correct Data.store"
    )
  path = store / "manifest.json"
  expected = storage.read_json(store / "COMPLETED").get("manifest_sha256")
  content = storage.read_bytes(path)
  digest = hashlib.sha256(content).hexdigest()
  if digest != expected:
    raise InputError(
      f"{path} has sha256 {digest}, but COMPLETED says {expected}: it was changed "
      f"after the build; {_REBUILD}"
    )
  manifest = json.loads(content)
  if manifest.get("format") != FORMAT:
    raise InputError(
      f"{path} has format {manifest.get('format')}, this version reads format "
      f"{FORMAT}; {_REBUILD}"
    )
  return digest, manifest


def _files(shards: Sequence[dict[str, Any]]) -> dict[str, str]:
  """Return the names of the arrays of shards and the sha256 of each."""
  keys = [tuple(keys) for _, _, *keys in _ARRAYS.values()]
  return {e[file]: e[sha256] for e in shards for file, sha256 in keys if file in e}


def _open_shard(directory: Path, entry: dict[str, Any]) -> dict[str, np.ndarray]:
  """Memory-map the 1-D arrays of a shard; check type and length of its files."""
  found = {}
  for name, (dtype, unit, file, _) in _ARRAYS.items():
    if name == "loss" and file not in entry:
      continue
    path, length = directory / entry[file], sum(entry[split][unit] for split in SPLITS)
    try:
      array = np.load(path, mmap_mode="r")
    except (ValueError, EOFError, OSError) as error:
      raise InputError(
        f"{path} is missing, truncated or no .npy file ({error}); {_REBUILD}"
      ) from error
    if array.dtype != dtype or array.shape != (length,):
      raise InputError(
        f"{path} holds {array.dtype}{list(array.shape)}, the manifest says "
        f"{dtype}[{length}]; {_REBUILD}"
      )
    # Slices of a plain array take a fifth of the time of np.memmap's.
    found[name] = np.asarray(array)
  return found


def _verify(
  directory: Path, digest: str, files: Mapping[str, str], note: AnyPath | None
) -> None:
  """Hash every file of a store, unless a note says that they were hashed before."""
  found = {name: (directory / name).stat() for name in files}
  versions = {name: [stat.st_size, stat.st_mtime_ns] for name, stat in found.items()}
  content = {"manifest_sha256": digest, "files": versions}
  with contextlib.suppress(FileNotFoundError, ValueError):  # none, or a torn one
    if note is not None and json.loads(storage.read_bytes(note)) == content:
      return
  for name, expected in files.items():
    if (sha256 := _sha256(directory / name)) != expected:
      raise InputError(
        f"{directory / name} has sha256 {sha256}, but the manifest says {expected}: "
        f"its bytes changed after the build; {_REBUILD}"
      )
  try:
    if note is not None:
      storage.write_json(note, content)
  except OSError as error:  # a cache that others wrote
    log.warning("%s: %s; the next start hashes the store again", note, error.strerror)


_downloading = threading.Lock()


def _download(
  remote: AnyPath, local: Path, files: Mapping[str, str], *, damaged: bool
) -> None:
  """Download the files that a local copy of a store lacks; write nothing if whole.

  Args:
    remote: the store.
    local: the folder of the copy.
    files: the names of the arrays and their sha256.
    damaged: download files with another sha256 again.
  """

  def download(name: str) -> None:
    try:
      storage.download(remote / name, local / name)
    except FileNotFoundError:
      raise InputError(
        f"{remote / name} is missing, but the manifest lists it; {_REBUILD}"
      ) from None

  if not damaged and all((local / name).is_file() for name in files):
    return
  doing = "downloading a token store"
  with _downloading, storage.Lease(local, doing, flag="PHI1_JAX_CACHE", wait=True):
    log.info("copying the token store %s to %s", remote, local)
    with contextlib.suppress(FileNotFoundError):
      storage.download(remote / "tokenizer.json", local / "tokenizer.json")
    missing = []
    for name, sha256 in files.items():
      path = local / name
      if not path.is_file() or (damaged and _sha256(path) != sha256):
        missing.append(name)
    with ThreadPoolExecutor(8) as pool:
      list(pool.map(download, missing))
