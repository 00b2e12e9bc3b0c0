"""The lock of a folder: a file that its holder renews.

The file `.lock` names the holder: machine, process, and a count that a thread raises
every `BEAT_SECONDS`. A holder is gone when its process is not there any more (on the
same machine), or when the count has not changed for `EXPIRE_SECONDS` (on another one,
which may have vanished). No clock is compared between machines, and nothing depends on
the file system: `flock` on a network mount is held for a vanished machine, and cloud
storage has none. The lock changes hands atomically: by a link locally, by a condition
on the object's generation on cloud storage.
"""

import json
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from phi1_jax import InputError
from phi1_jax.storage import files, paths, retry
from phi1_jax.storage.paths import AnyPath

log = logging.getLogger(__name__)

FILE_NAME = ".lock"
BEAT_SECONDS = 15.0
EXPIRE_SECONDS = 90.0


class HeldError(Exception):
  """A folder is held by a process that may be about to end; trying again may succeed.

  Commands print the message and exit with 75.
  """


class Lease:
  """Exclusive use of a folder by this process; a context manager.

  Args:
    folder: created if missing.
    doing: the work, for the process that is refused: "training".
    flag: the setting that names the folder, for messages.
    wait: wait for a holder to end instead of raising.
    stopping: polled; once it returns True, processes that want the folder learn that
      this one is about to end.
    on_lost: called in a thread if another process has taken the folder over, since
      this one was suspended for longer than `EXPIRE_SECONDS`.

  Attributes:
    token: names this lease; `lease.token(folder)` returns it on every host.
    lost: whether another process has taken the folder over.

  Raises:
    InputError: a running process on this machine holds the folder, or it cannot be
      written.
    HeldError: the holder is stopping, or runs on another machine.
  """

  def __init__(
    self,
    folder: AnyPath,
    doing: str,
    *,
    flag: str = "--workdir",
    wait: bool = False,
    stopping: Callable[[], bool] = lambda: False,
    on_lost: Callable[[], None] = lambda: None,
  ):
    self._folder, self._stopping, self._on_lost = folder, stopping, on_lost
    self.token, self.lost = secrets.token_hex(8), False
    self._content: dict[str, Any] = {
      "host": socket.gethostname(),
      "machine": _machine(),
      "pid": os.getpid(),
      "started": _started(os.getpid()),
      "token": self.token,
      "doing": doing,
      "stopping": False,
      "beat": 0,
    }
    self._closing, self._beaten, shown = threading.Event(), time.monotonic(), ""
    try:
      folder.mkdir(parents=True, exist_ok=True)
      while refusal := self._take(flag):
        if not wait:
          raise refusal
        if str(refusal) != shown:
          shown = str(refusal)
          log.info("waiting: %s", shown)
        time.sleep(1.0)
    except OSError as error:
      reason = error.strerror or retry.one_line(error)
      raise InputError(
        f"{flag}: cannot write to {folder} ({reason}); name another folder"
      ) from None
    self._thread = threading.Thread(target=self._renew, daemon=True)
    self._thread.start()

  def _take(self, flag: str) -> Exception | None:
    """Take the folder, or return why not."""
    found, version = _read(self._folder)
    if found and _is_alive(found, self._folder):
      ends = found["stopping"] or found["machine"] != _machine()
      return (HeldError if ends else InputError)(
        f"{flag}: another process is {found['doing']} in {self._folder}"
        f"{' and about to stop' * found['stopping']} (process {found['pid']} on "
        f"{found['host']}); wait for it, or name another folder"
      )
    if self._write(version):
      return None
    return HeldError(f"{self._folder}: another process took it at the same time")

  def _write(self, version: str | None) -> bool:
    """Write the lock if it is still that version; return whether it was."""
    self._content["beat"] += 1
    write = _write_remote if paths.is_remote(self._folder) else _write_local
    written = write(self._folder, self._content, version)
    if written:
      self._beaten = time.monotonic()
    return written

  def _renew(self) -> None:
    while not self._closing.wait(0.2):
      news = self._stopping() and not self._content["stopping"]
      if not news and time.monotonic() - self._beaten < BEAT_SECONDS:
        continue
      self._content["stopping"] |= news
      try:
        found, version = _read(self._folder)
        # Where there is none, somebody deleted it.
        if (found and found["token"] != self.token) or not self._write(version):
          log.error("%s: another process has taken this folder over", self._folder)
          self.lost = True
          self._on_lost()
          return
      except Exception as error:  # a full disk, an outage: try again
        log.warning("cannot renew %s (%s)", self._folder, retry.one_line(error))
        self._closing.wait(1.0)

  def close(self) -> None:
    """Give the folder back."""
    self._closing.set()
    self._thread.join()
    try:
      if token(self._folder) == self.token:
        (self._folder / FILE_NAME).unlink()
    except Exception as error:  # it will expire; do not hide what ended the work
      log.warning("cannot unlock %s (%s)", self._folder, retry.one_line(error))

  def __enter__(self) -> Self:
    return self

  def __exit__(self, *exception: object) -> None:
    self.close()


def is_held(folder: AnyPath) -> bool:
  """Return whether a process holds the folder; may wait for `EXPIRE_SECONDS`."""
  found, _ = _read(folder)
  return bool(found) and _is_alive(found, folder)


def token(folder: AnyPath) -> str | None:
  """Return the token of the lease on a folder: the same on all hosts that share it."""
  return _read(folder)[0].get("token")


def is_running(pid: int) -> bool:
  """Return whether a process of this machine runs."""
  return _started(pid) is not None


def _read(folder: AnyPath) -> tuple[dict[str, Any], str | None]:
  """Return the content of a folder's lock, and its version; None without a lock.

  The version is the object's generation on cloud storage, and the text on a disk. An
  empty, torn or foreign file has a version and no content.
  """
  file, version = folder / FILE_NAME, None
  try:
    if paths.is_remote(file):
      system, bucket, name = paths.object_of(file)
      found = retry.retrying(lambda: system.info(f"{bucket}/{name}"), f"reading {file}")
      version = str(found["generation"])
    text = files.read_bytes(file).decode(errors="replace")
  except FileNotFoundError:
    return {}, None
  try:
    content = json.loads(text)
    return (content if "machine" in content else {}), version or text
  except (TypeError, ValueError):  # such as a torn one
    return {}, version or text


def _write_local(folder: AnyPath, content: dict[str, Any], version: str | None) -> bool:
  file, name = folder / FILE_NAME, content["token"]
  new, old = (folder / f"{FILE_NAME}.{name}{end}" for end in ("", ".old"))
  new.write_text(json.dumps(content))
  try:
    if version is not None and name in version:  # a renewal
      os.replace(new, file)
      return True
    if version is not None:
      # Only one process can move the old lock away, and then only that lock.
      os.rename(file, old)
      if files.read_bytes(old).decode(errors="replace") != version:
        _link(old, file)
        return False
    _link(new, file)
    return True
  except (FileNotFoundError, FileExistsError):
    return False
  finally:
    new.unlink(missing_ok=True)
    old.unlink(missing_ok=True)


def _link(source: AnyPath, target: AnyPath) -> None:
  """Give a file a second name; a copy where there are no links, as on Google Drive.

  Raises:
    FileExistsError: there is such a file.
  """
  try:
    os.link(source, target)
  except (FileNotFoundError, FileExistsError):
    raise
  except OSError:
    with Path(target).open("xb") as file:
      file.write(source.read_bytes())


def _write_remote(
  folder: AnyPath, content: dict[str, Any], version: str | None
) -> bool:
  system, bucket, name = paths.object_of(folder / FILE_NAME)
  url = f"{system._location}/upload/storage/v1/b/{bucket}/o"
  query = {"uploadType": "media", "name": name, "ifGenerationMatch": version or "0"}
  data = json.dumps(content).encode()
  try:
    retry.retrying(
      lambda: system.call("POST", url, data=data, **query), f"locking {folder}"
    )
    return True
  except FileExistsError:  # 412: another generation
    # A request that was repeated after a broken connection meets its own result.
    return _read(folder)[0] == content


def _is_alive(found: dict[str, Any], folder: AnyPath) -> bool:
  if found["machine"] == _machine():
    return _started(found["pid"]) == found["started"]
  log.warning(
    "%s is held by process %d on %s; waiting up to %g s to see whether it is alive",
    *(folder, found["pid"], found["host"], EXPIRE_SECONDS),
  )
  deadline = time.monotonic() + EXPIRE_SECONDS
  while time.monotonic() < deadline:
    time.sleep(1.0)
    now, _ = _read(folder)
    if not now:
      return False
    if (now["token"], now["beat"]) != (found["token"], found["beat"]):
      return True
  return False


def _machine() -> str:
  """Return a name for everything that shares this process's process numbers.

  Containers of one machine may share its name but not its process numbers, and one
  that is started again may have the same numbers for other processes.
  """
  try:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{socket.gethostname()} {boot} {os.readlink('/proc/self/ns/pid')}"
  except OSError:  # not Linux
    return socket.gethostname()


def _started(pid: int) -> str | None:
  """Return when a process was started, in units of its kernel; None if it is gone."""
  try:
    if Path("/proc/self/stat").exists():
      fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
      return None if fields[0] in "ZX" else fields[19]  # see proc(5)
    os.kill(pid, 0)  # not Linux
  except (FileNotFoundError, ProcessLookupError):
    return None
  except PermissionError:  # another user's
    pass
  return "running"
