"""Tokens per CPU-second of preparing data, with tokie and with HF tokenizers.

    python benchmarks/prepare.py [--files=PATTERN] [--rounds=3]

Over the files of the Python library, or others, alternating, on one thread:

- encode: `Tokenizer.encode_arrays` against `Tokenizer.encode_by_reference`;
- store: a whole token store from the files (find, read, hash, encode, compare, write),
  with each of the two.

Prints a line for every round and the median ratio.
"""

import argparse
import os
import statistics
import sysconfig
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAYON_NUM_THREADS"] = "1"

import numpy as np

from phi1_jax.data.config import DataConfig
from phi1_jax.data.documents import Document
from phi1_jax.data.files import FileSource
from phi1_jax.data.token_store import TokenStore
from phi1_jax.prepare import prepare
from phi1_jax.text import tokenizer as tokenizers


def rate(job: Callable[[], int]) -> float:
  """Return tokens per CPU-second of a job that returns its number of tokens."""
  start = time.process_time()
  return job() / (time.process_time() - start)


def count(ids: list[np.ndarray]) -> int:
  """Return the number of tokens of all texts."""
  return sum(map(len, ids))


def build(pattern: str, *, fast: bool) -> int:
  """Build a store and return its number of tokens; without `fast`, without tokie."""
  encode: Any = tokenizers.Tokenizer.encode_arrays
  if not fast:
    tokenizers.Tokenizer.encode_arrays = tokenizers.Tokenizer.encode_by_reference
  try:
    with tempfile.TemporaryDirectory() as folder:
      prepare(DataConfig(files=(pattern,), store=f"{folder}/store", processes=1))
      return TokenStore.open(Path(folder) / "store").manifest["tokens"]
  finally:
    tokenizers.Tokenizer.encode_arrays = encode


def main() -> None:
  """Measure and print."""
  parser = argparse.ArgumentParser(description=__doc__)
  library = sysconfig.get_path("stdlib")
  parser.add_argument("--files", default=f"{library}/[a-z]*/*.py", metavar="PATTERN")
  parser.add_argument("--rounds", type=int, default=3)
  arguments = parser.parse_args()
  source = FileSource([arguments.files])
  texts = [d.text for d in source.read(0, 1) if isinstance(d, Document)]
  print(f"{len(texts):,} documents, {sum(map(len, texts)) / 1e6:.1f} M characters")
  codegen = tokenizers.codegen()
  pairs = {
    "encode": (
      lambda: count(codegen.encode_arrays(texts)),
      lambda: count(codegen.encode_by_reference(texts)),
    ),
    "store": (
      lambda: build(arguments.files, fast=True),
      lambda: build(arguments.files, fast=False),
    ),
  }
  codegen.encode_arrays(texts[:1])  # both are loaded before the clock starts
  codegen.encode_by_reference(texts[:1])
  for name, (ours, baseline) in pairs.items():
    found = [(rate(ours), rate(baseline)) for _ in range(arguments.rounds)]
    for fast, slow in found:
      print(
        f"{name}: {fast / 1e6:.2f} M tokens per CPU-second with tokie, "
        f"{slow / 1e6:.2f} M with tokenizers, ratio {fast / slow:.1f}"
      )
    print(f"{name}: median ratio {statistics.median(a / b for a, b in found):.1f}")


if __name__ == "__main__":
  main()
