"""Settings of the training data: the gin name `Data`."""

from __future__ import annotations

import dataclasses
import logging
import math

from phi1_jax import InputError

log = logging.getLogger(__name__)

LOSS_ON = ("all", "completions")
# Beside the files of a published set: the facts that decide its documents.
CURATED_CONTENT = "content.json"


@dataclasses.dataclass(frozen=True)
class DataConfig:
  """Files or a mixture of tasks, and the token store built from them.

  Attributes:
    mixture: a mixture or task, of this package ("code_textbook") or of seqio.
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
    files: patterns of .jsonl, .parquet, .py and .txt files, such as "data/*.jsonl.gz".
      They take the place of `mixture`, which becomes None.
    loss_on: tokens that training counts: "all", or "completions" without prompts.
  """

  mixture: str | None = None
  store: str = ""
  tokenizer: str = "codegen"
  trained_vocabulary_size: int | None = None
  modules: tuple[str, ...] = ()
  curated_directory: str | None = None
  held_out_fraction: float = 0.01
  shards: int = 8
  processes: int = 0
  rates: dict[str, float] | None = None
  verify: bool = True
  files: tuple[str, ...] = ()
  loss_on: str = "all"

  def __post_init__(self):
    if isinstance(self.files, str):
      object.__setattr__(self, "files", (self.files,))
    if self.files and self.mixture:
      log.info("Data.files takes the place of Data.mixture = %r", self.mixture)
      object.__setattr__(self, "mixture", None)
    if not self.files and not self.mixture:
      raise InputError(
        "Data.mixture, Data.files: got neither; name a mixture, or patterns of files: "
        """--gin.Data.files="('data/*.jsonl',)\""""
      )
    for name in ("store", "tokenizer"):
      if not getattr(self, name):
        raise InputError(f'Data.{name}: got "", expected a name')
    if self.loss_on not in LOSS_ON:
      raise InputError(
        f"Data.loss_on: got {self.loss_on!r}, expected {' or '.join(LOSS_ON)}"
      )
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

  @property
  def needs_seqio(self) -> bool:
    """Whether the tasks are ones that only seqio knows."""
    return not self.files and bool(self.modules or self.curated_directory)

  @property
  def origin(self) -> str:
    """The files or the mixture, for messages."""
    return self.mixture or ", ".join(self.files)
