"""Safetensors files, read and written one tensor at a time.

The `safetensors` library reads them. Its writer needs all tensors of a file in memory
at once, so this module writes them itself: the
length of a header (8 bytes), the header (JSON: each tensor's dtype, shape, and the
range of its bytes behind the header), and the bytes, without gaps. A model in several
files has an index from names to files.
"""

import dataclasses
import functools
import hashlib
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from phi1_jax import InputError, storage
from phi1_jax.storage import AnyPath

FILE_NAME = "model.safetensors"
INDEX_NAME = "model.safetensors.index.json"
DTYPES = {
  "F32": np.dtype("float32"),
  "F16": np.dtype("float16"),
  "BF16": np.dtype(ml_dtypes.bfloat16),
}


@dataclasses.dataclass(frozen=True)
class Stored:
  """A tensor in a file: name, dtype in the file's spelling, and shape."""

  name: str
  dtype: str
  shape: tuple[int, ...]

  @property
  def num_bytes(self) -> int:
    """The bytes of the tensor; 0 for a dtype that no parameter has."""
    known = DTYPES.get(self.dtype)
    return math.prod(self.shape) * known.itemsize if known else 0


@dataclasses.dataclass(frozen=True)
class File:
  """A local file and its tensors, in the order of their bytes."""

  path: Path
  tensors: tuple[Stored, ...]


def open_folder(folder: AnyPath) -> list[File]:
  """Read the headers of a model's files; copy those on cloud storage first.

  Raises:
    InputError: no safetensors, an incomplete file, or a name in two files.
  """
  names = _names(folder)
  mirror = storage.Mirror(folder)
  mirror.fetch(*names)
  files = [_open(mirror.local / name) for name in names]
  seen: dict[str, str] = {}
  for file in files:
    for tensor in file.tensors:
      if tensor.name in seen:
        raise InputError(
          f"{file.path}: {tensor.name} is in {seen[tensor.name]} already"
        )
      seen[tensor.name] = file.path.name
  return files


def read(
  files: Iterable[File], digests: dict[str, str]
) -> Iterator[tuple[Stored, np.ndarray]]:
  """Yield the tensors whose dtype is in `DTYPES`; only one is in memory.

  Args:
    files: from `open_folder`.
    digests: gets the sha256 (hex) of each file, by its name.
  """
  for file in files:
    what = f"reading {file.path}"
    digests[file.path.name] = storage.retrying(lambda f=file: _sha256(f.path), what)
    for tensor in file.tensors:
      if tensor.dtype in DTYPES:
        read = functools.partial(_read, file.path, tensor.name)
        yield tensor, storage.retrying(read, what)


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


def _sha256(path: Path) -> str:
  with path.open("rb") as stream:
    return hashlib.file_digest(stream, "sha256").hexdigest()


def _read(path: Path, name: str) -> np.ndarray:
  """Return a tensor. The file is closed, since the pages it has read stay in memory."""
  with safe_open(path, "numpy") as opened:
    return opened.get_tensor(name)


def _names(folder: AnyPath) -> list[str]:
  """Return the sorted names of a model's files."""
  if not folder.is_dir():
    raise InputError(f"{folder}: no such folder; expected one with {FILE_NAME}")
  if (folder / FILE_NAME).exists():
    return [FILE_NAME]
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
  return sorted(names)


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


def _open(path: Path) -> File:
  """Read a file's header, which the library checks against the file's length."""

  def read() -> tuple[Stored, ...]:
    with safe_open(path, "numpy") as opened:
      slices = {name: opened.get_slice(name) for name in opened.offset_keys()}
      return tuple(
        Stored(name, tensor.get_dtype(), tuple(tensor.get_shape()))
        for name, tensor in slices.items()
      )

  try:
    return File(path, storage.retrying(read, f"reading {path}"))
  except SafetensorError as error:
    raise InputError(
      f"{path}: not a whole safetensors file ({error}); copy it again"
    ) from None
  except OSError as error:
    raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None


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
