"""Settings of the training data: the gin name `Data`."""

from __future__ import annotations

import dataclasses
import math

from phi1_jax import InputError

# Beside the files of a published set: the facts that decide its documents.
CURATED_CONTENT = "content.json"


@dataclasses.dataclass(frozen=True)
class DataConfig:
  """A seqio mixture and the token store built from it.

  Attributes:
    mixture: a registered seqio mixture or task, e.g. "code_textbook".
    store: folder of the token store.
    tokenizer: "codegen", "train" (a small BPE learnt from this mixture), or the path
      of a tokenizer.json.
    trained_vocabulary_size: ids of the trained BPE; for tokenizer "train" only.
    modules: modules that register tasks of your own, imported first.
    curated_directory: TFDS folder with the curated sets; None = embedded corpora.
    held_out_fraction: share of the documents kept for evaluation, by hash.
    shards: shards of a task; another number makes another store.
    processes: number of builders, 0 = one per core; never changes a byte.
    rates: task -> its share of the windows when training; None = as registered.
    verify: check every shard's sha256 when the store is opened.
  """

  mixture: str
  store: str
  tokenizer: str = "codegen"
  trained_vocabulary_size: int | None = None
  modules: tuple[str, ...] = ()
  curated_directory: str | None = None
  held_out_fraction: float = 0.01
  shards: int = 8
  processes: int = 0
  rates: dict[str, float] | None = None
  verify: bool = True

  def __post_init__(self):
    for name in ("mixture", "store", "tokenizer"):
      if not getattr(self, name):
        raise InputError(f'Data.{name}: got "", expected a name')
    trained, size = self.tokenizer == "train", self.trained_vocabulary_size
    if trained and size is None:
      raise InputError(
        'Data.tokenizer = "train" needs Data.trained_vocabulary_size, e.g. 4096'
      )
    if not trained and size is not None:
      raise InputError(
        f"Data.trained_vocabulary_size: got {size} with the tokenizer "
        f'"{self.tokenizer}"; it belongs to Data.tokenizer = "train"'
      )
    if size is not None and not 295 <= size <= 1 << 16:
      raise InputError(
        f"Data.trained_vocabulary_size: got {size}, expected 295 to 65536"
      )
    if not 0 <= self.held_out_fraction < 1:
      raise InputError(
        f"Data.held_out_fraction: got {self.held_out_fraction}, expected 0 <= it < 1"
      )
    if self.shards < 1:
      raise InputError(f"Data.shards: got {self.shards}, expected at least 1")
    if self.processes < 0:
      raise InputError(
        f"Data.processes: got {self.processes}, expected 0 (one per core) or more"
      )
    for task, rate in (self.rates or {}).items():
      if not (math.isfinite(rate) and rate > 0):
        raise InputError(
          f"Data.rates: got {rate} for {task}, expected a positive number (leave a "
          "task out to skip it)"
        )
    if self.rates == {}:
      raise InputError("Data.rates: got no task, expected at least one, or None")
