"""How good a classifier of educational value is: figures, and a picture of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from phi1_jax.curation import annotate

_THRESHOLDS = np.round(np.arange(0.05, 1.0, 0.05), 2)
_BINS = 10
# Stratum of the ablation: files with as many comments as this to this share of lines.
_QUARTERS = 4


def best_threshold(positive: np.ndarray, predicted: np.ndarray) -> float:
  """The threshold of the best F1; of equal ones the lowest."""
  return max(map(float, _THRESHOLDS), key=lambda t: f1_at(positive, predicted, t)["f1"])


def build(
  threshold: float,
  scores: np.ndarray,
  positive: np.ndarray,
  predicted: np.ndarray,
  baseline: np.ndarray,
  comments: np.ndarray,
) -> dict[str, Any]:
  """The report on documents that nothing was trained on.

  Args:
    threshold: what the filter will use; chosen on other documents.
    scores: the judge's, float [documents].
    positive: whether a score counts as high, bool [documents].
    predicted: the forest's calibrated probabilities, float [documents].
    baseline: those of a forest that sees the share of comments alone.
    comments: that share.

  Returns:
    `threshold`, and `at_threshold`: the forest's figures there. `forest` and
    `comments_alone`, each with `f1` (rows of threshold, precision, recall, f1, kept),
    `best` (its best row, which is optimistic), `calibration` (bins),
    `calibration_error`, `brier`, `auc`, and `spearman` of the probability with the
    score. `within_comment_quarters`: the forest's AUC among files that are commented
    alike, where the baseline knows nothing.
  """
  quarters = np.quantile(comments, np.linspace(0, 1, _QUARTERS + 1)[1:-1])
  place = np.digitize(comments, quarters)
  within = [
    {
      "comments": round(float(comments[place == q].mean()), 4),
      "documents": int((place == q).sum()),
      "auc": auc(positive[place == q], predicted[place == q]),
    }
    for q in range(_QUARTERS)
    if (place == q).any()
  ]
  return {
    "documents": len(scores),
    "positive_share": round(float(positive.mean()), 4),
    "threshold": threshold,
    "at_threshold": f1_at(positive, predicted, threshold),
    "forest": _figures(scores, positive, predicted),
    "comments_alone": _figures(scores, positive, baseline),
    "within_comment_quarters": within,
  }


def _figures(
  scores: np.ndarray, positive: np.ndarray, predicted: np.ndarray
) -> dict[str, Any]:
  rows = [f1_at(positive, predicted, float(threshold)) for threshold in _THRESHOLDS]
  bins = calibration(positive, predicted)
  error = sum(row["documents"] * abs(row["share"] - row["predicted"]) for row in bins)
  return {
    "f1": rows,
    "best": max(rows, key=lambda row: row["f1"]),
    "calibration": bins,
    "calibration_error": round(error / len(scores), 4),
    "brier": round(float(((predicted - positive) ** 2).mean()), 4),
    "auc": auc(positive, predicted),
    "spearman": annotate.agreement(scores.tolist(), (5 * predicted).tolist())[
      "spearman"
    ],
  }


def f1_at(
  positive: np.ndarray, predicted: np.ndarray, threshold: float
) -> dict[str, float]:
  """Precision, recall, F1 and the share kept at a threshold."""
  kept = predicted >= threshold
  hits = float((kept & positive).sum())
  precision = hits / kept.sum() if kept.any() else 0.0
  recall = hits / positive.sum() if positive.any() else 0.0
  f1 = 2 * precision * recall / (precision + recall) if hits else 0.0
  figures = {"precision": precision, "recall": recall, "f1": f1, "kept": kept.mean()}
  return {"threshold": threshold, **{k: round(float(v), 4) for k, v in figures.items()}}


def calibration(positive: np.ndarray, predicted: np.ndarray) -> list[dict[str, Any]]:
  """Per bin of predictions: their mean, and the share that really was positive."""
  place = np.minimum((predicted * _BINS).astype(int), _BINS - 1)
  return [
    {
      "predicted": round(float(predicted[place == b].mean()), 4),
      "share": round(float(positive[place == b].mean()), 4),
      "documents": int((place == b).sum()),
    }
    for b in range(_BINS)
    if (place == b).any()
  ]


def auc(positive: np.ndarray, predicted: np.ndarray) -> float | None:
  """Probability that a positive one ranks above a negative one; None without both."""
  ups, downs = predicted[positive], predicted[~positive]
  if not len(ups) or not len(downs):
    return None
  above = (ups[:, None] > downs).mean() + 0.5 * (ups[:, None] == downs).mean()
  return round(float(above), 4)


def plot(report: dict[str, Any], path: Path, title: str) -> None:
  """Draws F1 against threshold, and calibration."""
  from matplotlib.figure import Figure

  figure = Figure(figsize=(10, 4.2), layout="constrained")
  figure.suptitle(f"{title}: {report['documents']} held-out documents", fontsize=10)
  left, right = figure.subplots(1, 2)
  names = {"forest": "forest on embeddings", "comments_alone": "comment ratio alone"}
  for key, label in names.items():
    rows, bins = report[key]["f1"], report[key]["calibration"]
    left.plot([r["threshold"] for r in rows], [r["f1"] for r in rows], label=label)
    xs, ys = [b["predicted"] for b in bins], [b["share"] for b in bins]
    right.plot(xs, ys, marker="o", label=f"{label}, AUC {report[key]['auc']}")
  rows = report["forest"]["f1"]
  kept = [r["kept"] for r in rows]
  left.plot([r["threshold"] for r in rows], kept, ":", color="grey", label="share kept")
  left.set(xlabel="threshold", ylabel="F1", ylim=(0, 1))
  right.plot([0, 1], [0, 1], ":", color="grey")
  right.set(xlabel="predicted probability", ylabel="share of high value", ylim=(0, 1))
  for axes in (left, right):
    axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
  figure.savefig(path, dpi=110)
