"""One worker as seen from outside: a sandboxed process and the pipes to it."""

import contextlib
import importlib.resources
import json
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence

from phi1_jax.sandbox import levels
from phi1_jax.sandbox.inside import SOURCES, wire

# Reads the sources from standard input, so that nothing of the checkout has to be
# readable in there, and keeps them importable as one package.
_BOOTSTRAP = """
import sys
sys.path[:] = [p for p in sys.path if p]
import json, os, struct, types
read = open(0, "rb", 0, closefd=False).read
def exactly(size):
  data = b""
  while len(data) < size:
    part = read(size - len(data))
    if not part:
      try:
        os.rmdir(os.getcwd())  # made for this process alone, or it cannot be removed
      finally:
        raise SystemExit("no sources came")
    data += part
  return data
start = json.loads(exactly(struct.unpack("<I", exactly(4))[0]))
package = sys.modules["inside"] = types.ModuleType("inside")
package.__path__ = []
for name, source in start["sources"]:
  module = sys.modules["inside." + name] = types.ModuleType("inside." + name)
  module.__package__ = "inside"
  exec(compile(source, "<inside/" + name + ".py>", "exec"), module.__dict__)
  setattr(package, name, module)
settings = start["settings"]
del start, exactly, read, source
module.main(settings)
"""


_LEAVE_SECONDS = 2.0


class Lost(Exception):
  """The worker's process is gone, or never worked; the message says what it said."""


class Worker:
  """Starts a worker; it greets when it is ready to take a program.

  Args:
    launch: how.
    memory_bytes: address space of one program.
    packages: paths of packages, as they are inside.
  """

  def __init__(
    self, launch: levels.Launch, memory_bytes: int, packages: Sequence[str] = ()
  ):
    self._own_scratch = None if launch.scratch else levels.make_scratch()
    with contextlib.ExitStack() as stack:  # `close` closes it
      self._complaints = stack.enter_context(tempfile.TemporaryFile())
      stack.pop_all()
    scratch = launch.scratch or (self._own_scratch,)
    environment = dict(launch.environment)
    if self._own_scratch:
      environment.update(HOME=self._own_scratch, TMPDIR=self._own_scratch)
    try:
      self._process = subprocess.Popen(
        [*launch.command, "-c", _BOOTSTRAP],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=self._complaints,
        env=environment,
        cwd=self._own_scratch or "/",
        start_new_session=True,
        bufsize=0,
        **levels.identity(),
      )
    except OSError as error:
      self._forget_scratch()
      raise Lost(str(error)) from None
    assert self._process.stdin is not None  # both are pipes
    assert self._process.stdout is not None
    self._input, self._output = self._process.stdin, self._process.stdout
    folder = importlib.resources.files("phi1_jax.sandbox") / "inside"
    sources = [(name, (folder / f"{name}.py").read_text()) for name in SOURCES]
    settings = {
      "memory_bytes": memory_bytes,
      "own_pid_namespace": launch.own_pid_namespace,
      "scratch": scratch,
      "packages": list(packages),
    }
    self.send({"sources": sources, "settings": settings})

  def fileno(self) -> int:
    """Readable when there is a message, or when the worker is gone."""
    return self._output.fileno()

  @property
  def pid(self) -> int:
    """Of the outermost process."""
    return self._process.pid

  def send(self, *messages: dict) -> None:
    """Sends messages; a worker that is gone shows when it is read from."""
    try:
      for message in messages:
        wire.send(self._input.fileno(), message)
    except OSError:
      pass

  def receive(self) -> dict:
    """Reads the greeting, or all of an answer; Lost if there is none."""
    answer = {"detail": "", "failed_test": None}
    try:
      while "outcome" not in answer and "python" not in answer:
        answer.update(wire.receive(self.fileno()))
      return answer
    except (EOFError, OSError, wire.TooLarge, json.JSONDecodeError):
      raise Lost(self._last_words()) from None

  def close(self) -> None:
    """Ends the worker and all in its sandbox, and removes its folder.

    Its children are killed first, and the outermost process reaps them. Killed before
    them, or left by them in peace, bubblewrap's would leave a zombie to an init which,
    in a container, may reap nothing.
    """
    self._kill_children()
    self._input.close()
    try:
      self._process.wait(_LEAVE_SECONDS)
    except subprocess.TimeoutExpired:
      self._process.kill()
      self._process.wait()
    self._output.close()
    self._complaints.close()
    self._forget_scratch()

  def _kill_children(self) -> None:
    """Kills the PID namespace's init, or without one U and T; macOS names none."""
    with contextlib.suppress(OSError):
      children = pathlib.Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
      for pid in children.split():
        with contextlib.suppress(ProcessLookupError):
          os.kill(int(pid), signal.SIGKILL)

  def _last_words(self) -> str:
    self._complaints.seek(0, os.SEEK_END)
    self._complaints.seek(max(0, self._complaints.tell() - 2000))
    lines = self._complaints.read().decode(errors="replace").strip().splitlines()
    return lines[-1][:300] if lines else "it ended without a word"

  def _forget_scratch(self) -> None:
    if not self._own_scratch:
      return
    try:
      shutil.rmtree(self._own_scratch, ignore_errors=True)
    except RecursionError:  # rm copes with any depth
      subprocess.run(["rm", "-rf", self._own_scratch], check=False)
