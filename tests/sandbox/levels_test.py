import os
import pathlib
import sys
import tempfile
import threading

import pytest

from phi1_jax import InputError
from phi1_jax.sandbox import levels
from phi1_jax.sandbox.sandbox import Sandbox
from tests.sandbox.conftest import judge, start

# Reports packages and sources of the host that can be read, and what can be written.
LOOK = """
import os
def f():
  seen, written = [], []
  for folder, inner, _ in os.walk("/usr"):
    for name in inner:
      path = os.path.join(folder, name)
      hidden = name in ("site-packages", "dist-packages") or path in (
        "/usr/src", "/usr/local/src")
      if hidden and os.listdir(path): seen.append(path)
      if hidden:
        try: os.chmod(path, 0o777)
        except OSError: pass
        try: written.append(open(path + "/x", "w").name)
        except OSError: pass
  return seen + written
"""

# Ordinary programs change no mode, owner or time.
TEMPORARY = """
import os, shutil, tempfile
def f():
  temporary = tempfile.NamedTemporaryFile("w+")
  with tempfile.TemporaryDirectory() as folder, temporary as one:
    one.write("abc")
    one.truncate(2)
    one.flush()
    copy = shutil.copyfile(one.name, os.path.join(folder, "copy"))
    os.makedirs(os.path.join(folder, "a", "b"))
    shutil.move(copy, os.path.join(folder, "a", "b"))
    with open(os.path.join(folder, "a", "b", "copy")) as file:
      return file.read()
"""
NUMPY = "import numpy\ndef f(x):\n  return {}\n"


@pytest.mark.parametrize("level", levels.LEVELS)
def test_level(level):
  test, late = "assert f(2) == 3", "import numpy.f2py.auxfuncs as late\n  return late"
  with start(isolation=level, minimum_wall_seconds=60) as sandbox:
    assert sandbox.isolation == sandbox.record()["isolation"] == level
    assert ("NOT ISOLATED" in sandbox.describe()) == (level == "rlimits")
    assert judge(sandbox, "def f(x): return x + 1", test).passed
    assert judge(sandbox, "import os; os._exit(0)", test).outcome == "exited"
    loops = judge(sandbox, "while True: pass", test, cpu_seconds=0.3)
    assert loops.outcome == "cpu_limit"
    if sandbox.record()["seccomp"] == "on":
      forks = judge(sandbox, "import os; os.fork()", test)
      assert (forks.outcome, "PermissionError" in forks.detail) == ("raised", True)
    if level != "rlimits":
      reads = judge(sandbox, f"open({__file__!r})", test)
      assert "FileNotFoundError" in reads.detail
      # Packages and sources of the host look empty.
      look = judge(sandbox, LOOK, "assert f() == []", cpu_seconds=20)
      assert look.passed, look
    without = judge(sandbox, NUMPY.format("x"), test)
    assert "ModuleNotFoundError" in without.detail
  with start(isolation=level, packages=("numpy",)) as sandbox:
    assert list(sandbox.record()["packages"]) == ["numpy"]
    found = judge(sandbox, NUMPY.format("numpy.sum(x)"), "assert f([1, 2]) == 3")
    assert found.passed, found
    found = judge(sandbox, f"def f(x):\n  {late}", "assert f(2)")
    assert found.outcome != "raised", found
    assert "ModuleNotFoundError" in judge(sandbox, "import scipy", "1").detail


def test_under_rlimits_code_can_open_no_file_of_others():
  """Everybody may write this file, so only Landlock keeps the code from it."""
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder, "verdicts.jsonl")
    path.write_text("kept")
    path.chmod(0o666)
    pathlib.Path(folder).chmod(0o777)
    with Sandbox(workers=1, isolation="rlimits") as sandbox:
      if sandbox.record()["files"] != "landlock":
        pytest.skip("no Landlock in this kernel")
      for mode in "rwa":
        verdict = judge(sandbox, f"open({str(path)!r}, {mode!r})\n", "1")
        assert verdict.detail.startswith("PermissionError"), verdict
      own = "open('x', 'w').write('1')\nopen('x').read()"
      for code, test in ((own, "1"), (TEMPORARY, "assert f() == 'ab'")):
        verdict = judge(sandbox, code, test)
        assert verdict.passed, verdict
    assert path.read_text() == "kept"


@pytest.fixture
def no_isolation(monkeypatch):
  def nothing(*_):
    raise levels.Unavailable("no such program here")

  monkeypatch.setattr(levels, "_bubblewrap", nothing)
  monkeypatch.setattr(levels, "_nsjail", nothing)


def children():
  """Process ids of this thread's children."""
  thread = f"/proc/self/task/{threading.get_native_id()}/children"
  return set(pathlib.Path(thread).read_text().split())


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_required_isolation_is_refused_where_there_is_none(no_isolation):
  before = children()
  with pytest.raises(InputError, match=r"apt-get install bubblewrap, or pip install"):
    Sandbox(workers=1, require_isolation=True)
  assert children() == before
  with Sandbox(workers=1) as sandbox:
    (tried,) = children() - before
    assert judge(sandbox, "", "1").passed
    assert children() - before == {tried}
    assert sandbox.isolation == "rlimits"
    assert "no bubblewrap: no such program here" in sandbox.describe()


def test_a_user_whose_files_are_in_reach_is_refused(no_isolation, monkeypatch):
  greeting = {"python": "3", "seccomp": "on", "uid": os.getuid(), "files": "open"}
  monkeypatch.setattr(Sandbox, "_probe", lambda *_: greeting)
  with pytest.raises(InputError, match=r"could overwrite your files.*Landlock"):
    Sandbox(workers=1)
  assert Sandbox(workers=1, isolation="rlimits").isolation == "rlimits"
  monkeypatch.setenv("PHI1_JAX_ISOLATION", "rlimits")
  assert Sandbox(workers=1).isolation == "rlimits"
