"""A classifier that predicts the judge's scores, as in the paper's section 2.1.

Its folder holds, beside what every stage leaves:

  classifier.joblib  the estimator: a pickle, which can run code when it is opened. Its
                     sha256 is noted against damage, not against malice: open no folder
                     of somebody whom you would not let run code
  classifier.json    method, training data, threshold
  report.json/.png   the methods and two baselines on the same split, held out by
                     repository: F1 against threshold, calibration, AUC
"""

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
from sklearn.model_selection import GroupKFold, cross_val_predict

from phi1_jax import InputError, storage
from phi1_jax.curation import annotate, classifier_report, methods
from phi1_jax.curation import folder as folders
from phi1_jax.curation.config import ClassifierConfig
from phi1_jax.curation.document import Document, Keep, Tally
from phi1_jax.storage import AnyPath

STAGE, VERSION = "train-classifier", 2
ESTIMATOR, ABOUT = "classifier.joblib", "classifier.json"
# Fewer labels of either kind on either side of the split say nothing.
_FEWEST = 10
_FOLDS = 5


def run(config: ClassifierConfig, folder: AnyPath) -> dict[str, Any]:
  """Fit and calibrate an estimator, write the report; return the stats.

  Args:
    config: labels and method.
    folder: the stage's folder; complete, it is only read.

  Raises:
    InputError: no labels, too few of either kind, or no such checkpoint.
  """
  source = storage.parse(config.labels)
  labelled = annotate.labelled("Classifier.labels", config.labels)
  data = hashlib.sha256(storage.read_bytes(source / folders.COMPLETED)).hexdigest()
  settings = {**dataclasses.asdict(config), "version": VERSION, "data": data}
  if folders.begin(folder, STAGE, settings):
    return folders.read_stats(folder)
  facts: dict[str, Any] = {}
  with folders.measured(facts):
    labels = _Labels(labelled, config)
    about = methods.describe(config.method, config)
    report, estimator = _report(labels, config)
    storage.write_json(folder / "report.json", report)
    title = f"{len(labelled):,} labels of {source.name}"
    picture = classifier_report.plot(report, config.method, title)
    storage.write_bytes(folder / "report.png", picture)
    _save(folder, estimator, config, {**about, "data": data}, report)
    facts |= {
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
  tally = Tally()  # labels are counted, not copied: they stay in their folder
  for document, _ in labelled:
    tally.add(Keep(document))
  return folders.finish(folder, STAGE, tally.stats(), facts)


class _Labels:
  """Labelled documents, split by repository.

  Attributes:
    texts, scores, positive, repositories: of each document.
    tested: whether a document is on the side of the report.
  """

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
  names, counts = np.unique(repositories, return_counts=True)
  digests = [hashlib.sha256(f"tested {name}".encode()).digest() for name in names]
  left, chosen = fraction * len(repositories), set()
  for place in sorted(range(len(names)), key=lambda n: digests[n]):
    if counts[place] <= left + 0.5:
      chosen.add(names[place])
      left -= counts[place]
  return np.array([name in chosen for name in repositories], bool)


def _report(labels: _Labels, config: ClassifierConfig) -> tuple[dict[str, Any], Any]:
  """Return the report, and transformer and estimator of the chosen method."""
  train, tested = ~labels.tested, labels.tested
  texts = [text for text, on in zip(labels.texts, train, strict=True) if on]
  comments = np.zeros(0)
  names = tuple(dict.fromkeys((config.method, *config.compare, "comment ratio")))
  predicted: dict[str, np.ndarray] = {}
  thresholds: dict[str, float] = {}
  made: Any = None
  for name in names:
    transformer = methods.transformer(name, config, texts)
    values = transformer.transform(labels.texts)
    if name == "comment ratio":
      comments = values[:, 0]
    fitted, thresholds[name] = fit(
      methods.estimator(name, config),
      values[train],
      labels.positive[train],
      labels.repositories[train],
    )
    predicted[name] = fitted.predict_proba(values[tested])[:, 1]
    made = made or (transformer, fitted)
  predicted["repository name"] = methods.repository_share(
    list(labels.repositories[train]),
    labels.positive[train],
    list(labels.repositories[tested]),
  )
  report = classifier_report.build(
    config.method,
    thresholds[config.method],
    labels.scores[tested],
    labels.positive[tested],
    predicted,
    comments[tested],
  )
  return report, made


def fit(
  estimator: Any, values: Any, positive: np.ndarray, groups: np.ndarray
) -> tuple[Any, float]:
  """Return a calibrated estimator, and the threshold at which its F1 is best.

  Both are found on folds of whole repositories that an estimator was not fitted to.

  Args:
    estimator: not fitted.
    values: features [documents, ...].
    positive: bool [documents].
    groups: repository of each document.
  """
  number = min(_FOLDS, len(np.unique(groups)))
  if number < 2:
    raise InputError(
      "Classifier.labels: got documents of one repository to train on, expected more"
    )
  folds = list(GroupKFold(number).split(values, positive, groups))
  both = [(a, b) for a, b in folds if 0 < positive[a].sum() < len(a)]
  options: dict[str, Any] = {"method": "sigmoid", "cv": both, "ensemble": False}
  if len(both) < len(folds):  # a fold without either label: calibrate as it is fitted
    fitted = estimator.fit(values, positive)
    predicted = fitted.predict_proba(values)[:, 1]
    return fitted, classifier_report.best_threshold(positive, predicted)
  calibrated = CalibratedClassifierCV(estimator, **options).fit(values, positive)
  fitted_list: list[Any] = list(calibrated.calibrated_classifiers_)
  (curve,) = fitted_list[0].calibrators
  # What the curve was fitted to: each document by an estimator that did not see it.
  score = "decision_function" if hasattr(estimator, "decision_function") else None
  raw = np.asarray(
    cross_val_predict(
      estimator, values, positive, cv=folds, method=score or "predict_proba"
    )
  )
  predicted = curve.predict(raw if raw.ndim == 1 else raw[:, 1])
  return calibrated, classifier_report.best_threshold(positive, predicted)


@dataclasses.dataclass(frozen=True)
class Classifier:
  """A trained classifier, opened.

  Attributes:
    transformer: maps texts to features.
    estimator: maps features to probabilities.
    about: the content of classifier.json.
  """

  transformer: Any
  estimator: Any
  about: dict[str, Any]

  @functools.cached_property
  def config(self) -> ClassifierConfig:
    """The settings that it was trained with."""
    found: dict[str, Any] = {**self.about["config"], "compare": ()}
    return ClassifierConfig(**found)

  @property
  def on_device(self) -> bool:
    """Whether it needs a model, so that one process has to run it."""
    return self.about["method"] in methods.ON_DEVICE

  def check(self) -> None:
    """Open the model.

    Raises:
      InputError: it is gone, or has changed since the training.
    """
    found = methods.describe(self.about["method"], self.config)
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
  if not storage.exists(folder / ABOUT) or "method" not in (
    about := storage.read_json(folder / ABOUT)
  ):
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
  report: dict[str, Any],
) -> None:
  memory = io.BytesIO()
  joblib.dump(estimator, memory, compress=3)
  storage.write_bytes(folder / ESTIMATOR, memory.getvalue())
  storage.write_json(
    folder / ABOUT,
    {
      **about,
      "sha256": hashlib.sha256(memory.getvalue()).hexdigest(),
      "scikit_learn": sklearn.__version__,
      "threshold": report["threshold"],
      "config": dataclasses.asdict(config),
    },
  )
