"""Stopping when the machine is taken away, or the user presses Ctrl-C."""

import os
import signal
import types

import jax
from jax.experimental import multihost_utils


class StopSignal:
  """Notes SIGTERM and SIGINT so that the loop can save before it ends.

  The second signal acts as if this were not here: a save that hangs can be killed.
  Handlers are installed at once and can only be installed in the main thread. A
  context manager that puts the former ones back.
  """

  def __init__(self) -> None:
    self.received = False
    self._before = {
      number: signal.signal(number, self._note)
      for number in (signal.SIGTERM, signal.SIGINT)
    }

  def __enter__(self) -> "StopSignal":
    return self

  def __exit__(self, *exception: object) -> None:
    self.restore()

  def _note(self, number: int, frame: types.FrameType | None) -> None:
    self.received = True
    self.restore()
    # `print` is not safe in a handler that may have interrupted one.
    os.write(2, b"\nstopping: will save after this step; once more to quit at once\n")

  def restore(self) -> None:
    """Puts back the handlers that were there before."""
    for number, handler in self._before.items():
      signal.signal(number, handler)

  def requested(self, step: int) -> bool:
    """Whether to stop after `step` updates; the same answer on every host.

    With several hosts the coordination service picks one step that all of them have
    still to reach, so that they save the same state.
    """
    if jax.process_count() > 1:
      return multihost_utils.reached_preemption_sync_point(step)
    return self.received
