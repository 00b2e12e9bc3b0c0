"""Runs another command of this project as a child process."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import IO

from phi1_jax.cli import command


def run(
  module: str,
  arguments: Sequence[str],
  stopping: Callable[[], bool],
  doing: str,
  log: IO[bytes] | None = None,
  environment: Mapping[str, str] = os.environ,
) -> bool:
  """Run `python -m module arguments`, show its messages, and wait for it.

  Args:
    module: such as "phi1_jax.prepare".
    arguments: its flags.
    stopping: polled; once it returns True, the child gets SIGTERM.
    doing: what the child does, for errors ("building the token store stores/x").
    log: gets all that it prints; None shows its messages.
    environment: its variables.

  Returns:
    Whether it finished; else it was stopped, and continues when started again.

  Raises:
    PrintedError: its input is wrong; it has printed the reason.
    RuntimeError: it failed.
  """
  reading, writing = os.pipe()
  with os.fdopen(writing, "wb", buffering=0) as pipe:
    # In its own process group it gets no Ctrl-C: a second signal would kill it. When
    # this process ends, the pipe closes, and the child stops itself.
    child = subprocess.Popen(
      [sys.executable, "-m", module, *arguments],
      process_group=0,
      pass_fds=[reading],
      stdout=log or subprocess.DEVNULL,
      stderr=log,
      env={**environment, command.PARENT: str(reading)},
    )
    os.close(reading)
    terminated = False
    try:
      while (code := child.poll()) is None:
        with contextlib.suppress(subprocess.TimeoutExpired):
          child.wait(timeout=0.2)
        if stopping() and not terminated:
          terminated = True
          # The child must not stop itself again, should this process end first.
          with contextlib.suppress(OSError):  # the child has ended
            pipe.write(command.TERMINATED)
          child.terminate()
    except BaseException:  # such as a second Ctrl-C
      child.kill()
      child.wait()
      raise
  if code == command.PREEMPTED or (terminated and code < 0):  # it has no handler
    return False
  if code == command.WRONG_INPUT:
    raise command.PrintedError(f"{doing} is not possible (see above)")
  if code:
    raise RuntimeError(f"{doing} failed: exit {code}")
  return True
