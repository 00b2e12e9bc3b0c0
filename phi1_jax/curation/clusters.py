"""Near-duplicates over integers: buckets, pairs, edges, and the documents that stay.

All tables are numpy arrays in files, cut by a hash or by the documents' keys, and a
task holds one part of one table. A document is named by its number, task << 32 | row,
and sorts by its key.

A document goes only if it is similar to one that stays; similarity to one that goes is
no reason. So no chain of small steps removes a whole source.
"""

import functools
import io

import numpy as np
import numpy.typing as npt

from phi1_jax import storage
from phi1_jax.storage import AnyPath
from phi1_jax.text import shingles

Table = npt.NDArray[np.void]
# A document in a bucket; `size` is the number of its shingles, 0 in buckets of equals,
# and 32 bits of the text in those of one id, so that no order of reading matters.
MEMBER = np.dtype(
  [("bucket", "u8"), ("key", "u8"), ("number", "u8"), ("size", "u4"), ("kind", "u1")]
)
BAND, EQUAL, SAME_ID = 0, 1, 2
# The second document comes after the first in the order of the keys.
PAIR = np.dtype([("key1", "u8"), ("one", "u8"), ("key2", "u8"), ("two", "u8")])
EDGE = np.dtype([*PAIR.descr, ("similarity", "f8")])
# Verdict on a document; similarity is -1 for a representative and -2 for a repeated id.
VERDICT = np.dtype(
  [("number", "u8"), ("by", "u8"), ("similarity", "f8"), ("size", "u8")]
)
STAYS, REPEATED = -1.0, -2.0
_ROWS = 32  # bits of a row in a document's number


def number(task: int, row: int) -> int:
  """Return the number of a document."""
  return task << _ROWS | row


def task_of(numbers: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
  """Return the tasks that documents were read by."""
  return numbers >> np.uint64(_ROWS)


def row_of(value: int) -> int:
  """Return a document's row among those that its task read."""
  return int(value) & ((1 << _ROWS) - 1)


def save(path: AnyPath, table: np.ndarray) -> None:
  """Write a table atomically."""
  path.parent.mkdir(parents=True, exist_ok=True)
  with storage.writing(path) as file:
    np.save(file, table)


def load(path: AnyPath) -> np.ndarray:
  """Return a table: mapped into memory if it is local, otherwise downloaded."""
  if not storage.is_remote(path):
    return np.load(path, mmap_mode="r")
  return np.load(io.BytesIO(storage.read_bytes(path)))


def load_all(folder: AnyPath, dtype: np.dtype) -> Table:
  """Return the tables of a folder as one."""
  names = [name for name in storage.names(folder) if name.endswith(".npy")]
  found = [load(folder / name) for name in names]
  return np.concatenate([np.zeros(0, dtype), *found])


def save_cut(folder: AnyPath, name: str, table: Table, parts: np.ndarray) -> None:
  """Write the rows of a table to the folders of their parts.

  Args:
    folder: gets a folder for each part, with a file `name` in it.
    name: of the files: the task that writes them.
    table: the rows.
    parts: part of each row.
  """
  order = np.argsort(parts, kind="stable")
  table, parts = table[order], parts[order]
  starts = np.flatnonzero(np.diff(parts, prepend=-1))
  ends = [*starts, len(table)][1:]
  for start, stop in zip(starts, ends, strict=True):
    save(folder / f"{int(parts[start]):05d}" / f"{name}.npy", table[start:stop])


def pairs(members: Table, similarity: float, most: int) -> tuple[Table, Table, int]:
  """Return the pairs to compare within buckets, and documents with a repeated id.

  Args:
    members: a part of all members, with whole buckets.
    similarity: sets whose sizes differ by more than this ratio are not that similar.
    most: a member is compared with this many of its bucket's first, so that the work
      grows linearly with the bucket.

  Returns:
    Pairs (`PAIR`); verdicts (`VERDICT`) on documents whose id is that of another one;
    and how many pairs were left out because of `most`.
  """
  members = np.sort(members, order=("kind", "bucket", "key", "size", "number"))
  if not len(members):
    return np.zeros(0, PAIR), np.zeros(0, VERDICT), 0
  bucket, kind = members["bucket"], members["kind"]
  new = np.ones(len(members), bool)
  new[1:] = (bucket[1:] != bucket[:-1]) | (kind[1:] != kind[:-1])
  first = np.maximum.accumulate(np.where(new, np.arange(len(members)), 0))
  place = np.arange(len(members)) - first  # in the bucket
  found = []
  limit = np.where(kind == BAND, most, 2)
  for step in range(min(most, int(place.max()))):
    late = np.flatnonzero((place > step) & (step < limit) & (kind != SAME_ID))
    early = first[late] + step
    small = np.minimum(members["size"][late], members["size"][early])
    large = np.maximum(members["size"][late], members["size"][early])
    alike = (small >= similarity * large) | (kind[late] == EQUAL)
    found.append(_pairs(members, early[alike], late[alike]))
  left = np.maximum(0, place[kind == BAND] - most)
  again = np.flatnonzero((kind == SAME_ID) & (place > 0))
  repeated = np.zeros(len(again), VERDICT)
  repeated["number"] = members["number"][again]
  repeated["by"] = members["number"][first[again]]
  repeated["similarity"] = REPEATED
  return (
    np.unique(np.concatenate([np.zeros(0, PAIR), *found])),
    repeated,
    int(left.sum()),
  )


def _pairs(members: Table, early: np.ndarray, late: np.ndarray) -> Table:
  table = np.zeros(len(late), PAIR)
  table["key1"], table["one"] = members["key"][early], members["number"][early]
  table["key2"], table["two"] = members["key"][late], members["number"][late]
  return table


class Shingles:
  """The shingles of all documents, in a file for each task.

  Args:
    folder: with `TASK.npy` (hashes) and `TASK-ends.npy` (their ends, by row).
  """

  def __init__(self, folder: AnyPath):
    self._folder = folder
    self._load = functools.lru_cache(maxsize=64)(self._loaded)

  def _loaded(self, task: int) -> tuple[np.ndarray, np.ndarray]:
    names = f"{task:05d}.npy", f"{task:05d}-ends.npy"
    hashes, ends = (load(self._folder / name) for name in names)
    return hashes, np.asarray(ends)

  def of(self, value: int) -> npt.NDArray[np.uint64]:
    """Return the shingles of a document."""
    task, row = int(value) >> _ROWS, row_of(value)
    hashes, ends = self._load(task)
    return hashes[ends[row] : ends[row + 1]]


def edges(table: Table, found: Shingles, similarity: float) -> Table:
  """Return the pairs whose true Jaccard similarity is large enough.

  Args:
    table: pairs, each once.
    found: the documents' shingles; two documents without any are equal.
    similarity: the least.
  """
  table = np.sort(table, order=("one", "two"))
  rates = np.zeros(len(table))
  last, one = -1, np.zeros(0, np.uint64)
  for place, (first, second) in enumerate(zip(table["one"], table["two"], strict=True)):
    if first != last:
      last, one = first, np.asarray(found.of(first))
    other = found.of(second)
    rates[place] = shingles.jaccard(one, other) if len(one) or len(other) else 1.0
  alike = rates >= similarity
  made = np.zeros(int(alike.sum()), EDGE)
  for name in PAIR.names or ():
    made[name] = table[name][alike]
  made["similarity"] = rates[alike]
  return made


def part_of_key(keys: npt.NDArray[np.uint64], parts: int) -> np.ndarray:
  """Return the range of keys that each key is in; parts are in the order of the keys.

  Within each priority the ranges have about the same number of documents.
  """
  ranks = keys >> np.uint64(60)
  within = (keys >> np.uint64(28)) & np.uint64(0xFFFF_FFFF)
  return (
    ranks * np.uint64(parts) + (within * np.uint64(parts) >> np.uint64(32))
  ).astype(np.int64)


def choose(folder: AnyPath, repeated: npt.NDArray[np.uint64], fixed_rank: int) -> Table:
  """Decide which documents stay, one range of keys after the other.

  Only the edges of one range are in memory, and 32 bytes for each document that goes.

  Args:
    folder: edges by the range of their second document.
    repeated: documents that neither stay nor make others go.
    fixed_rank: priority of documents that always stay.

  Returns:
    Verdicts on the documents that go, sorted by number, without sizes.
  """
  gone = np.zeros(0, VERDICT)
  for name in storage.names(folder):
    table = np.array(load_all(folder / name, EDGE))
    fixed = (table["key2"] >> np.uint64(60)) == fixed_rank
    ignored = np.isin(table["one"], repeated) | np.isin(table["two"], repeated)
    table = table[~fixed & ~ignored]
    table = table[_redirected(table, gone)]
    table = np.sort(table, order=("key2", "two", "key1", "one"))
    now = _chosen(table)
    made = np.zeros(len(now), VERDICT)
    made["number"] = np.array(list(now), np.uint64)
    made["by"] = np.array([by for by, _ in now.values()], np.uint64)
    made["similarity"] = [similarity for _, similarity in now.values()]
    gone = np.sort(np.concatenate([gone, made]), order="number")
  return gone


def _redirected(table: Table, gone: Table) -> np.ndarray:
  """Return which edges count; those to the equal of a document that goes are moved.

  A document with the words of one that goes is as similar to the one that stays.
  """
  if not len(gone):
    return np.ones(len(table), bool)
  place = np.minimum(np.searchsorted(gone["number"], table["one"]), len(gone) - 1)
  goes = gone["number"][place] == table["one"]
  moved = goes & (table["similarity"] == 1.0)
  table["similarity"][moved] = gone["similarity"][place[moved]]
  table["one"][moved] = gone["by"][place[moved]]
  return ~goes | moved


def _chosen(table: Table) -> dict[int, tuple[int, float]]:
  """Return for each document that goes the one that stays, and the similarity."""
  now: dict[int, tuple[int, float]] = {}
  best: tuple[int, float] | None = None
  last = -1
  columns = (table[name].tolist() for name in ("one", "two", "similarity"))
  for one, two, similarity in zip(*columns, strict=True):
    if two != last:
      if best:
        now[last] = best
      last, best = two, None
    if one in now:
      if similarity < 1.0:
        continue
      one, similarity = now[one]
    if best is None or similarity > best[1]:
      best = one, similarity
  if best:
    now[last] = best
  return now


def with_sizes(gone: Table) -> Table:
  """Return verdicts on the documents that go and on those that stay for them.

  Each has the number of documents in its cluster.
  """
  by, counts = np.unique(gone["by"], return_counts=True)
  stays = np.zeros(len(by), VERDICT)
  stays["number"] = stays["by"] = by
  stays["similarity"], stays["size"] = STAYS, counts + 1
  gone["size"] = counts[np.searchsorted(by, gone["by"])] + 1 if len(by) else 0
  return np.concatenate([gone, stays])
