"""Near-duplicates over integers: buckets, pairs, edges, and the documents that stay.

All tables are numpy arrays in files, cut by a hash or by the documents' keys, and a
task holds one part of one table. A document is named by its number, task << 32 | row,
and sorts by its key.

A document goes only if it is similar to one that stays; similarity to one that goes is
no reason. So no chain of small steps removes a whole source.
"""

import functools
import io
from collections.abc import Callable
from typing import Any

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
_NAMES = ("number", "key", "by", "by_key", "similarity", "size")
VERDICT = np.dtype([(n, "f8" if n == "similarity" else "u8") for n in _NAMES])
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

  Only the edges of one range are in memory, and 48 bytes for each document that goes.

  Args:
    folder: edges, cut by the range of `key2`.
    id_of: returns a document's id by its number.

  Returns:
    Verdicts on the documents that go, and on those that stay for them, each with the
    number of documents in its cluster. A document that was read twice counts once.
  """
  gone = np.zeros(0, VERDICT)
  for name in storage.names(folder):
    table = load_all(folder / name, EDGE)
    table = table[(table["key2"] >> np.uint64(60)) != AGAINST]
    table = np.sort(table, order=("key2", "two", "key1", "one"))
    now = _chosen(table[_redirected(table, gone)])
    gone = np.sort(np.concatenate([gone, now]), order="number")
  by, first = np.unique(gone["by"], return_index=True)
  stays = np.zeros(len(by), VERDICT)
  stays["number"] = stays["by"] = by
  stays["key"] = stays["by_key"] = gone["by_key"][first]
  stays["similarity"] = STAYS
  found = np.concatenate([gone, stays])
  sizes = _sizes(found, id_of)
  found["size"] = sizes[np.searchsorted(by, found["by"])]
  return found


def _sizes(members: Table, id_of: Callable[[int], str]) -> np.ndarray:
  """Return how many different documents each cluster has, in the order of `by`."""
  keys = members["key"] & np.uint64((1 << 60) - 1)  # without the priority
  order = np.lexsort((keys, members["by"]))
  by, keys, numbers = members["by"][order], keys[order], members["number"][order]
  alike = (by[1:] == by[:-1]) & (keys[1:] == keys[:-1])
  seen: set[tuple[int, str]] = set()
  again = np.zeros(len(by), bool)
  # Ids may begin alike, so keys do not tell.
  for at in np.flatnonzero(np.append(alike, False) | np.insert(alike, 0, False)):
    name = int(by[at]), id_of(int(numbers[at]))
    again[at] = name in seen
    seen.add(name)
  return np.unique(by[~again], return_counts=True)[1]


def _redirected(table: Table, gone: Table) -> np.ndarray:
  """Return which edges count; those to the equal of a document that goes are moved.

  A document with the words of one that goes is as similar to the one that stays.
  """
  if not len(gone):
    return np.ones(len(table), bool)
  at = np.minimum(np.searchsorted(gone["number"], table["one"]), len(gone) - 1)
  goes = gone["number"][at] == table["one"]
  moved = goes & (table["similarity"] == 1.0)
  for name, value in (("one", "by"), ("key1", "by_key"), ("similarity", "similarity")):
    table[name][moved] = gone[value][at[moved]]
  return ~goes | moved


def _chosen(table: Table) -> Table:
  """Return verdicts on the documents that go, from edges sorted by `two`."""
  now: dict[int, tuple[Any, ...]] = {}
  best: dict[int, tuple[Any, ...]] = {}  # of the document that is being decided
  for key1, one, key2, two, similarity in table.tolist():
    if two not in best:
      now |= best
      best = {}
    if one in now:
      if similarity < 1.0:
        continue
      _, one, key1, similarity = now[one]
    if two not in best or similarity > best[two][3]:
      best = {two: (key2, one, key1, similarity)}
  rows = [(two, *verdict, 0) for two, verdict in (now | best).items()]
  return np.array(rows, VERDICT)
