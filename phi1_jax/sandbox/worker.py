"""One worker as seen from outside: a sandboxed process and the pipes to it."""

import contextlib
import importlib.resources
import json
import os
import pathlib
import signal
import subprocess
import tempfile
import time

from phi1_jax.sandbox import levels
from phi1_jax.sandbox.inside import SOURCES, wire
from phi1_jax.sandbox.program import Program

# Reads the sources from standard input, so that nothing of the checkout has to be
# readable in there, and keeps them importable as one package.
_BOOTSTRAP = """
import sys
sys.path[:] = [p for p in sys.path if p]
import json, os, types
size = int(sys.argv.pop())
source = open(0, "rb", closefd=False).read(size)
if len(source) < size:
  try:
    os.rmdir(os.getcwd())  # made for this process alone, or it cannot be removed
  finally:
    raise SystemExit("no sources came")
sources, settings = json.loads(source)
package = sys.modules["inside"] = types.ModuleType("inside")
package.__path__ = []
for name, source in sources:
  module = sys.modules["inside." + name] = types.ModuleType("inside." + name)
  module.__package__ = "inside"
  exec(compile(source, "<inside/" + name + ".py>", "exec"), module.__dict__)
  setattr(package, name, module)
del source, sources, size
module.main(settings)
"""
START_SECONDS = 30.0
_LEAVE_SECONDS = 2.0


class Lost(Exception):
  """The worker's process is gone, or never worked; the message is its last line."""


class Worker:
  """A worker's process; it greets when it is ready to take a program.

  Args:
    launch: how to start it.
    memory_bytes: address space of one program.
    core: the only core to run on; None for any.

  Attributes:
    ready: whether it has greeted.
    program: the program that it judges, if any.
    deadline: the time by which it must greet or answer.
  """

  def __init__(self, launch: levels.Launch, memory_bytes: int, core: int | None = None):
    self.ready = False
    self.core = core
    self.program: Program | None = None
    self.deadline = time.monotonic() + START_SECONDS
    folder = importlib.resources.files("phi1_jax.sandbox") / "inside"
    sources = [(name, (folder / f"{name}.py").read_text()) for name in SOURCES]
    self._scratch = None if launch.has_mounts else levels.make_scratch()
    settings = {
      "memory_bytes": memory_bytes,
      "core": core,
      "own_pid_namespace": launch.has_mounts,
      "scratch": [self._scratch] if self._scratch else levels.SCRATCH,
      "packages": launch.packages,
    }
    start = json.dumps([sources, settings]).encode()
    environment = dict(levels.ENVIRONMENT)
    if self._scratch:
      environment.update(HOME=self._scratch, TMPDIR=self._scratch)
    with contextlib.ExitStack() as stack:  # `close` closes it
      self._complaints = stack.enter_context(tempfile.TemporaryFile())
      stack.pop_all()
    try:
      self._process = subprocess.Popen(
        [*launch.command, "-c", _BOOTSTRAP, str(len(start))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=self._complaints,
        env=environment,
        cwd=self._scratch or "/",
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
    with contextlib.suppress(OSError):  # see `send`
      while start:
        start = start[self._input.write(start) or 0 :]

  def fileno(self) -> int:
    """Return a descriptor, readable when a message came or the worker is gone."""
    return self._output.fileno()

  @property
  def pid(self) -> int:
    """Process id of the outermost process."""
    return self._process.pid

  def send(self, *messages: dict) -> None:
    """Send messages; only `receive` reports a worker that is gone."""
    with contextlib.suppress(OSError):
      for message in messages:
        wire.send(self._input.fileno(), message)

  def receive(self) -> dict:
    """Read the greeting, or a whole answer; Lost if there is none."""
    answer = {"detail": "", "failed_test": None}
    try:
      while "outcome" not in answer and "python" not in answer:
        answer.update(wire.receive(self.fileno()))
      return answer
    except (EOFError, OSError, wire.TooLarge, json.JSONDecodeError):
      raise Lost(self._last_line()) from None

  def close(self) -> None:
    """End the worker and all in its sandbox, and remove its folder.

    Its children are killed first, and the outermost process reaps them. If bubblewrap
    ended first, it would leave a zombie to an init, which reaps nothing in some
    containers.
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
    """Kill the init of the PID namespace, or without one U and T (not on macOS)."""
    with contextlib.suppress(OSError):
      children = pathlib.Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
      for pid in children.split():
        with contextlib.suppress(ProcessLookupError):
          os.kill(int(pid), signal.SIGKILL)

  def _last_line(self) -> str:
    self._complaints.seek(0, os.SEEK_END)
    self._complaints.seek(max(0, self._complaints.tell() - 2000))
    lines = self._complaints.read().decode(errors="replace").strip().splitlines()
    return lines[-1][:300] if lines else "it ended without a message"

  def _forget_scratch(self) -> None:
    if self._scratch:  # which may be too deep for shutil.rmtree
      subprocess.run(
        ["rm", "-rf", self._scratch], stderr=subprocess.DEVNULL, check=False
      )
