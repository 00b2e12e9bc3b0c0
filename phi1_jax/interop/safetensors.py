"""Safetensors files, read and written one tensor at a time.

A file is eight bytes that say how long its header is, the header (JSON: for each tensor
dtype, shape, and where its bytes begin and end behind the header), and the bytes, with
no hole between them. A model in several files has an index that maps names to files.
"""

import dataclasses
import hashlib
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
  """A tensor in a file: its name, dtype as the file spells it, shape and length."""

  name: str
  dtype: str
  shape: tuple[int, ...]
  num_bytes: int


@dataclasses.dataclass(frozen=True)
class File:
  """A file whose header is read: its tensors in the order of their bytes."""

  path: AnyPath
  header_bytes: int
  tensors: tuple[Stored, ...]


def open_folder(folder: AnyPath) -> list[File]:
  """Reads the headers of a model's files.

  Raises:
    InputError: no safetensors here, a file that is not whole, or one name twice.
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
  """Every tensor in the order of the bytes, each read when it is asked for.

  Args:
    files: from `open_folder`.
    digests: gets the sha256 (hex) of each file, by its name, when it is read through.

  Yields:
    The tensor's entry and its array; one of a dtype that is not in `DTYPES` as bytes.
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
  """Writes a model as one file, or as several with an index.

  Args:
    folder: where to.
    shapes: the tensors' names and shapes, in the order of `arrays`.
    dtype: that of all of them; one of `DTYPES`.
    arrays: the tensors, each taken when its turn comes.
    max_shard_bytes: a file is closed before its tensors take more; one that takes
      more by itself gets a file of its own.
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
  """The files of a model, in the order of their names."""
  if not folder.is_dir():
    raise InputError(f"{folder}: no such folder; expected one with {FILE_NAME}")
  if (folder / FILE_NAME).exists():
    return [folder / FILE_NAME]
  index = folder / INDEX_NAME
  if not index.exists():
    raise InputError(_what_is_there_instead(folder))
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
  missing = sorted(name for name in names if not (folder / name).is_file())
  if missing:
    raise InputError(
      f"{folder}: {', '.join(missing)} missing ({len(missing)} of {len(names)} files "
      "that the index names); copy them here"
    )
  return [folder / name for name in sorted(names)]


def _what_is_there_instead(folder: AnyPath) -> str:
  pickles = sorted(folder.glob("*.bin"))
  if not pickles:
    return f"{folder}: no {FILE_NAME} and no {INDEX_NAME} here"
  path, target = pickles[0], folder / FILE_NAME
  return (
    f"{folder}: only {path.name}, a pickle, which may run code when read; expected "
    f'{FILE_NAME}. If you trust it: python -c "import torch, safetensors.torch as s; '
    f"s.save_file(torch.load('{path}', weights_only=True), '{target}')\""
  )


def _open(path: AnyPath) -> File:
  """Reads a header and holds it against the length of the file."""
  try:
    with path.open("rb") as stream:
      length = _read_length(stream)
      header = json.loads(stream.read(length))
      size = stream.seek(0, os.SEEK_END)
    header.pop("__metadata__", None)
    spans = sorted(
      (*map(int, entry["data_offsets"]), name, entry) for name, entry in header.items()
    )
    tensors, position = [], 0
    for start, stop, name, entry in spans:
      tensor = _stored(name, entry, stop - start)
      if start != position:
        raise ValueError(f"{name} begins at byte {start}, expected {position}")
      tensors.append(tensor)
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


def _read_length(stream: IO[bytes]) -> int:
  length = int.from_bytes(stream.read(8), "little")
  if not 0 < length <= _LONGEST_HEADER:
    raise ValueError(f"its header would be {length} bytes long")
  return length


def _stored(name: str, entry: Mapping[str, Any], num_bytes: int) -> Stored:
  dtype, shape = entry["dtype"], tuple(entry["shape"])
  expected = num_bytes
  if dtype in DTYPES:
    expected = math.prod(shape) * DTYPES[dtype].itemsize
  if num_bytes < 0 or num_bytes != expected:
    raise ValueError(f"{name}: {num_bytes} bytes for {dtype}{shape}")
  return Stored(name, dtype, shape, num_bytes)


def _shards(
  shapes: Mapping[str, tuple[int, ...]], dtype: np.dtype, max_bytes: int
) -> Sequence[dict[str, tuple[int, ...]]]:
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
  # transformers wants to read what its tensors were made for.
  header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
  position = 0
  for name, shape in shard.items():
    stop = position + math.prod(shape) * dtype.itemsize
    header[name] = {
      "dtype": spelling,
      "shape": shape,
      "data_offsets": [position, stop],
    }
    position = stop
  text = json.dumps(header).encode()
  text += b" " * (-len(text) % 8)  # so that the bytes behind it are aligned
  return len(text).to_bytes(8, "little") + text
