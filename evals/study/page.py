"""The page of a study: question, results, limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from evals.study import caveats, document, figures, score_sections
from evals.study.arms import FULL
from evals.study.document import Block, Code, Figure, Heading, Points, Table, Text
from evals.study.score_sections import label, percent, sizes
from phi1_jax.storage import AnyPath

NAME = "study"
FORMAT = 4  # of study.json
_MAIN = (
  "raw",
  "filtered",
  "textbooks",
  "raw_exercises",
  "filtered_exercises",
  FULL,
  "exercises_alone",
)


def write(data: Mapping[str, Any], folder: AnyPath, name: str = NAME) -> list[AnyPath]:
  """Write the page of study.json as NAME.html and NAME.md; return the files."""
  return document.write(blocks(data), folder, name)


def blocks(data: Mapping[str, Any]) -> list[Block]:
  """Return the blocks of the page."""
  return [
    *_head(data),
    *score_sections.in_short(data),
    *score_sections.scores(data),
    *score_sections.paired(data),
    *_predictions(data),
    *_pruning(data),
    *_leak(data),
    *_learning(data),
    *_other_rulers(data),
    *_examples(data),
    *_meaning(data["config"]),
    *_cost(data),
  ]


def _head(data: Mapping[str, Any]) -> list[Block]:
  config, where = data["config"], data["where"]
  several = "s" * (len(config["seeds"]) > 1)
  seeds = f"seed{several} {', '.join(map(str, config['seeds']))}"
  return [
    Heading("The claim of phi-1 in miniature", 1),
    Text(
      'The paper ("Textbooks Are All You Need", 2023) says that a small model trained '
      "on textbook-quality data beats larger ones trained on more. Its Figure 2.1 "
      "compares raw code, filtered code with textbooks, and both followed by "
      "exercises. Here are the same arms with models of "
      + ", ".join(
        f"{n:,} parameters" for n in sorted({r["parameters"] for r in data["runs"]})
      )
      + f", {config['steps']:,} steps each ({config['text_steps']:,} on text where "
      f"exercises follow; `exercises_alone` leaves these out), {seeds}, and controls "
      "that say what the effect is due to."
    ),
    Text(
      f"Commit {', '.join(where['commits'])}; {where['when']}, {where['machine']}, "
      f"Python {where['python']}, JAX {where['versions']['jax']}. **No language model "
      "wrote or judged the data**: the teacher is a grammar, and its textbooks speak "
      "the language of its exercises. Pairs of arms, pruning and the leak are of the "
      "first size named."
    ),
  ]


def _predictions(data: Mapping[str, Any]) -> list[Block]:
  said = {True: "held", False: "did not hold", None: "cannot be said"}
  return [
    Heading("Predictions"),
    Text(
      "Written into the code (`evals/study/arms.py`, whose history shows when) "
      "before the study's first run, but for what is marked. Trials of single models, "
      "and later two runs with other recipes, were known when the recipe was last "
      "changed; see docs/log. Judged by the shares alone: a difference of one "
      "problem decides."
    ),
    Table(
      ["prediction", "came true?", "percent solved"],
      [
        [row["text"], said[row["holds"]], _numbers(row["numbers"])]
        for row in data["predictions"]
      ],
    ),
  ]


def _numbers(numbers: Sequence[Sequence[Any]]) -> str:
  """Return each number with its arm, and with its task set if they differ."""
  several = len({task_set for _, task_set, _ in numbers}) > 1
  shown = []
  for arm, task_set, value in numbers:
    of = f" of {label(task_set)}" * several
    shown.append(f"{arm} {'-' if value is None else f'{100 * value:.0f}'}{of}")
  return ", ".join(shown)


def _pruning(data: Mapping[str, Any]) -> list[Block]:
  rows = [
    [
      f"{row['tau']:g}",
      f"{row['removed']:,} of {row['read']:,} ({row['share']:.1%})",
      f"{row['times_read']:.1f}",
      subset["subset"],
      str(subset["n"]),
      percent(subset["before"]),
      percent(subset["after"]),
      percent(subset.get("thinned")),
    ]
    for row in data["pruning"]
    for subset in row["subsets"]
  ]
  return [
    Heading("Pruned exercises (the paper's Table 3)"),
    Text(
      "Exercises that are close to a problem of the ruler are removed, and the model "
      "is finetuned again for as many steps, so it reads what is left more often: "
      "beside likeness, this prunes number and kinds of exercises. What number alone "
      "costs, says an arm with as few as the strictest tau leaves, drawn at random; "
      "no arm tells likeness from lost kinds. Copies of problems are missing in all "
      "arms. Problems of the three nearest tiers, split by whether any exercise was "
      "close to them. The paper removed 4.8% (tau 0.95) to 40.3% (0.8) and lost 0 to "
      "5.5 points."
    ),
    Table(
      [
        *("tau", "removed", "times read", "problems", "n"),
        *("all exercises", "pruned", "as few at random"),
      ],
      rows,
    ),
  ]


def _leak(data: Mapping[str, Any]) -> list[Block]:
  leak = data["leak"]
  rows = [
    [
      f"{kind} ({before['n']})",
      percent(before),
      percent(leak["shares"]["with"][kind]),
    ]
    for kind, before in leak["shares"]["without"].items()
  ]
  return [
    Heading("A planted leak"),
    Text(
      f"{leak['planted']} problems of the tier {label(leak['task_set'])} were copied "
      f"into the exercises of one arm, {leak['copies']} times each, letter by letter: "
      "so often and so plainly that they had to be seen. Decontamination found "
      f"{leak['found']} of {leak['planted']} as copies (and took "
      f"{leak['others_dropped']:,} other exercises for their likeness to some "
      "problem). Let through, they change this; a problem is similar where "
      "decontamination finds an exercise of the leaked set close to it:"
    ),
    Table(["problems", "without the leak", "with it"], rows),
  ]


def _learning(data: Mapping[str, Any]) -> list[Block]:
  size, seed = sizes(data)[0], data["config"]["seeds"][0]
  main = [run for run in data["runs"] if run["arm"] in _MAIN]
  shown = [run for run in main if (run["size"], run["seed"]) == (size, seed)]
  return [
    Heading("Learning"),
    Figure(
      "loss",
      figures.curves(shown),
      f"Training loss of the main arms ({size}, seed {seed}), each on its own data: "
      "losses on different data do not compare.",
    ),
    Figure(
      "compute",
      figures.compute([run for run in main if run["seed"] == seed], data["tiers"][0]),
      f"Score on {label(data['tiers'][0])} against training compute, at an earlier "
      "checkpoint, while the learning rate is still falling, and at the end.",
    ),
  ]


def _other_rulers(data: Mapping[str, Any]) -> list[Block]:
  seed = data["config"]["seeds"][0]
  runs = [run for run in data["runs"] if run["seed"] == seed]
  kinds = sorted({kind for run in runs for kind in run["loss"]} - {"all"})
  near = data["tiers"][0]
  far = list(
    dict.fromkeys(n for r in runs for n in r["scores"] if n not in data["tiers"])
  )
  rows = [
    [
      run["arm"] + (f" {run['size']}" if len(sizes(data)) > 1 else ""),
      percent(run["scores"][near]["valid_syntax"]),
      percent(run["scores"][near]["runs"]),
      *(f"{run['loss'][kind]['nats_per_byte']:.3f}" for kind in kinds),
      *(_count(run["scores"].get(name)) for name in far),
    ]
    for run in runs
  ]
  found: list[Block] = [
    Heading("Other rulers"),
    Text(
      f"Seed {seed}. Share of completions of {label(near)} that parse, and that run "
      "without an exception; held-out loss in nats per byte on each kind of text "
      "(docstrings too, most of which nobody can foresee, so equal losses go with very "
      "different scores); and problems solved of sets that nothing here was trained "
      "towards. Most of these are out of reach by length alone: models read short "
      f"sequences in training, and a completion may have "
      f"{data['config']['max_new_tokens']} tokens."
    ),
    Table(
      ["arm", "parses, %", "runs, %", *(f"loss: {k}" for k in kinds), *far],
      rows,
    ),
  ]
  sampled = [run for run in runs if run["sampled"]]
  if sampled:
    names = [name for name in sampled[0]["sampled"] if name.startswith("pass@")]
    found.append(
      Table(
        ["arm, sampled at temperature 0.8", *names],
        [[r["arm"], *(percent(r["sampled"][n]) for n in names)] for r in sampled],
      )
    )
  return found


def _count(found: Mapping[str, Any] | None) -> str:
  return "-" if found is None else f"{len(found['solved'])} of {found['total']}"


def _examples(data: Mapping[str, Any]) -> list[Block]:
  found: list[Block] = [
    Heading("Examples"),
    Text(
      f"The first problem of each tier that `{FULL}` solves, and that it does not "
      f"(seed {data['config']['seeds'][0]})."
    ),
  ]
  for row in data["examples"]:
    said = "passes its tests" if row["outcome"] == "passed" else row["outcome"]
    detail = f" ({row['detail']})" if row["detail"] else ""
    found += [
      Text(f"**{label(row['task_set'])}**: {said}{detail}"),
      Code(row["prompt"] + row["completion"].rstrip()),
    ]
  return found


def _meaning(config: Mapping[str, Any]) -> list[Block]:
  text = config["text_steps"]
  share = (
    f"Arms with exercises spend {text:,} steps on text and "
    f"{config['steps'] - text:,} on exercises. The paper spends four steps on text for "
    "each on exercises, with four times the batch: what text, and textbooks above all, "
    "gives to a model is hardly asked here."
  )
  return [
    Heading("What this shows, and what it does not"),
    Points([*caveats.MEANING, share]),
    Heading("What the paper leaves open, and what was chosen", 3),
    Points(list(caveats.CHOICES)),
  ]


def _cost(data: Mapping[str, Any]) -> list[Block]:
  runs = [
    [
      run["name"],
      f"{run['parameters']:,}",
      f"{run['steps']:,}",
      f"{run['tokens']['text']:,.0f}",
      f"{run['tokens']['exercises']:,.0f}",
      f"{run['flops']:.1e}",
      f"{run['seconds']:.0f}",
    ]
    for run in data["runs"]
  ]
  stores = [
    [name, f"{each['documents']:,}", f"{each['tokens']:,}"]
    for name, each in data["sets"]["stores"].items()
  ]
  return [
    Heading("What was trained, on what"),
    Table(
      [
        "run",
        "parameters",
        "steps",
        "text tokens",
        "exercise tokens",
        "FLOPs",
        "s, own steps",
      ],
      runs,
    ),
    Text(f"Settings: {_settings(data['config'])}."),
    Text("Sets, as tokens; an arm may read a part of one, or one more than once."),
    Table(["set", "documents", "tokens"], stores),
    Text(
      f"All {len(data['steps'])} steps together took "
      f"{_minutes(sum(data['steps'].values()))} of one worker's time, without what was "
      "stopped and begun again; tokens and FLOPs of a run count the text that it "
      "started from."
    ),
  ]


def _settings(config: Mapping[str, Any]) -> str:
  return ", ".join(f"`{name}` {value}" for name, value in config.items())


def _minutes(seconds: float) -> str:
  return f"{seconds / 60:.0f} minutes"
