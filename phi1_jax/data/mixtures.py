"""The tasks and mixtures that come with this package, under the paper's names.

    mixture               tasks                       in the paper
    code_textbook         code_filtered + textbooks   CodeTextbook, for pretraining
    code_exercises        exercises                   CodeExercises, for finetuning
    code_all              all three                   for a common vocabulary

    for a first model on a laptop, from installed packages only:
    small_code_textbook   small_code_filtered + small_textbooks + grammar_textbooks
    grammar_exercises     exercises of the grammar teacher

The tasks of a mixture are concatenated (rate "by_size"), as the paper's section 2.3
implies; its mixing weights are not published.

They are read without TensorFlow. `tasks.py` registers them with seqio, for mixtures of
your own and for curated sets.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from phi1_jax.data import corpora
from phi1_jax.data.config import MIXTURES, DataConfig
from phi1_jax.data.corpora import Corpus
from phi1_jax.data.documents import Document, Drop, Source
from phi1_jax.data.files import FileSource
from phi1_jax.grammar import NAME, VERSION, rows
from phi1_jax.grammar import teacher as grammar
from phi1_jax.text.tokenizer import Tokenizer

_SEED = 0  # of the grammar teacher's texts


class Rated(NamedTuple):
  """A task's source with its rate: a number, or "by_size"."""

  source: Source
  rate: float | str = "by_size"


@dataclasses.dataclass(frozen=True)
class CorpusSource:
  """The embedded corpora.

  Attributes:
    extract: maps a file of a corpus to its documents, or to the reason of a drop.
    embedded: lists the corpora; called late, because some may not be installed.
  """

  extract: Callable[[Corpus, str], list[Document] | Drop]
  embedded: Callable[[], Sequence[Corpus]] = corpora.embedded

  def describe(self) -> list[dict[str, Any]]:
    """Return name, version, licence, home and hash of each corpus."""
    return [corpus.describe() for corpus in self.embedded()]

  def num_shards(self, wanted: int) -> int:
    """Return `wanted`, or the number of files."""
    return max(1, min(wanted, sum(len(corpus.paths) for corpus in self.embedded())))

  def read(
    self, shard: int, shards: int, tokenizer: Tokenizer | None = None
  ) -> Iterator[Document | Drop]:
    """Yield the documents of every n-th file."""
    del tokenizer
    files = [(corpus, path) for corpus in self.embedded() for path in corpus.paths]
    for corpus, path in files[shard::shards]:
      found = self.extract(corpus, path)
      yield from [found] if isinstance(found, Drop) else found


@dataclasses.dataclass(frozen=True)
class GrammarSource:
  """Texts of the grammar teacher, which needs no LLM.

  Attributes:
    kind: "exercises" or "sections" (of textbooks).
    number: how many there are.
    tables: of exercises: files of more tables.
  """

  kind: str
  number: int
  tables: tuple[str, ...] = ()

  def describe(self) -> list[dict[str, Any]]:
    """Return the teacher and the settings of its texts."""
    facts = {"name": NAME, "version": str(VERSION), "licence": "MIT"}
    facts |= {"seed": _SEED, self.kind: self.number, "menu": "all"}
    if tables := rows.digest(self.tables):
      facts["tables"] = tables
    return [facts]

  def num_shards(self, wanted: int) -> int:
    """Return `wanted`, at most 8."""
    return min(wanted, 8)

  def read(
    self, shard: int, shards: int, tokenizer: Tokenizer | None = None
  ) -> Iterator[Document]:
    """Yield every n-th text; exercises of one composition are a group."""
    del tokenizer
    for number in range(shard, self.number, shards):
      if self.kind == "sections":
        text = grammar.section(_SEED, number).text
        yield Document(text, text)
      else:
        exercise = grammar.exercise(_SEED, number, tables=self.tables)
        yield Document(exercise.text, repr(exercise.composition))


# The tasks that read curated sets of the same names, if Data.curated_directory is set.
EXTRACTORS = {
  "code_filtered": corpora.code,
  "textbooks": corpora.textbooks,
  "exercises": corpora.mined_exercises,
}
TASKS: dict[str, Source] = {
  **{name: CorpusSource(extract) for name, extract in EXTRACTORS.items()},
  **{
    f"small_{name}": CorpusSource(extract, corpora.small)
    for name, extract in EXTRACTORS.items()
  },
  # About as many as the quickstart reads in one epoch.
  "grammar_textbooks": GrammarSource("sections", 1_000),
}
# Tasks whose documents are functions: with loss on completions, the bodies count.
EXERCISES = ("exercises", "small_exercises", "grammar_exercises")


def sources(config: DataConfig) -> dict[str, Source]:
  """Return the sources of the package's tasks, as a config sets them."""
  found = TASKS | {
    "grammar_exercises": GrammarSource(
      "exercises", config.grammar_exercises, config.grammar_tables
    )
  }
  if config.curated_directory is not None:
    from phi1_jax.data.curated import CuratedSource  # it loads TensorFlow

    found |= {
      name: CuratedSource(name, config.curated_directory) for name in EXTRACTORS
    }
  return found


def resolve(config: DataConfig) -> dict[str, Rated]:
  """Return the tasks of a config, sorted by name.

  Loads seqio and TensorFlow only for tasks of `Data.modules` and for curated sets.

  Raises:
    InputError: no such mixture or files, or a task that a token store cannot hold.
  """
  config.check_sources()
  if config.files:
    return {"files": Rated(FileSource(config.files, config.columns))}
  name = config.mixture or ""
  if config.modules:
    from phi1_jax.data import tasks

    tasks.register(config)
    return tasks.resolve(name)
  found = sources(config)
  return {task: Rated(found[task]) for task in sorted(MIXTURES.get(name, (name,)))}
