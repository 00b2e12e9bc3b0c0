"""A classifier that predicts the judge's scores, as in the paper's section 2.1.

  tfidf         words and pairs of words, logistic regression; the default
  forest        the paper's: embeddings of a checkpoint, random forest
  transformer   a text classifier in Hugging Face's format, its score calibrated

Each method has features, which depend on the text alone, and an estimator, which is
fitted to them. Models run in one process, which uses all devices, in batches.

The folder of a classifier holds, beside what every stage leaves:

  classifier.joblib  features and estimator: a pickle, which can run code when it is
                     opened. Its sha256 is noted against damage, not against malice:
                     open folders of people only whom you would let run code
  classifier.json    method, training data, threshold
  report.json        the methods and two baselines on the same split, held out by
                     repository: F1 against threshold, Brier score, AUC
"""

import collections
import dataclasses
import functools
import hashlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import sklearn
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import precision_recall_fscore_support, roc_auc_score
from sklearn.model_selection import GroupKFold, cross_val_predict

from phi1_jax import InputError, how_to_install, storage
from phi1_jax.curation import annotate, local_judge
from phi1_jax.curation import folder as folders
from phi1_jax.curation.config import ClassifierConfig
from phi1_jax.curation.document import Document, Keep, Tally
from phi1_jax.curation.engine import Job
from phi1_jax.storage import AnyPath
from phi1_jax.text import settings_file

STAGE, VERSION = "train-classifier", 4
ESTIMATOR, ABOUT = "classifier.joblib", "classifier.json"
_COMMENTS = "comment ratio"  # a baseline
_TOKEN = r"[^\W\d]\w*|\d+|[-+*/%<>=!&|^~@]{1,3}"
# A file's first characters say enough, and no megabyte is cut into words.
_CHARACTERS = 20_000
# Fewer labels of either kind on either side of the split say nothing.
_FEWEST = 10
_FOLDS = 5
_THRESHOLDS = np.round(np.arange(0.05, 1.0, 0.05), 2)


def run(job: Job) -> dict[str, Any]:
  """Fit and calibrate an estimator, write the report; return the stats.

  Raises:
    InputError: no labels, too few of either kind, or no such checkpoint.
  """
  config: ClassifierConfig = job.config
  source = storage.parse(config.labels)
  labelled = annotate.labelled("Classifier.labels", config.labels)
  data = hashlib.sha256(storage.read_bytes(source / folders.COMPLETED)).hexdigest()

  def work() -> tuple[dict[str, Any], dict[str, Any]]:
    about = describe(config)
    report, made = _report(labelled, config)
    storage.write_json(job.folder / "report.json", report)
    memory = io.BytesIO()
    joblib.dump(made, memory, compress=3)
    storage.write_bytes(job.folder / ESTIMATOR, memory.getvalue())
    written = {
      **about,
      "data": data,
      "sha256": hashlib.sha256(memory.getvalue()).hexdigest(),
      "scikit_learn": sklearn.__version__,
      "threshold": report["threshold"],
      "config": dataclasses.asdict(config),
    }
    storage.write_json(job.folder / ABOUT, written)
    tally = Tally()  # labels are counted, not copied: they stay in their folder
    for document, _ in labelled:
      tally.add(Keep(document))
    positive = [score >= config.positive_score for _, score in labelled]
    return tally.stats(), {
      "trained_on": len(labelled) - report["documents"],
      "tested_on": report["documents"],
      "positive_share": round(float(np.mean(positive)), 4),
      "method": about,
      "models": [f"{about['name']}; labels of {source.name}"],
      "report": {
        "threshold": report["threshold"],
        "at_threshold": report["at_threshold"],
        "auc": {name: each["auc"] for name, each in report["methods"].items()},
      },
      "lineage": [folders.read_stats(source)],
    }

  return job.run(STAGE, {"version": VERSION, "data": data}, work)


def split(repositories: np.ndarray, fraction: float) -> np.ndarray:
  """Return which documents are tested on: whole repositories, by hash.

  Repositories are taken in the order of their hash as long as they do not exceed the
  share, so that a large one does not take all.
  """
  left, chosen = fraction * len(repositories), set()
  counts = collections.Counter(repositories.tolist())
  for name in sorted(
    counts, key=lambda n: hashlib.sha256(f"tested {n}".encode()).digest()
  ):
    if counts[name] <= left + 0.5:
      chosen.add(name)
      left -= counts[name]
  return np.array([name in chosen for name in repositories], bool)


def _report(
  labelled: Sequence[tuple[Document, float]], config: ClassifierConfig
) -> tuple[dict[str, Any], Any]:
  """Return the report, and features and estimator of the chosen method.

  The report, on documents that nothing was fitted to, has `threshold`, and
  `at_threshold`: the method's figures there; `methods`: for each method and baseline
  `f1` (rows of threshold, precision, recall, f1, kept), `best` (its best row, which is
  optimistic), `brier`, `auc`, and `spearman` of the probability with the score.
  """
  every = [document.text for document, _ in labelled]
  scores = np.array([score for _, score in labelled])
  good = scores >= config.positive_score
  names = np.array([document.repository for document, _ in labelled])
  tested = split(names, config.test_fraction)
  for side, purpose in ((~tested, "to train on"), (tested, "to test on")):
    counts = int(good[side].sum()), int((~good[side]).sum())
    if min(counts) < _FEWEST:
      raise InputError(
        f"Classifier.labels: {config.labels} has {counts[0]} documents of score "
        f"{config.positive_score:g} or more and {counts[1]} below {purpose}, expected "
        f"at least {_FEWEST} of each; annotate more, or change "
        "Classifier.positive_score"
      )
  texts = [text for text, on in zip(every, ~tested, strict=True) if on]
  positive, repositories = good[~tested], names[~tested]
  predicted: dict[str, np.ndarray] = {}
  made, threshold = None, 0.0
  for method in dict.fromkeys((config.method, *config.compare, _COMMENTS)):
    features = _features(method, config, texts)
    values = features.transform(every)
    estimator = _estimator(method, config)
    fitted, best = fit(estimator, values[~tested], positive, repositories)
    predicted[method] = fitted.predict_proba(values[tested])[:, 1]
    if made is None:
      made, threshold = (features, fitted), best
  groups: dict[str, list[float]] = {}
  for name, label in zip(repositories.tolist(), positive.tolist(), strict=True):
    groups.setdefault(name, []).append(label)
  mean = float(positive.mean())
  shares = {name: (sum(v) + mean) / (len(v) + 1) for name, v in groups.items()}
  predicted["repository name"] = np.array([shares.get(n, mean) for n in names[tested]])
  truth = good[tested]
  report = {
    "documents": int(tested.sum()),
    "threshold": threshold,
    "at_threshold": f1_at(truth, predicted[config.method], threshold),
    "methods": {
      name: _figures(scores[tested], truth, each) for name, each in predicted.items()
    },
  }
  return report, made


def fit(
  estimator: Any, values: Any, positive: np.ndarray, groups: np.ndarray
) -> tuple[Any, float]:
  """Return a calibrated estimator, and the threshold at which its F1 is best.

  Both are found on folds of whole repositories that an estimator was not fitted to.
  """
  number = min(_FOLDS, len(np.unique(groups)))
  if number < 2:
    raise InputError(
      "Classifier.labels: got documents of one repository to train on, expected more"
    )
  folds = list(GroupKFold(number).split(values, positive, groups))
  if any(positive[a].all() or not positive[a].any() for a, _ in folds):
    fitted = estimator.fit(values, positive)  # a fold has one label only
    return fitted, _best_threshold(positive, fitted.predict_proba(values)[:, 1])
  options: dict[str, Any] = {"method": "sigmoid", "cv": folds, "ensemble": False}
  calibrated = CalibratedClassifierCV(estimator, **options).fit(values, positive)
  fitted_list: list[Any] = list(calibrated.calibrated_classifiers_)
  (curve,) = fitted_list[0].calibrators
  # The curve was fitted to these: each document by an estimator that did not see it.
  linear = hasattr(estimator, "decision_function")
  method = "decision_function" if linear else "predict_proba"
  found = cross_val_predict(estimator, values, positive, cv=folds, method=method)
  raw = np.asarray(found)
  predicted = curve.predict(raw if linear else raw[:, 1])
  return calibrated, _best_threshold(positive, predicted)


def _best_threshold(positive: np.ndarray, predicted: np.ndarray) -> float:
  """Return the threshold of the best F1, the lowest of equals."""
  return max(map(float, _THRESHOLDS), key=lambda t: f1_at(positive, predicted, t)["f1"])


def _figures(
  scores: np.ndarray, positive: np.ndarray, predicted: np.ndarray
) -> dict[str, Any]:
  rows = [f1_at(positive, predicted, float(threshold)) for threshold in _THRESHOLDS]
  return {
    "f1": rows,
    "best": max(rows, key=lambda row: row["f1"]),
    "brier": round(float(((predicted - positive) ** 2).mean()), 4),
    "auc": round(float(roc_auc_score(positive, predicted)), 4),
    "spearman": annotate.agreement(scores, 5 * predicted)["spearman"],
  }


def f1_at(
  positive: np.ndarray, predicted: np.ndarray, threshold: float
) -> dict[str, float]:
  """Return precision, recall, F1 and the share kept at a threshold."""
  kept = predicted >= threshold
  options: dict[str, Any] = {"average": "binary", "zero_division": 0.0}
  found = precision_recall_fscore_support(positive, kept, **options)[:3]
  figures = zip(
    ("precision", "recall", "f1", "kept"), (*found, kept.mean()), strict=True
  )
  return {"threshold": threshold, **{name: round(float(v), 4) for name, v in figures}}


def _features(method: str, config: ClassifierConfig, texts: Sequence[str]) -> Any:
  """Return an object whose `transform` maps texts to features, one row each."""
  if method != "tfidf":
    return _Untrained(method, config)
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
class _Untrained:
  """Features that need no training: a model's, or the share of comments."""

  method: str
  config: ClassifierConfig

  def transform(self, texts: Sequence[str]) -> np.ndarray:
    """Return the features [texts, width]."""
    if self.method == _COMMENTS:
      found = [local_judge.features(text) for text in texts]
      return np.array([[each.comments if each else 0.0] for each in found])
    return _model(self.method, self.config).embed(texts)


def _estimator(method: str, config: ClassifierConfig) -> Any:
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


def describe(config: ClassifierConfig) -> dict[str, Any]:
  """Return facts about the method's model for classifier.json and cards.

  Raises:
    InputError: the checkpoint or the model cannot be opened.
  """
  method = config.method
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
  with folders.naming("Classifier.checkpoint, Classifier.max_length"):
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


class Classifier:
  """A trained classifier, opened.

  Args:
    folder: of a complete train-classifier stage.

  Attributes:
    about: the content of classifier.json.

  Raises:
    InputError: there is none, it was changed, or scikit-learn is another one.
  """

  def __init__(self, folder: AnyPath):
    folders.read_stats(folder)
    path, about = folder / ESTIMATOR, storage.read_json(folder / ABOUT)
    content = storage.read_bytes(path) if storage.exists(path) else b""
    digest = hashlib.sha256(content).hexdigest()
    if "method" not in about or digest != about["sha256"]:
      raise InputError(
        f"{path}: not the estimator that {ABOUT} notes, or of an earlier version; run "
        "train-classifier in a new folder"
      )
    if about["scikit_learn"] != sklearn.__version__:
      raise InputError(
        f"{path}: made with scikit-learn {about['scikit_learn']}, this is "
        f"{sklearn.__version__}; install that one, or train again"
      )
    self.about = about
    self._features, self._estimator = joblib.load(io.BytesIO(content))

  @property
  def on_device(self) -> bool:
    """Whether it needs a model, so that one process has to run it."""
    return self.about["method"] != "tfidf"

  def check(self) -> None:
    """Open the model.

    Raises:
      InputError: it is gone, or has changed since the training.
    """
    settings: dict[str, Any] = {**self.about["config"], "compare": ()}
    found = describe(ClassifierConfig(**settings))
    if found.get("digest") != self.about.get("digest"):
      raise InputError(
        f"{found['name']}: got a model with digest {found['digest'][:12]}, expected "
        f"{self.about['digest'][:12]}, which the classifier was trained with; train it "
        "again"
      )

  def probabilities(self, texts: Sequence[str]) -> np.ndarray:
    """Return the calibrated probability of high educational value, float64 [texts]."""
    return self._estimator.predict_proba(self._features.transform(texts))[:, 1]


@functools.lru_cache(maxsize=1)
def opened(folder: str) -> Classifier:
  """Return a classifier that stays open in this process."""
  return Classifier(storage.parse(folder))
