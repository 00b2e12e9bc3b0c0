"""Embeddings, the forest on them, its report, and the filter that uses it."""

import json

import numpy as np
import pytest

from phi1_jax import InputError
from phi1_jax.curation import classifier, filtering, folder, form
from phi1_jax.curation.config import ClassifierConfig, FilterConfig
from phi1_jax.curation.embedding import Embedder
from tests.curation import samples

LENGTH = 64


@pytest.fixture(scope="session")
def labels(tmp_path_factory):
  made = [samples.algorithm(i) for i in range(60)]
  made += [samples.settings(i) for i in range(60)]
  scores = [4.0] * 60 + [1.0] * 60
  documents = [
    samples.document(text, annotate={"score": score})
    for text, score in zip(made, scores, strict=True)
  ]
  return samples.stage(tmp_path_factory.mktemp("labels"), "annotate", documents)


def train(labels, path, method, **settings):
  config = ClassifierConfig(
    str(labels), method=method, max_length=LENGTH, trees=20, **settings
  )
  return classifier.run(samples.job(config, path))


@pytest.fixture(scope="session", params=["tfidf", "forest"])
def trained(request, labels, checkpoint, tmp_path_factory):
  path = tmp_path_factory.mktemp("classifier")
  others = {"compare": ("tfidf", "forest"), "checkpoint": str(checkpoint)}
  return path, train(labels, path, request.param, **others)


def test_embeddings_do_not_depend_on_their_batch(checkpoint):
  texts = [samples.algorithm(3), "x", samples.settings(2), "", samples.algorithm(40)]
  many = Embedder(str(checkpoint), "mean", LENGTH, 16).embed(texts)
  alone = Embedder(str(checkpoint), "mean", LENGTH, 1)
  for text, vector in zip(texts, many, strict=True):
    np.testing.assert_allclose(alone.embed([text])[0], vector, atol=2e-6)
  lengths = np.linalg.norm(many, axis=1)
  np.testing.assert_allclose(lengths, [1, 1, 1, 0, 1], atol=1e-5)
  for pooling in ("mean", "last"):  # text beyond the length does not count
    embedder = Embedder(str(checkpoint), pooling, 64, 8)
    text = samples.settings(1) * 9
    one, two, other = embedder.embed([text, text + "more", "# " + text])
    np.testing.assert_allclose(one, two, atol=1e-6)
    assert np.abs(one - other).max() > 1e-3
  with pytest.raises(InputError, match="got 999 tokens, expected at most 128"):
    Embedder(str(checkpoint), "mean", 999)


def test_methods_tell_algorithms_from_settings_and_are_compared(trained):
  path, stats = trained
  report = json.loads((path / "report.json").read_text())
  assert stats["trained_on"] + stats["tested_on"] == 120
  for method in ("tfidf", "forest"):
    assert report["methods"][method]["best"]["f1"] > 0.95
    assert report["methods"][method]["auc"] > 0.95
  # Every document here is a repository of its own: its name says nothing.
  assert report["methods"]["repository name"]["auc"] == 0.5
  assert report["methods"]["comment ratio"]["auc"] > 0.9
  opened = classifier.Classifier(path)
  good, bad = opened.probabilities([samples.algorithm(99), samples.settings(99)])
  assert good > 0.5 > bad


def test_a_changed_classifier_is_not_opened(trained, tmp_path):
  for file in trained[0].iterdir():
    (tmp_path / file.name).write_bytes(file.read_bytes())
  pickled = tmp_path / classifier.ESTIMATOR
  pickled.write_bytes(pickled.read_bytes() + b"x")
  with pytest.raises(InputError, match="not the estimator that"):
    classifier.Classifier(tmp_path)


def test_too_few_labels_are_refused(labels, tmp_path):
  with pytest.raises(InputError, match="has 0 documents of score 5 or more"):
    train(labels, tmp_path, "tfidf", positive_score=5.0)


def test_precision_recall_and_f1_at_a_threshold():
  positive = np.array([True, True, True, False, False])
  predicted = np.array([0.9, 0.8, 0.3, 0.6, 0.1])
  shares = {"precision": 0.6667, "recall": 0.6667, "f1": 0.6667, "kept": 0.6}
  row = classifier.f1_at(positive, predicted, 0.5)
  assert row == {"threshold": 0.5, **shares}


def test_whole_repositories_are_tested_on():
  names = np.array(["a"] * 50 + ["b"] * 30 + [f"r{n}" for n in range(120)])
  tested = classifier.split(names, 0.25)
  for name in "ab":
    assert len(set(tested[names == name])) == 1
  assert 30 <= tested.sum() <= 50


def test_the_filter_keeps_good_code_and_says_why_the_rest_goes(trained, tmp_path):
  good, bad = samples.algorithm(7), samples.settings(7)
  texts = [
    (good, "MIT", None),
    (samples.algorithm(8) + "# By jane.doe@corp.com\n", "MIT", None),
    (bad, "MIT", "low educational value"),
    (good + "# c\n", "GPL-3.0", "licence not allowed"),
    (good + "# d\n", "MIT AND unknown", "licence not allowed"),
    ("print 'Python 2'\n" * 9, "MIT", "Python 2 syntax"),
  ]
  rows = [{"text": text, "license": name} for text, name, _ in texts]
  rows.append(samples.document("x = 1\n", kind="exercise").record())  # passes
  inputs, out = samples.write(tmp_path / "raw.jsonl", rows), tmp_path / "out"
  job = samples.job(FilterConfig((inputs,), str(trained[0]), threshold=0.5), out)
  stats = filtering.run(job)
  kept = {document.text: document for document in folder.kept(out)}
  masked = f"{samples.algorithm(8)}# By {form.EMAIL}\n"
  assert set(kept) == {good, masked, "x = 1\n"}
  assert stats["masked"] == {"e-mail address": 1}
  assert kept[good].provenance["filter"]["probability"] > 0.5
  dropped = {drop.document.text: drop.reason for drop in folder.dropped(out)}
  assert dropped == {text: reason for text, _, reason in texts if reason}
  assert stats["read"] == len(rows)
  assert filtering.run(job) == stats  # complete already


def test_a_text_classifier_is_a_method(labels, tmp_path):
  transformers = pytest.importorskip("transformers")
  tokenizers = pytest.importorskip("tokenizers")
  words = ["?", "def", "return", "for", "OPTION", "import"]
  vocabulary = {word: n for n, word in enumerate(words)}
  made = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, "?"))
  made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
  fast = transformers.PreTrainedTokenizerFast(tokenizer_object=made, pad_token="?")
  sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
  config = transformers.BertConfig(
    vocab_size=len(vocabulary), intermediate_size=8, num_labels=1, **sizes
  )
  model = tmp_path / "model"
  fast.save_pretrained(model)
  transformers.BertForSequenceClassification(config).save_pretrained(model)
  train(labels, tmp_path / "out", "transformer", model=str(model))
  opened = classifier.Classifier(tmp_path / "out")
  assert opened.on_device
  opened.check()
  found = opened.probabilities([samples.algorithm(1), samples.settings(1)])
  assert ((found > 0) & (found < 1)).all()
  assert found[0] > found[1]
