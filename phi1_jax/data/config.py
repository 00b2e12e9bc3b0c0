"""Settings of the training data: the gin name `Data`."""

from __future__ import annotations

import dataclasses
import importlib.util
import logging
from typing import Annotated, Literal

from phi1_jax import InputError, how_to_install, storage
from phi1_jax.data.files import FileSource
from phi1_jax.grammar import rows
from phi1_jax.settings import Count, Positive, PositiveInt, Range, Settings, Share

log = logging.getLogger(__name__)

# The package's mixtures (mixtures.py describes them) and their tasks.
MIXTURES = {
  "code_textbook": ("code_filtered", "textbooks"),
  "code_exercises": ("exercises",),
  "code_all": ("code_filtered", "textbooks", "exercises"),
  "small_code_textbook": (
    "small_code_filtered",
    "small_textbooks",
    "grammar_textbooks",
  ),
}
TASKS = {*sum(MIXTURES.values(), ()), "small_exercises", "grammar_exercises"}
# Beside the files of a published set: the facts that decide its documents.
CURATED_CONTENT = "content.json"


@dataclasses.dataclass(frozen=True)
class DataConfig(Settings):
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
    verify: when the store is opened, check every shard's sha256, and that `files` are
      those that it was built from.
    files: patterns of .jsonl, .parquet, .py and .txt files, such as "data/*.jsonl.gz".
      They take the place of `mixture` and `curated_directory`, which become None.
    columns: of the rows of `files`: the name of the text, or the names of prompt and
      completion, such as ("instruction", "output"); () takes the usual names.
    loss_on: tokens that training counts: "all", or "completions" without prompts.
    grammar_exercises: exercises of the task grammar_exercises.
    grammar_tables: files of tables of your own for it (docs/exercises.md).
  """

  mixture: str | None = None
  store: str = ""
  tokenizer: str = "codegen"
  trained_vocabulary_size: Annotated[int, Range(least=295, most=1 << 16)] | None = None
  modules: tuple[str, ...] = ()
  curated_directory: str | None = None
  held_out_fraction: Share = 0.01
  shards: PositiveInt = 8
  processes: Count = 0
  rates: dict[str, Positive] | None = None
  verify: bool = True
  files: tuple[str, ...] = ()
  columns: tuple[str, ...] = ()
  loss_on: Literal["all", "completions"] = "all"
  grammar_exercises: PositiveInt = 70_000
  grammar_tables: tuple[str, ...] = ()

  def __post_init__(self):
    if isinstance(self.files, str):
      object.__setattr__(self, "files", (self.files,))
    if self.files and self.mixture:
      log.info("Data.files takes the place of Data.mixture = %r", self.mixture)
      object.__setattr__(self, "mixture", None)
    if self.files and self.curated_directory is not None:
      log.info("Data.files takes the place of the sets in Data.curated_directory")
      object.__setattr__(self, "curated_directory", None)
    if not self.files and not self.mixture:
      raise InputError(
        "Data.mixture, Data.files: got neither; name a mixture, or patterns of files: "
        """--gin.Data.files="('data/*.jsonl',)\""""
      )
    super().__post_init__()
    for name in ("store", "tokenizer"):
      if not getattr(self, name):
        raise self.wrong(name, "a name")
    if (self.tokenizer == "train") != (self.trained_vocabulary_size is not None):
      expected = "a number with Data.tokenizer = 'train', otherwise None"
      raise self.wrong("trained_vocabulary_size", expected)
    if len(self.columns) > 2 or (self.columns and not self.files):
      raise self.wrong("columns", "one or two names, beside Data.files")
    if self.rates == {}:
      raise self.wrong("rates", "at least one task, or None (as registered)")

  def check_sources(self) -> None:
    """Refuse settings of which no store could be built, without loading TensorFlow.

    A run from a finished store does not need to know its mixture.

    Raises:
      InputError: no such mixture, files, tables or curated sets; or no seqio.
    """
    names = {*MIXTURES, *TASKS}
    if not (self.files or self.modules or self.mixture in names):
      expected = f"a mixture or task: {', '.join(sorted(names))}"
      raise self.wrong("mixture", f"{expected} (Data.modules registers more)")
    if self.grammar_tables and (reason := self.without_effect("grammar_exercises")):
      expected = f"none, because {reason}; name grammar_exercises, or leave them out"
      raise self.wrong("grammar_tables", expected)
    if self.needs_seqio and importlib.util.find_spec("seqio") is None:
      raise InputError(
        f"Data.store: {self.store} is not built, and building it needs seqio: "
        f"{how_to_install('data')}, or copy a store here"
      )
    if self.files:
      FileSource(self.files, self.columns).check()
    if self.grammar_tables:
      rows.load(self.grammar_tables)
    for name in self.curated_sets:
      if not storage.exists(storage.parse(self.curated_directory or "") / name):
        expected = "the folder that `phi1_jax.curate publish` wrote, with the set "
        expected += f"{name}, or None for the embedded corpora"
        raise self.wrong("curated_directory", expected)

  def without_effect(self, field: str) -> str:
    """Return why a value of a field does not matter beside the others, or ""."""
    if field == "grammar_exercises" and self.files:
      return "Data.files takes the place of the grammar's exercises"
    if field == "curated_directory" and self.files:
      return "Data.files takes the place of the curated sets"
    others = {*MIXTURES, *TASKS} - {"grammar_exercises"}
    if field == "grammar_exercises" and self.mixture in others and not self.modules:
      return f"Data.mixture = {self.mixture!r} reads none of the grammar's exercises"
    return ""

  @property
  def curated_sets(self) -> list[str]:
    """Names of the curated sets that the mixture reads; without `modules`' tasks."""
    if self.files or self.modules or self.curated_directory is None:
      return []
    tasks = MIXTURES.get(self.mixture or "", (self.mixture,))
    return [name for name in tasks if name in MIXTURES["code_all"]]

  @property
  def needs_seqio(self) -> bool:
    """Whether the tasks are ones that only seqio knows."""
    return not self.files and bool(self.modules or self.curated_directory)

  @property
  def origin(self) -> str:
    """The files or the mixture, for messages."""
    return self.mixture or ", ".join(self.files)
