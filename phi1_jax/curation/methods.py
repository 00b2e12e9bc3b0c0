"""Three ways to predict a judge's scores from a text, and two baselines.

  tfidf         words and pairs of words, logistic regression; the default
  forest        the paper's: embeddings of a checkpoint, random forest
  transformer   a text classifier in Hugging Face's format, its score calibrated

Each method has features, which depend on the text alone, and an estimator, which is
fitted to them. Models run in one process, which uses all devices, in batches.
"""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from phi1_jax import InputError, how_to_install
from phi1_jax.curation import local_judge
from phi1_jax.curation.config import ClassifierConfig
from phi1_jax.curation.folder import naming
from phi1_jax.text import settings_file

ON_DEVICE = ("forest", "transformer")
COMMENTS = "comment ratio"
_TOKEN = r"[^\W\d]\w*|\d+|[-+*/%<>=!&|^~@]{1,3}"
# A file's first characters say enough, and no megabyte is cut into words.
_CHARACTERS = 20_000


def transformer(method: str, config: ClassifierConfig, texts: Sequence[str]) -> Any:
  """Return an object whose `transform` maps texts to features, one row each."""
  if method != "tfidf":
    return _Features(method, config)
  words = TfidfVectorizer(
    preprocessor=_head,
    token_pattern=_TOKEN,
    ngram_range=(1, 2),
    min_df=2,
    sublinear_tf=True,
    max_features=config.features,
    dtype=np.float32,  # pyright: ignore[reportArgumentType]
  )
  return words.fit(texts)


def _head(text: str) -> str:
  return text[:_CHARACTERS].lower()


@dataclasses.dataclass(frozen=True)
class _Features:
  """Features that need no training: a model's, or the share of comments."""

  method: str
  config: ClassifierConfig

  def transform(self, texts: Sequence[str]) -> np.ndarray:
    """Return the features [texts, width]."""
    if self.method == COMMENTS:
      found = [local_judge.features(text) for text in texts]
      return np.array([[each.comments if each else 0.0] for each in found])
    return _model(self.method, self.config).embed(texts)


def estimator(method: str, config: ClassifierConfig) -> Any:
  """Return a method's estimator, not fitted."""
  if method == "forest":
    return RandomForestClassifier(
      n_estimators=config.trees,
      min_samples_leaf=config.minimum_leaf,
      class_weight="balanced",
      n_jobs=-1,
      random_state=config.seed,
    )
  strength = 10.0 if method == "tfidf" else 1.0
  return LogisticRegression(C=strength, class_weight="balanced", solver="liblinear")


def describe(method: str, config: ClassifierConfig) -> dict[str, Any]:
  """Return facts about a method's model for classifier.json and cards.

  Raises:
    InputError: the checkpoint or the model cannot be opened.
  """
  if method == "tfidf":
    words = f"at most {config.features:,} words and pairs"
    return {"method": method, "name": f"logistic regression on TF-IDF of {words}"}
  name = f"text classifier {config.model}"
  if method == "forest":
    name = f"random forest on embeddings of {config.checkpoint}"
  return {"method": method, "name": name, "digest": _model(method, config).digest}


def _model(method: str, config: ClassifierConfig) -> Any:
  """Return the model of a method, opened once in a process."""
  if method == "transformer":
    return _text_classifier(config.model, config.max_length, config.batch_size)
  from phi1_jax.curation import embedding  # it loads JAX

  sizes = (config.max_length, config.batch_size)
  with naming("Classifier.checkpoint, Classifier.max_length"):
    return embedding.opened(config.checkpoint or "", config.pooling, *sizes)


class _TextClassifier:
  """A sequence classifier of transformers, such as HuggingFaceTB/python-edu-scorer."""

  def __init__(self, folder: str, max_length: int, batch_size: int):
    try:
      import torch
      import transformers
    except ImportError:
      install = how_to_install("hf")
      raise InputError(f"Classifier.method: transformer needs {install}") from None
    found = {p.name: p.stat().st_size for p in Path(folder).glob("*") if p.is_file()}
    if "config.json" not in found:
      raise InputError(f"Classifier.model: {folder} has no config.json; name a folder")
    self.digest = settings_file.digest(found)
    self._torch, self._max_length, self._batch = torch, max_length, batch_size
    self._device = "cuda" if torch.cuda.is_available() else "cpu"
    self._tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    self._model = model.to(self._device).eval()

  def embed(self, texts: Sequence[str]) -> np.ndarray:
    """Return the model's outputs, float32 [texts, labels]."""
    order = sorted(range(len(texts)), key=lambda n: len(texts[n]))
    found: list[Any] = [None] * len(texts)
    options = {"padding": True, "truncation": True, "return_tensors": "pt"}
    for start in range(0, len(order), self._batch):
      chosen = order[start : start + self._batch]
      cut = [texts[n][: 16 * self._max_length] for n in chosen]
      tokens = self._tokenizer(cut, max_length=self._max_length, **options)
      with self._torch.inference_mode():
        logits = self._model(**tokens.to(self._device)).logits
      for n, row in zip(chosen, logits.float().cpu().numpy(), strict=True):
        found[n] = row
    return np.array(found, np.float32)


_text_classifier = functools.lru_cache(maxsize=1)(_TextClassifier)
