"""A random forest that predicts the judge from embeddings, as in the paper's 2.1.

  python -m phi1_jax.curate train-classifier --gin_file=gin/curate/train-classifier.gin

Its folder holds, beside what every stage leaves:

  forest.joblib      the calibrated forest: a pickle, which can run code when opened.
                     Its sha256 is noted beside it against damage, not against malice:
                     open no folder of somebody whom you would not let run code
  classifier.json    that, what it was trained on, how code is embedded, the threshold
  report.json/.png   F1 against threshold, calibration, agreement, ablation
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import sklearn
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import GroupKFold, cross_val_predict

from phi1_jax import InputError, storage
from phi1_jax.curation import annotate, classifier_report, local_judge
from phi1_jax.curation import folder as folders
from phi1_jax.curation.config import ClassifierConfig
from phi1_jax.curation.document import Keep, tally
from phi1_jax.curation.embedding import Embedder

STAGE, VERSION = "train-classifier", 1
FOREST, ABOUT = "forest.joblib", "classifier.json"
# Fewer labels of either kind than this on either side of the split say nothing.
_FEWEST = 10
_FOLDS = 5
_EMBEDDING = ("checkpoint", "pooling", "max_length", "batch_size")


def run(config: ClassifierConfig, folder: Path) -> dict[str, Any]:
  """Embeds the labelled code, grows and calibrates a forest, reports; gives the stats.

  Args:
    config: labels, checkpoint, forest.
    folder: the stage's folder; complete, it is only read.

  Raises:
    InputError: no labels, too few of either kind, or no such checkpoint.
  """
  labels = Path(config.labels)
  labelled = annotate.labelled("Classifier.labels", config.labels)
  data = hashlib.sha256((labels / folders.COMPLETED).read_bytes()).hexdigest()
  settings = {**dataclasses.asdict(config), "version": VERSION, "data": data}
  if folders.begin(folder, STAGE, settings):
    return folders.read_stats(folder)
  facts: dict[str, Any] = {}
  with folders.measured(facts):
    scores = np.array([score for _, score in labelled])
    positive = scores >= config.positive_score
    groups = np.array([document.group for document, _ in labelled])
    tested = np.array([_is_tested(group, config.test_fraction) for group in groups])
    _check_labels(positive, tested, config)
    texts = [document.text for document, _ in labelled]
    embedder = Embedder(
      config.checkpoint, config.pooling, config.max_length, config.batch_size
    )
    vectors = embedder.embed(texts)
    comments = np.array([[local_judge.comment_ratio(text)] for text in texts])
    forest, threshold = grow(
      config, vectors[~tested], positive[~tested], groups[~tested]
    )
    baseline, _ = grow(config, comments[~tested], positive[~tested], groups[~tested])
    report = classifier_report.build(
      threshold,
      scores[tested],
      positive[tested],
      forest.predict_proba(vectors[tested])[:, 1],
      baseline.predict_proba(comments[tested])[:, 1],
      comments[tested][:, 0],
    )
    storage.write_json(folder / "report.json", report)
    title = f"{len(labelled):,} labels of {labels.name}, {config.checkpoint}"
    classifier_report.plot(report, folder / "report.png", title)
    _save(folder, forest, config, embedder, data, report)
    facts |= {
      "trained_on": int((~tested).sum()),
      "tested_on": int(tested.sum()),
      "positive_share": round(float(positive.mean()), 4),
      "embedding": {"model": embedder.digest, "width": embedder.width},
      "report": {name: report[name] for name in ("at_threshold", "forest")},
      "lineage": [folders.read_stats(labels)],
    }
  # Labels are counted, not copied: they stay where they are.
  counts = tally(Keep(document) for document, _ in labelled).stats()
  return folders.finish(folder, STAGE, counts, facts)


def grow(
  config: ClassifierConfig,
  vectors: np.ndarray,
  positive: np.ndarray,
  groups: np.ndarray,
) -> tuple[Any, float]:
  """A calibrated forest, and the threshold at which its F1 is best.

  Both are found on folds that a forest was not grown on, and documents of one group
  are in one fold. What the test documents say has no influence.

  Args:
    config: size and seed of the forest.
    vectors: [documents, width].
    positive: bool [documents].
    groups: str [documents].
  """
  forest = RandomForestClassifier(
    n_estimators=config.trees,
    min_samples_leaf=config.minimum_leaf,
    class_weight="balanced",
    n_jobs=-1,
    random_state=config.seed,
  )
  folds = list(GroupKFold(_FOLDS).split(vectors, positive, groups))
  options: dict[str, Any] = {"method": "sigmoid", "cv": folds, "ensemble": False}
  calibrated = CalibratedClassifierCV(forest, **options).fit(vectors, positive)
  fitted: list[Any] = list(calibrated.calibrated_classifiers_)
  (curve,) = fitted[0].calibrators
  # What the curve was fitted to: each document by a forest that did not see it.
  raw = np.asarray(
    cross_val_predict(forest, vectors, positive, cv=folds, method="predict_proba")
  )
  predicted = curve.predict(raw[:, 1])
  return calibrated, classifier_report.best_threshold(positive, predicted)


@dataclasses.dataclass(frozen=True)
class Classifier:
  """A trained classifier, opened.

  Attributes:
    forest: maps vectors to probabilities.
    about: what classifier.json holds.
  """

  forest: Any
  about: dict[str, Any]

  @functools.cached_property
  def embedder(self) -> Embedder:
    """The model that its vectors come from; opened when it is first asked for.

    Raises:
      InputError: the checkpoint is gone, or is another one by now.
    """
    wanted = self.about["embedding"]
    found = Embedder(*(wanted[name] for name in _EMBEDDING))
    if found.digest != wanted["model"]:
      raise InputError(
        f"{wanted['checkpoint']}: got a model with digest {found.digest[:12]}, "
        f"expected {wanted['model'][:12]}, which the classifier was trained with; "
        "train it again"
      )
    return found

  def probabilities(self, texts: Sequence[str]) -> np.ndarray:
    """Calibrated probability of high educational value, float64 [texts]."""
    return self.forest.predict_proba(self.embedder.embed(texts))[:, 1]


def load(folder: Path) -> Classifier:
  """Opens the classifier of a complete train-classifier stage.

  Raises:
    InputError: there is none, it was changed, or scikit-learn is another one.
  """
  folders.read_stats(folder)
  about = storage.read_json(folder / ABOUT)
  path = folder / FOREST
  if not path.is_file() or _sha256(path) != about["sha256"]:
    raise InputError(
      f"{path}: not the forest that {ABOUT} notes; run train-classifier again"
    )
  if about["scikit_learn"] != sklearn.__version__:
    raise InputError(
      f"{path}: made with scikit-learn {about['scikit_learn']}, this is "
      f"{sklearn.__version__}; install that one, or train again"
    )
  return Classifier(joblib.load(path), about)


def _save(
  folder: Path,
  forest: Any,
  config: ClassifierConfig,
  embedder: Embedder,
  data: str,
  report: dict[str, Any],
) -> None:
  path = folder / FOREST
  joblib.dump(forest, path, compress=3)
  embedding = {name: getattr(config, name) for name in _EMBEDDING}
  about = {
    "sha256": _sha256(path),
    "data": data,
    "scikit_learn": sklearn.__version__,
    "positive_score": config.positive_score,
    "threshold": report["threshold"],
    "embedding": {**embedding, "model": embedder.digest, "width": embedder.width},
  }
  storage.write_json(folder / ABOUT, about)


def _is_tested(group: str, fraction: float) -> bool:
  """Which side a label is on: by hash, so that more labels move none."""
  digest = hashlib.sha256(f"tested {group}".encode()).digest()
  return int.from_bytes(digest[:8], "big") < fraction * 2**64


def _check_labels(
  positive: np.ndarray, tested: np.ndarray, config: ClassifierConfig
) -> None:
  for side, name in ((~tested, "to train on"), (tested, "to test on")):
    counts = (int(positive[side].sum()), int((~positive[side]).sum()))
    if min(counts) < _FEWEST:
      raise InputError(
        f"Classifier.labels: {config.labels} has {counts[0]} documents of score "
        f"{config.positive_score:g} or more and {counts[1]} below {name}, expected at "
        f"least {_FEWEST} of each; annotate more, or change Classifier.positive_score"
      )


def _sha256(path: Path) -> str:
  with path.open("rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()
