"""The arms of a study, and predictions written down before they were trained.

All arms but one take the same number of steps. An arm without exercises spends them on
text; one with exercises starts from the same run after `Study.text_steps` of them, and
spends the others on exercises, as phi-1 was finetuned from a checkpoint before the end.

    raw                  raw code                        Figure 2.1, "The Stack"
    filtered             what the classifier kept
    textbooks            filtered code and textbooks     "CodeTextbook"
    *_exercises          some of that, then exercises    "... then CodeExercises"

The controls take the place of the exercises in the last of these, but for one:

    exercises_alone      as many steps on them, and no text before
    shuffled             docstrings belong to other functions
    wrong                a share of the solutions belong to other exercises
    few                  few exercises, read many times
    leaked               some test problems among the exercises
    pruned_T             without what is close to a test problem at tau T
    thinned              as few as the strictest T leaves, drawn at random
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

TEXTS = ("raw", "filtered", "textbooks")
# The arm of the whole recipe, and the one that says what pruning costs by size alone.
FULL, THINNED = "textbooks_exercises", "thinned"


@dataclasses.dataclass(frozen=True)
class Arm:
  """The training data of a model.

  Attributes:
    name: of the arm.
    text: one of `TEXTS` that it reads first; None starts from scratch.
    exercises: the set of exercises that it reads then; None goes on with the text.
    about: what it is, for a reader.
  """

  name: str
  text: str | None
  exercises: str | None
  about: str


_TEXT_ABOUT = {
  "raw": "raw code",
  "filtered": "filtered code",
  "textbooks": "filtered code and textbooks",
}
_CONTROLS = {
  "shuffled": "exercises whose docstrings belong to other functions",
  "wrong": "exercises, of which some have the solution of another",
  "few": "few exercises, read many times",
  "leaked": "exercises among which test problems were planted",
}


def arms(taus: Sequence[float]) -> list[Arm]:
  """Return the arms of a study with these AST match rates of pruning."""
  best = _TEXT_ABOUT["textbooks"]
  controls = _CONTROLS | {THINNED: f"as few exercises as tau {min(taus):g} leaves"}
  return [
    *(Arm(text, text, None, _TEXT_ABOUT[text]) for text in TEXTS),
    *(
      Arm(f"{text}_exercises", text, "main", f"{_TEXT_ABOUT[text]}, then exercises")
      for text in TEXTS
    ),
    Arm(
      "exercises_alone",
      None,
      "main",
      "exercises from scratch: fewer steps, no text before",
    ),
    *(
      Arm(name, "textbooks", name, f"{best}, then {about}")
      for name, about in controls.items()
    ),
    *(
      Arm(
        pruned(tau),
        "textbooks",
        pruned(tau),
        f"{best}, then exercises pruned at tau {tau:g}",
      )
      for tau in taus
    ),
  ]


def pruned(tau: float) -> str:
  """Return the name of the arm, and of the set, pruned at a match rate."""
  return f"pruned_{tau:g}"


# Share of problems that an arm solves, or None where it was not judged on them.
Share = Callable[[str, str], float | None]


@dataclasses.dataclass(frozen=True)
class Prediction:
  """A prediction from before any model of the study was trained.

  Attributes:
    text: the prediction.
    holds: whether it holds, given the share that each arm solves of a task set; None
      if a share is missing.
  """

  text: str
  holds: Callable[[Share], bool | None]


def _less(
  one: str, other: str, factor: float = 1.0, of: str = "", of_one: str = ""
) -> Callable:
  """Return a test that arm `one` solves less than `factor` times the share of `other`.

  The task set is `of`, and `of_one` for `one` if given.
  """

  def holds(share: Share) -> bool | None:
    low, high = share(one, of_one or of), share(other, of)
    if low is None or high is None:
      return None
    return None if high == 0 else low < factor * high

  return holds


def predictions(tiers: Sequence[str], strictest: float) -> list[Prediction]:
  """Return the predictions, which were written before the first run.

  Args:
    tiers: task sets of generated problems, from near to far: unseen triples, unseen
      pairs, reserved frames, longer; then the hand-written ones.
    strictest: the least tau of the pruning study.
  """
  near, far = tiers[0], tiers[-1]

  return [
    Prediction(
      "without exercises no arm solves 5% of the nearest tier", _unsolved(near)
    ),
    Prediction(
      "textbooks before the exercises help more than raw code before them",
      _less("raw_exercises", FULL, of=near),
    ),
    Prediction(
      "filtering alone changes little: raw and filtered code before the exercises "
      "differ by less than 10 points",
      _within("raw_exercises", "filtered_exercises", 0.10, near),
    ),
    Prediction(
      "exercises alone solve less than with textbooks before them (until the third run "
      "this said: half of the steps)",
      _less("exercises_alone", FULL, of=near),
    ),
    Prediction(
      "shuffled docstrings leave less than a quarter of the effect",
      _less("shuffled", FULL, 0.25, near),
    ),
    Prediction("wrong solutions cost something", _less("wrong", FULL, of=near)),
    Prediction(
      "few exercises leave less than half of the effect", _less("few", FULL, 0.5, near)
    ),
    Prediction(
      "copying the solution of the nearest training docstring solves less than half of "
      "what the model does",
      _less("nearest", FULL, 0.5, near),
    ),
    Prediction(
      "as few exercises as the strictest tau leaves, but drawn at random, are worth "
      "more than those (added before the second run)",
      _less(pruned(strictest), THINNED, of=near),
    ),
    Prediction(
      "the nearest tier is solved best and hand-written problems worst",
      _in_order(tiers),
    ),
    Prediction(
      "hand-written problems stay below a third of the nearest tier",
      _less(FULL, FULL, 1 / 3, near, of_one=far),
    ),
  ]


def _unsolved(near: str) -> Callable:
  """Return a test that no arm of text alone solves 5% of a tier."""

  def holds(share: Share) -> bool | None:
    found = [share(text, near) for text in TEXTS]
    return None if None in found else max(f for f in found if f is not None) < 0.05

  return holds


def _in_order(tiers: Sequence[str]) -> Callable:
  """Return a test that the first tier is solved best, and the last worst."""

  def holds(share: Share) -> bool | None:
    found = [share(FULL, tier) for tier in tiers]
    known = [f for f in found if f is not None]
    if len(known) < len(found) or max(known) == 0:
      return None
    return known[0] == max(known) and known[-1] == min(known)

  return holds


def _within(one: str, other: str, most: float, of: str) -> Callable:
  def holds(share: Share) -> bool | None:
    a, b = share(one, of), share(other, of)
    return None if a is None or b is None else abs(a - b) < most

  return holds


def verdicts(
  tiers: Sequence[str], strictest: float, shares: Mapping[str, Mapping[str, float]]
) -> list[dict[str, object]]:
  """Return a row per prediction: its text, whether it holds, and the numbers used.

  Args:
    tiers: see `predictions`.
    strictest: see `predictions`.
    shares: arm -> task set -> share solved, over all seeds.
  """
  return [_verdict(p, shares) for p in predictions(tiers, strictest)]


def _verdict(
  prediction: Prediction, shares: Mapping[str, Mapping[str, float]]
) -> dict[str, object]:
  numbers: dict[tuple[str, str], float | None] = {}

  def share(arm: str, task_set: str) -> float | None:
    numbers[arm, task_set] = found = shares.get(arm, {}).get(task_set)
    return found

  holds = prediction.holds(share)
  told = [[*key, value] for key, value in numbers.items()]
  return {"text": prediction.text, "holds": holds, "numbers": told}
