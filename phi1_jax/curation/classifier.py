"""A classifier that predicts the judge's scores, as in the paper's section 2.1.

Its folder holds, beside what every stage leaves:

  classifier.joblib  the estimator: a pickle, which can run code when it is opened. Its
                     sha256 is noted against damage, not against malice: open folders of
                     people only whom you would let run code
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
from typing import Any

import joblib
import numpy as np
import sklearn
from sklearn.calibration import CalibratedClassifierCV
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold, cross_val_predict

from phi1_jax import InputError, storage
from phi1_jax.curation import annotate, methods
from phi1_jax.curation import folder as folders
from phi1_jax.curation.config import ClassifierConfig
from phi1_jax.curation.document import Document, Keep, Tally
from phi1_jax.curation.engine import Job
from phi1_jax.storage import AnyPath

STAGE, VERSION = "train-classifier", 3
ESTIMATOR, ABOUT = "classifier.joblib", "classifier.json"
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
    labels = _Labels(labelled, config)
    about = methods.describe(config.method, config)
    report, estimator = _report(labels, config)
    storage.write_json(job.folder / "report.json", report)
    _save(job.folder, estimator, config, {**about, "data": data}, report["threshold"])
    tally = Tally()  # labels are counted, not copied: they stay in their folder
    for document, _ in labelled:
      tally.add(Keep(document))
    return tally.stats(), {
      "trained_on": int((~labels.tested).sum()),
      "tested_on": int(labels.tested.sum()),
      "positive_share": round(float(labels.positive.mean()), 4),
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


class _Labels:
  """Labelled documents, and whether each is on the tested side of the split."""

  def __init__(
    self, labelled: Sequence[tuple[Document, float]], config: ClassifierConfig
  ):
    self.texts = [document.text for document, _ in labelled]
    self.scores = np.array([score for _, score in labelled])
    self.positive = self.scores >= config.positive_score
    self.repositories = np.array([document.repository for document, _ in labelled])
    self.tested = split(self.repositories, config.test_fraction)
    for side, name in ((~self.tested, "to train on"), (self.tested, "to test on")):
      counts = int(self.positive[side].sum()), int((~self.positive[side]).sum())
      if min(counts) < _FEWEST:
        raise InputError(
          f"Classifier.labels: {config.labels} has {counts[0]} documents of score "
          f"{config.positive_score:g} or more and {counts[1]} below {name}, expected "
          f"at least {_FEWEST} of each; annotate more, or change "
          "Classifier.positive_score"
        )


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


def _report(labels: _Labels, config: ClassifierConfig) -> tuple[dict[str, Any], Any]:
  """Return the report, and transformer and estimator of the chosen method.

  The report, on documents that nothing was fitted to, has `threshold`, and
  `at_threshold`: the method's figures there; `methods`: for each method and baseline
  `f1` (rows of threshold, precision, recall, f1, kept), `best` (its best row, which is
  optimistic), `brier`, `auc`, and `spearman` of the probability with the score.
  """
  train, tested = ~labels.tested, labels.tested
  texts = [text for text, on in zip(labels.texts, train, strict=True) if on]
  positive, repositories = labels.positive[train], labels.repositories[train]
  predicted: dict[str, np.ndarray] = {}
  made, threshold = None, 0.0
  for name in dict.fromkeys((config.method, *config.compare, methods.COMMENTS)):
    transformer = methods.transformer(name, config, texts)
    values = transformer.transform(labels.texts)
    estimator = methods.estimator(name, config)
    fitted, best = fit(estimator, values[train], positive, repositories)
    predicted[name] = fitted.predict_proba(values[tested])[:, 1]
    if made is None:
      made, threshold = (transformer, fitted), best
  groups: dict[str, list[float]] = {}
  for name, label in zip(repositories.tolist(), positive.tolist(), strict=True):
    groups.setdefault(name, []).append(label)
  mean = float(positive.mean())
  shares = {name: (sum(v) + mean) / (len(v) + 1) for name, v in groups.items()}
  names = labels.repositories[tested].tolist()
  predicted["repository name"] = np.array([shares.get(name, mean) for name in names])
  truth = labels.positive[tested]
  report = {
    "documents": int(tested.sum()),
    "threshold": threshold,
    "at_threshold": f1_at(truth, predicted[config.method], threshold),
    "methods": {
      name: _figures(labels.scores[tested], truth, each)
      for name, each in predicted.items()
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
  both = positive.any() and not positive.all()
  return {
    "f1": rows,
    "best": max(rows, key=lambda row: row["f1"]),
    "brier": round(float(((predicted - positive) ** 2).mean()), 4),
    "auc": round(float(roc_auc_score(positive, predicted)), 4) if both else None,
    "spearman": annotate.agreement(scores, 5 * predicted)["spearman"],
  }


def f1_at(
  positive: np.ndarray, predicted: np.ndarray, threshold: float
) -> dict[str, float]:
  """Return precision, recall, F1 and the share kept at a threshold."""
  kept = predicted >= threshold
  hits = float((kept & positive).sum())
  precision = hits / kept.sum() if kept.any() else 0.0
  recall = hits / positive.sum() if positive.any() else 0.0
  f1 = 2 * precision * recall / (precision + recall) if hits else 0.0
  figures = {"precision": precision, "recall": recall, "f1": f1, "kept": kept.mean()}
  return {"threshold": threshold, **{k: round(float(v), 4) for k, v in figures.items()}}


@dataclasses.dataclass(frozen=True)
class Classifier:
  """A trained classifier, opened."""

  transformer: Any
  estimator: Any
  about: dict[str, Any]

  @property
  def on_device(self) -> bool:
    """Whether it needs a model, so that one process has to run it."""
    return self.about["method"] in methods.ON_DEVICE

  def check(self) -> None:
    """Open the model.

    Raises:
      InputError: it is gone, or has changed since the training.
    """
    settings: dict[str, Any] = {**self.about["config"], "compare": ()}
    found = methods.describe(self.about["method"], ClassifierConfig(**settings))
    if found.get("digest") != self.about.get("digest"):
      raise InputError(
        f"{found['name']}: got a model with digest {found['digest'][:12]}, expected "
        f"{self.about['digest'][:12]}, which the classifier was trained with; train it "
        "again"
      )

  def probabilities(self, texts: Sequence[str]) -> np.ndarray:
    """Return the calibrated probability of high educational value, float64 [texts]."""
    values = self.transformer.transform(texts)
    return self.estimator.predict_proba(values)[:, 1]


@functools.lru_cache(maxsize=1)
def opened(folder: str) -> Classifier:
  """Return a classifier that stays open in this process; see `load`."""
  return load(storage.parse(folder))


def load(folder: AnyPath) -> Classifier:
  """Open the classifier of a complete train-classifier stage.

  Raises:
    InputError: there is none, it was changed, or scikit-learn is another one.
  """
  folders.read_stats(folder)
  path = folder / ESTIMATOR
  about = storage.read_json(folder / ABOUT) if storage.exists(folder / ABOUT) else {}
  if "method" not in about:
    raise InputError(
      f"{folder}: got a classifier of an earlier version; run train-classifier in a "
      "new folder"
    )
  content = storage.read_bytes(path) if storage.exists(path) else b""
  if hashlib.sha256(content).hexdigest() != about["sha256"]:
    raise InputError(
      f"{path}: not the estimator that {ABOUT} notes; run train-classifier again"
    )
  if about["scikit_learn"] != sklearn.__version__:
    raise InputError(
      f"{path}: made with scikit-learn {about['scikit_learn']}, this is "
      f"{sklearn.__version__}; install that one, or train again"
    )
  transformer, estimator = joblib.load(io.BytesIO(content))
  return Classifier(transformer, estimator, about)


def _save(
  folder: AnyPath,
  estimator: Any,
  config: ClassifierConfig,
  about: dict[str, Any],
  threshold: float,
) -> None:
  memory = io.BytesIO()
  joblib.dump(estimator, memory, compress=3)
  content = memory.getvalue()
  storage.write_bytes(folder / ESTIMATOR, content)
  about |= {"sha256": hashlib.sha256(content).hexdigest()}
  about |= {"scikit_learn": sklearn.__version__, "threshold": threshold}
  storage.write_json(folder / ABOUT, {**about, "config": dataclasses.asdict(config)})
