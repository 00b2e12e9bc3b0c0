"""Stop signals: SIGTERM of a preempted machine, and Ctrl-C."""

import contextlib
import functools
import os
import signal
import types
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from phi1_jax.parallel import hosts


class HookStoppedError(BaseException):
  """Raised inside a hook to end it, because the run is to stop.

  No `Exception`, so that a hook that handles its own errors does not go on.
  """


class StopSignal:
  """Handler of SIGTERM and SIGINT, so that the loop can save before it ends.

  The second signal acts as if this were not here, so that a save that hangs can be
  killed. Handlers are installed at once, and only the main thread can do so. A context
  manager that restores the former handlers.

  A signal to one of many hosts stops all of them: hosts exchange it before the loop,
  and vote in the loop, so that all stop after the same step.
  """

  def __init__(self) -> None:
    self.received = False
    self._in_hook = False
    self._vote: tuple[tuple[str, ...], Any] = (), ()  # names and their flags
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
    os.write(
      2, b"\nstopping: what is trained will be saved; a second signal quits at once\n"
    )
    if self._in_hook:
      self._in_hook = False
      raise HookStoppedError

  def restore(self) -> None:
    """Restore the handlers that were there before."""
    for number, handler in self._before.items():
      signal.signal(number, handler)

  @contextlib.contextmanager
  def interrupting(self) -> Iterator[None]:
    """Let the first signal end a hook that runs inside.

    With several hosts a hook must end on all of them at the same place: it asks
    `requested` between its batches.

    Raises:
      HookStoppedError: the signal came.
    """
    self._in_hook = hosts.count() == 1
    try:
      if self._in_hook and self.received:
        raise HookStoppedError
      yield
    finally:
      self._in_hook = False

  def poll(self, **wanted: bool) -> set[str]:
    """Return what any host wants, "stop" included; the same on every host.

    All hosts must make the same calls with the same names. With several hosts, the
    result is that of the vote which the last call began, since a host that read a vote
    at once would wait for the step that the device is at. So a wish must be repeated
    until it is granted; once one is, the vote that this call began does not count.
    """
    wanted = {"stop": self.received, **wanted}
    if hosts.count() == 1:
      return {name for name, value in wanted.items() if value}
    names, vote = self._vote
    self._vote = tuple(wanted), _vote(list(wanted.values()))
    granted = {
      name for name, value in zip(names, np.asarray(vote), strict=True) if value
    }
    if granted:
      self._vote = (), ()
    return granted

  def requested(self) -> bool:
    """Return whether to stop; for hooks, between batches. See `poll`."""
    return "stop" in self.poll()


def _vote(flags: list[bool]) -> jax.Array:
  """Begin to reduce flags of each host to whether any host's is true."""
  devices = Mesh(np.array(jax.devices()), ("devices",))
  votes = jax.make_array_from_callback(
    (devices.size, len(flags)),
    NamedSharding(devices, PartitionSpec("devices")),
    lambda _: np.array([flags]),
  )
  return _any(votes)


_any = jax.jit(functools.partial(jnp.any, axis=0))
