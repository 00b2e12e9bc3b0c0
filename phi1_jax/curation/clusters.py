"""Near-duplicates over integers: buckets, pairs, edges, and the documents that stay.

All tables are numpy arrays in files, cut by a hash or by the documents' keys, and a
task holds one part of one table. A document is named by its number, task << 32 | row,
and sorts by its key.

A document goes only if it is similar to one that stays; similarity to one that goes is
no reason. So no chain of small steps removes a whole source.
"""

import collections
import functools
import io
import itertools
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from phi1_jax import storage
from phi1_jax.storage import AnyPath
from phi1_jax.text import shingles

Table = npt.NDArray[np.void]
# A document in a bucket; `size` is the number of its shingles, 0 in buckets of equals.
MEMBER = np.dtype([("bucket", "u8"), ("key", "u8"), ("number", "u8"), ("size", "u4")])
# The second document comes after the first in the order of the keys.
PAIR = np.dtype([("key1", "u8"), ("one", "u8"), ("key2", "u8"), ("two", "u8")])
EDGE = np.dtype([*PAIR.descr, ("similarity", "f8")])
# Verdict on a document; `by` is the one that stays, and the similarity of that is -1;
# `size` is the number of different documents in the cluster.
VERDICT = np.dtype(
  [("number", "u8"), ("by", "u8"), ("similarity", "f8"), ("size", "u4")]
)
STAYS = -1.0
AGAINST = 0  # priority, in the four highest bits of a key, of documents that stay
_ROWS = 32  # bits of a row in a document's number


def number(task: int, row: int) -> int:
  """Return the number of a document."""
  return task << _ROWS | row


def place(value: int) -> tuple[int, int]:
  """Return the task that read a document, and its row there."""
  return int(value) >> _ROWS, int(value) & ((1 << _ROWS) - 1)


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
  """Write the rows of a table to the folders of their parts."""
  order = np.argsort(parts, kind="stable")
  table, parts = table[order], parts[order].astype(np.int64)
  starts = np.flatnonzero(np.diff(parts, prepend=-1))
  for start, rows in zip(starts, np.split(table, starts[1:]), strict=False):
    save(folder / f"{int(parts[start]):05d}" / f"{name}.npy", rows)


def pairs(members: Table, similarity: float, most: int) -> tuple[Table, int]:
  """Return the pairs to compare within buckets, and how many were left out.

  Args:
    members: a part of all members, with whole buckets.
    similarity: sets whose sizes differ by more than this ratio are not that similar.
    most: a member is compared with this many of its bucket's first, so that the work
      grows linearly with the bucket; equals with the first.
  """
  members = np.sort(members, order=("bucket", "key", "number"))
  if not len(members):
    return np.zeros(0, PAIR), 0
  bucket, equal = members["bucket"], members["size"] == 0
  new = np.diff(bucket, prepend=~bucket[:1]) != 0
  first = np.maximum.accumulate(np.where(new, np.arange(len(members)), 0))
  rank = np.arange(len(members)) - first  # in the bucket
  found = [np.zeros(0, PAIR)]
  for step in range(min(most, int(rank.max()))):
    late = np.flatnonzero((rank > step) & (~equal | (step == 0)))
    early = first[late] + step
    sizes = np.sort([members["size"][late], members["size"][early]], axis=0)
    alike = sizes[0] >= similarity * sizes[1]
    early, late = early[alike], late[alike]
    table = np.zeros(len(late), PAIR)
    table["key1"], table["one"] = members["key"][early], members["number"][early]
    table["key2"], table["two"] = members["key"][late], members["number"][late]
    found.append(table)
  left = np.maximum(0, rank[~equal] - most).sum()
  return np.unique(np.concatenate(found)), int(left)


def edges(table: Table, folder: AnyPath, similarity: float) -> Table:
  """Return the pairs whose true Jaccard similarity is large enough.

  Args:
    table: pairs, each once.
    folder: shingles: `TASK.npy` (hashes) and `TASK-ends.npy` (their ends, by row). Two
      documents without any are equal.
    similarity: the least.
  """

  @functools.lru_cache(maxsize=64)
  def of_task(task: int) -> tuple[np.ndarray, np.ndarray]:
    hashes, ends = (load(folder / f"{task:05d}{end}.npy") for end in ("", "-ends"))
    return hashes, np.asarray(ends)

  @functools.lru_cache(maxsize=1024)
  def of(value: int) -> np.ndarray:
    task, row = place(value)
    hashes, ends = of_task(task)
    return np.asarray(hashes[ends[row] : ends[row + 1]])

  table = np.sort(table, order=("one", "two"))
  rates = np.zeros(len(table))
  columns = table["one"].tolist(), table["two"].tolist()
  for at, (one, two) in enumerate(zip(*columns, strict=True)):
    first, second = of(one), of(two)
    rates[at] = shingles.jaccard(first, second) if len(first) or len(second) else 1.0
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
  count = np.uint64(parts)
  within = (keys >> np.uint64(28)) & np.uint64(0xFFFF_FFFF)
  return (keys >> np.uint64(60)) * count + (within * count >> np.uint64(32))


def choose(folder: AnyPath, id_of: Callable[[int], str]) -> Table:
  """Decide which documents stay, one range of keys after the other.

  Only the edges of one range are in memory, and some 300 bytes for each document that
  goes.

  Args:
    folder: edges, cut by the range of `key2`.
    id_of: returns a document's id by its number.

  Returns:
    Verdicts on the documents that go, and on those that stay for them. A document that
    was read twice counts once in `size`.
  """
  # Number of a document that goes -> its key, and number, key and similarity of the
  # document that stays.
  gone: dict[int, tuple[int, int, int, float]] = {}
  for name in storage.names(folder):
    table = load_all(folder / name, EDGE)
    table = table[(table["key2"] >> np.uint64(60)) != AGAINST]
    rows = np.sort(table, order=("key2", "two", "key1", "one")).tolist()
    for two, edges in itertools.groupby(rows, key=lambda row: row[3]):
      best = None
      for key1, one, key2, _, similarity in edges:
        if one in gone:
          if similarity < 1.0:
            continue
          # A document with the words of one that goes is as similar to its `by`.
          _, one, key1, similarity = gone[one]
        if best is None or similarity > best[3]:
          best = key2, one, key1, similarity
      if best:
        gone[two] = best
  clusters: dict[int, list[tuple[int, int]]] = {}
  for number, (key, by, by_key, _) in gone.items():
    clusters.setdefault(by, [(by, by_key)]).append((number, key))
  verdicts = []
  for by, members in clusters.items():
    keys = {n: key & (1 << 60) - 1 for n, key in members}  # without the priority
    seen = collections.Counter(keys.values())
    # Ids may begin alike, so equal keys do not tell.
    different = {(k, id_of(n) if seen[k] > 1 else "") for n, k in keys.items()}
    for n in keys:
      similarity = gone[n][3] if n in gone else STAYS
      verdicts.append((n, by, similarity, len(different)))
  return np.array(verdicts, VERDICT)
