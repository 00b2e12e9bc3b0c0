"""The registered tasks, from the embedded corpora and from curated TFDS sets."""

import hashlib
import json

import pytest

from phi1_jax import InputError
from phi1_jax.data import corpora, sources, tasks
from phi1_jax.data.corpora import Corpus, Document, Drop
from phi1_jax.data.quiet_tensorflow import seqio, tf, tfds
from phi1_jax.data.vocabulary import SHIFT, TokenizerVocabulary
from phi1_jax.text import tokenizer as tokenizers

BYTES = tokenizers.train([], tokenizers.MINIMUM_VOCABULARY_SIZE)


def texts(task, count=1):
  vocabulary = TokenizerVocabulary(BYTES)
  return [
    BYTES.decode(document.ids - SHIFT)
    for index in range(count)
    for document in tasks.documents(task, vocabulary, index, count)
  ]


def write_curated(folder, name, rows, file_format="tfrecord"):
  """The smallest TFDS dataset that a curation could have written."""
  builder = tfds.dataset_builders.store_as_tfds_dataset
  features = {key: tfds.features.Text() for key in rows[0]}
  return builder(
    name=name,
    version="1.2.0",
    features=tfds.features.FeaturesDict(features),
    split_datasets={"train": list(enumerate(rows))},
    data_dir=str(folder),
    file_format=file_format,
  )


def test_the_names_are_those_of_the_paper_and_registering_again_is_harmless():
  for _ in range(2):
    tasks.register(BYTES)
  assert {"code_filtered", "textbooks", "exercises"} <= set(seqio.TaskRegistry.names())
  assert {"code_textbook", "code_exercises"} <= set(seqio.MixtureRegistry.names())
  rated = tasks.tasks_of("code_textbook")
  assert {name: entry.rate for name, entry in rated.items()} == {
    "code_filtered": "by_size",
    "textbooks": "by_size",
  }
  assert list(tasks.tasks_of("code_exercises")) == ["exercises"]
  assert tasks.tasks_of("exercises")["exercises"].rate == "by_size"


def test_numeric_rates_are_kept_and_mixed_kinds_refused():
  tasks.register(BYTES)
  pair = ("code_filtered", "textbooks")
  numbers = seqio.Mixture("numbers", list(zip(pair, (3, 1), strict=True)))
  seqio.MixtureRegistry.add_provider("numbers", numbers)
  mixed = seqio.Mixture("mixed", list(zip(pair, (3, tasks.by_size), strict=True)))
  seqio.MixtureRegistry.add_provider("mixed", mixed)
  try:
    rated = tasks.tasks_of("numbers")
    assert [entry.rate for entry in rated.values()] == [3.0, 1.0]
    with pytest.raises(InputError, match="give all of them numbers, or none"):
      tasks.tasks_of("mixed")
  finally:
    seqio.MixtureRegistry.remove("numbers")
    seqio.MixtureRegistry.remove("mixed")


def test_an_unknown_mixture_is_refused_with_the_known_ones():
  tasks.register(BYTES)
  with pytest.raises(
    InputError, match=r'"code_textbok"; registered: code_all, code_exercises'
  ):
    tasks.tasks_of("code_textbok")


@pytest.mark.parametrize(
  ("features", "splits", "message"),
  [
    (("inputs", "targets"), ("train",), "features inputs, targets"),
    (("targets",), ("test",), 'splits test, expected "train"'),
  ],
)
def test_tasks_that_a_store_cannot_hold_are_refused(features, splits, message):
  def nothing(split, shuffle_files, seed=None):
    return tf.data.Dataset.from_tensors({})

  feature = seqio.Feature(seqio.ByteVocabulary())
  source = seqio.FunctionDataSource(nothing, splits)
  task = seqio.Task("odd", source, dict.fromkeys(features, feature))
  seqio.TaskRegistry.add_provider("odd", task)
  try:
    with pytest.raises(InputError, match=message):
      tasks.tasks_of("odd")
  finally:
    seqio.TaskRegistry.remove("odd")


@pytest.fixture
def source(tmp_path):
  for index in range(5):
    (tmp_path / f"{index}.txt").write_text(f"first {index}|second {index}")
  paths = tuple(f"{index}.txt" for index in range(5))
  corpus = Corpus("tiny", "1", "MIT", "https://example.org", tmp_path, paths)

  def extract(corpus, path):
    if path == "3.txt":
      return Drop("because")
    content = (corpus.root / path).read_text()
    return [Document(text, content) for text in content.split("|")]

  return sources.CorpusDataSource(extract, lambda: [corpus])


def read(source, **arguments):
  dataset = source.get_dataset("train", **arguments).as_numpy_iterator()
  return [example["text"].decode() for example in dataset]


def test_shards_of_a_corpus_are_a_partition_in_order(source):
  assert source.list_shards("train") == [f"tiny/{i}.txt" for i in range(5)]
  whole = read(source, shuffle=False)
  assert whole == [f"{n} {i}" for i in (0, 1, 2, 4) for n in ("first", "second")]
  shards = [
    read(source, shuffle=False, shard_info=seqio.ShardInfo(k, 3)) for k in range(3)
  ]
  assert sorted(text for shard in shards for text in shard) == sorted(whole)
  assert shards[1] == ["first 1", "second 1", "first 4", "second 4"]
  assert source.num_input_examples("train") == 8
  assert source.dropped == {"because": 2}


def test_shuffling_a_corpus_follows_its_seed(source):
  orders = [read(source, shuffle=True, seed=seed) for seed in (1, 1, 2)]
  assert orders[0] == orders[1] != orders[2]
  assert sorted(orders[0]) == sorted(orders[2])


def test_a_corpus_has_only_a_training_split(source):
  with pytest.raises(ValueError, match='split "train" only'):
    source.list_shards("test")


def test_a_curated_set_is_read_through_its_task(tmp_path):
  rows = [{"text": f"def f{i}():\n  return '!'\n", "source": "s"} for i in range(7)]
  rows.append({"text": "", "source": "s"})
  write_curated(tmp_path, "code_filtered", rows)
  tasks.register(BYTES, str(tmp_path))
  try:
    task = tasks.task("code_filtered")
    described = sources.describe(task.source)[0]
    assert described["name"] == "code_filtered"
    assert described["version"] == "1.2.0"
    assert str(tmp_path) not in json.dumps(described)
    assert sorted(texts(task)) == sorted(row["text"] for row in rows)
    assert texts(task) == texts(task)
    with pytest.raises(InputError, match="no TFDS dataset textbooks"):
      sources.describe(tasks.task("textbooks").source)
  finally:
    tasks.register(BYTES)


def test_a_curated_group_decides_what_is_held_out(tmp_path):
  rows = [{"text": f"part {i}", "group": f"file {i // 2}"} for i in range(6)]
  write_curated(tmp_path, "exercises", rows)
  tasks.register(BYTES, str(tmp_path))
  try:
    vocabulary = TokenizerVocabulary(BYTES)
    found = tasks.documents(tasks.task("exercises"), vocabulary, 0, 1)
    groups = {BYTES.decode(d.ids - SHIFT): d.group for d in found}
    assert groups == {row["text"]: row["group"] for row in rows}
  finally:
    tasks.register(BYTES)


def test_a_task_of_this_project_ends_documents_as_seqio_users_expect():
  tasks.register(BYTES)
  dataset = tasks.task("exercises").get_dataset(shuffle=False, try_in_mem_cache=False)
  first = next(dataset.as_numpy_iterator())
  assert first["targets"][-1] == BYTES.eos_id + SHIFT
  assert BYTES.decode(first["targets"][:-1] - SHIFT).count("def ") >= 1


def test_held_out_is_a_matter_of_the_group_alone():
  names = [f"file {i}".encode() for i in range(20_000)]
  kept = [name for name in names if tasks.held_out(name, None, 0.05)]
  assert 850 < len(kept) < 1150  # 1000 +- 5 standard deviations
  assert set(kept) <= {name for name in names if tasks.held_out(name, None, 0.1)}
  assert not any(tasks.held_out(name, None, 0.0) for name in names)
  for name in names[:1000]:
    group = hashlib.sha256(name).hexdigest()
    # A function mined from a file goes where the file goes.
    assert tasks.held_out(b"def f(): ...", group, 0.05) == (name in kept)


def test_the_embedded_extractors_are_the_ones_registered():
  for name, extract in (
    ("code_filtered", corpora.code),
    ("textbooks", corpora.textbooks),
  ):
    assert tasks.TASKS[name] is extract
  assert tasks.TASKS["exercises"] is corpora.mined_exercises


def test_the_grammar_teacher_is_a_task_that_shards_agree_on():
  source = sources.GrammarDataSource("exercises", 0, 60, "first", shards=3)
  whole = list(source.get_dataset("train").as_numpy_iterator())
  parts = [
    example
    for index in range(3)
    for example in source.get_dataset(
      "train", shard_info=seqio.ShardInfo(index, 3)
    ).as_numpy_iterator()
  ]
  assert len(whole) == 60
  assert sorted(e["text"] for e in parts) == sorted(e["text"] for e in whole)
  (facts,) = sources.describe(source)
  assert "no LLM" in facts["name"]
  assert facts["exercises"] == 60
  tasks.register(BYTES)
  assert list(tasks.tasks_of("grammar_exercises")) == ["grammar_exercises"]
