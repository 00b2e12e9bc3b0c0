"""S: one worker inside the sandbox; forks U and T for each program and watches them.

T is forked once, U for every program. S reads a program's limits, never its code or
tests: those T reads itself, and T itself writes what may quote them. So U, which is
forked from S, finds no test in its memory, neither of this program nor of an earlier
one. Then S watches the clocks until T has an outcome, or a limit is reached, kills U,
and cleans up.

Messages from outside: {"cpu_seconds", "wall_seconds"}, then {"code", "tests",
"in_process"}. Answers: once, a greeting; then for every program {"detail",
"failed_test"} from T, if it got that far, and {"outcome", ...} from S, with "recycle"
when this worker should be replaced.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import importlib.machinery
import os
import platform
import select
import signal
import socket
import sys
import time

from . import code_side, confine, landlock, seccomp, test_side, wire

# Imported once, here, so that no program pays for them, but for `_ON_DEMAND`.
_MODULES = """
  abc array ast base64 binascii bisect calendar cmath collections collections.abc
  contextlib copy dataclasses datetime decimal enum fractions functools hashlib
  heapq inspect io itertools json math numbers operator os pprint queue random re
  statistics string struct sys textwrap threading time timeit traceback types typing
  unicodedata uuid warnings
"""
MODULES = tuple(_MODULES.split())
# Not imported here: what threading does after a fork costs each program 0.4 ms.
_ON_DEMAND = ("queue", "threading")
_PACKAGES: dict = {}  # top-level name -> path; see _Finder


class _Watch:
  """The clocks of a program's two processes.

  Args:
    limits: cpu_seconds, wall_seconds.
    pids: of U and T.
  """

  def __init__(self, limits: dict, pids):
    self.limits = limits
    self._pids = pids
    self._started = time.monotonic()
    self.tests_before = _cpu_seconds(pids[1])

  @property
  def cpu_seconds(self) -> float:
    """CPU time that U and T have used together."""
    return sum(map(_cpu_seconds, self._pids)) - self.tests_before

  @property
  def wall_seconds(self) -> float:
    """Time since the program began."""
    return time.monotonic() - self._started

  def wait(self, news, requests: int) -> str | None:
    """Return None when `news` can be read, else the limit that was reached.

    Raises:
      EOFError: the process that sends requests is gone.
    """
    poll = select.poll()
    poll.register(news, select.POLLIN)
    poll.register(requests, 0)  # for its end
    while True:
      wall_left = self.limits["wall_seconds"] - self.wall_seconds
      cpu_left = self.limits["cpu_seconds"] - self.cpu_seconds
      if cpu_left <= 0:
        return "cpu_limit"
      if wall_left <= 0:
        return "wall_limit"
      # Two processes cannot use up what is left in less than half of it.
      patience = max(0.005, min(cpu_left / 2, wall_left))
      ready = [descriptor for descriptor, _ in poll.poll(1000 * patience)]
      if requests in ready:
        raise EOFError
      if ready:
        return None


def _cpu_seconds(pid: int) -> float:
  """Return the CPU time of a process; 0 on systems other than Linux."""
  try:
    return time.clock_gettime((~pid << 3) | 2)  # CPUCLOCK_SCHED, as clock_getcpuclockid
  except (OSError, AttributeError, OverflowError):
    return 0.0


class Server:
  """Judges programs, one at a time.

  Args:
    settings: memory_bytes, own_pid_namespace (its processes end with it,
      and are counted alone), scratch (folders to work in, the first, and to empty).
    requests: descriptor with programs.
    answers: descriptor for verdicts.
  """

  def __init__(self, settings: dict, requests: int, answers: int):
    self.settings, self.requests, self.answers = settings, requests, answers
    self.no_seccomp = seccomp.missing()
    mounts = settings["own_pid_namespace"]
    self.filter = None if self.no_seccomp else seccomp.Filter(mounts=mounts)
    self.workplace = os.path.join(settings["scratch"][0], "program")
    self.folders = {folder: _state(folder) for folder in settings["scratch"]}
    self.control, tests_end = socket.socketpair()
    self.test_pid = _fork(self._be_test, tests_end)
    tests_end.close()

  def serve(self) -> None:
    """Judge until there are no more programs, or until it should be replaced."""
    wire.send(
      self.answers,
      {
        "python": platform.python_version(),
        "seccomp": self.no_seccomp or "on",
        "uid": os.getuid(),
        "files": self._files(),
      },
    )
    while True:
      try:
        limits = wire.receive(self.requests)
      except EOFError:
        return
      try:
        verdict = self.judge(limits)
        wire.send(self.answers, verdict)
      except (EOFError, BrokenPipeError):
        return
      if verdict["recycle"]:
        os.read(self.requests, 1)  # who replaces this worker ends it; see Worker.close
        return
      del verdict  # the next program is forked from here, and could read it

  def judge(self, limits: dict) -> dict:
    """Judge the program whose limits were just read."""
    os.mkdir(self.workplace)
    os.chmod(self.workplace, 0o700)
    to_code, from_test = os.pipe()
    to_test, from_code = os.pipe()
    code_pid = _fork(self._be_code, limits, to_code, from_code)
    os.close(to_code)
    os.close(from_code)
    watch = _Watch(limits, (code_pid, self.test_pid))
    socket.send_fds(self.control, [b"!"], [from_test, to_test])
    os.close(from_test)
    os.close(to_test)
    try:
      stopped = watch.wait(self.control, self.requests)
    except EOFError:
      _reap(code_pid, patience=0.0)  # leaves no zombie to an init
      raise
    verdict = None
    if not stopped:
      with contextlib.suppress(EOFError, OSError):
        verdict = wire.receive(self.control.fileno())
    return self._close(code_pid, watch, stopped, verdict)

  def _be_code(self, limits, requests, replies) -> None:
    os.setsid()
    confine.close_all_but(requests, replies)
    os.chdir(self.workplace)
    confine.limit(
      limits["cpu_seconds"],
      self.settings["memory_bytes"],
      threads=self.settings["own_pid_namespace"],
    )
    confine.die_with_parent()
    if self._landlock():
      readable = {"/usr", "/lib", "/lib64", "/bin", sys.prefix, sys.base_prefix}
      readable |= {"/dev/zero", "/dev/random", "/dev/urandom"}
      landlock.confine(
        [*readable, *self.settings["packages"]],
        ["/dev/null", *self.settings["scratch"]],
      )
    if self.filter:
      self.filter.install()
    code_side.serve(requests, replies)

  def _files(self) -> str:
    """Return what keeps files from the code where mounts do not; both are needed."""
    return "landlock" if self._landlock() and self.filter else "open"

  def _landlock(self) -> bool:
    """Return whether Landlock, not mounts, keeps files from the code."""
    return not self.settings["own_pid_namespace"] and bool(landlock.version())

  def _be_test(self, control) -> None:
    confine.unreadable()
    confine.die_with_parent()
    confine.limit(None, self.settings["memory_bytes"])
    test_side.serve(self.requests, self.answers, control, MODULES)

  def _close(self, code_pid: int, watch: _Watch, stopped, verdict) -> dict:
    """End U, clean up, and complete the verdict."""
    lost = verdict is not None and verdict["outcome"] == "lost"
    wall_seconds = watch.wall_seconds
    tests_seconds = _cpu_seconds(self.test_pid) - watch.tests_before
    status, usage = _reap(code_pid, patience=0.2 if lost else 0.0)
    used = usage.ru_utime + usage.ru_stime + max(0.0, tests_seconds)
    if stopped or verdict is None or lost:
      who = "code"
      if verdict is None and not stopped:
        who, (status, _) = "tests", _reap(self.test_pid, patience=0.2)
      over = used >= watch.limits["cpu_seconds"]
      outcome, detail = _explain(stopped, who, status, over, watch.limits)
      verdict = {"outcome": outcome, "detail": detail, "recycle": outcome != "exited"}
    return {
      **verdict,
      "cpu_seconds": used,
      "wall_seconds": wall_seconds,
      "recycle": verdict.get("recycle", False)
      or verdict["outcome"] in ("memory_limit", "worker_lost")
      or not self._clean(code_pid),
    }

  def _clean(self, code_pid: int) -> bool:
    """Remove the work folder; return False when this worker should be replaced.

    U cannot start processes. Where the kernel refuses the filter, what it started
    ends with its process group, or with the worker's PID namespace.
    """
    if self.no_seccomp:
      with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(code_pid, signal.SIGKILL)
        return False
      if self.settings["own_pid_namespace"]:
        return False
    try:
      os.rmdir(self.workplace)
      states = {folder: _state(folder) for folder in self.folders}
    except OSError:
      return False
    return states == self.folders


def _state(folder: str) -> tuple:
  """Return what a program may change of a folder: contents, mode, owner, attributes."""
  status = os.stat(folder)
  attributes = os.listxattr(folder) if hasattr(os, "listxattr") else []
  owners = status.st_mode, status.st_uid, status.st_gid
  return os.listdir(folder), owners, attributes


def _fork(task, *arguments) -> int:
  pid = os.fork()
  if not pid:
    try:
      task(*arguments)
    finally:
      os._exit(71)
  return pid


def _reap(pid: int, patience: float):
  """Give a process `patience` seconds to end, kill it, and return how it ended."""
  deadline = time.monotonic() + patience
  while True:
    ended, status, usage = os.wait4(pid, os.WNOHANG)
    if ended:
      return status, usage
    if time.monotonic() >= deadline:
      os.kill(pid, signal.SIGKILL)
      _, _, usage = os.wait4(pid, 0)
      return None, usage  # it did not end by itself
    time.sleep(0.0005)


def _explain(stopped, who: str, status, over_cpu: bool, limits: dict):
  """Return outcome and detail of a program whose processes ended unexpectedly."""
  if stopped == "cpu_limit" or (not stopped and over_cpu):
    return "cpu_limit", f"more than {limits['cpu_seconds']:g} s of CPU time"
  if stopped:
    return stopped, f"more than {limits['wall_seconds']:g} s on the wall clock"
  if status is None:
    return "exited", f"the {who} closed the channel"
  if os.WIFEXITED(status):
    return "exited", f"the {who}'s process ended with status {os.WEXITSTATUS(status)}"
  number = os.WTERMSIG(status)
  if number == signal.SIGKILL:
    return "memory_limit", f"the {who}'s process was killed by the kernel"
  return "crashed", f"the {who}'s process died: {signal.strsignal(number)}"


class _Finder(importlib.machinery.PathFinder):
  """Finds the packages that the code may import, and nothing that lies beside them."""

  @classmethod
  def find_spec(cls, fullname, path=None, target=None):
    """Finds a top-level module of `_PACKAGES`."""
    place = _PACKAGES.get(fullname) if path is None else None
    return place and super().find_spec(fullname, [os.path.dirname(place)], target)


def _provide(paths) -> None:
  """Import packages once, before the programs."""
  for path in paths:
    name, _, suffix = os.path.basename(path).partition(".")
    if not (suffix and os.path.isdir(path)):  # numpy.libs is not a module
      _PACKAGES[name] = path
  sys.meta_path.append(_Finder)
  for path in paths:
    if os.path.isfile(os.path.join(path, "__init__.py")):
      importlib.import_module(os.path.basename(path))


def _rehearse() -> None:
  """Do what U does many times, so that a fork starts with filled caches.

  A page is copied when a forked process first writes to it; that is most of its cost.
  """
  source = "from typing import List\ndef f(x: List[int]) -> int:\n  return sum(x)\n"
  request = {"do": "call", "handle": 0, "arguments": [0]}
  request["nodes"] = [["tuple", [[1], [2]]], ["tuple", [[3]]], ["dict", []]]
  request["nodes"].append(["list", [1, 2]])
  read, write = os.pipe()
  for _ in range(20):
    code = code_side.Code()
    load = {"do": "load", "code": source, "names": ["f"]}
    for message in (load, request):
      wire.send(write, message)
      reply, objects = code_side.answer(code, wire.receive(read), read)
      wire.send(write, {**reply, "held": code_side.held(objects)})
      wire.receive(read)
  os.close(read)
  os.close(write)


def main(settings: dict) -> None:
  """Run a worker on standard input and output.

  Args:
    settings: those of `Server`; core (the only one to run on, or None), packages.
  """
  confine.unreadable()
  requests, answers = os.dup(0), os.dup(1)
  if settings["core"] is not None:
    with contextlib.suppress(OSError):  # it may be taken from the container by now
      os.sched_setaffinity(0, {settings["core"]})
  confine.silence()
  for module in MODULES:
    if module not in _ON_DEMAND:
      importlib.import_module(module)
  importlib.import_module("site").setquit()  # exit and quit, which -S leaves out
  _provide(settings["packages"])
  _rehearse()
  gc.collect()
  gc.freeze()
  server = Server(settings, requests, answers)
  try:
    server.serve()
  finally:
    with contextlib.suppress(OSError):
      _reap(server.test_pid, patience=0.0)
    with contextlib.suppress(OSError):
      if not settings["own_pid_namespace"]:  # else it is gone with the mounts
        os.execvp("rm", ["rm", "-rf", *settings["scratch"]])
    os._exit(0)
