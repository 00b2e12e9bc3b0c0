"""How fast the loader hands out tokens: tokens per second of one core, and ratios.

    python benchmarks/loader.py

Every arm gives the same shape of batch from the same memory-mapped store. The arms
take turns, several rounds each, and time is the CPU time of this process (nothing is
prefetched), so a busy machine disturbs them alike; the median round counts.

  phi1_jax               train_batches, windows of all tasks by size
  phi1_jax mixture       train_batches, three tasks by rate
  grain per window       a Grain pipeline with a step for every row
  numpy loop             the ceiling: a permutation in memory, row by row
  torch DataLoader       the anchor: a map-style dataset over the same file, int64
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grain
import numpy as np
import torch

from phi1_jax.data import loader
from phi1_jax.data.token_store import Encoded, TokenStore, finish, write_shard

RATES = {"code": 0.6, "exercises": 0.15, "textbook": 0.25}


def build_store(directory: Path, tokens_per_task: int) -> TokenStore:
  """A store of random tokens with the three tasks of `RATES`."""
  rng = np.random.default_rng(0)
  shards = []
  for index, task in enumerate(RATES):
    tokens = rng.integers(0, 50_000, tokens_per_task, dtype=np.uint16)
    documents = [Encoded(tokens, num_bytes=0)]
    shards.append(write_shard(directory, index, len(RATES), task, documents))
  fields = {
    "tasks": {task: {"rate": "by_size"} for task in RATES},
    "tokenizer": {"eos_id": 50_256, "vocabulary_size": 50_295},
  }
  finish(directory, fields, shards)
  return TokenStore.open(directory, verify=False)


def grain_per_window(store: TokenStore, batch: int, length: int) -> Iterator:
  """A plain Grain pipeline: shuffle, repeat, map, batch."""
  stream = store.stream("code", "train")

  def read(index: int) -> np.ndarray:
    return stream.read(index * length, (index + 1) * length + 1).astype(np.int32)

  windows = grain.MapDataset.range((len(stream) - 1) // length).shuffle(seed=1)
  options = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
  return iter(windows.repeat().map(read).batch(batch).to_iter_dataset(options))


def numpy_loop(store: TokenStore, batch: int, length: int) -> Iterator:
  """What nanoGPT-style loops do, without replacement."""
  stream = store.stream("code", "train")
  order = np.random.default_rng(0).permutation((len(stream) - 1) // length).tolist()
  position = 0
  while True:
    out = np.empty((batch, length + 1), np.int32)
    for row in range(batch):
      start = order[position % len(order)] * length
      position += 1
      out[row] = stream.read(start, start + length + 1)
    yield out


class _TorchWindows(torch.utils.data.Dataset):
  def __init__(self, store: TokenStore, length: int):
    self._stream, self._length = store.stream("code", "train"), length

  def __len__(self) -> int:
    return (len(self._stream) - 1) // self._length

  def __getitem__(self, index: int) -> torch.Tensor:
    start = index * self._length
    window = self._stream.read(start, start + self._length + 1)
    return torch.from_numpy(window.astype(np.int64))


def torch_loader(store: TokenStore, batch: int, length: int) -> Iterator:
  """torch's DataLoader in the calling process, shuffled, epoch after epoch."""
  windows = _TorchWindows(store, length)
  while True:
    yield from torch.utils.data.DataLoader(windows, batch, shuffle=True, drop_last=True)


def tokens_per_cpu_second(batches: Iterator, tokens: int, seconds: float) -> float:
  """Draws batches for about `seconds` of CPU time; `tokens` is the size of one."""
  count, start = 0, time.process_time()
  while (elapsed := time.process_time() - start) < seconds:
    next(batches)
    count += 1
  return count * tokens / elapsed


def main() -> None:
  """Prints one table per window length."""
  parser = argparse.ArgumentParser(description="Measures the loader.")
  parser.add_argument("--rounds", type=int, default=5)
  parser.add_argument("--seconds", type=float, default=0.5, help="per arm and round")
  parser.add_argument("--tokens", type=int, default=20_000_000, help="per task")
  args = parser.parse_args()
  torch.set_num_threads(1)
  with tempfile.TemporaryDirectory() as directory:
    store = build_store(Path(directory), args.tokens)
    for length in (256, 2048):
      compare(store, batch=131_072 // length, length=length, args=args)


def compare(
  store: TokenStore, batch: int, length: int, args: argparse.Namespace
) -> None:
  """Runs all arms at one window length, in turns."""
  sizes: dict[str, Any] = {"batch_size": batch, "sequence_length": length}
  sizes.update(seed=0, prefetch=0)
  arms: dict[str, Callable[[], Iterator]] = {
    "phi1_jax": lambda: loader.train_batches(store, **sizes),
    "phi1_jax mixture": lambda: loader.train_batches(store, rates=RATES, **sizes),
    "grain per window": lambda: grain_per_window(store, batch, length),
    "numpy loop": lambda: numpy_loop(store, batch, length),
    "torch DataLoader": lambda: torch_loader(store, batch, length),
  }
  iterators = {name: make() for name, make in arms.items()}
  speeds: dict[str, list[float]] = {name: [] for name in arms}
  for _ in range(args.rounds):
    for name, batches in iterators.items():
      next(batches)
      speed = tokens_per_cpu_second(batches, batch * length, args.seconds)
      speeds[name].append(speed)
  medians = {name: statistics.median(values) for name, values in speeds.items()}
  print(f"window {length}, batch {batch}: million tokens per second of one core")
  for name, speed in medians.items():
    print(
      f"  {name:18s}{speed / 1e6:8.1f}   {speed / medians['numpy loop']:5.2f} of numpy"
      f"   {speed / medians['torch DataLoader']:6.2f} of torch"
    )


if __name__ == "__main__":
  main()
