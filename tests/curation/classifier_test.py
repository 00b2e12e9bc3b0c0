"""Embeddings, the forest on them, its report, and the filter that uses it."""

import json

import numpy as np
import pytest

from phi1_jax import InputError
from phi1_jax.curation import classifier, filtering, folder
from phi1_jax.curation.config import ClassifierConfig, FilterConfig
from phi1_jax.curation.document import Keep
from phi1_jax.curation.embedding import Embedder
from phi1_jax.curation.engine import Engine, Job
from tests.curation import samples

LENGTH = 64


@pytest.fixture(scope="session")
def labels(tmp_path_factory):
  path = tmp_path_factory.mktemp("labels")
  folder.begin(path, "annotate", {})
  made = [samples.algorithm(i) for i in range(60)]
  made += [samples.settings(i) for i in range(60)]
  decisions = [
    Keep(samples.document(text, annotate={"score": 4.0 if i < 60 else 1.0}))
    for i, text in enumerate(made)
  ]
  counts = folder.write(path, decisions)
  folder.finish(path, "annotate", counts.stats(), {})
  return path


@pytest.fixture(scope="session", params=["tfidf", "forest"])
def trained(request, labels, checkpoint, tmp_path_factory):
  path = tmp_path_factory.mktemp("classifier")
  config = ClassifierConfig(
    str(labels),
    method=request.param,
    compare=("tfidf", "forest"),
    checkpoint=str(checkpoint),
    max_length=LENGTH,
    trees=20,
  )
  return path, classifier.run(Job(config, path))


def test_embeddings_do_not_depend_on_their_batch(checkpoint):
  texts = [samples.algorithm(3), "x", samples.settings(2), "", samples.algorithm(40)]
  many = Embedder(str(checkpoint), "mean", LENGTH, 16).embed(texts)
  alone = Embedder(str(checkpoint), "mean", LENGTH, 1)
  for text, vector in zip(texts, many, strict=True):
    np.testing.assert_allclose(alone.embed([text])[0], vector, atol=2e-6)
  lengths = np.linalg.norm(many, axis=1)
  np.testing.assert_allclose(lengths, [1, 1, 1, 0, 1], atol=1e-5)


def test_what_is_beyond_the_length_has_no_influence(checkpoint):
  for pooling in ("mean", "last"):
    embedder = Embedder(str(checkpoint), pooling, 64, 8)
    text = samples.settings(1) * 9
    one, two, other = embedder.embed([text, text + "more", "# " + text])
    np.testing.assert_allclose(one, two, atol=1e-6)
    assert np.abs(one - other).max() > 1e-3


def test_a_longer_length_than_the_model_has_is_refused(checkpoint):
  with pytest.raises(InputError, match="got 999 tokens, expected at most 128"):
    Embedder(str(checkpoint), "mean", 999)


def test_methods_tell_algorithms_from_settings_and_are_compared(trained):
  path, stats = trained
  report = json.loads((path / "report.json").read_text())
  bins = report["methods"]["tfidf"]["calibration"]
  assert sum(row["documents"] for row in bins) == report["documents"]
  assert stats["trained_on"] + stats["tested_on"] == 120
  for method in ("tfidf", "forest"):
    assert report["methods"][method]["best"]["f1"] > 0.95
    assert report["methods"][method]["auc"] > 0.95
  # Every document here is a repository of its own: its name says nothing.
  assert report["methods"]["repository name"]["auc"] == 0.5
  assert report["methods"]["comment ratio"]["auc"] > 0.9
  opened = classifier.load(path)
  good, bad = opened.probabilities([samples.algorithm(99), samples.settings(99)])
  assert good > 0.5 > bad


def test_a_changed_classifier_is_not_opened(trained, tmp_path):
  path, _ = trained
  for file in path.iterdir():
    (tmp_path / file.name).write_bytes(file.read_bytes())
  pickled = tmp_path / classifier.ESTIMATOR
  pickled.write_bytes(pickled.read_bytes() + b"x")
  with pytest.raises(InputError, match="not the estimator that"):
    classifier.load(tmp_path)


def test_labels_of_another_stage_are_refused(tmp_path):
  other, out = tmp_path / "other", tmp_path / "out"
  for path in (other, out):
    path.mkdir()
  folder.begin(other, "filter", {})
  counts = folder.write(other, [Keep(samples.document("x = 1\n", filter={}))])
  folder.finish(other, "filter", counts.stats(), {})
  config = ClassifierConfig(str(other))
  says = r"^Classifier\.labels: got .*, a folder of filter whose .* of an annotate run$"
  with pytest.raises(InputError, match=says):
    classifier.run(Job(config, out))


def test_too_few_labels_are_refused(labels, tmp_path):
  config = ClassifierConfig(str(labels), positive_score=5.0)
  with pytest.raises(InputError, match="has 0 documents of score 5 or more"):
    classifier.run(Job(config, tmp_path))


def test_precision_recall_and_f1_at_a_threshold():
  positive = np.array([True, True, True, False, False])
  predicted = np.array([0.9, 0.8, 0.3, 0.6, 0.1])
  row = classifier.f1_at(positive, predicted, 0.5)
  shares = {"precision": 0.6667, "recall": 0.6667, "f1": 0.6667, "kept": 0.6}
  assert row == {"threshold": 0.5, **shares}


def test_the_filter_keeps_good_code_and_says_why_the_rest_goes(trained, tmp_path):
  inputs, out = tmp_path / "raw.jsonl", tmp_path / "out"
  out.mkdir()
  good, bad = samples.algorithm(7), samples.settings(7)
  texts = [
    (good, "MIT", None),
    (bad, "MIT", "low educational value"),
    (good + "# c\n", "GPL-3.0", "licence not allowed"),
    (good + "# d\n", "MIT AND unknown", "licence not allowed"),
    ("print 'Python 2'\n" * 9, "MIT", "Python 2 syntax"),
    (good + "for i in xrange(3):\n  print(i)\n", "MIT", "Python 2 names"),
    ("import urllib2\n" + good, "MIT", "Python 2 imports"),
    ("this is no program\n" * 9, "MIT", "not Python"),
    ("x = 1\n", "MIT", "under 50 characters"),
    ("# Generated by a tool. Do not edit.\n" + good, "MIT", "says that it was gener"),
    ("x = '" + "y" * 1001 + "'\n", "MIT", "a line over 1000 characters"),
    (f"x = '{'y' * 500}'\n", "MIT", "lines over 100 characters on average"),
    (good + "\0", "MIT", "null bytes"),
    (
      '"""Only a docstring, nothing to run, though long enough."""\n',
      "MIT",
      "no defin",
    ),
  ]
  samples.write(inputs, [{"text": text, "license": name} for text, name, _ in texts])
  config = FilterConfig((str(inputs),), str(trained[0]), threshold=0.5)
  job = Job(config, out, Engine(tasks=3, workers=1))
  stats = filtering.run(job)
  kept = list(folder.kept(out))
  assert [document.text for document in kept] == [good]
  assert kept[0].provenance["filter"]["probability"] > 0.5
  dropped = {drop.document.text: drop.reason for drop in folder.dropped(out)}
  assert len(dropped) == len(texts) - 1
  for text, _, reason in texts[1:]:
    assert dropped[text].startswith(reason)
  assert stats["read"] == len(texts)
  assert filtering.run(job) == stats  # complete already


def test_generated_texts_pass_the_filter(tmp_path):
  rows = [samples.document("x = 1\n", kind=kind) for kind in ("code", "exercise")]
  samples.write(tmp_path / "raw.jsonl", rows)
  config = FilterConfig((str(tmp_path / "raw.jsonl"),), classifier=None)
  filtering.run(Job(config, tmp_path / "out", Engine(workers=1)))
  assert [d.kind for d in folder.kept(tmp_path / "out")] == ["exercise"]


def test_whole_repositories_are_tested_on():
  names = np.array(["a"] * 50 + ["b"] * 30 + [f"r{n}" for n in range(120)])
  tested = classifier.split(names, 0.25)
  for name in "ab":
    assert len(set(tested[names == name])) == 1
  assert 30 <= tested.sum() <= 50


def test_a_text_classifier_is_a_method(labels, tmp_path):
  transformers = pytest.importorskip("transformers")
  tokenizers = pytest.importorskip("tokenizers")
  made = tokenizers.Tokenizer(tokenizers.models.WordLevel(VOCABULARY, "?"))
  made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
  fast = transformers.PreTrainedTokenizerFast(tokenizer_object=made, pad_token="?")
  sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
  config = transformers.BertConfig(
    vocab_size=len(VOCABULARY), intermediate_size=8, num_labels=1, **sizes
  )
  model = tmp_path / "model"
  fast.save_pretrained(model)
  transformers.BertForSequenceClassification(config).save_pretrained(model)
  settings = ClassifierConfig(
    str(labels), method="transformer", model=str(model), max_length=64
  )
  classifier.run(Job(settings, tmp_path / "out"))
  opened = classifier.load(tmp_path / "out")
  assert opened.on_device
  opened.check()
  found = opened.probabilities([samples.algorithm(1), samples.settings(1)])
  assert ((found > 0) & (found < 1)).all()
  assert found[0] > found[1]


VOCABULARY = {
  word: n for n, word in enumerate(["?", "def", "return", "for", "OPTION", "import"])
}
