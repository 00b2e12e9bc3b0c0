"""Safetensors files, read and written one tensor at a time, local or on cloud storage.

A file is the length of its header (8 bytes), the header (JSON: each tensor's dtype,
shape, and the range of its bytes behind the header), and the bytes, without gaps. A
model in several files has an index from names to files.

The `safetensors` library writes a file from a dict of all its tensors, and opens local
files only; phi-1 would need its size in memory once more, and a local copy.
"""

import dataclasses
import hashlib
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePath
from typing import IO, Any

import ml_dtypes
import numpy as np

from phi1_jax import InputError, storage
from phi1_jax.storage import AnyPath

FILE_NAME = "model.safetensors"
INDEX_NAME = "model.safetensors.index.json"
DTYPES = {
  "F32": np.dtype("float32"),
  "F16": np.dtype("float16"),
  "BF16": np.dtype(ml_dtypes.bfloat16),
}
_LONGEST_HEADER = 100_000_000  # bytes; the format's own limit


@dataclasses.dataclass(frozen=True)
class Stored:
  """A tensor in a file: name, dtype in the file's spelling, shape and length."""

  name: str
  dtype: str
  shape: tuple[int, ...]
  num_bytes: int


@dataclasses.dataclass(frozen=True)
class File:
  """A file and its tensors, in the order of their bytes."""

  path: AnyPath
  header_bytes: int
  tensors: tuple[Stored, ...]


def open_folder(folder: AnyPath) -> list[File]:
  """Read the headers of a model's files.

  Raises:
    InputError: no safetensors, an incomplete file, or a name in two files.
  """
  files = [_open(path) for path in _paths(folder)]
  seen: dict[str, AnyPath] = {}
  for file in files:
    for tensor in file.tensors:
      if tensor.name in seen:
        first = seen[tensor.name].name
        raise InputError(f"{file.path}: {tensor.name} is in {first} already")
      seen[tensor.name] = file.path
  return files


def read(
  files: Iterable[File], digests: dict[str, str]
) -> Iterator[tuple[Stored, np.ndarray]]:
  """Yield each tensor in the order of the bytes; only one is in memory.

  Args:
    files: from `open_folder`.
    digests: gets the sha256 (hex) of each file, by its name, after its last tensor.

  Yields:
    The tensor's entry and its array; bytes if its dtype is not in `DTYPES`.
  """
  for file in files:
    sha256 = hashlib.sha256()
    with file.path.open("rb") as stream:
      sha256.update(stream.read(file.header_bytes))
      for tensor in file.tensors:
        content = _read(file.path, stream, tensor.num_bytes)
        sha256.update(content.data)
        dtype = DTYPES.get(tensor.dtype)
        if dtype is not None:
          content = content.view(dtype).reshape(tensor.shape)
        yield tensor, content
        del content  # before the next one is read
    digests[file.path.name] = sha256.hexdigest()


def write(
  folder: AnyPath,
  shapes: Mapping[str, tuple[int, ...]],
  dtype: np.dtype,
  arrays: Iterator[np.ndarray],
  max_shard_bytes: int,
) -> None:
  """Write a model as one file, or as several with an index.

  Args:
    folder: the existing folder for the files.
    shapes: the tensors' names and shapes, in the order of `arrays`.
    dtype: the dtype of all tensors; one of `DTYPES`.
    arrays: the tensors; each is taken when it is written.
    max_shard_bytes: the most bytes of tensors in a file; a larger tensor gets a file
      of its own.
  """
  shards = _shards(shapes, dtype, max_shard_bytes)
  places: dict[str, str] = {}
  for number, shard in enumerate(shards, start=1):
    name = f"model-{number:05}-of-{len(shards):05}.safetensors"
    name = name if len(shards) > 1 else FILE_NAME
    places |= dict.fromkeys(shard, name)
    with (folder / name).open("wb") as stream:
      stream.write(_header(shard, dtype))
      for shape in shard.values():
        array = next(arrays)
        if array.shape != shape or array.dtype != dtype:
          raise ValueError(f"got {array.dtype}{array.shape}, expected {dtype}{shape}")
        stream.write(array.reshape(-1).view(np.uint8).data)
        del array  # before the next one is made
      if not storage.is_remote(folder):
        stream.flush()
        os.fsync(stream.fileno())
  if len(shards) > 1:
    total = sum(math.prod(shape) for shape in shapes.values()) * dtype.itemsize
    index = {"metadata": {"total_size": total}, "weight_map": places}
    storage.write_json(folder / INDEX_NAME, index)


def _read(path: AnyPath, stream: IO[bytes], num_bytes: int) -> np.ndarray:
  """Return the next bytes of a file; the storage's retry policy holds for each read."""
  start = stream.tell()

  def read() -> np.ndarray:
    stream.seek(start)
    content = np.frombuffer(stream.read(num_bytes), np.uint8)
    if content.size != num_bytes:
      raise InputError(f"{path}: became shorter while it was read")
    return content

  return storage.retrying(read, f"reading {path}")


def _paths(folder: AnyPath) -> list[AnyPath]:
  """Return a model's files, sorted by name."""
  if not folder.is_dir():
    raise InputError(f"{folder}: no such folder; expected one with {FILE_NAME}")
  if (folder / FILE_NAME).exists():
    return [folder / FILE_NAME]
  index = folder / INDEX_NAME
  if not index.exists():
    raise _no_safetensors(folder)
  try:
    names = set(storage.read_json(index)["weight_map"].values())
  except (KeyError, TypeError, AttributeError) as error:
    raise InputError(f"{index}: not an index of safetensors files ({error})") from None
  strangers = sorted(str(name) for name in names if PurePath(str(name)).name != name)
  if strangers or not names:
    raise InputError(
      f"{index}: got {', '.join(strangers) or 'no files'}, expected names of files in "
      "this folder"
    )
  if missing := sorted(name for name in names if not (folder / name).is_file()):
    raise InputError(
      f"{folder}: {', '.join(missing)} missing ({len(missing)} of {len(names)} files "
      "that the index names); copy them here"
    )
  return [folder / name for name in sorted(names)]


def _no_safetensors(folder: AnyPath) -> InputError:
  pickles = sorted(folder.glob("*.bin"))
  if not pickles:
    return InputError(f"{folder}: no {FILE_NAME} and no {INDEX_NAME} here")
  return InputError(
    f"{folder}: only {pickles[0].name}, a pickle, which may run code when read; "
    f'expected {FILE_NAME}. If you trust it: python -c "import torch, '
    f"safetensors.torch as s; s.save_file(torch.load('{pickles[0]}', "
    f"weights_only=True), '{folder / FILE_NAME}')\""
  )


def _open(path: AnyPath) -> File:
  """Read a header and check it against the length of the file."""
  try:
    with path.open("rb") as stream:
      length = int.from_bytes(stream.read(8), "little")
      if not 0 < length <= _LONGEST_HEADER:
        raise ValueError(f"its header would be {length} bytes long")
      header = json.loads(stream.read(length))
      size = stream.seek(0, os.SEEK_END)
    header.pop("__metadata__", None)
    tensors, position = [], 0
    for name, entry in sorted(header.items(), key=lambda x: x[1]["data_offsets"]):
      start, stop = map(int, entry["data_offsets"])
      dtype, shape = entry["dtype"], tuple(entry["shape"])
      if start != position:
        raise ValueError(f"{name} begins at byte {start}, expected {position}")
      values = math.prod(shape) * DTYPES[dtype].itemsize if dtype in DTYPES else None
      if stop < start or values not in (None, stop - start):
        raise ValueError(f"{name}: {stop - start} bytes for {dtype}{shape}")
      tensors.append(Stored(name, dtype, shape, stop - start))
      position = stop
    if 8 + length + position != size:
      raise ValueError(f"{size} bytes, expected {8 + length + position}")
  except OSError as error:
    raise InputError(f"{path}: cannot be read ({error.strerror})") from None
  except (ValueError, KeyError, TypeError, AttributeError) as error:
    raise InputError(
      f"{path}: not a whole safetensors file ({error}); copy it again"
    ) from None
  return File(path, 8 + length, tuple(tensors))


def _shards(
  shapes: Mapping[str, tuple[int, ...]], dtype: np.dtype, max_bytes: int
) -> list[dict[str, tuple[int, ...]]]:
  shards: list[dict[str, tuple[int, ...]]] = [{}]
  used = 0
  for name, shape in shapes.items():
    num_bytes = math.prod(shape) * dtype.itemsize
    if shards[-1] and used + num_bytes > max_bytes:
      shards.append({})
      used = 0
    shards[-1][name] = shape
    used += num_bytes
  return shards


def _header(shard: Mapping[str, tuple[int, ...]], dtype: np.dtype) -> bytes:
  spelling = next(name for name, ours in DTYPES.items() if ours == dtype)
  # transformers refuses files that do not name a framework.
  header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
  position = 0
  for name, shape in shard.items():
    span = [position, position + math.prod(shape) * dtype.itemsize]
    header[name] = {"dtype": spelling, "shape": shape, "data_offsets": span}
    position = span[1]
  text = json.dumps(header).encode()
  text += b" " * (-len(text) % 8)  # aligns the bytes behind it
  return len(text).to_bytes(8, "little") + text
