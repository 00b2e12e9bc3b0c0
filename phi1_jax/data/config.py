"""Settings of the training data: the gin name `Data`."""

from __future__ import annotations

import dataclasses
import logging
import math

from phi1_jax import InputError

log = logging.getLogger(__name__)

LOSS_ON = ("all", "completions")
_SIZES = "295 to 65536"
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
    in_range = {
      "store": (bool(self.store), "a name"),
      "tokenizer": (bool(self.tokenizer), "a name"),
      "trained_vocabulary_size": (size is None or 295 <= size <= 1 << 16, _SIZES),
      "held_out_fraction": (0 <= self.held_out_fraction < 1, "0 <= it < 1"),
      "shards": (self.shards >= 1, "at least 1"),
      "processes": (self.processes >= 0, "0 (one per core) or more"),
      "loss_on": (self.loss_on in LOSS_ON, " or ".join(LOSS_ON)),
      "rates": (self.rates != {}, "at least one task, or None"),
    }
    for name, (fits, expected) in in_range.items():
      if not fits:
        got = getattr(self, name)
        raise InputError(f"Data.{name}: got {got!r}, expected {expected}")
    for task, rate in (self.rates or {}).items():
      if not (math.isfinite(rate) and rate > 0):
        raise InputError(
          f"Data.rates: got {rate} for {task}, expected a positive number (leave a "
          "task out to skip it)"
        )

  @property
  def needs_seqio(self) -> bool:
    """Whether the tasks are ones that only seqio knows."""
    return not self.files and bool(self.modules or self.curated_directory)

  @property
  def origin(self) -> str:
    """The files or the mixture, for messages."""
    return self.mixture or ", ".join(self.files)
