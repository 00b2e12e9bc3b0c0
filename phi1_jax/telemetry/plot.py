"""loss.png: training and held-out loss of a run, drawn from its metrics.jsonl."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from phi1_jax import InputError
from phi1_jax.telemetry.terminal import human
from phi1_jax.telemetry.writers import read_metrics

_TRAIN = "#2a6f97"
_HELD_OUT = ("#d1495b", "#edae49", "#66a182", "#8d6a9f", "#5c4742", "#30323d")
_QUIET = "#6b7280"


def plot_loss(
  metrics: str | Path,
  png: str | Path,
  *,
  name: str,
  num_parameters: int | None = None,
) -> None:
  """Draw train loss (raw and smoothed), held-out losses and the learning rate.

  Args:
    metrics: the run's metrics.jsonl.
    png: the picture to write.
    name: name of the run, for the title.
    num_parameters: for the title.

  Raises:
    InputError: the file is not a metrics.jsonl, or has no loss yet.
  """
  rows = read_metrics(metrics)
  steps, losses = _series(rows, "loss")
  names = {
    key
    for row in rows
    for key, value in row.items()
    if key.startswith("eval/") and key.endswith("loss") and value is not None
  }
  # The total loss comes first, then the losses of tasks.
  ordered = sorted(names, key=lambda key: (key != "eval/loss", key))
  held_out = {key: _series(rows, key) for key in ordered}
  if not len(steps) and not held_out:
    raise InputError(f"{metrics} holds no loss to draw yet")
  _, tokens = _series(rows, "tokens_seen")

  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure

  figure = Figure(figsize=(8, 5.6), dpi=150, layout="constrained")
  FigureCanvasAgg(figure)  # needs no display and no pyplot
  top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
  _draw_losses(top, steps, losses, held_out)
  _draw_learning_rate(bottom, *_series(rows, "learning_rate"))
  facts = [name]
  if num_parameters:
    facts.append(f"{human(num_parameters)} parameters")
  if len(tokens):
    facts.append(f"{human(tokens[-1])} tokens")
  figure.suptitle(" · ".join(facts), fontsize=12, fontweight="bold")
  figure.savefig(png)


def smooth(values: np.ndarray, window: int) -> np.ndarray:
  """Return the median of `window` values around each value; [N] to [N].

  A mean would draw a single spike as wide as the window.
  """
  half = window // 2
  near = (values[max(i - half, 0) : i + half + 1] for i in range(len(values)))
  return np.array([np.median(part) for part in near])


def _series(rows: Sequence[dict[str, Any]], name: str) -> tuple[np.ndarray, np.ndarray]:
  """Return (steps, values) of the rows where `name` is a number."""
  known = [(row["step"], row[name]) for row in rows if row.get(name) is not None]
  array = np.array(known, dtype=float).reshape(-1, 2)
  return array[:, 0], array[:, 1]


def _draw_losses(
  axes: Any,
  steps: np.ndarray,
  losses: np.ndarray,
  held_out: dict[str, tuple[np.ndarray, np.ndarray]],
) -> None:
  if len(steps):
    window = max(1, len(losses) // 50)
    smoothed = smooth(losses, window)
    if window > 1:
      axes.plot(steps, losses, color=_TRAIN, alpha=0.25, linewidth=0.8)
    axes.plot(
      steps, smoothed, color=_TRAIN, linewidth=1.8, label=f"train  {smoothed[-1]:.3f}"
    )
  for i, (name, (x, y)) in enumerate(held_out.items()):
    label = name.removeprefix("eval/").removesuffix("loss").strip("/_")
    axes.plot(
      *(x, y),
      color=_HELD_OUT[i % len(_HELD_OUT)],
      linewidth=1.0,
      marker="o",
      markersize=3.5 if len(x) < 60 else 0,
      label=f"held out{', ' + label if label else ''}  {y[-1]:.3f}",
    )
  low, high = _loss_limits([losses, *(y for _, y in held_out.values())])
  axes.set_ylim(low, high)
  axes.set_ylabel("loss (nats per token)")
  axes.legend(frameon=False, loc="upper right")
  _tidy(axes)


def _loss_limits(series: Sequence[np.ndarray]) -> tuple[float, float]:
  """Return limits for all values except a few spikes above the first losses."""
  values = np.concatenate(series)
  low, high = float(values.min()), float(values.max())
  high = min(high, max(float(np.percentile(values, 99)) * 1.2, values[0] * 1.05))
  margin = 0.05 * (high - low) or 0.1
  return low - margin, high + margin


def _draw_learning_rate(axes: Any, steps: np.ndarray, rates: np.ndarray) -> None:
  from matplotlib.ticker import FuncFormatter, MaxNLocator

  axes.plot(steps, rates, color=_QUIET, linewidth=1.4)
  axes.set_ylim(bottom=0)
  axes.set_ylabel("learning\nrate")
  axes.set_xlabel("step")
  axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 2), useMathText=True)
  axes.yaxis.set_major_locator(MaxNLocator(3))
  axes.xaxis.set_major_formatter(FuncFormatter(lambda step, _: f"{step:,.0f}"))
  axes.xaxis.set_major_locator(MaxNLocator(integer=True))
  _tidy(axes)


def _tidy(axes: Any) -> None:
  axes.grid(alpha=0.25, linewidth=0.6)
  axes.spines[["top", "right"]].set_visible(False)
  axes.margins(x=0.01)
