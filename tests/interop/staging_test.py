import os
import signal
import subprocess
import sys

import pytest

from phi1_jax import InputError, storage
from phi1_jax.interop.staging import staged


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


@pytest.mark.parametrize("error", [InputError("wrong"), OSError("disk on fire")])
def test_leaves_nothing_when_it_fails(tmp_path, error):
  with pytest.raises(type(error)):
    fail(tmp_path / "out", error)
  assert list(tmp_path.iterdir()) == []


def test_an_interruption_leaves_what_the_next_one_clears(tmp_path):
  partial = tmp_path / "out.partial"
  with pytest.raises(KeyboardInterrupt):
    fail(tmp_path / "out", KeyboardInterrupt())
  assert not partial.exists()
  (partial / "made" / "checkpoints").mkdir(parents=True)  # a thread that still wrote
  with staged(tmp_path / "out", 10) as folder:
    assert not (folder / "checkpoints").exists()
  assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_exists_is_refused_and_kept(tmp_path):
  (tmp_path / "file").write_text("1")
  (tmp_path / "full").mkdir()
  (tmp_path / "full" / "x").write_text("1")
  (tmp_path / "link").symlink_to(tmp_path / "nowhere")
  for name in ("file", "full", "link"):
    with pytest.raises(InputError, match=f"{name}: exists already"):
      staged(tmp_path / name, 10).__enter__()
  assert (tmp_path / "full" / "x").read_text() == "1"


def test_strangers_are_not_deleted(tmp_path):
  partial = tmp_path / "out.partial"
  partial.mkdir()
  (partial / "x").write_text("1")
  with pytest.raises(InputError, match="no conversion left there"):
    staged(tmp_path / "out", 10).__enter__()
  assert (partial / "x").exists()


def test_what_a_killed_process_left_is_deleted(tmp_path):
  program = (
    "import pathlib, sys, time; from phi1_jax.interop.staging import staged\n"
    "with staged(pathlib.Path(sys.argv[1]), 10) as f:\n"
    "  (f / 'sub').mkdir(); (f / 'sub' / 'x').write_text('1')\n"
    "  print('in', flush=True)\n"
    "  time.sleep(60)"
  )
  out = tmp_path / "out"
  child = subprocess.Popen(
    [sys.executable, "-c", program, str(out)], stdout=subprocess.PIPE
  )
  assert child.stdout.readline() == b"in\n"
  with pytest.raises(InputError, match="another process is converting"):
    staged(out, 10).__enter__()
  os.kill(child.pid, signal.SIGKILL)
  child.wait()
  assert (tmp_path / "out.partial" / "made" / "sub" / "x").exists()
  with staged(out, 10) as folder:
    assert list(folder.iterdir()) == []
  assert list(out.iterdir()) == []


def test_too_little_room(tmp_path):
  with pytest.raises(InputError, match=r"free disk, expected at least 1000000000\.0"):
    staged(tmp_path / "out", 10**18).__enter__()
  assert list(tmp_path.iterdir()) == []


def test_on_cloud_storage(gcs):
  """Filled in place: locked until it is whole, deleted if it fails."""
  out = storage.parse(f"{gcs.folder}/out")
  with pytest.raises(OSError, match="disk on fire"):
    fail(out, OSError("disk on fire"))
  assert storage.names(out) == []
  with staged(out, 10) as folder:
    storage.write_text(folder / "sub" / "x", "1")
    with pytest.raises(InputError, match="another process is converting"):
      staged(out, 10).__enter__()
  assert storage.names(out) == ["sub"]
  with pytest.raises(InputError, match="exists already"):
    staged(out, 10).__enter__()


def test_a_killed_training_run_on_cloud_storage_is_refused_and_kept(gcs):
  """Its folder holds a lock too, but no conversion began in it."""
  out = storage.parse(f"{gcs.folder}/out")
  names = [".lock", "checkpoints/1/x", "config.gin"]
  for name in names:
    storage.write_text(out / name, name)
  with pytest.raises(InputError, match="exists already"):
    staged(out, 10).__enter__()
  assert storage.names(out) == [".lock", "checkpoints", "config.gin"]
  assert [storage.read_text(out / name) for name in names] == names


def test_what_a_killed_process_left_on_cloud_storage_is_deleted(gcs):
  out = storage.parse(f"{gcs.folder}/out")
  for name in ("sub/x", ".lock", ".converting"):
    storage.write_text(out / name, "{}")
  with staged(out, 10) as folder:
    assert storage.names(folder) == [".converting", ".lock"]
    storage.write_text(folder / "y", "2")
  assert storage.names(out) == ["y"]
