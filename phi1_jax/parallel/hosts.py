"""Functions for hosts that run a program together: join, share errors, end.

Messages go through the coordination service of `jax.distributed`, which
host 0 runs. No device takes part, so that hosts can agree before one is touched, and
no wait is without a limit. A process that has joined nothing is host 0 of one, and
every function here returns at once.
"""

import contextlib
import ctypes
import dataclasses
import itertools
import json
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any, NoReturn

import jax
from jax._src import distributed  # the key-value store has no public name

from phi1_jax import InputError, storage

log = logging.getLogger(__name__)

# Hosts of a pod that was taken away and given back may start a quarter of an hour
# apart; JAX would wait five minutes.
JOIN_SECONDS = 1800
# A host that compiles for minutes on all its cores has been taken for dead at JAX's
# 100 s. One that is dead must still be noticed where no collective fails with it.
HEARTBEAT_SECONDS = 600
# For hosts to come to a point that none takes long to reach.
MEET_SECONDS = 1800
# For the others to end what this host has ended: host 0 sums a run up.
DISCONNECT_SECONDS = 600
# After so many seconds a warning names the missing hosts, then after twice as many.
SILENT_SECONDS = 30
# For a host that fails alone to see whether the others leave too.
LEAVE_SECONDS = 10

_GO_ON = "run the same command on all hosts to go on from the last checkpoint"
# Words of the errors that runtimes raise when a connection breaks: Gloo (CPU), NCCL
# (GPU), and the coordination service.
_BROKEN = ("Gloo", "remote process exited", "ncclRemoteError", "UNAVAILABLE")
_KEY_PREFIX = "phi1_jax"  # keys of ours begin with it

# Exceptions that all hosts raise if any does; made from a message alone.
_SHARED = (InputError, storage.HeldError, storage.StorageError)

_meetings = itertools.count()
_end = threading.Lock()  # held by the thread that ends the process


@dataclasses.dataclass
class _OnAbort:
  """Last line and exit code of a process that a thread of its runtime aborts."""

  line: str = (
    "error: another host is gone, or the runtime failed (its reason is above); "
    f"{_GO_ON}"
  )
  code: int = 1
  joining: bool = False  # the runtime aborts in our thread when nobody comes
  handler: Any = None  # kept: C holds only its address


_on_abort = _OnAbort()


class GoneError(RuntimeError):
  """Another host has failed, or has not come where it was expected."""


def index() -> int:
  """Return this host's number. Unlike `jax.process_index`, this touches no device."""
  return distributed.global_state.process_id


def count() -> int:
  """Return the number of hosts."""
  return distributed.global_state.num_processes


def is_first() -> bool:
  """Return whether this is host 0, which prints and writes for all."""
  return index() == 0


def join(
  address: str | None = None,
  num_processes: int | None = None,
  process_id: int | None = None,
  limit: int = JOIN_SECONDS,
) -> None:
  """Join the other processes; call it before any device is touched.

  Args:
    address: HOST:PORT of host 0, with a port that is free there and that all hosts
      can reach.
    num_processes: how many there are.
    process_id: which this one is, from 0. Without all three, JAX asks the TPU pod,
      SLURM or MPI that it finds itself in.
    limit: seconds to wait for the others.

  Raises:
    InputError: the port is taken, or there is nothing to ask.
    GoneError: the others did not come (where the runtime does not abort by itself).
  """
  # JAX's preemption service would take SIGTERM away from `training.preemption`.
  jax.config.update("jax_enable_preemption_service", False)
  refusal = (
    f"--coordinator_address: cannot join {num_processes} processes at {address} as "
    f"process {process_id}: expected host 0's address, a port that is free there and "
    "that every host reaches, and all processes started with the same flags"
  )
  if process_id == 0 and address is not None:
    _check_port(int(address.rpartition(":")[2]), refusal)
  usual = _on_abort.line, _on_abort.code
  # Peers that do not come may have been taken away: that is not wrong input.
  _on_abort.line, _on_abort.code, _on_abort.joining = f"error: {refusal}", 1, True
  _handle_abort()
  # Connecting does not return to Python, so a Ctrl-C would wait for its end.
  before = signal.signal(signal.SIGINT, signal.SIG_DFL)
  try:
    jax.distributed.initialize(
      address,
      num_processes,
      process_id,
      initialization_timeout=limit,
      heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
      shutdown_timeout_seconds=DISCONNECT_SECONDS,
    )
  except (ValueError, RuntimeError) as error:  # of its arguments; of the network
    line = str(error).split("\n")[0]
    if address is not None:
      kind = InputError if isinstance(error, ValueError) else GoneError
      raise kind(f"{refusal} ({line})") from None
    raise InputError(
      f"--distributed: found no TPU pod, SLURM or MPI job to join ({line}); give "
      "--coordinator_address, --num_processes and --process_id"
    ) from None
  finally:
    signal.signal(signal.SIGINT, before)
  _on_abort.line, _on_abort.code = usual
  _on_abort.joining = False


def _check_port(port: int, refusal: str) -> None:
  """Refuse a port that is taken: the coordination service would crash on it."""
  try:
    socket.create_server(("", port)).close()
  except OSError as error:
    raise InputError(f"{refusal} (port {port}: {error.strerror})") from None


def _handle_abort() -> None:
  """End with one line and an exit code when the process aborts, without a core file.

  When the coordination service loses a host, a host the service, or the time to join
  is over, a thread of the C++ runtime says so on stderr and calls abort. An abort in a
  thread of Python's has another cause, such as a failed check of the compiler's. A
  handler of Python's `signal` would come too late, in the main thread; this one runs in
  the thread that aborts.
  """

  def handle(_: int) -> None:
    ours = threading.get_ident() in {thread.ident for thread in threading.enumerate()}
    if ours and not _on_abort.joining:
      end("error: this process aborted (SIGABRT); the reason is above", 1)
    end(_on_abort.line, _on_abort.code)

  _on_abort.handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(handle)
  ctypes.CDLL(None).signal(int(signal.SIGABRT), _on_abort.handler)


def disconnect(limit: float = DISCONNECT_SECONDS) -> None:
  """Leave the others once they leave too, or when `limit` seconds are over."""

  def leave() -> None:
    with contextlib.suppress(RuntimeError):  # others are gone: nothing to wait for
      jax.distributed.shutdown()

  waiting = threading.Thread(target=leave, daemon=True)
  waiting.start()
  waiting.join(limit)


def end(line: str, code: int) -> NoReturn:
  """End the process at once, with a last line for the user.

  The interpreter's own end would wait for others in the exit handlers of JAX and
  Orbax: minutes, where one of them is gone.
  """
  _end.acquire()  # never released: who comes second has nothing to say
  with contextlib.suppress(OSError, ValueError, RuntimeError):  # closed, or in use
    sys.stdout.flush()
    sys.stderr.flush()
  if line:
    os.write(2, f"{line}\n".encode())
  os._exit(code)


def leave(code: int) -> NoReturn:
  """End a process that has failed and has printed why.

  Waits a little for the others: where all refuse the same, host 0 must not take the
  coordination service away before they have heard so.
  """
  _on_abort.line, _on_abort.code = "", code
  disconnect(LEAVE_SECONDS)
  end("", code)


def lost(error: BaseException) -> str | None:
  """Return a message if an exception means that another host is gone, or None."""
  reason = str(error).split("\n")[0][:200]
  if isinstance(error, GoneError):
    return f"{reason}; {_GO_ON}"
  runtime = isinstance(error, jax.errors.JaxRuntimeError)
  if count() > 1 and runtime and any(word in reason for word in _BROKEN):
    return f"another host is gone ({reason}); {_GO_ON}"
  return None


def exchange(name: str, value: Any, *, limit: float = MEET_SECONDS) -> list[Any]:
  """Wait until every host has called this; return the values of all, in order.

  All hosts must make the same calls in the same order.

  Args:
    name: of the meeting, for a host that waits in vain.
    value: what this host brings; JSON holds it.
    limit: seconds to wait for the others.

  Raises:
    GoneError: some have not come.
  """
  if count() == 1:
    return [value]
  client = _client()
  place = f"{_KEY_PREFIX}/{next(_meetings)} {name}/"
  client.key_value_set(f"{place}{index()}", json.dumps(value))
  started, pause, silent = time.monotonic(), 0.005, SILENT_SECONDS
  while True:
    found = client.key_value_dir_get(place)
    if len(found) == count():
      break
    waited = time.monotonic() - started
    if waited > min(limit, silent):
      here = {int(key.rpartition("/")[2]) for key, _ in found}
      missing = ", ".join(str(k) for k in range(count()) if k not in here)
      if waited > limit:
        raise GoneError(f"host {missing} did not come to: {name}, within {limit:g} s")
      if index() == min(here):  # one of those that wait says so
        log.warning("waiting for host %s for %.0f s: %s", missing, waited, name)
      silent *= 2
    time.sleep(pause)
    pause = min(2 * pause, 0.5)
  brought = {int(key.rpartition("/")[2]): json.loads(text) for key, text in found}
  return [brought[k] for k in range(count())]


def raise_flag(name: str) -> None:
  """Raise a flag that every host can see, once; see `flag_is_raised`."""
  if count() > 1:
    _client().key_value_set(f"{_KEY_PREFIX}/flag {name}/{index()}", "raised")


def flag_is_raised(name: str) -> bool:
  """Return whether any host has raised a flag; it does not wait."""
  place = f"{_KEY_PREFIX}/flag {name}/"
  return count() > 1 and bool(_client().key_value_dir_get(place))


@contextlib.contextmanager
def shared_errors(
  name: str, *more: type[Exception], limit: float = MEET_SECONDS
) -> Iterator[None]:
  """Raise an error of any host on all hosts, when all have come to the block's end.

  Otherwise a host would leave, and the others wait for it in their next collective.

  Args:
    name: of the meeting.
    more: exceptions to share beside `_SHARED`; made from a message alone.
    limit: as in `exchange`.

  Raises:
    InputError: (or one of `more`) as this host raised it, or that of another one,
      with its number.
    GoneError: another host failed in a way that is not to be shared.
  """
  if count() == 1:
    yield
    return
  kinds = {kind.__name__: kind for kind in (*_SHARED, *more)}
  failed: Exception | None = None
  try:
    yield
  except Exception as error:
    if lost(error):
      raise
    failed = error
  names = [kind.__name__ for kind in type(failed).__mro__]
  said = failed and [next((x for x in names if x in kinds), ""), str(failed)]
  everybody = exchange(name, said, limit=limit)
  if failed is not None:
    raise failed
  for host, words in enumerate(everybody):
    if words is not None:
      kind, message = words
      raise kinds.get(kind, GoneError)(f"host {host}: {message}")


def _client() -> Any:
  return distributed.global_state.client
