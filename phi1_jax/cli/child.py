"""Another command of this project as a child process."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import IO

from phi1_jax import InputError
from phi1_jax.cli import command


def run(
  module: str, arguments: Sequence[str], stopping: Callable[[], bool], doing: str
) -> bool:
  """Runs `python -m module arguments` and waits for it.

  Args:
    module: such as "phi1_jax.prepare".
    arguments: its flags.
    stopping: asked now and then; once it says yes, the child is told to stop too.
    doing: what the child does, for complaints ("building the token store stores/x").

  Returns:
    Whether it is done; False if it was stopped, and goes on with the next start.

  Raises:
    InputError: what it was given is wrong; it has said what.
    RuntimeError: it failed.
  """
  # In a group of its own, a Ctrl-C reaches it through us alone: two signals would kill
  # it while it saves. Nor does it hear that a terminal was closed: it reads a pipe that
  # ends with us, however we end.
  words = [sys.executable, "-m", module, *arguments]
  ours, its = os.pipe()[::-1]
  with os.fdopen(ours, "wb", buffering=0) as pipe:
    environment = {**os.environ, command.PARENT: str(its)}
    child = subprocess.Popen(words, process_group=0, pass_fds=[its], env=environment)
    os.close(its)
    return _finished(child, pipe, stopping, doing)


def _finished(
  child: subprocess.Popen, pipe: IO[bytes], stopping: Callable[[], bool], doing: str
) -> bool:
  told = False
  try:
    while (code := _code(child)) is None:
      if stopping() and not told:
        told = True
        with contextlib.suppress(OSError):  # it has left already
          pipe.write(command.TOLD)  # it saves, and must not be told again if we end
        child.terminate()
  except BaseException:  # such as the second Ctrl-C
    child.kill()
    child.wait()
    raise
  if code == command.PREEMPTED or (told and code < 0):  # it may have no handler
    return False
  if code == command.WRONG_INPUT:
    raise InputError(f"{doing} is not possible (see above)")
  if code:
    raise RuntimeError(f"{doing} failed: exit {code}")
  return True


def _code(child: subprocess.Popen) -> int | None:
  """The exit code, or None if it still runs after a moment."""
  try:
    return child.wait(timeout=0.2)
  except subprocess.TimeoutExpired:
    return None
