"""seqio tasks as sources: what is read from them, and what is refused."""

import dataclasses
import json

import numpy as np
import pytest

from phi1_jax import InputError
from phi1_jax.data import mixtures, tasks
from phi1_jax.data.config import DataConfig
from phi1_jax.data.quiet_tensorflow import seqio, tf, tfds
from phi1_jax.data.tasks import SHIFT, TokenizerVocabulary
from phi1_jax.text import tokenizer as tokenizers

BYTES = tokenizers.train([], tokenizers.MINIMUM_VOCABULARY_SIZE)
PLAIN = DataConfig("code_textbook", store="unused", grammar_exercises=30)
WORDS = tokenizers.train(["for word in words:\n  print(word, words)\n"] * 9, 300)


def read(source, tokenizer=BYTES):
  return list(source.read(0, 1, tokenizer))


def test_the_tasks_of_this_project_are_seqios_and_registered_twice_without_harm():
  for _ in range(2):
    tasks.register(PLAIN)
  assert {"code_filtered", "textbooks", "exercises"} <= set(seqio.TaskRegistry.names())
  rated = tasks.resolve("code_textbook")
  assert [each.rate for each in rated.values()] == ["by_size"] * 2
  # They are read without seqio.
  assert rated["textbooks"].source is mixtures.TASKS["textbooks"]
  # With it, documents end as seqio's users expect.
  task = seqio.TaskRegistry.get("grammar_exercises")
  dataset = task.get_dataset(shuffle=False, try_in_mem_cache=False)
  first = next(dataset.as_numpy_iterator())
  # The config's number of exercises, not the default.
  source = tasks.resolve("grammar_exercises")["grammar_exercises"].source
  assert len(read(source)) == 30
  codegen = tokenizers.codegen()
  assert first["targets"][-1] == codegen.eos_id + SHIFT
  assert codegen.decode(first["targets"][:-1] - SHIFT).count("def ") >= 1


def write_curated(folder, name, rows):
  """The smallest TFDS dataset that a curation could have written."""
  features = {key: tfds.features.Text() for key in rows[0]}
  return tfds.dataset_builders.store_as_tfds_dataset(
    name=name,
    version="1.2.0",
    features=tfds.features.FeaturesDict(features),
    split_datasets={"train": list(enumerate(rows))},
    data_dir=str(folder),
  )


def test_a_curated_set_is_read_through_its_task(tmp_path):
  rows = [{"text": f"def f{i}(): '!'\n", "group": f"file {i // 2}"} for i in range(7)]
  rows.append({"text": "", "group": "s"})
  write_curated(tmp_path, "code_filtered", rows)
  tasks.register(dataclasses.replace(PLAIN, curated_directory=str(tmp_path)))
  try:
    source = tasks.resolve("code_filtered")["code_filtered"].source
    (described,) = source.describe()
    assert (described["name"], described["version"]) == ("code_filtered", "1.2.0")
    assert str(tmp_path) not in json.dumps(described)
    found = {document.text: document.group for document in read(source)}
    assert found == {row["text"]: row["group"] for row in rows}
    with pytest.raises(InputError, match="no TFDS dataset textbooks"):
      tasks.resolve("textbooks")["textbooks"].source.describe()
  finally:
    tasks.register(PLAIN)


TEXTS = ["words in words", "print(word)\n\tfor é", "!"]


@pytest.fixture
def registered():
  """registered(name, *steps) adds a task whose preprocessors are those steps."""
  names = []

  def add(name, *steps, features=("targets",), split="train"):
    def texts(split, shuffle_files, seed=None):
      columns = {name: [f"{name}: {text}" for text in TEXTS] for name in features}
      return tf.data.Dataset.from_tensor_slices(columns)

    source = seqio.FunctionDataSource(texts, (split,))
    feature = seqio.Feature(seqio.ByteVocabulary(), add_eos=True)
    task = seqio.Task(name, source, dict.fromkeys(features, feature), list(steps))
    seqio.TaskRegistry.add_provider(name, task)
    names.append(name)
    return tasks.resolve(name)[name].source

  yield add
  for name in names:
    seqio.TaskRegistry.remove(name)


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"features": ("inputs", "scores")}, "features inputs, scores"),
    ({"split": "test"}, 'splits test, expected "train"'),
  ],
)
def test_tasks_that_a_store_cannot_hold_are_refused(registered, changes, message):
  with pytest.raises(InputError, match=message):
    registered("odd", **changes)


def by_temperature(task):
  return seqio.mixing_rate_num_examples(task, temperature=2.0)


@pytest.mark.parametrize(
  ("rate", "message"),
  [
    (1, None),
    (tasks.by_size, "give all of them numbers, or none"),
    (by_temperature, r'mixture "mine".*task "uncounted".*numbers'),
    (seqio.mixing_rate_num_characters, r'mixture "mine".*task "uncounted".*numbers'),
  ],
)
def test_rates_are_numbers_or_by_size(registered, rate, message):
  tasks.register(PLAIN)
  registered("uncounted", seqio.preprocessors.tokenize)
  rates = [("uncounted", rate), ("textbooks", 3)]
  seqio.MixtureRegistry.add_provider("mine", seqio.Mixture("mine", rates))
  try:
    if message:
      with pytest.raises(InputError, match=message):
        tasks.resolve("mine")
    else:
      found = {name: rated.rate for name, rated in tasks.resolve("mine").items()}
      assert found == {"uncounted": 1.0, "textbooks": 3.0}
  finally:
    seqio.MixtureRegistry.remove("mine")


def test_ids_of_another_vocabulary_are_refused_by_the_tasks_name(registered):
  def own(dataset):
    return dataset.map(
      lambda row: {
        "targets": tf.cast(tf.io.decode_raw(row["targets"], tf.uint8), tf.int32) + 3,
        "targets_pretokenized": row["targets"],
      }
    )

  source = registered("own_ids", own)
  with pytest.raises(InputError, match=r"task own_ids: got token ids .* expected"):
    read(source, WORDS)


def test_of_a_task_that_trims_what_is_kept_is_counted(registered):
  def trim(dataset):
    return dataset.map(lambda row: {**row, "targets": row["targets"][2:12]})

  source = registered("trimmed", seqio.preprocessors.tokenize, trim)
  found = read(source, WORDS)
  for document, text in zip(found, TEXTS, strict=True):
    ids = WORDS.encode(f"targets: {text}")[2:12]
    assert document.ids[1].tolist() == ids
    assert document.text == WORDS.decode(ids)
    assert document.group is not None  # the whole text decides the split


def test_inputs_are_the_prompt(registered):
  both = ("inputs", "targets")
  source = registered("pairs", seqio.preprocessors.tokenize, features=both)
  for document, text in zip(read(source, WORDS), TEXTS, strict=True):
    assert (document.prompt, document.text) == (f"inputs: {text}", f"targets: {text}")
    assert document.ids[0].tolist() == WORDS.encode(document.prompt)
  assert [d.text for d in read(source, None)] == [f"targets: {t}" for t in TEXTS]


@pytest.fixture(scope="module")
def vocabulary():
  return TokenizerVocabulary(tokenizers.codegen())


@pytest.mark.parametrize(
  "text", ["!", "", "a ! b\r\n\tc\n", "<|endoftext|>", "é😀" + " " * 40]
)
def test_graph_and_python_agree_and_give_the_text_back(vocabulary, text):
  ids = vocabulary.encode(text)
  assert ids == [i + 1 for i in vocabulary.tokenizer.encode(text)]
  in_graph = tf.data.Dataset.from_tensors(text).map(vocabulary.encode_tf)
  assert next(in_graph.as_numpy_iterator()).tolist() == ids
  padded = [*ids, vocabulary.eos_id, 0, 0]
  assert vocabulary.decode(padded) == text
  if text:
    assert vocabulary.decode_tf(tf.constant(padded)).numpy().decode() == text


def test_exclamation_marks_survive_seqio_packing(vocabulary):
  rows = [[*vocabulary.encode(t), vocabulary.eos_id] for t in ("!", "a!b!", "!!!")]
  dataset = tf.data.Dataset.from_generator(
    lambda: ({"targets": row} for row in rows),
    output_signature={"targets": tf.TensorSpec([None], tf.int32)},
  )
  converter = seqio.DecoderFeatureConverter(pack=True)
  (packed,) = converter(dataset, {"targets": 32}).as_numpy_iterator()
  targets = packed["decoder_target_tokens"]
  assert targets[targets != 0].tolist() == list(np.concatenate(rows))
  assert packed["decoder_segment_ids"].max() == 3
