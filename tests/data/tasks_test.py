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

CONFIG = DataConfig("code_textbook", store="unused", grammar_exercises=30)
WORDS = tokenizers.train(["for word in words:\n  print(word, words)\n"] * 9, 300)
TEXTS = ["words in words", "print(word)\n\tfor é", "!"]


def read(source, tokenizer=WORDS):
  return list(source.read(0, 1, tokenizer))


def test_the_tasks_of_this_project_are_seqios_and_registered_twice_without_harm():
  for _ in range(2):
    tasks.register(CONFIG)
  rated = tasks.resolve("code_textbook")
  assert [each.rate for each in rated.values()] == ["by_size"] * 2
  # They are read without seqio.
  assert rated["textbooks"].source is mixtures.TASKS["textbooks"]
  # The config's number of exercises, not the default.
  source = tasks.resolve("grammar_exercises")["grammar_exercises"].source
  assert len(read(source)) == 30
  # With it, documents end as seqio's users expect, at each reading.
  dataset = seqio.TaskRegistry.get("grammar_exercises").get_dataset(shuffle=False)
  codegen = tokenizers.codegen()
  for _ in range(2):
    first = next(dataset.as_numpy_iterator())
    assert first["targets"][-1] == codegen.eos_id + SHIFT
    assert codegen.decode(first["targets"][:-1] - SHIFT).count("def ") >= 1


def test_a_curated_set_is_read_through_its_task(tmp_path):
  rows = [{"text": f"def f{i}(): '!'\n", "group": f"file {i // 2}"} for i in range(7)]
  rows.append({"text": "", "group": "s"})
  text = tfds.features.Text()
  tfds.dataset_builders.store_as_tfds_dataset(
    name="code_filtered",
    version="1.2.0",
    features=tfds.features.FeaturesDict({"text": text, "group": text}),
    split_datasets={"train": list(enumerate(rows))},
    data_dir=str(tmp_path),
  )
  tasks.register(dataclasses.replace(CONFIG, curated_directory=str(tmp_path)))
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
    tasks.register(CONFIG)


@pytest.fixture
def registered(request):
  """registered(name, *steps) adds a task whose preprocessors are those steps."""

  def add(name, *steps, features=("targets",), split="train"):
    columns = {name: [f"{name}: {text}" for text in TEXTS] for name in features}
    source = seqio.FunctionDataSource(
      lambda split, shuffle_files, seed=None: tf.data.Dataset.from_tensor_slices(
        columns
      ),
      (split,),
    )
    feature = seqio.Feature(seqio.ByteVocabulary(), add_eos=True)
    task = seqio.Task(name, source, dict.fromkeys(features, feature), list(steps))
    seqio.TaskRegistry.add_provider(name, task)
    request.addfinalizer(lambda: seqio.TaskRegistry.remove(name))
    return tasks.resolve(name)[name].source

  return add


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
  ],
)
def test_rates_are_numbers_or_by_size(registered, request, rate, message):
  tasks.register(CONFIG)
  registered("uncounted", seqio.preprocessors.tokenize)
  rates = [("uncounted", rate), ("textbooks", 3)]
  seqio.MixtureRegistry.add_provider("mine", seqio.Mixture("mine", rates))
  request.addfinalizer(lambda: seqio.MixtureRegistry.remove("mine"))
  if message:
    with pytest.raises(InputError, match=message):
      tasks.resolve("mine")
  else:
    found = {name: rated.rate for name, rated in tasks.resolve("mine").items()}
    assert found == {"uncounted": 1.0, "textbooks": 3.0}


def test_ids_of_another_vocabulary_are_refused_by_the_tasks_name(registered):
  def own(dataset):
    return dataset.map(
      lambda row: {
        "targets": tf.cast(tf.io.decode_raw(row["targets"], tf.uint8), tf.int32) + 3,
        "targets_pretokenized": row["targets"],
      }
    )

  with pytest.raises(InputError, match=r"task own_ids: got token ids .* expected"):
    read(registered("own_ids", own))


def test_of_a_task_that_trims_what_is_kept_is_counted(registered):
  def trim(dataset):
    return dataset.map(lambda row: {**row, "targets": row["targets"][2:12]})

  found = read(registered("trimmed", seqio.preprocessors.tokenize, trim))
  for document, text in zip(found, TEXTS, strict=True):
    ids = WORDS.encode(f"targets: {text}")[2:12]
    assert document.ids[1].tolist() == ids
    assert document.text == WORDS.decode(ids)
    assert document.group is not None  # the whole text decides the split


def test_inputs_are_the_prompt(registered):
  both = ("inputs", "targets")
  source = registered("pairs", seqio.preprocessors.tokenize, features=both)
  for document, text in zip(read(source), TEXTS, strict=True):
    assert (document.prompt, document.text) == (f"inputs: {text}", f"targets: {text}")
    assert document.ids[0].tolist() == WORDS.encode(document.prompt)
  assert [d.text for d in read(source, None)] == [f"targets: {t}" for t in TEXTS]


def test_exclamation_marks_survive_seqio_packing_and_decoding():
  """Id 0 is seqio's padding, and "!" in CodeGen's vocabulary."""
  vocabulary = TokenizerVocabulary(tokenizers.codegen())
  texts = ["!", "a ! b!\r\n\tc\n", "<|endoftext|>", "é😀" + " " * 40]
  in_graph = tf.data.Dataset.from_tensor_slices(texts).map(vocabulary.encode_tf)
  rows = [ids.tolist() for ids in in_graph.as_numpy_iterator()]
  for text, ids in zip(texts, rows, strict=True):
    assert vocabulary.encode(text) == ids
    assert ids == [i + 1 for i in vocabulary.tokenizer.encode(text)]
    padded = [*ids, vocabulary.eos_id, 0, 0]
    assert vocabulary.decode(padded) == text
    assert vocabulary.decode_tf(tf.constant(padded)).numpy().decode() == text
    ids.append(vocabulary.eos_id)
  dataset = tf.data.Dataset.from_generator(
    lambda: ({"targets": row} for row in rows),
    output_signature={"targets": tf.TensorSpec([None], tf.int32)},
  )
  converter = seqio.DecoderFeatureConverter(pack=True)
  (packed,) = converter(dataset, {"targets": 64}).as_numpy_iterator()
  targets = packed["decoder_target_tokens"]
  assert targets[targets != 0].tolist() == list(np.concatenate(rows))
  assert packed["decoder_segment_ids"].max() == len(texts)
