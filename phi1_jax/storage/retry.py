"""The retry policy for reads and writes that fail for a passing reason."""

import errno
import logging
import os
import random
import re
import time
from collections.abc import Callable
from typing import TypeVar

log = logging.getLogger(__name__)

T = TypeVar("T")

# Cloud storage and network mounts recover within minutes; a run that fails earlier
# would lose the steps since its last checkpoint.
RETRY_SECONDS = float(os.environ.get("PHI1_JAX_RETRY_SECONDS", "300"))
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0

_ERRNO = {
  *(errno.EBUSY, errno.EHOSTUNREACH, errno.EIO, errno.ENETDOWN, errno.ENETUNREACH),
  *(errno.ENOTCONN, errno.ESTALE),
}
# Python's types for the other numbers, and by name those of network libraries for a
# broken connection, an answer cut short, and bytes that differ from their checksum.
_TYPES = {
  *("TimeoutError", "ConnectionError", "BlockingIOError", "InterruptedError"),
  *("ChecksumError", "ChunkedEncodingError", "ClientConnectionError", "ProxyError"),
  *("ClientPayloadError", "ConnectTimeout", "ReadTimeout", "TransportError"),
}
_HTTP = {"408", "429", "500", "502", "503", "504"}
# TensorStore and Orbax report the status of a failed read or write as text.
_TEXT = re.compile(
  r"\b(DEADLINE_EXCEEDED|UNAVAILABLE|ABORTED): "
  r"|HTTP (response |status )?(code)?[: ]*(408|429|5\d\d)\b"
  r"|http_response_code='(408|429|5\d\d)'"
  r"|OS error (5|110|116)\b|CURL error|Could not resolve host"
  r"|Input/output error|Stale (NFS )?file handle|Connection (timed out|reset)"
)
_SYSTEM_REASON = re.compile(
  "No space left on device|Disk quota exceeded|Read-only file system"
)


class StorageError(RuntimeError):
  """A read or write that kept failing for a passing reason, or a full disk.

  The message is one line. Commands print it without a traceback and exit with 1.
  """


def is_transient(error: BaseException | None) -> bool:
  """Return whether a failed read or write may succeed if it is repeated.

  True for timeouts, broken connections, EIO, ESTALE, and the HTTP statuses 408, 429
  and 5xx, whichever library reports them, also as the cause of another exception.
  """
  seen: list[BaseException] = []
  while error is not None and error not in seen:  # one may be its own cause
    if _is_transient(error):
      return True
    seen.append(error)
    hidden = error.__suppress_context__  # it was raised `from None`
    error = error.__cause__ or (None if hidden else error.__context__)
  return False


def _is_transient(error: BaseException) -> bool:
  if isinstance(error, FileNotFoundError | FileExistsError | PermissionError):
    return False
  types = {kind.__name__ for kind in type(error).__mro__}
  if types & _TYPES or getattr(error, "errno", None) in _ERRNO:
    return True
  for source in (error, getattr(error, "response", None)):
    for name in ("code", "status", "status_code"):
      value = str(getattr(source, name, None))
      if value.isdigit():
        return value in _HTTP
  return bool(_TEXT.search(str(error)))


def retrying(call: Callable[[], T], what: str) -> T:
  """Return `call()`, repeated with growing pauses while it fails transiently.

  Args:
    call: reads or writes, and has the same result when repeated.
    what: the work, for messages: "reading gs://bucket/run/config.gin".

  Raises:
    StorageError: it still fails after `RETRY_SECONDS`.
    Exception: whatever `call` raises that is not transient, at once.
  """
  deadline, pause = time.monotonic() + RETRY_SECONDS, _FIRST_PAUSE
  while True:
    try:
      return call()
    except Exception as error:
      if not is_transient(error):
        raise
      reason = one_line(error)
      if time.monotonic() + pause > deadline:
        raise StorageError(
          f"{what} failed for {RETRY_SECONDS:g} s ({reason}); run the same command "
          "again when the storage is back"
        ) from error
      log.warning("%s failed (%s); trying again in %.1f s", what, reason, pause)
    time.sleep(pause * random.uniform(0.8, 1.2))  # hosts must not retry in step
    pause = min(2 * pause, _LONGEST_PAUSE)


def one_line(error: BaseException) -> str:
  """Return the first line of an exception's message, or its type.

  TensorStore's messages begin with names of arrays and files; where the operating
  system gave a reason, that is returned.
  """
  if found := _SYSTEM_REASON.search(str(error)):
    return found[0]
  return str(error).strip().split("\n")[0][:200] or type(error).__name__
