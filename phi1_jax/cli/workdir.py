"""A work directory belongs to one process at a time."""

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

from phi1_jax import InputError


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
    lock = (workdir / ".lock").open("w")
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


def unwritable(workdir: Path, error: OSError) -> InputError:
  """What to say of a folder that cannot be written."""
  return InputError(
    f"--workdir: cannot write to {workdir} ({error.strerror}); name another folder"
  )
