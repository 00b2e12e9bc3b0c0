import hashlib
import json
import struct

import ml_dtypes
import numpy as np
import pytest
import torch
from safetensors import numpy as library
from safetensors.torch import load_file, save_file

from phi1_jax import InputError
from phi1_jax.interop import safetensors

ARRAYS = {
  "b": np.arange(15, dtype=np.float32).reshape(3, 5),
  "a": np.array([1.5, np.nan, -np.inf, 65504], np.float32),
  "c": np.zeros((0, 3), np.float32),
  "d": np.full((2, 1, 7), -0.0, np.float32),
}


def write(folder, arrays, dtype="float32", max_shard_bytes=10**9):
  folder.mkdir(exist_ok=True)
  dtype = np.dtype(dtype)
  shapes = {name: x.shape for name, x in arrays.items()}
  cast = (x.astype(dtype) for x in arrays.values())
  safetensors.write(folder, shapes, dtype, cast, max_shard_bytes)
  return folder


def read(folder):
  digests = {}
  pairs = safetensors.read(safetensors.open_folder(folder), digests)
  return {stored.name: array.copy() for stored, array in pairs}, digests


def assert_same(got, expected):
  assert got.keys() == expected.keys()
  for name, x in expected.items():
    assert (got[name].dtype, got[name].shape) == (x.dtype, x.shape)
    assert got[name].tobytes() == x.tobytes(), name


@pytest.mark.parametrize("dtype", ["float32", "float16", ml_dtypes.bfloat16])
def test_the_library_reads_what_is_written(tmp_path, dtype):
  write(tmp_path, ARRAYS, dtype)
  theirs = load_file(tmp_path / "model.safetensors")
  assert theirs.keys() == ARRAYS.keys()
  for name, x in ARRAYS.items():
    expected = torch.tensor(x.astype(dtype).astype(np.float32))
    assert torch.equal(theirs[name].float().nan_to_num(7), expected.nan_to_num(7))
    assert str(theirs[name].dtype) == f"torch.{np.dtype(dtype).name}"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_reads_what_the_library_writes(tmp_path, dtype):
  tensors = {name: torch.tensor(x).to(dtype) for name, x in ARRAYS.items()}
  tensors["steps"] = torch.arange(5)  # of no dtype that a parameter has
  save_file(tensors, tmp_path / "model.safetensors", {"some": "metadata"})
  got, digests = read(tmp_path)
  for name in ARRAYS:
    again = torch.tensor(got[name].astype(np.float32))
    assert torch.equal(again.nan_to_num(7), tensors[name].float().nan_to_num(7))
  assert "steps" not in got

  content = (tmp_path / "model.safetensors").read_bytes()
  assert digests == {"model.safetensors": hashlib.sha256(content).hexdigest()}


@pytest.mark.parametrize(("max_bytes", "files"), [(60, 3), (131, 2), (132, 1)])
def test_files_end_before_they_are_too_large(tmp_path, max_bytes, files):
  """The tensors take 60, 16, 0 and 56 bytes."""
  write(tmp_path, ARRAYS, max_shard_bytes=max_bytes)
  paths = sorted(path.name for path in tmp_path.glob("*.safetensors"))
  assert len(paths) == files
  assert_same(read(tmp_path)[0], ARRAYS)
  index = tmp_path / "model.safetensors.index.json"
  assert index.exists() == (files > 1)
  if files > 1:
    content = json.loads(index.read_text())
    assert content["metadata"] == {"total_size": 132}
    assert sorted(set(content["weight_map"].values())) == paths
    for name, path in content["weight_map"].items():
      assert name in library.load_file(tmp_path / path)


def raw(header, content=b""):
  text = header if isinstance(header, bytes) else json.dumps(header).encode()
  return struct.pack("<Q", len(text)) + text + content


def entry():
  return {"dtype": "F32", "shape": (2,), "data_offsets": (0, 8)}


@pytest.mark.parametrize(
  "content",
  [
    b"",
    raw(b"{"),
    raw({"a": entry()}, b"1234567"),
    raw({"a": entry()}, b"123456789"),
  ],
)
def test_files_that_are_not_whole(tmp_path, content):
  (tmp_path / "model.safetensors").write_bytes(content)
  with pytest.raises(InputError, match="not a whole safetensors file"):
    safetensors.open_folder(tmp_path)


def test_one_name_in_two_files(tmp_path):
  write(tmp_path, ARRAYS, max_shard_bytes=60)
  first, second, _ = sorted(tmp_path.glob("*.safetensors"))
  second.write_bytes(first.read_bytes())
  with pytest.raises(InputError, match=f"{second.name}: b is in {first.name} already"):
    safetensors.open_folder(tmp_path)


def test_a_file_that_the_index_names_is_missing(tmp_path):
  write(tmp_path, ARRAYS, max_shard_bytes=60)
  (tmp_path / "model-00002-of-00003.safetensors").unlink()
  with pytest.raises(InputError, match=r"00002-of-00003.* missing \(1 of 3 files"):
    safetensors.open_folder(tmp_path)


@pytest.mark.parametrize(
  ("index", "named"),
  [
    ("{", "not readable as JSON"),
    ("{}", "not an index"),
    ('{"weight_map": {}}', "got no files"),
    ('{"weight_map": {"a": "../model.safetensors"}}', "names of files in this folder"),
  ],
)
def test_bad_indices(tmp_path, index, named):
  (tmp_path / "model.safetensors.index.json").write_text(index)
  with pytest.raises(InputError, match=named):
    safetensors.open_folder(tmp_path)


def test_a_passing_error_of_the_disk_is_read_again(tmp_path, monkeypatch):
  write(tmp_path, ARRAYS)
  monkeypatch.setattr("phi1_jax.storage.retry._FIRST_PAUSE", 0.01)
  failures, real = [5, 5, 5], safetensors.safe_open

  def flaky(*arguments):
    if failures:
      raise OSError(failures.pop(), "Input/output error")
    return real(*arguments)

  monkeypatch.setattr(safetensors, "safe_open", flaky)
  assert_same(read(tmp_path)[0], ARRAYS)
  assert not failures


def test_only_a_pickle(tmp_path):
  (tmp_path / "pytorch_model.bin").write_bytes(b"")
  with pytest.raises(InputError, match=r"only pytorch_model\.bin, a pickle.*save_file"):
    safetensors.open_folder(tmp_path)
