"""Paths, whole files, lines, retries and the mirror, local and on GCS's protocol."""

import contextlib
import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from phi1_jax import InputError, storage
from phi1_jax.storage import JsonLines, read_lines, retry


@pytest.mark.parametrize(
  "name", ["s3://b/x", "hf://datasets/x", "http://h/x", "gs://", "gs:/b/x", "gs//b"]
)
def test_other_schemes_are_refused_in_one_line(name):
  with pytest.raises(InputError) as error:
    storage.parse(name)
  assert "\n" not in str(error.value)


def test_files_on_cloud_storage(gcs, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  path = storage.parse(f"{gcs.folder}/a/b.json")
  assert os.fspath(path) == f"{gcs.folder}/a/b.json"  # the full name
  assert storage.is_remote(path)
  assert not storage.is_remote(Path("gs"))
  assert storage.parse("gs/a") == Path("gs/a")
  with pytest.raises(FileNotFoundError):
    storage.read_bytes(path)
  with pytest.raises(InputError, match=r"b\.json: no such file"):
    storage.read_json(path)
  for text, named in (("{", "not readable as JSON"), ("[1]", "got list")):
    storage.write_text(path, text)
    with pytest.raises(InputError, match=named):
      storage.read_json(path)
  for value in (1, 2):
    storage.write_json(path, {"a": value})
  assert storage.read_json(path) == {"a": 2}
  assert not list(tmp_path.glob("gs*"))


def test_a_file_appears_whole_or_not_at_all(tmp_path):
  path = tmp_path / "x.txt"
  storage.write_text(path, "old")
  with contextlib.suppress(RuntimeError), storage.writing(path) as file:
    file.write(b"new")
    raise RuntimeError
  assert path.read_text() == "old"
  with storage.writing(path) as file:
    file.write(b"new")
  assert path.read_text() == "new"
  assert [entry.name for entry in tmp_path.iterdir()] == ["x.txt"]


def error_of(name, bases=(Exception,), **attributes):
  """An exception as a network library would raise it."""
  return type(name, bases, attributes)()


def numbered(number):
  return OSError(number, os.strerror(number))


def reply(status):
  return type("Reply", (), {"status_code": status})


CONNECTION = type("ClientConnectionError", (Exception,), {})
TRANSIENT = [
  *(
    numbered(errno.EIO),
    numbered(errno.ESTALE),
    TimeoutError(),
    ConnectionResetError(),
  ),
  ValueError("UNAVAILABLE: error reading gs://b: HTTP response code: 503"),
  ValueError("Error reading local file: Input/output error [OS error 5: EIO]"),
  ValueError("HTTP response code: 429 with body"),
  ValueError("CURL error[6] Could not resolve host: storage.googleapis.com"),
  *(error_of("HttpError", code=503), error_of("HttpError", code="429")),
  *(error_of("ChecksumError"), error_of("ConnectorError", (CONNECTION, OSError))),
  error_of("HTTPError", (OSError,), response=reply(502)),
]
PERMANENT = [
  *(numbered(errno.ENOENT), numbered(errno.EACCES), numbered(errno.ENOSPC)),
  ValueError("DATA_LOSS: checksum of 5030 bytes"),
  ValueError("NOT_FOUND: file /runs/ABORTED/EIO: not there"),
  error_of("HttpError", code=404),
  error_of("HTTPError", (OSError,), response=reply(404)),
]


@pytest.mark.parametrize(
  ("error", "expected"),
  [*((e, True) for e in TRANSIENT), *((e, False) for e in PERMANENT)],
)
def test_transient_errors(error, expected):
  assert retry.is_transient(error) is expected
  wrapped = RuntimeError("reading failed")
  wrapped.__cause__ = error
  assert retry.is_transient(wrapped) is expected


def test_the_error_that_another_replaces_does_not_count():
  error = ValueError("no such step")
  error.__context__, error.__suppress_context__ = TimeoutError(), True  # `from None`
  assert not retry.is_transient(error)


def test_retries_until_it_works_or_gives_up_in_one_line(monkeypatch):
  monkeypatch.setattr(retry, "_FIRST_PAUSE", 0.001)
  monkeypatch.setattr(retry, "RETRY_SECONDS", 0.05)
  left = [numbered(errno.EIO), TimeoutError()]

  def call():
    if left:
      raise left.pop()
    return "content"

  assert retry.retrying(call, "reading x") == "content"
  left += [numbered(errno.ESTALE)] * 1000
  with pytest.raises(storage.StorageError) as error:
    retry.retrying(call, "reading x")
  assert "\n" not in str(error.value)


@pytest.mark.parametrize("fault", [{"status": 503}, {"status": 429}, {"lose": True}])
def test_server_errors_are_repeated(gcs, fault):
  path = storage.parse(f"{gcs.folder}/x")
  gcs.fail(method="POST", times=2, **fault)
  storage.write_text(path, "content")
  gcs.fail(method="GET", times=2, **fault)
  assert storage.read_text(path) == "content"
  assert len(gcs.heal()) == 4


def test_a_download_that_is_cut_short_is_repeated(gcs, tmp_path):
  path = storage.parse(f"{gcs.folder}/x")
  storage.write_bytes(path, bytes(range(256)) * 100)
  gcs.fail(path="alt=media|/download/|/bucket/", times=1, cut=True)
  mirror = storage.Mirror(storage.parse(gcs.folder))
  mirror.fetch()
  assert (mirror.local / "x").read_bytes() == bytes(range(256)) * 100
  assert len(gcs.heal()) == 1


def test_mirror_uploads_what_changed(gcs):
  folder = storage.parse(f"{gcs.folder}/run")
  mirror = storage.Mirror(folder)
  with storage.JsonLines(mirror.local / "rows.jsonl") as rows:
    rows.append({"a": 1})
  (mirror.local / "sub").mkdir()
  (mirror.local / "sub" / "b.txt").write_text("b")
  (mirror.local / ".lock").write_text("stays")
  mirror.upload()
  assert storage.read_lines(folder / "rows.jsonl") == [{"a": 1}]
  name = gcs.folder.removeprefix("gs://bucket/")
  sizes = gcs.objects(f"{name}/run/")
  assert sorted(sizes) == [f"{name}/run/rows.jsonl", f"{name}/run/sub/b.txt"]
  mirror = storage.Mirror(folder)
  mirror.fetch()
  assert (mirror.local / "sub" / "b.txt").read_text() == "b"
  with storage.JsonLines(mirror.local / "rows.jsonl") as rows:
    rows.append({"a": 2})
  gcs.fail(method="POST", path="b.txt", status=500, times=99)  # it did not change
  mirror.upload()
  assert storage.read_lines(folder / "rows.jsonl") == [{"a": 1}, {"a": 2}]


def test_a_mirror_leaves_out_a_file_that_vanishes(gcs, monkeypatch):
  mirror = storage.Mirror(storage.parse(f"{gcs.folder}/run"))
  copy = storage.files.copy

  def vanishing(source, target):
    if source.name == "a":
      source.unlink()
    copy(source, target)

  monkeypatch.setattr(storage.files, "copy", vanishing)
  for name in ("a", "b"):
    (mirror.local / name).write_text(name)
  mirror.upload()
  assert storage.names(storage.parse(f"{gcs.folder}/run")) == ["b"]


def test_two_mirrors_of_a_folder_do_not_disturb_each_other(gcs):
  folder = storage.parse(f"{gcs.folder}/run")
  storage.write_text(folder / "a.txt", "a")
  code = (
    "import sys; from phi1_jax import storage; mirror = storage.Mirror("
    "storage.parse(sys.argv[1])); mirror.fetch(); print(mirror.local)"
  )
  first = storage.Mirror(folder)
  first.fetch()
  words = [sys.executable, "-c", code, str(folder)]
  other = subprocess.run(words, check=True, capture_output=True, text=True).stdout
  assert Path(other.strip()) != first.local
  first.upload()
  assert storage.names(folder) == ["a.txt"]
  subprocess.run(words, check=True, capture_output=True)
  assert not Path(other.strip()).exists()  # a copy of a process that has ended
  assert (first.local / "a.txt").exists()


def test_a_mirror_is_not_empty_because_the_listing_failed(gcs, monkeypatch):
  folder = storage.parse(f"{gcs.folder}/run")
  storage.write_text(folder / "a.txt", "a")
  gcs.fail(path=r"/o\?.*prefix", status=503, times=2)
  mirror = storage.Mirror(folder)
  mirror.fetch()
  assert len(gcs.heal()) == 2
  assert (mirror.local / "a.txt").exists()
  gcs.fail(path=r"/o\?.*prefix", status=403, times=9)
  with pytest.raises(OSError, match="Forbidden"):
    storage.Mirror(folder).fetch()


def test_a_mirror_whose_lock_is_lost_uploads_nothing(gcs):
  folder = storage.parse(f"{gcs.folder}/run")
  with storage.Lease(folder, "judging") as lease:
    mirror = storage.Mirror(folder, lease)
    (mirror.local / "rows.jsonl").write_text("old")
    lease.lost = True
    with pytest.raises(storage.HeldError):
      mirror.upload()
  assert storage.names(folder) == []


def test_a_folder_is_moved(gcs, tmp_path):
  local, remote = tmp_path / "run", storage.parse(f"{gcs.folder}/run")
  for folder in (local, remote):
    (folder / "sub").mkdir(parents=True)
    storage.write_text(folder / "a.txt", "a")
    storage.write_text(folder / "sub" / "b.txt", "b")
    if folder is remote:
      gcs.fail(method="POST", path="rewriteTo|copyTo", status=503, times=1)
      gcs.fail(method="DELETE", status=503, times=1)
    target = folder.with_name("aside") / "run"
    storage.move(folder, target)
    assert storage.names(target) == ["a.txt", "sub"]
    assert storage.read_text(target / "sub" / "b.txt") == "b"
    assert not storage.exists(folder / "a.txt")


def test_rows_wait_in_memory_while_the_disk_is_full(tmp_path, monkeypatch):
  path, write, full = tmp_path / "rows.jsonl", os.write, [True]

  def limited(number, content):
    if full[0]:
      if len(content) > 7:  # a full disk may still take a part
        return write(number, content[:7]) if path.stat().st_size < 7 else _fail()
      _fail()
    return write(number, content)

  def _fail():
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

  monkeypatch.setattr(os, "write", limited)
  expected = [{"step": step, "text": "x" * 500} for step in range(101)]
  with storage.JsonLines(path, patient=True) as rows:
    for row in expected[:100]:
      rows.append(row)
    full[0] = False
    rows.append(expected[100])
  assert storage.read_lines(path) == expected
  full[0] = True
  with (
    pytest.raises(OSError, match="No space") as error,
    storage.JsonLines(path) as rows,
  ):
    rows.append({})
  assert error.value.filename == str(path)
  with pytest.raises(OSError, match="No space") as error, storage.writing(path):
    _fail()
  assert error.value.filename == str(path)


ROWS = [{"key": "a", "text": "é\n"}, {"key": "b"}, {"key": "c", "n": 1.5}]


def test_a_torn_line_is_cut_off_wherever_it_was_torn(tmp_path):
  path = tmp_path / "x.jsonl"
  with JsonLines(path) as journal:
    for row in ROWS:
      journal.append(row)
  whole = path.read_bytes()
  for size in range(len(whole) + 1):
    path.write_bytes(whole[:size])
    kept = whole[:size].count(b"\n")
    assert read_lines(path) == ROWS[:kept]
    with JsonLines(path) as journal:
      assert journal.rows == ROWS[:kept]
      for row in ROWS[kept:]:
        journal.append(row)
    assert path.read_bytes() == whole


def test_a_killed_process_loses_no_line(tmp_path):
  code = (
    "import os, pathlib, sys\n"
    "from phi1_jax.storage import JsonLines\n"
    "journal = JsonLines(pathlib.Path(sys.argv[1]), every=1e9)\n"
    "for number in range(7):\n"
    "  journal.append({'number': number})\n"
    "os.kill(os.getpid(), 9)\n"
  )
  path = tmp_path / "x.jsonl"
  ended = subprocess.run([sys.executable, "-c", code, path], check=False)
  assert ended.returncode == -9
  assert [row["number"] for row in read_lines(path)] == list(range(7))


@pytest.mark.parametrize("line", ["[1]", "{", '"x"', "\0\0"])
def test_a_damaged_line_is_named(tmp_path, line):
  path = tmp_path / "x.jsonl"
  path.write_text(f'{{"key": 1}}\n{line}\n{{"key": 2}}\n')
  with pytest.raises(InputError, match=r"x\.jsonl, line 2: got .*; change or delete"):
    JsonLines(path)
