"""Rights that a forked process gives up before it runs anything."""

from __future__ import annotations

import contextlib
import math
import os
import resource
import signal
import sys

from . import seccomp

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE = 1, 4
_FILE_BYTES = 1 << 24
_OPEN_FILES = 1024  # what most systems allow
_THREADS = 64


def unreadable() -> None:
  """Hide memory and descriptors of this process from others of the same uid."""
  if sys.platform == "linux":
    seccomp.prctl(_PR_SET_DUMPABLE, 0)


def die_with_parent() -> None:
  """Have the kernel kill this process when its parent dies."""
  if sys.platform == "linux":
    seccomp.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def silence() -> None:
  """Put /dev/null on the three standard descriptors."""
  null = os.open(os.devnull, os.O_RDWR)
  for fd in (0, 1, 2):
    os.dup2(null, fd)
  if null > 2:
    os.close(null)


def close_all_but(*kept: int) -> None:
  """Close every descriptor from 3 on that is not given."""
  start = 3
  for fd in sorted(kept):
    os.closerange(start, fd)
    start = fd + 1
  os.closerange(start, 1024)  # S holds a dozen, so none is above


def limit(cpu_seconds, memory_bytes: int, *, threads: bool = True) -> None:
  """Set resource limits, soft and hard ones.

  S ends a program at its CPU limit; the kernel does so a second later, if S cannot.

  Args:
    cpu_seconds: of this process; None for no limit.
    memory_bytes: address space.
    threads: whether processes are counted for this sandbox alone, so that a few
      threads can be allowed; else none.
  """
  seconds = (
    resource.RLIM_INFINITY if cpu_seconds is None else math.ceil(cpu_seconds) + 1
  )
  limits = {
    "RLIMIT_CPU": seconds,
    "RLIMIT_AS": memory_bytes,
    "RLIMIT_DATA": memory_bytes,
    "RLIMIT_FSIZE": _FILE_BYTES,
    "RLIMIT_NOFILE": _OPEN_FILES,
    "RLIMIT_NPROC": _THREADS if threads else 0,
    "RLIMIT_CORE": 0,
  }
  for name, value in limits.items():
    # macOS knows fewer limits, and refuses some values.
    with contextlib.suppress(AttributeError, ValueError, OSError):
      resource.setrlimit(getattr(resource, name), (value, value))
