"""Confines a process to a few folders, where mounts do not: Linux's Landlock.

Without it, code under resource limits alone could overwrite the files of the user whom
it runs as. It does not guard modes, owners and times of files, and before version 3 of
its ABI not their length; `seccomp` refuses those calls. See linux/landlock.h; the
system call numbers are those of every architecture.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
import sys

from . import seccomp

_CREATE, _ADD, _RESTRICT = 444, 445, 446
_VERSION = 1  # flag of _CREATE: return the ABI's version
_PATH_BENEATH = 1  # kind of a rule
_EXECUTE, _READ_FILE, _READ_FOLDER = 1 << 0, 1 << 2, 1 << 3
_READ = _EXECUTE | _READ_FILE | _READ_FOLDER
# Number of file-system rights that each version of the ABI knows.
_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15}
_OF_A_FILE = _EXECUTE | 1 << 1 | _READ_FILE | 1 << 14  # write and truncate


def version() -> int:
  """Return the version of the ABI; 0 where there is no Landlock."""
  if sys.platform != "linux":
    return 0
  return max(0, _call(_CREATE, None, 0, _VERSION))


def confine(readable, writable) -> None:
  """Let this process and its children open files in some folders only.

  Args:
    readable: paths that may be read and executed; missing ones are ignored.
    writable: folders in which everything is allowed.

  Raises:
    OSError: the kernel refuses.
  """
  rights = (1 << _RIGHTS.get(version(), 15)) - 1
  ruleset = ctypes.create_string_buffer(struct.pack("<Q", rights), 8)
  rules = _checked(_CREATE, ruleset, 8, 0)
  try:
    for paths, allowed in ((readable, _READ), (writable, rights)):
      for path in paths:
        with contextlib.suppress(FileNotFoundError, PermissionError):
          _add(rules, path, allowed & rights)
    seccomp.prctl(seccomp.NO_NEW_PRIVS, 1)
    _checked(_RESTRICT, rules, 0)
  finally:
    os.close(rules)


def _add(rules: int, path: str, allowed: int) -> None:
  folder = os.open(path, os.O_PATH | os.O_CLOEXEC)
  try:
    if not os.path.isdir(path):
      allowed &= _OF_A_FILE
    rule = ctypes.create_string_buffer(struct.pack("<Qi", allowed, folder), 12)
    _checked(_ADD, rules, _PATH_BENEATH, rule, 0)
  finally:
    os.close(folder)


def _checked(number: int, *arguments) -> int:
  result = _call(number, *arguments)
  if result < 0:
    code = ctypes.get_errno()
    raise OSError(code, os.strerror(code))
  return result


def _call(number: int, *arguments) -> int:
  values = [ctypes.c_long(x) if isinstance(x, int) else x for x in arguments]
  return seccomp.libc.syscall(ctypes.c_long(number), *values)
