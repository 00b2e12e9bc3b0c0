"""The page of a study: evals/assets/study.html over study.json."""

from collections.abc import Mapping
from typing import Any

from evals import page
from evals.study import arms, figures
from evals.study.arms import FULL, THINNED

FILE = "study.html"
FORMAT = 4  # of study.json
_SOLVES = 0.05  # arms that are below that with every seed agree by failing


def render(data: Mapping[str, Any]) -> str:
  """Return the page, given the content of study.json."""
  tiers, seeds = data["tiers"], data["config"]["seeds"]
  sizes = list(dict.fromkeys(arm["size"] for arm in data["arms"]))
  of_size = {s: [arm for arm in data["arms"] if arm["size"] == s] for s in sizes}
  runs = [run for run in data["runs"] if run["seed"] == seeds[0]]
  main = [run for run in runs if run["arm"] in figures.COLOURS]
  far = dict.fromkeys(n for r in runs for n in r["scores"] if n not in tiers)
  nearest_arms = ("leaked", arms.pruned(max(data["config"]["taus"])), FULL)
  return page.render(
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
    texts=list(arms.TEXTS),
    full=FULL,
    thinned=THINNED,
    strict=arms.pruned(min(data["config"]["taus"])),
    nearest_arms=nearest_arms,
    twins=[
      run["scores"][tiers[0]]["value"]
      for run in data["runs"]
      if run["arm"] in nearest_arms and run["size"] == sizes[0]
    ],
    by_seed=_by_seed(data) if len(seeds) > 1 else [],
    runs=runs,
    kinds=sorted({kind for run in runs for kind in run["loss"]} - {"all"}),
    far=list(far),
    bars={size: figures.bars(of_size[size], tiers, label) for size in sizes},
    curves=figures.curves([run for run in main if run["size"] == sizes[0]]),
    compute=figures.compute(main, tiers[0]),
  )


def label(task_set: str) -> str:
  """Return a short name of a task set: "unseen triples"."""
  words = task_set.removeprefix("exercises-").rpartition("-")[0].split("-")
  shown = " ".join(w for w in words if w not in ("first", "numbers")) or task_set
  return {"reserved frames": "new wordings"}.get(shown, shown)


def percent(found: Mapping[str, Any] | None) -> str:
  """Return a share and its interval: "27 (19-36)"."""
  if found is None:
    return "-"
  value, low, high = (100 * found[name] for name in ("value", "low", "high"))
  return f"{value:.0f} ({low:.0f}-{high:.0f})"


def _by_seed(data: Mapping[str, Any]) -> list[dict[str, Any]]:
  """Return each arm's scores on the nearest tier by seed, and whether they overlap."""
  rows = []
  for arm in data["arms"]:
    scores = [
      run["scores"][data["tiers"][0]]
      for run in data["runs"]
      if (run["arm"], run["size"]) == (arm["name"], arm["size"])
    ]
    values = [score["value"] for score in scores]
    overlap = max(s["low"] for s in scores) <= min(s["high"] for s in scores)
    row = {"arm": f"{arm['name']} {arm['size']}", "scores": scores, "overlap": overlap}
    row |= {"points": 100 * (max(values) - min(values))}
    rows.append(row | {"solves": max(values) >= _SOLVES})
  return rows
