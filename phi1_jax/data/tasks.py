"""seqio tasks and mixtures, under the paper's names.

    mixture               tasks                       in the paper
    code_textbook         code_filtered + textbooks   CodeTextbook, for pretraining
    code_exercises        exercises                   CodeExercises, for finetuning
    code_all              all three                   for a common vocabulary

    for a first model on a laptop, from installed packages only:
    small_code_textbook   small_code_filtered + small_textbooks + grammar_textbooks
    grammar_exercises     exercises of the grammar teacher

The tasks of a mixture are concatenated (rate "by_size"), as the paper's section 2.3
implies; its mixing weights are not published.

The tasks read curated TFDS sets of the same names from a folder, or the embedded
corpora if no folder is given. Nothing is registered on import: call `register`.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator

import numpy as np

from phi1_jax import InputError
from phi1_jax.data import corpora, sources
from phi1_jax.data.quiet_tensorflow import seqio, tf
from phi1_jax.data.vocabulary import TokenizerVocabulary
from phi1_jax.text.tokenizer import Tokenizer

TASKS = {
  "code_filtered": corpora.code,
  "textbooks": corpora.textbooks,
  "exercises": corpora.mined_exercises,
}
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

# About as many as the quickstart reads in one epoch.
GRAMMAR = {
  "grammar_textbooks": sources.GrammarDataSource("sections", 0, 1_000),
  "grammar_exercises": sources.GrammarDataSource("exercises", 0, 20_000, "numbers"),
}

# seqio's rate for plain concatenation.
by_size = seqio.mixing_rate_num_examples


def register(tokenizer: Tokenizer, curated_directory: str | None = None) -> None:
  """Register this project's tasks and mixtures with seqio, or replace them.

  Args:
    tokenizer: the vocabulary of the feature "targets".
    curated_directory: TFDS folder with the curated sets; None = embedded corpora.
  """
  for name in MIXTURES:
    if name in seqio.MixtureRegistry.names():
      seqio.MixtureRegistry.remove(name)
  for name, extract in TASKS.items():
    _register(
      name,
      sources.CorpusDataSource(extract)
      if curated_directory is None
      else sources.curated(name, curated_directory),
      tokenizer,
    )
    few = sources.CorpusDataSource(extract, corpora.small)
    _register(f"small_{name}", few, tokenizer)
  for name, composed in GRAMMAR.items():
    _register(name, composed, tokenizer)
  for name, tasks in MIXTURES.items():
    seqio.MixtureRegistry.add(name, [(task, by_size) for task in tasks])


def _register(name: str, source: seqio.DataSource, tokenizer: Tokenizer) -> None:
  if name in seqio.TaskRegistry.names():
    seqio.TaskRegistry.remove(name)
  made = seqio.Task(
    name,
    source=source,
    preprocessors=[
      text_to_targets,
      seqio.preprocessors.tokenize,
      seqio.CacheDatasetPlaceholder(),
      seqio.preprocessors.append_eos,
    ],
    output_features={
      "targets": seqio.Feature(TokenizerVocabulary(tokenizer), add_eos=True)
    },
    metric_fns=[],
  )
  seqio.TaskRegistry.add_provider(name, made)


def text_to_targets(dataset: tf.data.Dataset) -> tf.data.Dataset:
  """Rename "text" to "targets", keep "group" if there is one, and drop the rest."""

  def rename(example):
    kept = {"group": example["group"]} if "group" in example else {}
    return {"targets": example["text"], **kept}

  return dataset.map(rename, num_parallel_calls=tf.data.AUTOTUNE)


@dataclasses.dataclass(frozen=True)
class Rated:
  """A task of a mixture with its rate: a number, or "by_size"."""

  task: seqio.Task
  rate: float | str


def tasks_of(name: str) -> dict[str, Rated]:
  """Return the tasks of a mixture, or the task of that name, with rates, sorted.

  Raises:
    InputError: no such mixture or task, or a task that a token store cannot hold.
  """
  known = [*seqio.MixtureRegistry.names(), *seqio.TaskRegistry.names()]
  if name not in known:
    raise InputError(
      f'Data.mixture: no mixture or task "{name}"; registered: '
      f"{', '.join(sorted(known))} (Data.modules registers more)"
    )
  found = seqio.get_mixture_or_task(name)
  rated = {
    task.name: Rated(task, _rate(found, task)) for task in seqio.get_subtasks(found)
  }
  for task in (entry.task for entry in rated.values()):
    if list(task.output_features) != ["targets"]:
      raise InputError(
        f"task {task.name} has the features {', '.join(task.output_features)}; a token "
        'store holds one, "targets": join them in a preprocessor'
      )
    if "train" not in task.splits:
      raise InputError(
        f'task {task.name} has the splits {", ".join(task.splits)}, expected "train"'
      )
  by_rate = {entry.rate == "by_size" for entry in rated.values()}
  if len(by_rate) == 2:
    raise InputError(
      f'mixture "{name}" has numeric rates for some tasks and by_size for others; '
      "give all of them numbers, or none"
    )
  return dict(sorted(rated.items()))


def _rate(found: seqio.Task | seqio.Mixture, task: seqio.Task) -> float | str:
  if isinstance(found, seqio.Task):
    return "by_size"
  if found.rate_per_task_name.get(task.name) is by_size:
    return "by_size"
  return float(found.get_rate(task))


def task(name: str) -> seqio.Task:
  """Return a registered task."""
  return seqio.TaskRegistry.get(name)


def num_shards(task: seqio.Task, wanted: int) -> int:
  """Return the number of shards of a task: `wanted`, or the number of its files."""
  if task.source.supports_arbitrary_sharding:
    return wanted
  return max(1, min(wanted, len(task.source.list_shards("train"))))


@dataclasses.dataclass(frozen=True)
class Encoded:
  """One document of a task.

  Attributes:
    ids: int [T] ids of the vocabulary it was read with, without the end-of-text id.
    text: the text of the ids, in UTF-8; None = the task did not keep it.
    group: documents of one group are held out together; None = its own text.
  """

  ids: np.ndarray
  text: bytes | None
  group: str | None


def documents(
  task: seqio.Task, vocabulary: seqio.Vocabulary, index: int, count: int
) -> Iterator[Encoded]:
  """Yield documents of shard `index` of `count`, in the source's order.

  They are encoded with `vocabulary` instead of the task's own.
  """
  feature = dataclasses.replace(task.output_features["targets"], vocabulary=vocabulary)
  dataset = task.replace(output_features={"targets": feature}).get_dataset(
    sequence_length=None,
    shuffle=False,
    shard_info=seqio.ShardInfo(index, count),
    trim_output_features=False,
    try_in_mem_cache=False,
  )
  for example in dataset.as_numpy_iterator():
    ids, group = example["targets"], example.get("group")
    if len(ids) and ids[-1] == vocabulary.eos_id:
      ids = ids[:-1]
    text = example.get("targets_pretokenized")
    yield Encoded(ids, text, None if group is None else group.decode())


def held_out(text: bytes, group: str | None, fraction: float) -> bool:
  """Return whether a document is held out: by hash, so order and shards do not matter.

  Args:
    text: the document in UTF-8; used if it has no group.
    group: hash of its file. A whole file is its own group, so a document made from a
      part of it goes to the same side.
    fraction: expected share of groups that are held out.
  """
  group = hashlib.sha256(text).hexdigest() if group is None else group
  position = int.from_bytes(hashlib.sha256(group.encode()).digest()[:8], "big")
  return position < fraction * 2**64
