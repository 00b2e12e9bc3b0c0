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


ENTRY = {"a": {"dtype": "F32", "shape": (2,), "data_offsets": (0, 8)}}
INDEX = "model.safetensors.index.json"
UP = b'{"weight_map": {"a": "../model.safetensors"}}'


@pytest.mark.parametrize(
  ("name", "content", "named"),
  [
    ("model.safetensors", b"", "not a whole safetensors file"),
    ("model.safetensors", raw(b"{"), "not a whole safetensors file"),
    ("model.safetensors", raw(ENTRY, b"1234567"), "not a whole safetensors file"),
    ("model.safetensors", raw(ENTRY, b"123456789"), "not a whole safetensors file"),
    ("pytorch_model.bin", b"", r"only pytorch_model\.bin, a pickle.*save_file"),
    (INDEX, b"{", "not readable as JSON"),
    (INDEX, b"{}", "not an index"),
    (INDEX, b'{"weight_map": {}}', "got no files"),
    (INDEX, UP, "names of files in this folder"),
  ],
)
def test_what_is_no_model_is_refused(tmp_path, name, content, named):
  (tmp_path / name).write_bytes(content)
  with pytest.raises(InputError, match=named):
    safetensors.open_folder(tmp_path)


def test_files_that_do_not_belong_together_are_refused(tmp_path):
  write(tmp_path, ARRAYS, max_shard_bytes=60)
  first, second, _ = sorted(tmp_path.glob("*.safetensors"))
  second.write_bytes(first.read_bytes())
  with pytest.raises(InputError, match=f"{second.name}: b is in {first.name} already"):
    safetensors.open_folder(tmp_path)
  second.unlink()
  with pytest.raises(InputError, match=r"00002-of-00003.* missing \(1 of 3 files"):
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


@pytest.mark.parametrize(
  "dtype", ["float32", "float16", ml_dtypes.bfloat16], ids=lambda x: np.dtype(x).name
)
def test_the_library_reads_what_is_written_and_the_other_way_round(tmp_path, dtype):
  write(tmp_path, ARRAYS, dtype)
  theirs = load_file(tmp_path / "model.safetensors")
  assert theirs.keys() == ARRAYS.keys()
  for name, x in ARRAYS.items():
    expected = torch.tensor(x.astype(dtype).astype(np.float32))
    assert torch.equal(theirs[name].float().nan_to_num(7), expected.nan_to_num(7))
    assert str(theirs[name].dtype) == f"torch.{np.dtype(dtype).name}"
  theirs["steps"] = torch.arange(5)  # of no dtype that a parameter has
  save_file(theirs, tmp_path / "model.safetensors", {"some": "metadata"})
  got, digests = read(tmp_path)
  assert_same(got, {name: x.astype(dtype) for name, x in ARRAYS.items()})
  content = (tmp_path / "model.safetensors").read_bytes()
  assert digests == {"model.safetensors": hashlib.sha256(content).hexdigest()}
