"""The journal as a run sees it: which replies are there, and what was spent.

The folder holds replies.jsonl (each raw reply that was paid for, with its request),
sent.jsonl (each call, noted before it is sent), failures.jsonl (each call that brought
no reply; never looked at for one), batches.jsonl (the states of batches) and a lock.
Only the courier writes, and only what is on the disk is read: a reply is parsed from
the journal whether it came a moment or a year ago.
"""

import base64
import dataclasses
import fcntl
import os
import re
import time
from collections.abc import Callable
from pathlib import Path

from phi1_jax import InputError
from phi1_jax.llm import lines, reply
from phi1_jax.llm.reply import Reply

REPLIES, SENT, FAILURES, BATCHES = "replies", "sent", "failures", "batches"
KINDS = (REPLIES, SENT, FAILURES, BATCHES)
_HEAD = re.compile(
  rb'"key": "([0-9a-f]{64})", "call": (\d+), "picodollars": (\d+), '
  rb'"completion_tokens": (\d+|null), '
)


@dataclasses.dataclass
class OpenBatch:
  """A batch whose results are not all in the journal.

  Attributes:
    name: ours; also in the batch's metadata, and in the name of its input file.
    id: the server's; None if the run ended before it was known.
    calls: by key, the call's number and the picodollars reserved for it.
  """

  name: str
  id: str | None
  calls: dict[str, tuple[int, int]]


@dataclasses.dataclass
class Account:
  """What the journal says of money, in picodollars.

  Attributes:
    spent: the cost of all replies.
    doubtful: the worst case of the calls that were sent and never heard of again.
    doubtful_calls: how many those are.
    next_call: the number of the next call.
    batches: those still open; their reserves are not in `doubtful`.
  """

  spent: int = 0
  doubtful: int = 0
  doubtful_calls: int = 0
  next_call: int = 0
  batches: list[OpenBatch] = dataclasses.field(default_factory=list)


class Journal:
  """The replies of one folder, locked until closed.

  Args:
    folder: begun if it is not there. A folder that cannot be written to is read.
    say: told once if another process has to be waited for.

  Attributes:
    account: what was spent when it was opened.
    lock: file descriptor of the lock; None if the folder is only read.
    paid_twice: replies to a request that already had one.

  Raises:
    InputError: it is no journal, or a line of it is damaged.
  """

  def __init__(self, folder: Path, say: Callable[[str], None] = lambda text: None):
    self.folder = folder
    self.lock = _lock(folder, say)
    try:
      self._places: dict[str, int] = {}
      self.paid_twice = self._completions = self._completion_tokens = 0
      self.account = Account()
      calls = self._scan_replies()
      self._scan_calls(calls)
      if self.lock is not None:
        for kind in KINDS:
          lines.prepare(self.path(kind), kind)
      replies = self.path(REPLIES)
      self._file = replies.open("rb") if replies.exists() else None
    except BaseException as error:
      self._unlock()
      if isinstance(error, OSError):
        raise InputError(f"{folder}: cannot be written ({error.strerror})") from None
      raise

  def path(self, kind: str) -> Path:
    """Where the file of a kind is."""
    return self.folder / f"{kind}.jsonl"

  def __contains__(self, key: str) -> bool:
    return key in self._places

  def __len__(self) -> int:
    return len(self._places)

  def add(self, key: str, offset: int, completion_tokens: int | None) -> None:
    """Takes note of a reply that has been written at an offset."""
    self._places[key] = offset
    if completion_tokens is not None:
      self._completions += 1
      self._completion_tokens += completion_tokens

  def mean_completion(self) -> float | None:
    """Mean tokens of the replies so far; None if none reports them."""
    if not self._completions:
      return None
    return self._completion_tokens / self._completions

  def read(self, key: str) -> Reply:
    """Reads a reply from the disk.

    Raises:
      UnreadableError: the server's raw reply is no completion.
      InputError: the line was damaged since the journal was opened.
    """
    assert self._file is not None
    self._file.seek(self._places[key])
    line = self._file.readline()
    rest = lines.unseal(line)
    if rest is None:
      self._file.seek(0)
      number = self._file.read(self._places[key]).count(b"\n") + 1
      raise lines.damaged(self.path(REPLIES), number, line)
    row = lines.row(rest)
    raw = row["raw"] if "raw" in row else base64.b64decode(row["raw_base64"])
    content = reply.load(raw)
    if row["batch"] is not None:  # one line of the batch's output file
      content = reply.completion_of(content)
    return reply.read(key, content, row["picodollars"])

  def close(self) -> None:
    """Lets the next run in, unless a courier is still at work."""
    if self._file is not None:
      self._file.close()
    self._unlock()

  def _unlock(self) -> None:
    if self.lock is not None:
      os.close(self.lock)  # the courier holds the same lock until it ends
      self.lock = None

  def _scan_replies(self) -> set[int]:
    """Indexes the replies without parsing them; the numbers of their calls."""
    calls: set[int] = set()
    path = self.path(REPLIES)
    for number, offset, rest in lines.scan(path, REPLIES):
      head = _HEAD.match(rest)
      if head is None:
        raise lines.damaged(path, number, rest)
      key = head[1].decode()
      self.account.spent += int(head[3])
      calls.add(int(head[2]))
      if key in self._places:
        self.paid_twice += 1
      else:
        tokens = None if head[4] == b"null" else int(head[4])
        self.add(key, offset, tokens)
    return calls

  def _scan_calls(self, settled: set[int]) -> None:
    """What became of the calls without a reply; holds on to none of the others."""
    greatest = max(settled, default=-1)
    for _, _, rest in lines.scan(self.path(FAILURES), FAILURES):
      row = lines.row(rest)
      greatest = max(greatest, row["call"])
      if row["released"]:
        settled.add(row["call"])
    batches = self._scan_batches()
    for _, _, rest in lines.scan(self.path(SENT), SENT):
      row = lines.row(rest)
      number = row["call"]
      greatest = max(greatest, number)
      if number in settled:
        continue
      if row["batch"] in batches:
        batches[row["batch"]].calls[row["key"]] = (number, row["reserve"])
      else:
        self.account.doubtful += row["reserve"]
        self.account.doubtful_calls += 1
    self.account.next_call = greatest + 1
    self.account.batches = list(batches.values())

  def _scan_batches(self) -> dict[str, OpenBatch]:
    """The batches that are still open, by name, without their calls."""
    batches: dict[str, OpenBatch] = {}
    for _, _, rest in lines.scan(self.path(BATCHES), BATCHES):
      row = lines.row(rest)
      if row["state"] == "closed":
        batches.pop(row["batch"], None)
      else:
        batches[row["batch"]] = OpenBatch(row["batch"], row["id"], {})
    return batches


def _lock(folder: Path, say: Callable[[str], None]) -> int | None:
  """Waits until no other process uses the journal."""
  try:
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
  except (FileExistsError, NotADirectoryError):
    raise InputError(f"Llm.journal: {folder} is no folder; name another") from None
  except OSError as error:
    if folder.is_dir():
      return None
    raise InputError(
      f"Llm.journal: {folder} cannot be begun ({error.strerror})"
    ) from None
  said = False
  while True:
    try:
      fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
      break
    except BlockingIOError:
      if not said:
        say(_in_use(folder, os.pread(lock, 20, 0)))
        said = True
      time.sleep(0.05)
    except OSError as error:
      os.close(lock)
      raise InputError(f"{folder}: cannot be locked ({error.strerror})") from None
  os.ftruncate(lock, 0)
  os.pwrite(lock, str(os.getpid()).encode(), 0)
  return lock


def _in_use(folder: Path, owner: bytes) -> str:
  try:
    os.kill(int(owner), 0)
  except (ValueError, ProcessLookupError):
    return (
      f"{folder}: waiting for the requests that an earlier run left under way, so that "
      "their replies are not paid for again"
    )
  except PermissionError:
    pass
  return f"{folder}: waiting for process {owner.decode()}, which uses this journal"
