"""The page of a study: evals/assets/study.html over study.json, with SVG figures."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from evals import report
from evals.study.config import FULL, TEXTS, THINNED, pruned

FILE = "study.html"
_STYLE: Any = {
  "svg.fonttype": "none",  # text stays text
  "svg.hashsalt": "phi1_jax",  # the same data give the same bytes
  "font.size": 10,
  "axes.spines.top": False,
  "axes.spines.right": False,
}
# Without exercises, with them, with nothing else; the same in every figure.
_COLOURS = {
  "raw": "#9aa5b1",
  "filtered": "#5b6570",
  "textbooks": "#1c2024",
  "raw_exercises": "#edae49",
  "filtered_exercises": "#d1495b",
  "textbooks_exercises": "#2a6f97",
  "exercises_alone": "#4f9d69",
}
_CONTROL = "#8d6a9f"


def render(data: Mapping[str, Any]) -> str:
  """Return the page, given the content of study.json."""
  tiers, seeds = data["tiers"], data["config"]["seeds"]
  sizes = list(dict.fromkeys(arm["size"] for arm in data["arms"]))
  of_size = {s: [arm for arm in data["arms"] if arm["size"] == s] for s in sizes}
  runs = [run for run in data["runs"] if run["seed"] == seeds[0]]
  main = [r for r in runs if r["arm"] in _COLOURS and r["size"] == sizes[0]]
  far = dict.fromkeys(n for r in runs for n in r["scores"] if n not in tiers)
  return report.render(
    "study.html",
    filters={
      "label": label,
      "percent": percent,
      "p_value": lambda p: f"{p:.3f}" if p >= 0.001 else f"{p:.0e}",
      "format_number": "{:,}".format,
    },
    data=data,
    sizes=sizes,
    of_size=of_size,
    scores={arm["name"]: arm["scores"] for arm in of_size[sizes[0]]},
    texts=list(TEXTS),
    full=FULL,
    thinned=THINNED,
    strict=pruned(min(data["config"]["taus"])),
    runs=runs,
    kinds=sorted({kind for run in runs for kind in run["loss"]} - {"all"}),
    far=list(far),
    bars={size: _bars(of_size[size], tiers) for size in sizes},
    curves=_curves(main),
  )


def label(task_set: str) -> str:
  """Return a short name of a task set: "unseen triples"."""
  words = task_set.removeprefix("exercises-").rpartition("-")[0].replace("-", " ")
  return {"reserved frames": "new wordings"}.get(words, words) or task_set


def percent(found: Mapping[str, Any] | None) -> str:
  """Return a share and its interval: "27 (19-36)"."""
  if found is None:
    return "-"
  value, low, high = (100 * found[name] for name in ("value", "low", "high"))
  return f"{value:.0f} ({low:.0f}-{high:.0f})"


@mpl.rc_context(_STYLE)
def _bars(of_arms: Sequence[Mapping[str, Any]], tiers: Sequence[str]) -> str:
  """Return the share solved per tier, a panel each, and arm, with 95% intervals."""
  figure = Figure(figsize=(11, 0.28 * len(of_arms) + 1.3), layout="constrained")
  axes = figure.subplots(1, len(tiers), sharey=True, squeeze=False)[0]
  places = list(range(len(of_arms)))[::-1]
  for axis, tier in zip(axes, tiers, strict=True):
    for place, arm in zip(places, of_arms, strict=True):
      found = arm["scores"][tier]
      value, low, high = (100 * found[name] for name in ("value", "low", "high"))
      spread = [[max(0.0, value - low)], [max(0.0, high - value)]]
      axis.barh(place, value, color=_COLOURS.get(arm["name"], _CONTROL), height=0.7)
      axis.errorbar(value, place, xerr=spread, color="#1c2024", lw=0.9, capsize=2)
    axis.set(title=label(tier), xlim=(0, 100), xlabel="solved, %")
  axes[0].set_yticks(places, [arm["name"] for arm in of_arms])
  return _svg(figure)


@mpl.rc_context(_STYLE)
def _curves(runs: Sequence[Mapping[str, Any]]) -> str:
  """Return training loss against steps, the steps of the text before counted in."""
  figure = Figure(figsize=(9, 4), layout="constrained")
  axis = figure.subplots()
  for run in runs:
    steps, losses = zip(*run["curve"], strict=True)
    steps = [run["started"] + step for step in steps]
    axis.plot(steps, losses, color=_COLOURS[run["arm"]], label=run["arm"], lw=1.2)
  axis.set(yscale="log", xlabel="steps", ylabel="training loss, nats per token")
  axis.legend(frameon=False, fontsize=8, ncols=2)
  return _svg(figure)


def _svg(figure: Figure) -> str:
  """Return the SVG element of a figure."""
  content = io.StringIO()
  figure.savefig(content, format="svg", metadata={"Date": None})
  text = content.getvalue()
  return text[text.index("<svg") :]
