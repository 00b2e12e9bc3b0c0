import contextlib
import ctypes
import os
import pathlib
import subprocess
import sys
import time

import pytest

from phi1_jax.sandbox import levels
from phi1_jax.sandbox.program import Program
from phi1_jax.sandbox.sandbox import Sandbox
from tests.sandbox.conftest import judge, start

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
    with start(isolation=level) as sandbox:
      assert judge(sandbox, "", "1").passed
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
    assert judge(sandbox, "", "1").passed
    folder = sandbox._pool[0]._scratch
    assert folder
    assert judge(sandbox, code, "1").passed
  assert not os.path.exists(folder)


_JUDGES_FOREVER = """
import sys, time
from phi1_jax.sandbox.program import Program
from phi1_jax.sandbox.sandbox import Sandbox
from tests.sandbox.conftest import judge, start
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
        start(isolation=level)  # skips the test
      # S, T, U while it judges, and the process of bubblewrap or nsjail.
      most = 2 + busy + (level != "rlimits")
      _wait_until(lambda: len(_family(int(words[0]))) >= most)
      family = _family(int(words[0]))
    finally:
      parent.kill()
  assert len(family) >= 2

  def ended():
    states = []
    for pid in family:
      with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it ended
        states.append(pathlib.Path(f"/proc/{pid}/stat").read_text())
    return all(") Z " in state for state in states)  # for an init that reaps nothing

  _wait_until(ended)
  assert words[1] == "None" or not os.path.exists(words[1])
