"""Sections of a study's page: what each arm solves, and arms compared in pairs."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from evals import mutants
from evals.study import arms, figures, tables
from evals.study.arms import FULL
from evals.study.document import Block, Figure, Heading, Points, Table, Text

_SOLVES = 5  # percent; arms that are below that with every seed agree by failing


def label(task_set: str) -> str:
  """A task set for people: "unseen triples"."""
  words = task_set.removeprefix("exercises-").rpartition("-")[0].split("-")
  dropped = ("first", "numbers")
  shown = " ".join(w for w in words if w not in dropped) or task_set
  return {"reserved frames": "new wordings"}.get(shown, shown)


def percent(found: Mapping[str, Any] | None) -> str:
  """A share and its interval: "27 (19-36)"."""
  if found is None:
    return "-"
  value, low, high = (100 * found[name] for name in ("value", "low", "high"))
  return f"{value:.0f} ({low:.0f}-{high:.0f})"


def sizes(data: Mapping[str, Any]) -> list[str]:
  """The sizes of a study's models."""
  return list(dict.fromkeys(arm["size"] for arm in data["arms"]))


def _arms(data: Mapping[str, Any], size: str) -> list[Mapping[str, Any]]:
  return [arm for arm in data["arms"] if arm["size"] == size]


def in_short(data: Mapping[str, Any]) -> list[Block]:
  """What came out on the nearest tier, and how far trainings of one recipe differ."""
  tiers, taus = data["tiers"], data["config"]["taus"]
  found = {arm["name"]: arm["scores"] for arm in _arms(data, sizes(data)[0])}
  mild, strict = arms.pruned(max(taus)), arms.pruned(min(taus))

  def told(*names: str) -> str:
    shown = [f"`{name}` {percent(found[name][tiers[0]])}" for name in names]
    return ", ".join(shown)

  twins = [
    100 * run["scores"][tiers[0]]["value"]
    for run in data["runs"]
    if run["arm"] in ("leaked", mild, FULL) and run["size"] == sizes(data)[0]
  ]
  unleaked = [scores for name, scores in found.items() if name != "leaked"]
  far = [
    f"{label(tier)} {100 * max(s[tier]['value'] for s in unleaked):.1f}"
    for tier in tiers[3:]
  ]
  held = [row["holds"] for row in data["predictions"]]
  return [
    Heading("In short"),
    Points(
      [
        f"Percent of {label(tiers[0])} solved without exercises: {told(*arms.TEXTS)}.",
        "With exercises after the text: "
        + told(*(f"{text}_exercises" for text in arms.TEXTS))
        + f"; without text before them: {told('exercises_alone')}.",
        f"Damaged exercises: {told('shuffled', 'wrong', 'few')}; copying the solution "
        f"under the nearest docstring: {percent(data['nearest'][tiers[0]])}.",
        f"As few exercises as the strictest pruning leaves: {told(arms.THINNED)} drawn "
        f"at random, {told(strict)} pruned.",
        f"The farthest tiers, best arm: {', '.join(far)}.",
        f"`leaked` (planted problems are of another tier) and `{mild}` are the arms "
        f"next to `{FULL}` in what they read, and these {len(twins)} trainings solve "
        f"{min(twins):.0f} to {max(twins):.0f}: arms that differ by no more should not "
        "be ranked.",
        f"{held.count(True)} of {len(held)} predictions held, by the shares alone.",
      ]
    ),
  ]


def scores(data: Mapping[str, Any]) -> list[Block]:
  """The arms on every tier, and the main one by what its problems ask for."""
  tiers = data["tiers"]
  found: list[Block] = [
    Heading("How many unseen problems each arm solves"),
    Text(
      "Percent solved, greedy, with 95% intervals: over problems for one seed "
      "(Wilson), which leaves out how much another training of the same arm would "
      "differ; over problems and trainings for several (Student's t: two trainings "
      "that differ say next to nothing of a third). Tiers go from near to far: new "
      "triples of known parts, new pairs, new wordings, longer compositions, and "
      "problems written for this project in words that the grammar does not have. No "
      "training exercise has the name or the composition of a generated problem, but "
      "some compute the same function (see below)."
    ),
    Points([f"`{arm['name']}`: {arm['about']}" for arm in _arms(data, sizes(data)[0])]),
  ]
  for size in sizes(data):
    of_size = _arms(data, size)
    if len(sizes(data)) > 1:
      found.append(Heading(size, 3))
    rows = [
      [arm["name"], *(_cell(arm, tier, data) for tier in tiers)] for arm in of_size
    ]
    rows.append(
      ["nearest (copies)", *(percent(data["nearest"][tier]) for tier in tiers)]
    )
    found += [
      Table(["arm", *map(label, tiers)], rows),
      Figure(
        f"arms-{size}",
        figures.bars(of_size, tiers, label),
        f"Share of problems solved by each arm, {size} parameters.",
      ),
    ]
  return [*found, *_by_seed(data), *_repeated(data), *_seen(data)]


def _cell(arm: Mapping[str, Any], tier: str, data: Mapping[str, Any]) -> str:
  """An arm's share of a tier; marked where some of the problems were planted."""
  planted = (arm["name"], tier) == ("leaked", data["leak"]["task_set"])
  return percent(arm["scores"][tier]) + " (planted)" * planted


def _by_seed(data: Mapping[str, Any]) -> list[Block]:
  """The nearest tier by seed, how far seeds differ, and whether intervals overlap."""
  seeds, near = data["config"]["seeds"], data["tiers"][0]
  if len(seeds) == 1:
    return []
  rows, counted = [], []
  for size in sizes(data):
    for arm in _arms(data, size):
      each = [
        run["scores"][near]
        for run in data["runs"]
        if (run["arm"], run["size"]) == (arm["name"], size)
      ]
      overlap = _overlap(each)
      shown = "yes" if overlap else "no"
      values = [100 * score["value"] for score in each]
      points = f"{max(values) - min(values):.0f}"
      if max(values) >= _SOLVES:
        counted.append(overlap)
      rows.append([f"{arm['name']} {size}", *map(percent, each), points, shown])
  overlapping = sum(row[-1] == "yes" for row in rows)
  return [
    Text(
      f"The same arms by seed, on {label(near)}, with intervals over problems. Those "
      f"of {overlapping} of {len(rows)} arms overlap, and {sum(counted)} of the "
      f"{len(counted)} that solve {_SOLVES}% with some seed; to overlap is less than "
      "to agree. Seeds change initial parameters and order; data, vocabulary and "
      "filter stay:"
    ),
    Table(
      ["arm", *(f"seed {seed}" for seed in seeds), "points apart", "overlap"], rows
    ),
  ]


def _overlap(scores: Sequence[Mapping[str, Any]]) -> bool:
  return max(s["low"] for s in scores) <= min(s["high"] for s in scores)


def _repeated(data: Mapping[str, Any]) -> list[Block]:
  """Half of the seeds against the others: every arm, and every pair of them."""
  found, seeds, near = data["repeated"], data["config"]["seeds"], data["tiers"][0]
  if not found:
    return []
  named = [f"seeds {', '.join(map(str, half))}" for half in tables.split(seeds)]
  solving = [
    row["halves"]
    for row in found
    if max(half["value"] for half in row["halves"]) >= _SOLVES / 100
  ]
  apart = [100 * abs(b["value"] - a["value"]) for a, b in solving]
  nearest = {
    (row["arm"], row["size"]): row["halves"] for row in found if row["task_set"] == near
  }
  return [
    Text(
      "The study with half of the seeds and with the other half, each with its "
      "intervals over problems and trainings. Seeds change initial parameters and "
      "order; exercises, vocabulary, filter and problems stay, and the first seed's "
      "model made the embeddings. Of all arms and tiers "
      f"{sum(_overlap(row['halves']) for row in found)} of {len(found)} overlap, and "
      f"{sum(map(_overlap, solving))} of the {len(solving)} where some half solves "
      f"{_SOLVES}%; these are {statistics.median(apart or [0]):.0f} points apart in "
      f"the median, {max(apart, default=0):.0f} at most. Few trainings make wide "
      f"intervals, which overlap easily. {_single(data, found)} On {label(near)}:"
    ),
    Table(
      ["arm", *named, "points", "overlap"],
      [
        [
          f"{arm} {size}",
          percent(a),
          percent(b),
          _signed(b["value"] - a["value"]),
          "yes" if _overlap([a, b]) else "no",
        ]
        for (arm, size), (a, b) in nearest.items()
      ],
    ),
    Text("Whether what the arms say of each other repeats, in points:"),
    Table(["arms", *named], _pairs(data, nearest)),
  ]


def _single(data: Mapping[str, Any], found: Sequence[Mapping[str, Any]]) -> str:
  """How single trainings of the other half agree with the first half's intervals."""
  first = {
    (row["arm"], row["size"], row["task_set"]): row["halves"][0] for row in found
  }
  later = tables.split(data["config"]["seeds"])[1]
  told = [
    (first[run["arm"], run["size"], tier], run["scores"][tier], run["name"], tier)
    for run in data["runs"]
    if run["seed"] in later
    for tier in data["tiers"]
    if (run["arm"], run["size"], tier) in first
  ]
  apart = [
    f"{name} on {label(tier)}" for *both, name, tier in told if not _overlap(both)
  ]
  but = f" (not: {', '.join(apart)})" if apart else ""
  return (
    f"Those of the first half overlap with {len(told) - len(apart)} of the "
    f"{len(told)} intervals over problems alone that single trainings of the other "
    f"half have{but}."
  )


def _pairs(
  data: Mapping[str, Any], halves: Mapping[tuple[str, str], Sequence[Mapping[str, Any]]]
) -> list[list[str]]:
  """The differences that `paired` tests, on the nearest tier, in both halves."""
  size, rows = sizes(data)[0], []
  for row in data["comparisons"]:
    if row["task_set"] == data["tiers"][0]:
      both = zip(halves[row["a"], size], halves[row["b"], size], strict=True)
      points = [_signed(b["value"] - a["value"]) for a, b in both]
      rows.append([f"{row['b']} - {row['a']}", *points])
  return rows


def _signed(share: float) -> str:
  """Points with their sign; zero has none."""
  points = round(100 * share)
  return f"{points:+d}" if points else "0"


def _seen(data: Mapping[str, Any]) -> list[Block]:
  said = {
    "seen": "some exercise computes it",
    "new": "none does",
    "not comparable": "cannot be compared (loops, or several arguments)",
  }
  rows = [
    [label(row["task_set"]), said[row["kind"]], str(row["n"]), percent(row["share"])]
    for row in data["seen"]
    if row["n"]
  ]
  inputs = len(mutants.NUMBERS) + len(mutants.WORDS)
  return [
    Text(
      f"`{FULL}` on problems whose function, compared on {inputs} inputs, some "
      "exercise computes in another composition or wording, and on those that none "
      "does (textbooks are not looked at):"
    ),
    Table(["tier", "function", "n", "solved, %"], rows),
  ]


def paired(data: Mapping[str, Any]) -> list[Block]:
  """Arms compared with each other."""
  rows = [
    [
      f"{row['b']} - {row['a']}",
      label(row["task_set"]),
      f"{100 * row['difference']:+.1f}",
      _p(row["p_value"]),
      f"{row['only_b']} : {row['only_a']}" if row["only_a"] is not None else "-",
      row["method"],
    ]
    for row in data["comparisons"]
    if row["difference"] or row["p_value"] < 1
  ]
  line = 0.05 / max(1, len(data["comparisons"]))
  below = sum(row["p_value"] < line for row in data["comparisons"])
  return [
    Heading("Arms compared in pairs"),
    Text(
      "The same problems, so the tests are paired: McNemar's exact test for one seed, "
      "which compares the trained models, not the recipes (two trainings of one "
      "recipe differ too, so a small difference says little at any p); for several "
      "seeds, paired too, the paired t test over seeds, on these problems, which with "
      "two seeds finds next to nothing, however large. "
      f"There are {len(data['comparisons'])} tests, of which the {len(rows)} with a "
      f"difference are shown; Bonferroni's line for 5% is p = {line:.4f}, and {below} "
      "are below it."
    ),
    Table(
      ["arms", "tier", "points", "p", "only one solves", "test"],
      rows,
    ),
  ]


def _p(value: float) -> str:
  return f"{value:.3f}" if value >= 0.001 else f"{value:.0e}"
