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
# A document in a bucket; `size` is the number of its shingles, 0 in buckets of equals.
MEMBER = np.dtype([("bucket", "u8"), ("key", "u8"), ("number", "u8"), ("size", "u4")])
# The second document comes after the first in the order of the keys.
PAIR = np.dtype([("key1", "u8"), ("one", "u8"), ("key2", "u8"), ("two", "u8")])
EDGE = np.dtype([*PAIR.descr, ("similarity", "f8")])
# Verdict on a document; `by` is the one that stays, and the similarity of that is -1.
VERDICT = np.dtype(
  [("number", "u8"), ("by", "u8"), ("similarity", "f8"), ("size", "u8")]
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


def choose(folder: AnyPath) -> Table:
  """Decide which documents stay, one range of keys after the other.

  Only the edges of one range are in memory, and 32 bytes for each document that goes.

  Returns:
    Verdicts on the documents that go, and on those that stay for them, each with the
    number of documents in its cluster.
  """
  gone = np.zeros(0, VERDICT)
  for name in storage.names(folder):
    table = load_all(folder / name, EDGE)
    table = table[(table["key2"] >> np.uint64(60)) != AGAINST]
    table = table[_redirected(table, gone)]
    now = _chosen(np.sort(table, order=("key2", "two", "key1", "one")))
    made = np.array([(two, *best, 0) for two, best in now.items()], VERDICT)
    gone = np.sort(np.concatenate([gone, made]), order="number")
  by, counts = np.unique(gone["by"], return_counts=True)
  stays = np.zeros(len(by), VERDICT)
  stays["number"] = stays["by"] = by
  stays["similarity"], stays["size"] = STAYS, counts + 1
  gone["size"] = stays["size"][np.searchsorted(by, gone["by"])]
  return np.concatenate([gone, stays])


def _redirected(table: Table, gone: Table) -> np.ndarray:
  """Return which edges count; those to the equal of a document that goes are moved.

  A document with the words of one that goes is as similar to the one that stays.
  """
  if not len(gone):
    return np.ones(len(table), bool)
  at = np.minimum(np.searchsorted(gone["number"], table["one"]), len(gone) - 1)
  goes = gone["number"][at] == table["one"]
  moved = goes & (table["similarity"] == 1.0)
  table["similarity"][moved] = gone["similarity"][at[moved]]
  table["one"][moved] = gone["by"][at[moved]]
  return ~goes | moved


def _chosen(table: Table) -> dict[int, tuple[int, float]]:
  """Return for each document that goes the one that stays, and the similarity."""
  now: dict[int, tuple[int, float]] = {}
  best: dict[int, tuple[int, float]] = {}  # of the document that is being decided
  columns = (table[name].tolist() for name in ("one", "two", "similarity"))
  for one, two, similarity in zip(*columns, strict=True):
    if two not in best:
      now |= best
      best = {}
    if one in now:
      if similarity < 1.0:
        continue
      one, similarity = now[one]
    if two not in best or similarity > best[two][1]:
      best = {two: (one, similarity)}
  return now | best
