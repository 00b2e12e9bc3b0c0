"""The figures of a study as SVG: scores by arm, loss curves, score against compute."""

import contextlib
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

_STYLE: Any = {
  "svg.fonttype": "none",  # text stays text
  "svg.hashsalt": "phi1_jax",  # the same data give the same bytes
  "font.size": 10,
  "axes.spines.top": False,
  "axes.spines.right": False,
}
# Without exercises, with them, with nothing else; the same in every figure.
COLOURS = {
  "raw": "#9aa5b1",
  "filtered": "#5b6570",
  "textbooks": "#1c2024",
  "raw_exercises": "#edae49",
  "filtered_exercises": "#d1495b",
  "textbooks_exercises": "#2a6f97",
  "exercises_alone": "#4f9d69",
}
_CONTROL = "#8d6a9f"


@contextlib.contextmanager
def _drawn(width: float, height: float, svg: list[str]) -> Iterator[Figure]:
  """Give a figure, and append its SVG element to `svg` when the block ends."""
  with mpl.rc_context(_STYLE):
    figure = Figure(figsize=(width, height), layout="constrained")
    yield figure
    content = io.StringIO()
    figure.savefig(content, format="svg", metadata={"Date": None})
  text = content.getvalue()
  svg.append(text[text.index("<svg") :])


def bars(
  arms: Sequence[Mapping[str, Any]], tiers: Sequence[str], label: Callable[[str], str]
) -> str:
  """Return the share solved per tier and arm, with 95% intervals.

  Args:
    arms: of study.json, of one size.
    tiers: task sets, a panel each.
    label: returns a short name of a task set.
  """
  svg: list[str] = []
  with _drawn(11, 0.28 * len(arms) + 1.3, svg) as figure:
    axes = figure.subplots(1, len(tiers), sharey=True, squeeze=False)[0]
    places = range(len(arms))[::-1]
    for axis, tier in zip(axes, tiers, strict=True):
      for place, arm in zip(places, arms, strict=True):
        value, spread = _points([arm["scores"][tier]])
        axis.barh(place, value, color=COLOURS.get(arm["name"], _CONTROL), height=0.7)
        axis.errorbar(value, [place], xerr=spread, color="#1c2024", lw=0.9, capsize=2)
      axis.set(title=label(tier), xlim=(0, 100), xlabel="solved, %")
    axes[0].set_yticks(list(places), [arm["name"] for arm in arms])
  return svg[0]


def curves(runs: Sequence[Mapping[str, Any]]) -> str:
  """Return training loss against steps, the steps of the text before counted in."""
  svg: list[str] = []
  with _drawn(9, 4, svg) as figure:
    axis = figure.subplots()
    for run in runs:
      steps = [run["started"] + step for step, _ in run["curve"]]
      losses = [loss for _, loss in run["curve"]]
      colour = COLOURS.get(run["arm"], _CONTROL)
      axis.plot(steps, losses, color=colour, label=run["arm"], lw=1.2)
    axis.set(yscale="log", xlabel="steps", ylabel="training loss, nats per token")
    axis.legend(frameon=False, fontsize=8, ncols=2)
  return svg[0]


def compute(runs: Sequence[Mapping[str, Any]], tier: str) -> str:
  """Return the share solved of a tier against training FLOPs."""
  svg: list[str] = []
  with _drawn(9, 4, svg) as figure:
    axis = figure.subplots()
    for run in runs:
      end = run["scores"][tier] | {"flops": run["flops"]}
      scores = [run["early"], end] if run["early"] else [end]
      values, spread = _points(scores)
      axis.errorbar(
        [score["flops"] for score in scores],
        values,
        yerr=spread,
        color=COLOURS.get(run["arm"], _CONTROL),
        label=f"{run['arm']}, {run['size']}, seed {run['seed']}",
        marker="o",
        ms=4,
        lw=1.2,
        capsize=2,
      )
    axis.set(xscale="log", xlabel="training FLOPs, text and exercises")
    axis.set_ylabel("solved, %")
    axis.legend(frameon=False, fontsize=8, ncols=2)
  return svg[0]


def _points(
  scores: Sequence[Mapping[str, Any]],
) -> tuple[list[float], list[list[float]]]:
  """Return values in percent, and the distances of the ends of their intervals."""
  values, low, high = (
    [100 * score[name] for score in scores] for name in ("value", "low", "high")
  )
  down = [max(0.0, v - x) for v, x in zip(values, low, strict=True)]
  up = [max(0.0, x - v) for v, x in zip(values, high, strict=True)]
  return values, [down, up]
