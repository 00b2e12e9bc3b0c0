"""Stores of tokens: their form, damage, crashes, and copies of those in a bucket."""

import errno
import hashlib
import json
import os
import shutil
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

from phi1_jax import InputError, storage
from phi1_jax.data import token_store
from phi1_jax.data.token_store import TokenStore, finished_shard
from tests.data import stores

# Per shard: (task, documents as (tokens, held out)). The middle one is empty.
SHARDS = [
  ("code", [([0, 1, 9], False), ([7, 9], True), ([65_535, 9], False)]),
  ("empty", []),
  ("code", [([2, 0, 0, 9], False), ([8, 8, 9], True)]),
]
TRAIN = [0, 1, 9, 65_535, 9, 2, 0, 0, 9]
FIRST, LAST = "tokens-00000-of-00003.npy", "tokens-00002-of-00003.npy"


@pytest.fixture
def directory(tmp_path) -> Path:
  return stores.write(tmp_path / "store", SHARDS, eos_id=9).directory


def test_train_documents_come_first_and_streams_cross_shards(directory):
  store = TokenStore.open(directory)
  train, held_out = store.stream("code", "train"), store.stream("code", "held_out")
  assert train.read(0, len(train)).tolist() == TRAIN
  assert held_out.read(0, len(held_out)).tolist() == [7, 9, 8, 8, 9]
  assert train.read(0, 2).dtype == train.read(3, 7).dtype == np.uint16
  assert (store.eos_id, store.vocabulary_size) == (9, 65_536)
  assert store.tasks == ("code", "empty")
  with pytest.raises(InputError, match=r'no task "cod".*code, empty'):
    store.stream("cod", "train")
  assert store.stream("empty", "train").read(0, 0).tolist() == []
  assert store.document_starts("code", "train").tolist() == [0, 3, 5]
  assert store.document_starts("code", "held_out").tolist() == [0, 2]
  first = np.load(directory / FIRST, mmap_mode="r")
  assert first.dtype == np.uint16
  assert first.tolist() == [0, 1, 9, 65_535, 9, 7, 9]
  assert np.load(directory / "documents-00000-of-00003.npy").tolist() == [0, 3, 5]
  manifest = store.manifest
  assert (manifest["documents"], manifest["tokens"], manifest["bytes"]) == (5, 14, 140)
  assert manifest["shards"][0]["train"] == {"documents": 2, "tokens": 5, "bytes": 50}
  assert store.bytes_per_token("code", "held_out") == 10


def test_every_range_equals_the_concatenation(directory):
  stream = TokenStore.open(directory).stream("code", "train")
  for stop in range(len(TRAIN) + 1):
    for start in range(stop + 1):
      assert stream.read(start, stop).tolist() == TRAIN[start:stop]
  assert not stream.read(1, 4).flags.owndata  # inside a shard nothing is copied
  for start, stop in ((-1, 2), (3, 2), (0, 10)):
    with pytest.raises(IndexError):
      stream.read(start, stop)


@pytest.mark.parametrize("crash_at", range(6))
def test_a_crash_leaves_no_shard_or_a_whole_one(tmp_path, monkeypatch, crash_at):
  """Dies at the n-th fsync of shard 0 (three files, each with its folder)."""
  calls = 0

  def fsync(_):
    nonlocal calls
    if calls == crash_at:
      raise KeyboardInterrupt
    calls += 1

  shard = 0, len(SHARDS)
  with monkeypatch.context() as patch:
    patch.setattr(os, "fsync", fsync)
    with pytest.raises(KeyboardInterrupt):
      stores.shard(tmp_path, *shard, *SHARDS[0])
  found = finished_shard(tmp_path, *shard)
  # At the last fsync the record already has its name.
  assert (found is not None) == (crash_at == 5)
  expected = stores.shard(tmp_path, *shard, *SHARDS[0])
  assert found in (None, expected)
  assert finished_shard(tmp_path, *shard) == expected
  (tmp_path / expected["documents_file"]).unlink()
  assert finished_shard(tmp_path, *shard) is None


@pytest.mark.parametrize("tokens", [[65_536, 9], [-1, 9]])
def test_ids_that_do_not_fit_are_refused(tmp_path, tokens):
  with pytest.raises(InputError, match=r"task code: .*uint16"):
    stores.shard(tmp_path, 0, 1, "code", [(tokens, False)])


def flip(path, at=-1):
  content = bytearray(path.read_bytes())
  content[at] ^= 1
  path.write_bytes(content)


def remove(name):
  return lambda folder: (folder / name).unlink()


def replace(length, dtype):
  return lambda folder: np.save(folder / LAST, np.zeros(length, dtype))


def rewrite(without="", **fields):
  """Edits the manifest and lets COMPLETED vouch for it."""

  def damage(folder):
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text()) | fields
    manifest.pop(without, None)
    path.write_text(json.dumps(manifest))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    (folder / "COMPLETED").write_text(json.dumps({"manifest_sha256": digest}))

  return damage


@pytest.mark.parametrize(
  ("damage", "message"),
  [
    (shutil.rmtree, "store has no COMPLETED"),
    (remove("COMPLETED"), r"no COMPLETED.*phi1_jax.prepare.* to go on"),
    (remove("manifest.json"), "no manifest.json"),
    (lambda d: (d / "COMPLETED").write_bytes(b"{\xff"), "COMPLETED: not readable as"),
    (lambda d: flip(d / "manifest.json", 5), "manifest.json has sha256 .* COMPLETED s"),
    (rewrite(format=2), "format 2, this version reads format 1"),
    (rewrite("shards"), "manifest.json: field 'shards'"),
    (rewrite("tokenizer"), "manifest.json: field 'tokenizer'"),
    (lambda d: os.truncate(d / LAST, 140), f"{LAST} is missing, truncated"),
    (replace(7, np.int32), r"holds int32\[7\], the manifest says uint16"),
    (replace(8, np.uint16), r"holds uint16\[8\].*uint16\[7\]"),
  ],
)
def test_a_damaged_store_is_refused_without_hashing_it(directory, damage, message):
  damage(directory)
  with pytest.raises(InputError, match=message):
    TokenStore.open(directory, verify=False)


@pytest.fixture
def hashed(monkeypatch):
  """A mock of the function that hashes a file."""
  spy = Mock(wraps=token_store._sha256)
  monkeypatch.setattr(token_store, "_sha256", spy)
  return spy


def test_files_are_hashed_once_and_again_when_they_change(
  directory, tmp_path, hashed, digests
):
  note, before = tmp_path / "verified.json", digests(directory)
  for _ in range(2):
    hashed.reset_mock()
    TokenStore.open(directory, verified=note)
  assert not hashed.called
  assert digests(directory) == before
  note_before = note.read_text()
  for name in (FIRST, "documents-00002-of-00003.npy"):
    flip(directory / name)
    for text in (note_before, "{torn"):
      note.write_text(text)
      with pytest.raises(InputError, match=f"{name} has sha256.* its bytes changed"):
        TokenStore.open(directory, verified=note)
    assert TokenStore.open(directory, verify=False).tasks == ("code", "empty")
    flip(directory / name)


@pytest.fixture
def remote(gcs, directory):
  """The store in a bucket."""
  folder = storage.parse(f"{gcs.folder}/store")
  for path in directory.iterdir():
    storage.write_bytes(folder / path.name, path.read_bytes())
  return folder


def test_a_store_in_the_cloud_is_copied_and_verified_once(
  gcs, remote, directory, hashed, monkeypatch
):
  first = TokenStore.open(remote)
  assert first.digest == TokenStore.open(directory).digest
  hashed.reset_mock()
  gcs.fail(path="tokens-", status=404, times=99)
  second = TokenStore.open(remote)
  assert gcs.heal() == []
  assert not hashed.called
  assert second.stream("code", "train").read(0, 9).tolist() == TRAIN
  # A copy that is whole is not written to.
  (first.directory / "verified.json").unlink()
  refuse = Mock(side_effect=OSError(errno.EROFS, "Read-only file system"))
  monkeypatch.setattr(storage, "Lease", refuse)
  monkeypatch.setattr(storage, "write_json", refuse)
  assert TokenStore.open(remote).digest == first.digest


def test_a_cache_that_cannot_be_written(remote, tmp_path):
  (tmp_path / "cache").write_text("a file")
  with pytest.raises(InputError, match="PHI1_JAX_CACHE: cannot write"):
    TokenStore.open(remote)


def test_a_damaged_file_is_downloaded_again_once(gcs, remote, directory):
  copy = TokenStore.open(remote).directory
  whole = {path.name: path.stat().st_mtime_ns for path in copy.iterdir()}
  flip(copy / FIRST, -2)
  assert TokenStore.open(remote).directory == copy
  assert (copy / FIRST).read_bytes() == (directory / FIRST).read_bytes()
  again = {path.name: path.stat().st_mtime_ns for path in copy.iterdir()}
  assert {n for n in whole if whole[n] != again[n]} == {FIRST, "verified.json"}
  # It is damaged in the bucket as well.
  flip(copy / FIRST)
  storage.write_bytes(remote / FIRST, (copy / FIRST).read_bytes())
  with pytest.raises(InputError, match=f"^{remote}/{FIRST}.* its bytes changed"):
    TokenStore.open(remote)
  with pytest.raises(InputError, match="no COMPLETED"):
    TokenStore.open(f"{gcs.folder}/elsewhere")
