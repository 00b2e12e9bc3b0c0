"""A command as a child process: it gets one signal to stop, and its exit codes."""

import pathlib
import subprocess
import sys
import textwrap
import time

import pytest

from phi1_jax import InputError
from phi1_jax.cli import child


@pytest.fixture
def module(tmp_path, monkeypatch):
  """Writes a module that the child can run."""
  monkeypatch.setenv("PYTHONPATH", str(tmp_path))

  def write(source):
    (tmp_path / "job.py").write_text(textwrap.dedent(source))
    return "job"

  return write


SAVING = """
  import pathlib, signal, sys, time
  heard = []
  def note(number, frame):
    heard.append(number)
    signal.signal(number, signal.SIG_DFL)  # a second one kills
  signal.signal(signal.SIGTERM, note)
  pathlib.Path(sys.argv[1], "ready").touch()
  while not heard:
    time.sleep(0.02)
  pathlib.Path(sys.argv[1], "heard").touch()
  time.sleep(0.5)  # it saves; a second signal would come after 0.2 s
  pathlib.Path(sys.argv[1], "saved").touch()
  sys.exit(75)
"""


def test_a_child_that_saves_gets_one_signal(module, tmp_path):
  stopping = (tmp_path / "ready").exists
  assert not child.run(module(SAVING), [str(tmp_path)], stopping, "saving")
  assert (tmp_path / "saved").exists()


@pytest.mark.parametrize(
  ("code", "expected"), [(0, True), (75, False), (2, InputError), (1, RuntimeError)]
)
def test_exit_codes(module, code, expected):
  name = module(f"import sys; sys.exit({code})")
  if isinstance(expected, bool):
    assert child.run(name, [], lambda: False, "working") == expected
  else:
    with pytest.raises(expected, match="working"):
      child.run(name, [], lambda: False, "working")


def test_a_child_without_a_handler_is_stopped_too(module):
  name = module("import time; time.sleep(60)")
  assert not child.run(name, [], lambda: True, "working")


def test_a_child_does_not_outlive_an_interruption(module, tmp_path):
  name = module(
    """
    import os, pathlib, sys, time
    # Its own process group: a Ctrl-C of the terminal does not reach it.
    pathlib.Path(sys.argv[1], "pid").write_text(str(os.getpgrp()))
    time.sleep(60)
    """
  )

  def interrupted():
    if (tmp_path / "pid").exists() and (tmp_path / "pid").read_text():
      raise KeyboardInterrupt
    return False

  with pytest.raises(KeyboardInterrupt):
    child.run(name, [str(tmp_path)], interrupted, "working")
  assert not pathlib.Path("/proc", (tmp_path / "pid").read_text()).exists()


def _wait_for(path):
  deadline = time.monotonic() + 300
  while not path.exists():
    assert time.monotonic() < deadline, path.name
    time.sleep(0.02)


@pytest.mark.parametrize("signalled", [False, True])
def test_a_child_whose_parent_is_killed_saves_and_stops(module, tmp_path, signalled):
  """It gets one signal, whether or not the parent has sent one before."""
  body = textwrap.indent(textwrap.dedent(SAVING), "  ")
  module(
    f"from phi1_jax.cli import command\ndef main(argv):\n{body}\ncommand.run(main)"
  )
  program = "import pathlib, sys; from phi1_jax.cli import child; "
  program += "ready = pathlib.Path(sys.argv[1], 'ready'); "
  program += f"stopping = lambda: {signalled} and ready.exists(); "
  program += "child.run('job', sys.argv[1:], stopping, 'saving')"
  parent = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)])
  _wait_for(tmp_path / ("heard" if signalled else "ready"))
  parent.kill()
  parent.wait()
  _wait_for(tmp_path / "saved")
