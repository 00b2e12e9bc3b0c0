"""Stopping when the machine is taken away, or the user presses Ctrl-C."""

import os
import signal
import types

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from phi1_jax.parallel import hosts

_NOTICE = "stop"


class StopSignal:
  """Notes SIGTERM and SIGINT so that the loop can save before it ends.

  The second signal acts as if this were not here: a save that hangs can be killed.
  Handlers are installed at once and can only be installed in the main thread. A
  context manager that puts the former ones back.

  A signal to one of many hosts stops all of them. Before the loop, hosts do different
  things, and a notice tells of it; in the loop they vote, so that all stop after the
  same step.
  """

  def __init__(self) -> None:
    self.received = False
    self._vote: jax.Array | None = None
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

  def heard(self) -> bool:
    """Whether this host was told to stop, or has heard that another one was.

    Lets the others hear it too. For the time before the loop.
    """
    if self.received:
      hosts.post(_NOTICE)
    return self.received or hosts.posted(_NOTICE)

  def agreed(self) -> bool:
    """Whether any host was told to stop, once all have asked: before the loop."""
    return any(hosts.exchange("stop", self.heard()))

  def requested(self, step: int) -> bool:
    """Whether to stop after `step` updates; the same answer on every host.

    With several hosts, it is the result of the vote that the last call began: reading
    a vote at once would have the host wait for the step that the device is at.
    """
    if hosts.count() == 1:
      return self.received
    last, self._vote = self._vote, _vote(self.received)
    return last is not None and bool(last)


def _vote(stop: bool) -> jax.Array:
  """Begins to reduce one bool a host to whether any is true."""
  devices = Mesh(np.array(jax.devices()), ("devices",))
  votes = jax.make_array_from_callback(
    (devices.size,),
    NamedSharding(devices, PartitionSpec("devices")),
    lambda _: np.array([stop]),
  )
  return _any(votes)


@jax.jit
def _any(votes: jax.Array) -> jax.Array:
  return jnp.any(votes)
