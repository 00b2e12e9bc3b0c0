"""Meetings of hosts; real processes that meet are in tests/many_hosts_test.py."""

import socket
import subprocess
import sys

import pytest

from phi1_jax import InputError
from phi1_jax.parallel import hosts


def test_one_host_meets_nobody():
  assert (hosts.index(), hosts.count(), hosts.is_first()) == (0, 1, True)
  assert hosts.exchange("a", {"b": 1}) == [{"b": 1}]
  hosts.post("stop")
  assert not hosts.posted("stop")
  with pytest.raises(InputError, match=r"^mine$"), hosts.shared_errors("a"):
    raise InputError("mine")


def test_a_port_that_is_taken():
  with (
    socket.create_server(("", 0)) as server,
    pytest.raises(InputError, match="Address already in use"),
  ):
    hosts._check_port(server.getsockname()[1], "refused")


def test_nobody_to_join():
  """The runtime aborts where the time to join is over: one line, and exit code 1."""
  with socket.create_server(("", 0)) as server:
    port = server.getsockname()[1]
  program = (
    f"from phi1_jax.parallel import hosts;hosts.join('localhost:{port}', 2, 1, limit=1)"
  )
  run = subprocess.run(
    [sys.executable, "-c", program], capture_output=True, text=True, timeout=300
  )
  assert run.returncode == 1, run.stderr
  assert run.stderr.splitlines()[-1].startswith("error: --coordinator_address: cannot")


@pytest.mark.parametrize(
  ("abort", "gone"),
  [
    ("os.abort()", False),
    # A thread that Python does not know, as the coordination service's.
    (
      "libc = ctypes.CDLL(None); thread = ctypes.c_ulong();"
      "libc.pthread_create(ctypes.byref(thread), None, libc.abort, None);"
      "time.sleep(9)",
      True,
    ),
  ],
)
def test_an_abort_of_this_process_is_not_taken_for_a_lost_host(abort, gone):
  program = (
    "import ctypes, os, threading, time;from phi1_jax.parallel import hosts;"
    f"hosts._handle_abort();{abort}"
  )
  run = subprocess.run(
    [sys.executable, "-c", program], capture_output=True, text=True, timeout=300
  )
  assert run.returncode == 1
  assert ("another host is gone" in run.stderr) is gone
  assert run.stderr.splitlines()[-1].startswith("error:")
