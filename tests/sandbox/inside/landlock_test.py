"""What the code can do to files of its own user under Landlock and the filter."""

import os
import pathlib
import subprocess
import sys
import tempfile

import pytest

from phi1_jax.sandbox.inside import landlock, seccomp, server

NOBODY = 65534
# Confines itself as `server` does, then tries each change; prints those that worked.
TRY = """
import os, pathlib, sys
from phi1_jax.sandbox.inside import landlock, seccomp, server
version, readable, folder, scratch = int(sys.argv[1]), *sys.argv[2:]
if version:
  landlock.version = lambda: version
if not os.geteuid():
  os.setgroups([])
  os.setgid(65534)
  os.setuid(65534)
given = [os.path.join(place, "notes") for place in (readable, folder)]
filter = seccomp.Filter(mounts=False)
landlock.confine([readable], ["/dev/null", scratch])
filter.install()
own = pathlib.Path(scratch, "own")
own.write_text("first")
own.write_text("2")
assert own.read_text() == "2"
own.rename(own.with_name("other"))
for path in given:
  for name, change in {
    "truncate": lambda: os.truncate(path, 0),
    "open": lambda: os.open(path, os.O_RDONLY | os.O_TRUNC),
    "open_for_nothing": lambda: os.open(path, 3 | os.O_TRUNC),
    "write": lambda: open(path, "w"),
    "unlink": lambda: os.unlink(path),
    "chmod": lambda: os.chmod(path, 0),
    "chmod_at": lambda: os.chmod("notes", 0, dir_fd=os.open(os.path.dirname(path),
                                                            os.O_PATH)),
    "fchmod": lambda: os.fchmod(os.open(path, os.O_RDONLY), 0),
    "chown": lambda: os.chown(path, -1, -1),
    "lchown": lambda: os.lchown(path, -1, -1),
    "utime": lambda: os.utime(path, (0, 0)),
  }.items():
    try:
      change()
      print(path, name)
    except PermissionError:
      pass
"""


@pytest.mark.skipif(
  not landlock.version() or bool(seccomp.missing()), reason="no Landlock or seccomp"
)
@pytest.mark.parametrize("version", [0, 1, 2])  # 0: as it is
def test_files_of_the_user_stay_as_they_are(version):
  with tempfile.TemporaryDirectory() as folder:
    places = [pathlib.Path(folder, name) for name in ("readable", "other", "scratch")]
    for place in places:
      place.mkdir()
      (place / "notes").write_text("kept")
    if not os.geteuid():
      os.chmod(folder, 0o755)
      for path in [*places, *(place / "notes" for place in places)]:
        os.chown(path, NOBODY, NOBODY)
    command = [sys.executable, "-c", TRY, str(version), *map(str, places)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    for place in places:
      assert (place / "notes").read_text() == "kept"


@pytest.mark.parametrize("filtered", [True, False])
def test_landlock_guards_no_files_without_a_filter(monkeypatch, filtered):
  monkeypatch.setattr(landlock, "version", lambda: 3)
  worker = object.__new__(server.Server)
  worker.settings, worker.filter = {"own_pid_namespace": False}, filtered
  assert worker._files() == ("landlock" if filtered else "open")
