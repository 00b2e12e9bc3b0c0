"""A folder that appears whole or not at all."""

import os
import signal
import subprocess
import sys

import pytest

from phi1_jax import InputError, storage
from phi1_jax.interop.staging import staged


def refused(out, says, size=10):
  with pytest.raises(InputError, match=says):
    staged(out, size).__enter__()


@pytest.mark.parametrize("empty", [False, True])
def test_appears_whole(tmp_path, empty):
  out = tmp_path / "a" / "out"
  if empty:
    out.mkdir(parents=True)
  with staged(out, 10) as folder:
    (folder / "x").write_text("1")
    assert storage.names(out) == []
  assert [path.name for path in out.iterdir()] == ["x"]
  assert [path.name for path in out.parent.iterdir()] == ["out"]


def fail(out, error):
  with staged(out, 10) as folder:
    (folder / "sub").mkdir()
    storage.write_text(folder / "sub" / "x", "1")
    raise error


@pytest.mark.parametrize(
  "error", [InputError("wrong"), OSError("disk on fire"), KeyboardInterrupt()]
)
def test_leaves_nothing_when_it_fails(tmp_path, error):
  with pytest.raises(type(error)):
    fail(tmp_path / "out", error)
  assert list(tmp_path.iterdir()) == []


def test_what_exists_is_refused_and_kept(tmp_path):
  (tmp_path / "file").write_text("1")
  (tmp_path / "full").mkdir()
  (tmp_path / "full" / "x").write_text("1")
  (tmp_path / "link").symlink_to(tmp_path / "nowhere")
  for name in ("file", "full", "link"):
    refused(tmp_path / name, f"{name}: exists already")
  assert (tmp_path / "full" / "x").read_text() == "1"
  strangers = tmp_path / "out.partial"
  strangers.mkdir()
  (strangers / "x").write_text("1")
  refused(tmp_path / "out", "no conversion left there")
  assert (strangers / "x").exists()


def test_what_a_killed_process_left_is_deleted(tmp_path):
  program = (
    "import pathlib, sys, time; from phi1_jax.interop.staging import staged\n"
    "with staged(pathlib.Path(sys.argv[1]), 10) as f:\n"
    "  (f / 'sub').mkdir(); (f / 'sub' / 'x').write_text('1')\n"
    "  print('in', flush=True)\n"
    "  time.sleep(60)"
  )
  out = tmp_path / "out"
  words = [sys.executable, "-c", program, str(out)]
  child = subprocess.Popen(words, stdout=subprocess.PIPE)
  assert child.stdout.readline() == b"in\n"
  refused(out, "another process is converting")
  os.kill(child.pid, signal.SIGKILL)
  child.wait()
  assert (tmp_path / "out.partial" / "made" / "sub" / "x").exists()
  with staged(out, 10) as folder:
    assert list(folder.iterdir()) == []
  assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_too_little_room(tmp_path):
  refused(tmp_path / "out", r"free disk, expected at least 1000000000\.0", 10**18)
  assert list(tmp_path.iterdir()) == []


def test_on_cloud_storage(gcs):
  """Filled in place: locked until it is whole, deleted if it fails."""
  out = storage.parse(f"{gcs.folder}/out")
  with pytest.raises(OSError, match="disk on fire"):
    fail(out, OSError("disk on fire"))
  assert storage.names(out) == []
  for name in ("sub/x", ".lock", ".converting"):  # of a process that was killed
    storage.write_text(out / name, "{}")
  with staged(out, 10) as folder:
    assert storage.names(folder) == [".converting", ".lock"]
    storage.write_text(folder / "sub" / "y", "1")
    refused(out, "another process is converting")
  assert storage.names(out / "sub") == ["y"]
  refused(out, "exists already")


def test_a_killed_training_run_on_cloud_storage_is_refused_and_kept(gcs):
  """Its folder holds a lock too, but no conversion began in it."""
  out = storage.parse(f"{gcs.folder}/out")
  names = [".lock", "checkpoints/1/x", "config.gin"]
  for name in names:
    storage.write_text(out / name, name)
  refused(out, "exists already")
  assert [storage.read_text(out / name) for name in names] == names
