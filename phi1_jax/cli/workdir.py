"""A work directory belongs to one process at a time."""

import contextlib
import fcntl
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

from phi1_jax import InputError

# A network file system may show a folder's new file to others a minute late.
SHARED_SECONDS = 60.0
_LOCK = ".lock"


@contextlib.contextmanager
def held(workdir: Path, doing: str) -> Iterator[None]:
  """Makes the folder and keeps other processes out of it; dies with this one.

  Args:
    workdir: the folder.
    doing: what this process does there, for the one that is kept out ("training").

  Raises:
    InputError: it cannot be written, or another process holds it.
  """
  try:
    workdir.mkdir(parents=True, exist_ok=True)
    lock = (workdir / _LOCK).open("a")
  except OSError as error:
    raise unwritable(workdir, error) from None
  with lock:
    try:
      fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      raise InputError(
        f"--workdir: another process is {doing} in {workdir}; wait for it, or name "
        "another folder"
      ) from None
    yield


def is_held(workdir: Path) -> bool:
  """Whether a process holds the folder."""
  try:
    with (workdir / _LOCK).open() as lock:
      fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except FileNotFoundError:
    return False
  except BlockingIOError:
    return True
  return False


def check_shared(workdir: Path) -> None:
  """Refuses a folder that is not one and the same on all hosts; host 0 holds it.

  Raises:
    InputError: this host, or another one, does not see host 0's folder.
  """
  from phi1_jax.parallel import hosts  # it imports JAX, which judging does without

  if hosts.count() == 1:
    return
  lock, mark = workdir / _LOCK, ""
  if hosts.is_first():
    mark = secrets.token_hex(8)
    lock.write_text(mark)
  mark = hosts.exchange("the work directory's mark", mark)[0]
  with hosts.agreed("sharing the work directory"):
    deadline = time.monotonic() + SHARED_SECONDS
    while not (lock.is_file() and lock.read_text() == mark):
      if time.monotonic() > deadline:
        raise InputError(
          f"--workdir: host {hosts.index()} has another {workdir.absolute()} than "
          "host 0; expected a folder on a file system that all hosts share"
        )
      time.sleep(0.1)


def unwritable(workdir: Path, error: OSError) -> InputError:
  """What to say of a folder that cannot be written."""
  return InputError(
    f"--workdir: cannot write to {workdir} ({error.strerror}); name another folder"
  )
