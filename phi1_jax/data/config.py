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
    size, fraction = self.trained_vocabulary_size, self.held_out_fraction
    sizes = "295 to 65536 with Data.tokenizer = 'train', otherwise None"
    fits = (
      size is not None and 295 <= size <= 1 << 16
      if self.tokenizer == "train"
      else size is None
    )
    rates = (self.rates or {}).values()
    in_range = {
      "store": (bool(self.store), "a name"),
      "tokenizer": (bool(self.tokenizer), "a name"),
      "trained_vocabulary_size": (fits, sizes),
      "held_out_fraction": (0 <= fraction < 1, "0 <= it < 1"),
      "shards": (self.shards >= 1, "at least 1"),
      "processes": (self.processes >= 0, "0 (one per core) or more"),
      "loss_on": (self.loss_on in LOSS_ON, " or ".join(LOSS_ON)),
      "rates": (
        self.rates != {} and all(0 < rate < math.inf for rate in rates),
        "positive numbers, of at least one task (leave a task out to skip it), or None",
      ),
    }
    for name, (fits, expected) in in_range.items():
      if not fits:
        got = getattr(self, name)
        raise InputError(f"Data.{name}: got {got!r}, expected {expected}")

  @property
  def needs_seqio(self) -> bool:
    """Whether the tasks are ones that only seqio knows."""
    return not self.files and bool(self.modules or self.curated_directory)

  @property
  def origin(self) -> str:
    """The files or the mixture, for messages."""
    return self.mixture or ", ".join(self.files)
