"""Figures of classifiers of educational value, and a picture."""

import io
from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score

from phi1_jax.curation import annotate

_THRESHOLDS = np.round(np.arange(0.05, 1.0, 0.05), 2)
_BINS = 10
# Stratum of the ablation: files with as many comments as this to this share of lines.
_QUARTERS = 4


def best_threshold(positive: np.ndarray, predicted: np.ndarray) -> float:
  """Return the threshold of the best F1, the lowest of equals."""
  return max(map(float, _THRESHOLDS), key=lambda t: f1_at(positive, predicted, t)["f1"])


def build(
  method: str,
  threshold: float,
  scores: np.ndarray,
  positive: np.ndarray,
  predicted: dict[str, np.ndarray],
  comments: np.ndarray,
) -> dict[str, Any]:
  """Return the report on documents that nothing was fitted to.

  Args:
    method: the chosen one.
    threshold: the filter's; chosen on other documents.
    scores: the judge's, float [documents].
    positive: whether a score counts as high, bool [documents].
    predicted: probabilities of each method and baseline, float [documents].
    comments: share of comments, float [documents].

  Returns:
    `threshold`, and `at_threshold`: the method's figures there. `methods`: for each
    method and baseline `f1` (rows of threshold, precision, recall, f1, kept), `best`
    (its best row, which is optimistic), `calibration` (bins), `calibration_error`,
    `brier`, `auc`, and `spearman` of the probability with the score.
    `within_comment_quarters`: the method's AUC among files that are commented alike.
  """
  quarters = np.quantile(comments, np.linspace(0, 1, _QUARTERS + 1)[1:-1])
  place = np.digitize(comments, quarters)
  chosen = predicted[method]
  within = [
    {
      "comments": round(float(comments[place == q].mean()), 4),
      "documents": int((place == q).sum()),
      "auc": auc(positive[place == q], chosen[place == q]),
    }
    for q in range(_QUARTERS)
    if (place == q).any()
  ]
  return {
    "documents": len(scores),
    "threshold": threshold,
    "at_threshold": f1_at(positive, chosen, threshold),
    "methods": {n: _figures(scores, positive, each) for n, each in predicted.items()},
    "within_comment_quarters": within,
  }


def _figures(
  scores: np.ndarray, positive: np.ndarray, predicted: np.ndarray
) -> dict[str, Any]:
  rows = [f1_at(positive, predicted, float(threshold)) for threshold in _THRESHOLDS]
  bins = calibration(positive, predicted)
  error = sum(row["documents"] * abs(row["share"] - row["predicted"]) for row in bins)
  ranks = annotate.agreement(scores.tolist(), (5 * predicted).tolist())
  return {
    "f1": rows,
    "best": max(rows, key=lambda row: row["f1"]),
    "calibration": bins,
    "calibration_error": round(error / len(scores), 4),
    "brier": round(float(((predicted - positive) ** 2).mean()), 4),
    "auc": auc(positive, predicted),
    "spearman": ranks["spearman"],
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


def calibration(positive: np.ndarray, predicted: np.ndarray) -> list[dict[str, Any]]:
  """Return the mean of each bin of predictions, and the share that was positive."""
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
  """Return the chance that a positive ranks above another; None without both."""
  if positive.all() or not positive.any():
    return None
  return round(float(roc_auc_score(positive, predicted)), 4)


def plot(report: dict[str, Any], method: str, title: str) -> bytes:
  """Return a PNG of F1 against threshold, and of the calibration."""
  from matplotlib.figure import Figure

  figure = Figure(figsize=(10, 4.2), layout="constrained")
  figure.suptitle(f"{title}: {report['documents']} held-out documents", fontsize=10)
  left, right = figure.subplots(1, 2)
  for name, found in report["methods"].items():
    rows, bins = found["f1"], found["calibration"]
    left.plot([r["threshold"] for r in rows], [r["f1"] for r in rows], label=name)
    xs, ys = [b["predicted"] for b in bins], [b["share"] for b in bins]
    right.plot(xs, ys, marker="o", label=f"{name}, AUC {found['auc']}")
  rows = report["methods"][method]["f1"]
  kept = [r["kept"] for r in rows]
  left.plot([r["threshold"] for r in rows], kept, ":", color="grey", label="share kept")
  left.set(xlabel="threshold", ylabel="F1", ylim=(0, 1))
  right.plot([0, 1], [0, 1], ":", color="grey")
  right.set(xlabel="predicted probability", ylabel="share of high value", ylim=(0, 1))
  for axes in (left, right):
    axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
  memory = io.BytesIO()
  figure.savefig(memory, dpi=110)
  return memory.getvalue()
