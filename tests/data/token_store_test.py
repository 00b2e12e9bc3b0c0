import errno
import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest

from phi1_jax import InputError, storage
from phi1_jax.data import token_store
from phi1_jax.data.token_store import ShardWriter, TokenStore, finish, finished_shard

FIELDS = {
  "mixture": "m",
  "tasks": {"code": {"rate": "by_size"}, "empty": {"rate": "by_size"}},
  "tokenizer": {"name": "x", "digest": "0", "vocabulary_size": 65_536, "eos_id": 9},
  "held_out_fraction": 0.2,
}
# Per shard: (task, documents as (tokens, held out)). The middle one is empty.
SHARDS = [
  ("code", [([0, 1, 9], False), ([7, 9], True), ([65_535, 9], False)]),
  ("empty", []),
  ("code", [([2, 0, 0, 9], False), ([8, 8, 9], True)]),
]


def write_shard(directory, index):
  task, documents = SHARDS[index]
  writer = ShardWriter(directory, index, len(SHARDS), task)
  for tokens, held_out in documents:
    writer.add(tokens, num_bytes=10 * len(tokens), held_out=held_out)
  return writer.close()


def build(directory) -> str:
  shards = [write_shard(directory, i) for i in range(len(SHARDS))]
  return finish(directory, FIELDS, shards)


@pytest.fixture
def directory(tmp_path) -> Path:
  build(tmp_path / "store")
  return tmp_path / "store"


def rewrite_manifest(directory, change):
  """Edits the manifest and lets COMPLETED vouch for it."""
  path = directory / "manifest.json"
  manifest = json.loads(path.read_text())
  change(manifest)
  path.write_text(json.dumps(manifest))
  digest = hashlib.sha256(path.read_bytes()).hexdigest()
  (directory / "COMPLETED").write_text(json.dumps({"manifest_sha256": digest}))


def test_train_documents_come_first_and_streams_cross_shards(directory):
  store = TokenStore.open(directory)
  train, held_out = store.stream("code", "train"), store.stream("code", "held_out")
  assert train.read(0, len(train)).tolist() == [0, 1, 9, 65_535, 9, 2, 0, 0, 9]
  assert held_out.read(0, len(held_out)).tolist() == [7, 9, 8, 8, 9]
  assert train.read(3, 7).tolist() == [65_535, 9, 2, 0]
  assert train.read(0, 2).dtype == train.read(3, 7).dtype == np.uint16
  assert (store.eos_id, store.vocabulary_size) == (9, 65_536)
  assert store.tasks == ("code", "empty")
  first = np.load(directory / "tokens-00000-of-00003.npy", mmap_mode="r")
  starts = np.load(directory / "documents-00000-of-00003.npy")
  assert first.dtype == np.uint16
  assert first.tolist() == [0, 1, 9, 65_535, 9, 7, 9]
  assert starts.tolist() == [0, 3, 5]


def test_an_empty_shard_is_an_empty_stream(directory):
  stream = TokenStore.open(directory).stream("empty", "train")
  assert len(stream) == 0
  assert stream.read(0, 0).tolist() == []


@pytest.mark.parametrize("border", range(10))
def test_every_range_equals_the_concatenation(directory, border):
  stream = TokenStore.open(directory).stream("code", "train")
  everything = [0, 1, 9, 65_535, 9, 2, 0, 0, 9]
  for start in range(border + 1):
    assert stream.read(start, border).tolist() == everything[start:border]


@pytest.mark.parametrize("start_stop", [(-1, 2), (3, 2), (0, 10)])
def test_a_range_outside_the_stream_is_an_index_error(directory, start_stop):
  with pytest.raises(IndexError):
    TokenStore.open(directory).stream("code", "train").read(*start_stop)


def test_reading_inside_a_shard_copies_nothing(directory):
  piece = TokenStore.open(directory).stream("code", "train").read(1, 4)
  while isinstance(piece.base, np.ndarray):
    piece = piece.base
  assert isinstance(piece, np.memmap) or not piece.flags.owndata
  assert not piece.flags.writeable


def test_manifest_counts_and_digest(directory):
  manifest_bytes = (directory / "manifest.json").read_bytes()
  manifest = json.loads(manifest_bytes)
  assert (manifest["documents"], manifest["tokens"], manifest["bytes"]) == (5, 14, 140)
  assert manifest["shards"][0]["train"] == {"documents": 2, "tokens": 5, "bytes": 50}
  assert manifest["shards"][2]["held_out"] == {"documents": 1, "tokens": 3, "bytes": 30}
  digest = hashlib.sha256(manifest_bytes).hexdigest()
  assert TokenStore.open(directory).digest == digest


def test_building_again_gives_the_same_bytes(tmp_path):
  digests = [build(tmp_path / name) for name in ("a", "b")]
  assert digests[0] == digests[1]
  names = sorted(os.listdir(tmp_path / "a"))
  assert names == sorted(os.listdir(tmp_path / "b"))
  assert len(names) == 2 * len(SHARDS) + 2  # no record, no temporary file
  for name in names:
    assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.parametrize("crash_at", range(6))
def test_a_crash_leaves_no_shard_or_a_whole_one(tmp_path, monkeypatch, crash_at):
  """Dies at the n-th fsync of shard 0 (three files, each with its folder)."""
  calls = 0

  def fsync(_):
    nonlocal calls
    if calls == crash_at:
      raise KeyboardInterrupt
    calls += 1

  with monkeypatch.context() as patch:
    patch.setattr(os, "fsync", fsync)
    with pytest.raises(KeyboardInterrupt):
      write_shard(tmp_path, 0)
  found = finished_shard(tmp_path, 0, len(SHARDS))
  # At the last fsync the record already has its name.
  assert (found is not None) == (crash_at == 5)
  expected = write_shard(tmp_path, 0)
  assert found in (None, expected)
  assert finished_shard(tmp_path, 0, len(SHARDS)) == expected


def test_a_record_without_its_files_is_not_a_finished_shard(tmp_path):
  entry = write_shard(tmp_path, 0)
  (tmp_path / entry["documents_file"]).unlink()
  assert finished_shard(tmp_path, 0, len(SHARDS)) is None


@pytest.mark.parametrize("tokens", [[65_536, 9], [-1, 9]])
def test_ids_that_do_not_fit_are_refused(tmp_path, tokens):
  with pytest.raises(InputError, match=r"task code: .*uint16"):
    ShardWriter(tmp_path, 0, 1, "code").add(tokens, num_bytes=1, held_out=False)


def test_finish_wants_all_shards_in_order(tmp_path):
  shards = [write_shard(tmp_path, i) for i in (1, 0)]
  with pytest.raises(ValueError, match="in order"):
    finish(tmp_path, FIELDS, shards)


def test_missing_folder(tmp_path):
  with pytest.raises(InputError, match=r"nowhere: no such folder"):
    TokenStore.open(tmp_path / "nowhere")


def test_unfinished_store(directory):
  (directory / "COMPLETED").unlink()
  with pytest.raises(InputError, match=r"no COMPLETED.*phi1_jax.prepare.* to go on"):
    TokenStore.open(directory)


@pytest.mark.parametrize("name", ["COMPLETED", "manifest.json"])
def test_unreadable_json(directory, name):
  content = b'{"format": \xff'
  (directory / name).write_bytes(content)
  if name == "manifest.json":
    digest = hashlib.sha256(content).hexdigest()
    (directory / "COMPLETED").write_text(json.dumps({"manifest_sha256": digest}))
  with pytest.raises(InputError, match=rf"{name}: not readable as JSON"):
    TokenStore.open(directory)


def test_changed_manifest(directory):
  path = directory / "manifest.json"
  path.write_text(path.read_text().replace("code", "c0de"))
  with pytest.raises(InputError, match=r"manifest.json has sha256 .* COMPLETED says"):
    TokenStore.open(directory)


def test_missing_manifest(directory):
  (directory / "manifest.json").unlink()
  with pytest.raises(InputError, match=r"manifest.json is missing"):
    TokenStore.open(directory)


def test_unknown_format(directory):
  rewrite_manifest(directory, lambda manifest: manifest.update(format=2))
  with pytest.raises(InputError, match="format 2, this version reads format 1"):
    TokenStore.open(directory)


@pytest.mark.parametrize("field", ["shards", "tokenizer", "tasks"])
def test_missing_manifest_field(directory, field):
  rewrite_manifest(directory, lambda manifest: manifest.pop(field))
  with pytest.raises(InputError, match=f"manifest.json: field '{field}'"):
    TokenStore.open(directory)


@pytest.mark.parametrize("kind", ["tokens", "documents"])
@pytest.mark.parametrize("verify", [True, False])
def test_missing_and_truncated_shards(directory, kind, verify):
  path = directory / f"{kind}-00002-of-00003.npy"
  content = path.read_bytes()
  for keep in (0, 7, len(content) - 2):
    path.write_bytes(content[:keep])
    with pytest.raises(InputError, match=rf"{path.name} is truncated"):
      TokenStore.open(directory, verify=verify)
  path.unlink()
  with pytest.raises(InputError, match=rf"{path.name} is missing"):
    TokenStore.open(directory, verify=verify)


@pytest.mark.parametrize("kind", ["tokens", "documents"])
def test_a_flipped_byte_is_seen_by_verify(directory, kind):
  path = directory / f"{kind}-00002-of-00003.npy"
  content = bytearray(path.read_bytes())
  content[-1] ^= 1
  path.write_bytes(content)
  with pytest.raises(InputError, match=rf"{path.name} has sha256"):
    TokenStore.open(directory)
  assert TokenStore.open(directory, verify=False).tasks == ("code", "empty")


def test_wrong_type_and_length(directory):
  path = directory / "tokens-00002-of-00003.npy"
  np.save(path, np.zeros(7, np.int32))
  with pytest.raises(InputError, match=r"holds int32\[7\], the manifest says uint16"):
    TokenStore.open(directory, verify=False)
  np.save(path, np.zeros(8, np.uint16))
  with pytest.raises(InputError, match=r"holds uint16\[8\].*uint16\[7\]"):
    TokenStore.open(directory, verify=False)


def test_unknown_task_lists_the_tasks(directory):
  with pytest.raises(InputError, match=r'no task "cod".*code, empty'):
    TokenStore.open(directory).stream("cod", "train")


@pytest.fixture
def hashed(monkeypatch):
  """Names of the files that are hashed."""
  names, sha256 = [], token_store._sha256

  def spied(path):
    names.append(path.name)
    return sha256(path)

  monkeypatch.setattr(token_store, "_sha256", spied)
  return names


def test_files_that_were_verified_are_not_hashed_again(directory, tmp_path, hashed):
  note = tmp_path / "verified.json"
  before = {path.name: path.read_bytes() for path in directory.iterdir()}
  TokenStore.open(directory, verified=note)
  assert sum(name.endswith(".npy") for name in hashed) == 2 * len(SHARDS)
  hashed.clear()
  TokenStore.open(directory, verified=note)
  assert hashed == ["manifest.json"]
  assert before == {path.name: path.read_bytes() for path in directory.iterdir()}
  # A file that changed since is hashed, and refused.
  path = directory / "tokens-00000-of-00003.npy"
  content = bytearray(path.read_bytes())
  content[-1] ^= 1
  path.write_bytes(content)
  with pytest.raises(InputError, match="its bytes changed"):
    TokenStore.open(directory, verified=note)
  note.write_text("{torn")  # is no note
  with pytest.raises(InputError, match="its bytes changed"):
    TokenStore.open(directory, verified=note)


def test_a_store_in_the_cloud_is_copied_and_verified_once(gcs, directory, hashed):
  folder = storage.parse(f"{gcs.folder}/store")
  for path in directory.iterdir():
    storage.write_bytes(folder / path.name, path.read_bytes())
  first = TokenStore.open(f"{gcs.folder}/store")
  assert first.digest == TokenStore.open(directory).digest
  hashed.clear()
  gcs.fail(path="tokens-", status=404, times=99)
  second = TokenStore.open(f"{gcs.folder}/store")
  assert gcs.heal() == []
  assert hashed == ["manifest.json"]
  np.testing.assert_array_equal(
    *(s.stream("code", "train").read(0, 9) for s in (first, second))
  )


def test_a_cached_store_that_is_whole_needs_no_write(gcs, directory, monkeypatch):
  folder = storage.parse(f"{gcs.folder}/store")
  for path in directory.iterdir():
    if path.name != "tokenizer.json":
      storage.write_bytes(folder / path.name, path.read_bytes())
  first = TokenStore.open(folder)
  (first.directory / "verified.json").unlink()

  def refuse(*_, **__):
    raise OSError(errno.EROFS, "Read-only file system")

  monkeypatch.setattr(storage, "Lease", refuse)
  monkeypatch.setattr(storage, "write_json", refuse)
  assert TokenStore.open(folder).digest == first.digest


def test_a_cache_that_cannot_be_written(gcs, directory, tmp_path):
  folder = storage.parse(f"{gcs.folder}/store")
  for path in directory.iterdir():
    storage.write_bytes(folder / path.name, path.read_bytes())
  (tmp_path / "cache").write_text("a file")
  with pytest.raises(InputError, match="PHI1_JAX_CACHE: cannot write"):
    TokenStore.open(folder)


@pytest.mark.parametrize("name", ["tokens-00000-of-00003.npy", "manifest.json"])
def test_a_damaged_copy_of_a_store_in_the_cloud_is_downloaded_again(
  gcs, directory, name
):
  folder = storage.parse(f"{gcs.folder}/store")
  for path in directory.iterdir():
    storage.write_bytes(folder / path.name, path.read_bytes())
  first = TokenStore.open(folder)
  whole = {path.name: path.stat().st_mtime_ns for path in first.directory.iterdir()}
  content = bytearray((first.directory / name).read_bytes())
  content[-2] ^= 1
  (first.directory / name).write_bytes(content)
  second = TokenStore.open(folder)
  assert (second.directory / name).read_bytes() == (directory / name).read_bytes()
  again = {path.name: path.stat().st_mtime_ns for path in first.directory.iterdir()}
  changed = {name for name in whole if whole[name] != again[name]}
  assert changed <= {name, "COMPLETED", "verified.json"}


def test_a_store_in_the_cloud_that_is_damaged(gcs, directory):
  folder = storage.parse(f"{gcs.folder}/store")
  with pytest.raises(InputError, match="no COMPLETED"):
    TokenStore.open(folder)
  for path in directory.iterdir():
    content = bytearray(path.read_bytes())
    content[-1] ^= path.name.startswith("tokens-00000")
    storage.write_bytes(folder / path.name, bytes(content))
  with pytest.raises(InputError, match="its bytes changed") as error:
    TokenStore.open(folder)
  assert str(error.value).startswith(f"{folder}/tokens-00000")
  assert "delete" not in str(error.value)
