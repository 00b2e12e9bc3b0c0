"""The figures of a study as SVG: scores by arm, loss curves, score against compute."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
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
CONTROL = "#8d6a9f"


def colour(arm: str) -> str:
  """Of an arm."""
  return COLOURS.get(arm, CONTROL)


def bars(
  arms: Sequence[Mapping[str, Any]], tiers: Sequence[str], label: Callable[[str], str]
) -> str:
  """Share solved per tier and arm, with 95% intervals.

  Args:
    arms: of study.json, of one size.
    tiers: task sets, a panel each.
    label: name of a task set for people.
  """
  with mpl.rc_context(_STYLE):
    figure = Figure(figsize=(11, 0.28 * len(arms) + 1.3), layout="constrained")
    axes = figure.subplots(1, len(tiers), sharey=True, squeeze=False)[0]
    places = range(len(arms))[::-1]
    for axis, tier in zip(axes, tiers, strict=True):
      for place, arm in zip(places, arms, strict=True):
        found = arm["scores"][tier]
        value = 100 * found["value"]
        axis.barh(place, value, color=colour(arm["name"]), height=0.7)
        axis.errorbar(
          value, place, xerr=_spread([found]), color="#1c2024", lw=0.9, capsize=2
        )
      axis.set_title(label(tier), fontsize=10)
      axis.set_xlim(0, 100)
      axis.set_xlabel("solved, %")
    axes[0].set_yticks(list(places), [arm["name"] for arm in arms])
    return _svg(figure)


def curves(runs: Sequence[Mapping[str, Any]]) -> str:
  """Training loss against steps, the steps of the text before counted in."""
  with mpl.rc_context(_STYLE):
    figure = Figure(figsize=(9, 4), layout="constrained")
    axis = figure.subplots()
    for run in runs:
      steps = [run["started"] + step for step, _ in run["curve"]]
      losses = [loss for _, loss in run["curve"]]
      axis.plot(steps, losses, color=colour(run["arm"]), label=run["arm"], lw=1.2)
    axis.set_yscale("log")
    axis.set_xlabel("steps")
    axis.set_ylabel("training loss, nats per token")
    axis.legend(frameon=False, fontsize=8, ncols=2)
    return _svg(figure)


def compute(runs: Sequence[Mapping[str, Any]], tier: str) -> str:
  """Share solved of the nearest tier against training FLOPs."""
  with mpl.rc_context(_STYLE):
    figure = Figure(figsize=(9, 4), layout="constrained")
    axis = figure.subplots()
    for run in runs:
      end = run["scores"][tier]
      points = [(run["early"]["flops"], run["early"])] if run["early"] else []
      points.append((run["flops"], end))
      values = [100 * found["value"] for _, found in points]
      axis.errorbar(
        [flops for flops, _ in points],
        values,
        yerr=_spread([found for _, found in points]),
        color=colour(run["arm"]),
        label=f"{run['arm']}, {run['size']}, seed {run['seed']}",
        marker="o",
        ms=4,
        lw=1.2,
        capsize=2,
      )
    axis.set_xscale("log")
    axis.set_xlabel("training FLOPs, text and exercises")
    axis.set_ylabel("solved, %")
    axis.legend(frameon=False, fontsize=8, ncols=2)
    return _svg(figure)


def _spread(scores: Sequence[Mapping[str, Any]]) -> list[list[float]]:
  """How far the ends of intervals are from the values, in percent, as error bars."""
  return [
    [max(0.0, 100 * (each["value"] - each["low"])) for each in scores],
    [max(0.0, 100 * (each["high"] - each["value"])) for each in scores],
  ]


def _svg(figure: Figure) -> str:
  content = io.StringIO()
  figure.savefig(content, format="svg", metadata={"Date": None})
  return content.getvalue()
