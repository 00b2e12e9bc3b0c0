import contextlib
import ctypes
import os
import pathlib
import subprocess
import sys
import time

import pytest

from phi1_jax import InputError
from phi1_jax.sandbox import levels
from phi1_jax.sandbox.program import Program
from phi1_jax.sandbox.sandbox import Sandbox

_PR_SET_CHILD_SUBREAPER = 36


def _wait_until(holds):
  deadline = time.monotonic() + 300
  while not holds():
    assert time.monotonic() < deadline
    time.sleep(0.02)


def _children() -> set[str]:
  own = os.getpid()
  return set(pathlib.Path(f"/proc/{own}/task/{own}/children").read_text().split())


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
@pytest.mark.parametrize("level", levels.LEVELS)
@pytest.mark.parametrize("busy", [True, False])
def test_nothing_is_left_to_an_init_that_may_reap_nothing(level, busy):
  """Orphans come to this process, which reaps none, so that they can be counted."""
  subprocess.run(["true"], check=True)  # whatever the first process leaves, is there
  before = _children()
  libc = ctypes.CDLL(None)
  assert libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
  try:
    try:
      sandbox = Sandbox(workers=1, isolation=level)
    except InputError as error:
      pytest.skip(f"no {level} on this machine: {error}")
    with sandbox:
      list(sandbox.run([Program("p", "", ("1",))]))
      if busy:
        sleeper = Program("s", "import time\ntime.sleep(99)", ())
        idle = len(_family(sandbox._pool[0].pid))
        sandbox._give(sandbox._pool[0], sleeper)
        _wait_until(lambda: len(_family(sandbox._pool[0].pid)) > idle)
    assert _children() - before == set()
  finally:
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def test_a_deep_folder_of_a_worker_is_removed():
  code = "import os\nfor _ in range(3000):\n  os.mkdir('d')\n  os.chdir('d')\n"
  with Sandbox(workers=1, isolation="rlimits") as sandbox:
    warm = Program("warm", "", ("1",))
    list(sandbox.run([warm]))
    folder = sandbox._pool[0]._scratch
    assert folder
    (verdict,) = sandbox.run([Program("deep", code, ("1",))])
    assert verdict.passed, verdict
  assert not os.path.exists(folder)


_JUDGES_FOREVER = """
import sys, time
from phi1_jax.sandbox.program import Program
from phi1_jax.sandbox.sandbox import Sandbox
sandbox = Sandbox(workers=1, isolation=sys.argv[1])
list(sandbox.run([Program("warm", "", ("1",))]))
worker = sandbox._pool[0]
print(worker.pid, worker._scratch, flush=True)
sleeps = "import time\\nopen('x', 'w').close()\\nwhile True: time.sleep(1)"
if sys.argv[2] == "True":
  list(sandbox.run([Program("p", sleeps, ("1",), cpu_seconds=1000.0)]))
time.sleep(1000)
"""


def _family(pid: int) -> set[int]:
  """A process and all that come from it."""
  try:
    inner = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
  except OSError:
    return set()
  return {pid}.union(*(_family(int(child)) for child in inner))


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
@pytest.mark.parametrize("level", levels.LEVELS)
@pytest.mark.parametrize("busy", [True, False])
def test_a_killed_parent_leaves_no_worker_and_no_folder(level, busy):
  command = [sys.executable, "-c", _JUDGES_FOREVER, level, str(busy)]
  with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
    assert parent.stdout
    try:
      words = parent.stdout.readline().split()
      if not words:
        pytest.skip(f"no {level} on this machine")
      # S, T, U while it judges, and the process of bubblewrap or nsjail.
      most = 2 + busy + (level != "rlimits")
      _wait_until(lambda: len(_family(int(words[0]))) >= most)
      family = _family(int(words[0]))
    finally:
      parent.kill()
  assert len(family) >= 2
  deadline = time.monotonic() + 300
  while left := {pid for pid in family if os.path.exists(f"/proc/{pid}")}:
    states = []
    for pid in left:
      with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it ended
        states.append(pathlib.Path(f"/proc/{pid}/stat").read_text())
    if all(") Z " in state for state in states):  # for an init that reaps nothing
      break
    assert time.monotonic() < deadline, states
    time.sleep(0.05)
  assert words[1] == "None" or not os.path.exists(words[1])
