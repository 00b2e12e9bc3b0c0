"""The journal: an SQLite file with every call and every raw reply.

A row of `calls` is committed before its request is sent, and a reply before the run
sees it. Only the sender writes, while it holds the lease on the folder; a run reads
what is committed.
"""

import asyncio
import contextlib
import dataclasses
import json
import os
import re
import sqlite3
import time
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from phi1_jax import InputError
from phi1_jax.llm import reply
from phi1_jax.llm.budget import Budget
from phi1_jax.llm.reply import Reply

FILE_NAME = "journal.sqlite"
_VERSION = 1
OLD = "sent.jsonl"  # a file of a journal of version 0.1
_MOUNTS = Path("/proc/mounts")
# File systems whose shared memory SQLite's write-ahead log cannot rely on.
_NETWORK = ("nfs", "nfs4", "lustre", "cifs", "smb3", "smbfs", "ceph", "beegfs", "gpfs")
_LOCAL_FUSE = ("fuseblk", "fuse.fuse-overlayfs")  # a disk's, a container's
# `request` is `Request.content` as JSON. `outcome` is "reply", "released" (not billed)
# or "doubtful" (perhaps billed). Without an outcome, a call of an open batch is in
# progress; any other is doubtful if no sender is at work. Money is in picodollars.
SCHEMA = """
CREATE TABLE IF NOT EXISTS batches (
  name TEXT PRIMARY KEY, id TEXT, endpoint TEXT, closed INTEGER NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS calls (
  number INTEGER PRIMARY KEY, key TEXT NOT NULL, batch TEXT REFERENCES batches,
  sent REAL, ended REAL, outcome TEXT, status INTEGER, reason TEXT,
  reserve INTEGER NOT NULL, cost INTEGER, price TEXT,
  prompt_tokens INTEGER, completion_tokens INTEGER,
  request TEXT, raw_crc32 INTEGER, raw BLOB);
CREATE INDEX IF NOT EXISTS replies ON calls (key, number) WHERE outcome = 'reply';
CREATE INDEX IF NOT EXISTS unsettled ON calls (batch) WHERE outcome IS NULL;
PRAGMA user_version = 1
"""
_BUDGET = """
SELECT
  coalesce(sum(cost) FILTER (WHERE outcome = 'reply'), 0),
  coalesce(sum(reserve) FILTER (WHERE doubtful), 0), count(*) FILTER (WHERE doubtful),
  coalesce(sum(reserve) FILTER (WHERE outcome IS NULL AND NOT doubtful), 0)
FROM (SELECT *, outcome IS 'doubtful' OR outcome IS NULL AND NOT EXISTS (
  SELECT 1 FROM batches WHERE name = batch AND NOT closed) AS doubtful FROM calls)
"""
Statement = tuple[str, Sequence[Any]]


@dataclasses.dataclass(frozen=True)
class Call:
  """A request to be sent once."""

  key: str
  reserve: int  # picodollars of its worst case
  request: str = ""  # `Request.content` as JSON; unknown of a call of an earlier run
  tokens: int = 0  # estimate for the rate limiter
  number: int = -1  # in the journal, once the money is reserved
  batch: str | None = None  # its batch's name

  @property
  def body(self) -> dict[str, Any]:
    """The body to send."""
    return json.loads(self.request)["body"]


@dataclasses.dataclass
class OpenBatch:
  """A batch whose results are not all in the journal."""

  name: str  # ours; also in the batch's metadata
  id: str | None  # the server's; None if the sender ended before it was known
  calls: dict[str, Call]  # by key


class Journal:
  """Reads the journal in a folder, and creates it where there is none.

  Raises:
    InputError: not a journal, a damaged one, or a folder that cannot be written or is
      on a network's file system.
  """

  def __init__(self, folder: Path):
    self.path = folder / FILE_NAME
    try:
      folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
      raise InputError(
        f"Llm.journal: {folder} is not a folder and cannot be created "
        f"({error.strerror}); name another"
      ) from None
    if kind := _network(folder):
      raise InputError(
        f"Llm.journal: got {folder} on {kind}, where SQLite may damage its files; "
        "name a folder on a local disk"
      )
    if (folder / OLD).exists() and not self.path.exists():
      raise InputError(
        f"Llm.journal: {folder} has the journal of version 0.1; convert it: python -m "
        f"phi1_jax.llm.import_jsonl {folder} --base_url=URL"
      )
    with self._naming():
      self._database = connect(self.path)
      version = self._database.execute("PRAGMA user_version").fetchone()[0]
      if version == 0:  # of several processes that create it, the first does
        self._database.executescript(f"BEGIN IMMEDIATE; {SCHEMA}; COMMIT")
      elif version != _VERSION:
        raise sqlite3.DatabaseError(f"got version {version}, expected {_VERSION}")
    query = "SELECT request FROM calls WHERE outcome = 'reply' ORDER BY number LIMIT 1"
    for (text,) in self._select(query):
      if "endpoint" not in json.loads(text):
        raise InputError(
          f"Llm.journal: {self.path} was written before keys named the endpoint, so "
          "its replies would be paid again; name another folder"
        )

  @contextlib.contextmanager
  def _naming(self) -> Iterator[None]:
    """Turn errors of SQLite into InputErrors."""
    try:
      yield
    except sqlite3.Error as error:
      raise InputError(
        f"{self.path}: not a journal that can be used ({error})\nput it back from a "
        "copy, or name another folder as Llm.journal"
      ) from None

  def _select(self, query: str, *values: Any) -> list[Any]:
    with self._naming():
      return self._database.execute(query, values).fetchall()

  def has(self, key: str) -> bool:
    """Return whether a request has a reply."""
    query = "SELECT 1 FROM calls WHERE key = ? AND outcome = 'reply' LIMIT 1"
    return bool(self._select(query, key))

  def read(self, key: str) -> Reply | None:
    """Return the reply to a request, if there is one.

    Raises:
      InputError: the file was damaged.
    """
    query = (
      "SELECT raw, raw_crc32, batch, cost, number FROM calls "
      "WHERE key = ? AND outcome = 'reply' ORDER BY number LIMIT 1"
    )
    for raw, checksum, batch, cost, number in self._select(query, key):
      if zlib.crc32(raw) != checksum:
        raise InputError(
          f"{self.path}: the reply of call {number} is damaged; put the file back from "
          "a copy, or delete that row to pay for its request again"
        )
      return reply.read(key, reply.load(raw, bool(batch)), cost)
    return None

  def budget(self, cap: int) -> Budget:
    """Return the money; calls in flight of a running sender are doubtful here."""
    return Budget(cap, *self._select(_BUDGET)[0])

  def replies(self) -> list[str]:
    """Return the keys of all replies, in the order of their calls."""
    query = "SELECT key FROM calls WHERE outcome = 'reply' ORDER BY number"
    return [key for (key,) in self._select(query)]

  def mean_completion(self) -> float | None:
    """Return the mean tokens of the replies; None if no reply reports them."""
    query = "SELECT avg(completion_tokens) FROM calls WHERE outcome = 'reply'"
    return self._select(query)[0][0]

  def open_batches(self, endpoint: str | None = None) -> list[OpenBatch]:
    """Return the open batches, or only those of an endpoint or an unknown one."""
    found: dict[str, OpenBatch] = {}
    query = (
      "SELECT name, id, number, key, reserve FROM batches LEFT JOIN calls "
      "ON batch = name AND outcome IS NULL WHERE NOT closed "
      "AND (? IS NULL OR coalesce(endpoint, ?) = ?) ORDER BY number"
    )
    for name, id_, number, key, reserve in self._select(query, *[endpoint] * 3):
      batch = found.setdefault(name, OpenBatch(name, id_, {}))
      if key is not None:
        batch.calls[key] = Call(key, reserve, number=number, batch=name)
    return list(found.values())

  def next_call(self) -> int:
    """Return the number of the next call."""
    return self._select("SELECT coalesce(max(number), -1) + 1 FROM calls")[0][0]

  def close(self) -> None:
    """Close the file."""
    self._database.close()


class Writer:
  """Writes a journal, for the process that holds the lease on its folder.

  Args:
    path: of the file, which exists.
    spare: bytes of disk to keep back, for the replies in flight when it is full.

  Attributes:
    full: whether the disk was full, so that nothing more may be sent.

  Raises:
    OSError: the disk is full or does not work.
  """

  def __init__(self, path: Path, spare: int):
    self._spare, self.full = path.with_name("spare"), False
    with self._spare.open("wb") as file:
      file.write(os.urandom(spare))  # which no file system compresses
      os.fsync(file.fileno())
    self._database = connect(path)
    self._waiting: list[Statement] = []
    self._lock = asyncio.Lock()
    self._failed: Exception | None = None

  async def write(self, *statements: Statement) -> None:
    """Commit statements, together with those that other tasks wait for.

    Raises:
      Exception: of SQLite, now or earlier; from then on nothing is written.
    """
    self._waiting += statements
    async with self._lock:  # another task may have committed these meanwhile
      group, self._waiting = self._waiting, []
      if group and not self._failed:
        try:
          await asyncio.to_thread(self._commit, group)
        except Exception as error:
          self._failed = error
    if self._failed:
      raise self._failed

  def _commit(self, statements: Sequence[Statement]) -> None:
    """Commit all statements or none."""
    try:
      with self._database:
        self._database.execute("BEGIN IMMEDIATE")
        for statement, values in statements:
          self._database.execute(statement, values)
    except sqlite3.Error as error:
      code = getattr(error, "sqlite_errorcode", 0) & 0xFF
      if self.full or code not in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
        raise
      self.full = True
      with contextlib.suppress(OSError):
        self._spare.unlink(missing_ok=True)
      self._commit(statements)

  def close(self) -> None:
    """Close the file."""
    self._database.close()
    with contextlib.suppress(OSError):
      self._spare.unlink(missing_ok=True)


def _network(folder: Path) -> str | None:
  """Return the type of the file system of a folder if it is a network's (Linux)."""
  if not _MOUNTS.exists():
    return None
  kinds: dict[Path, str] = {}  # of the last that was mounted at a place
  for line in _MOUNTS.read_text(errors="surrogateescape").splitlines():
    _, place, kind = line.split(" ")[:3]
    escaped = re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), place)
    kinds[Path(escaped)] = kind
  folder = folder.resolve()
  kind = next((kinds[p] for p in (folder, *folder.parents) if p in kinds), "")
  fuse = kind.startswith("fuse") and kind not in _LOCAL_FUSE
  return kind if fuse or kind in _NETWORK else None


def insert(table: str, **columns: Any) -> Statement:
  """Return the statement that adds a row."""
  names, marks = ", ".join(columns), ", ".join("?" * len(columns))
  return f"INSERT INTO {table} ({names}) VALUES ({marks})", tuple(columns.values())


def sent(call: Call) -> Statement:
  """Return the statement that notes a call that is about to be sent."""
  columns = {**dataclasses.asdict(call), "sent": time.time()}
  del columns["tokens"]
  return insert("calls", **columns)


def settle(number: int, outcome: str, **columns: Any) -> Statement:
  """Return the statement that notes the outcome of a call."""
  columns |= {"outcome": outcome, "ended": time.time()}
  if "raw" in columns:
    columns["raw_crc32"] = zlib.crc32(columns["raw"])
  if "reason" in columns:  # half of a surrogate pair is not UTF-8
    columns["reason"] = columns["reason"].encode(errors="backslashreplace").decode()
  names = ", ".join(f"{name} = ?" for name in columns)
  return f"UPDATE calls SET {names} WHERE number = ?", (*columns.values(), number)


def connect(path: Path) -> sqlite3.Connection:
  """Open a journal's file for writing; a commit is on the disk when it returns."""
  database = sqlite3.connect(
    path, timeout=60.0, isolation_level=None, check_same_thread=False
  )
  while True:
    try:
      database.execute("PRAGMA journal_mode = WAL")
      database.execute("PRAGMA synchronous = FULL")
      return database
    except sqlite3.OperationalError as error:
      if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
        raise
      time.sleep(0.05)  # another process creates the file
