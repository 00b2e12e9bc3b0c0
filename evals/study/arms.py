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

import dataclasses
from collections.abc import Callable, Mapping, Sequence

TEXTS = {
  "raw": "raw code",
  "filtered": "filtered code",
  "textbooks": "filtered code and textbooks",
}
# The arm of the whole recipe, and the control of how much pruning costs by size alone.
FULL, THINNED = "textbooks_exercises", "thinned"
_CONTROLS = {
  "shuffled": "exercises whose docstrings belong to other functions",
  "wrong": "exercises, of which some have the solution of another",
  "few": "few exercises, read many times",
  "leaked": "exercises among which test problems were planted",
}


@dataclasses.dataclass(frozen=True)
class Arm:
  """The training data of a model."""

  name: str  # of the arm
  text: str | None  # the text that it reads first, of `TEXTS`; None starts from scratch
  # the set of exercises that it reads then; None continues with the text
  exercises: str | None
  about: str  # a description for readers


def arms(taus: Sequence[float]) -> list[Arm]:
  """Return the arms of a study with these AST match rates of pruning."""
  sets = _CONTROLS | {THINNED: f"as few exercises as tau {min(taus):g} leaves"}
  sets |= {pruned(tau): f"exercises pruned at tau {tau:g}" for tau in taus}
  return [
    *(Arm(text, text, None, about) for text, about in TEXTS.items()),
    *(
      Arm(f"{text}_exercises", text, "main", f"{about}, then exercises")
      for text, about in TEXTS.items()
    ),
    Arm(
      "exercises_alone",
      None,
      "main",
      "exercises from scratch: fewer steps, no text before",
    ),
    *(
      Arm(name, "textbooks", name, f"{TEXTS['textbooks']}, then {about}")
      for name, about in sets.items()
    ),
  ]


def pruned(tau: float) -> str:
  """Return the name of the arm, and of the set, pruned at a match rate."""
  return f"pruned_{tau:g}"


_Share = Callable[[str, str], float]  # what an arm solves of a task set
_Prediction = tuple[str, Callable[[_Share], bool | None]]


def _less(low: float, high: float, factor: float = 1.0) -> bool | None:
  """Return whether `low` is below `factor` times `high`; None if both say nothing."""
  return None if high == 0 else low < factor * high


def _predictions(tiers: Sequence[str], strictest: float) -> list[_Prediction]:
  near, far = tiers[0], tiers[-1]

  def in_order(share: _Share) -> bool | None:
    found = [share(FULL, tier) for tier in tiers]
    if max(found) == 0:
      return None
    return found[0] == max(found) and found[-1] == min(found)

  def below_full(arm: str, factor: float = 1.0):
    return lambda share: _less(share(arm, near), share(FULL, near), factor)

  return [
    (
      "without exercises no arm solves 5% of the nearest tier",
      lambda share: max([share(text, near) for text in TEXTS]) < 0.05,
    ),
    (
      "textbooks before the exercises help more than raw code before them",
      below_full("raw_exercises"),
    ),
    (
      "filtering alone changes little: raw and filtered code before the exercises "
      "differ by less than 10 points",
      lambda share: (
        abs(share("raw_exercises", near) - share("filtered_exercises", near)) < 0.10
      ),
    ),
    (
      "exercises alone solve less than with textbooks before them (until the third run "
      "this said: half of the steps)",
      below_full("exercises_alone"),
    ),
    (
      "shuffled docstrings leave less than a quarter of the effect",
      below_full("shuffled", 0.25),
    ),
    ("wrong solutions cost something", below_full("wrong")),
    ("few exercises leave less than half of the effect", below_full("few", 0.5)),
    (
      "copying the solution of the nearest training docstring solves less than half of "
      "what the model does",
      below_full("nearest", 0.5),
    ),
    (
      "as few exercises as the strictest tau leaves, but drawn at random, are worth "
      "more than those (added before the second run)",
      lambda share: _less(share(pruned(strictest), near), share(THINNED, near)),
    ),
    ("the nearest tier is solved best and hand-written problems worst", in_order),
    (
      "hand-written problems stay below a third of the nearest tier",
      lambda share: _less(share(FULL, far), share(FULL, near), 1 / 3),
    ),
  ]


def verdicts(
  tiers: Sequence[str], strictest: float, shares: Mapping[str, Mapping[str, float]]
) -> list[dict[str, object]]:
  """Judge the predictions, which were written before the first run.

  Args:
    tiers: task sets of generated problems, from near to far: unseen triples, unseen
      pairs, reserved frames, longer; then the hand-written ones.
    strictest: the least tau of the pruning study.
    shares: arm -> task set -> share solved, over all seeds.

  Returns:
    A row per prediction: `text`, `holds` (None if a share is missing or both are 0),
    and the `numbers` used: arm, task set, share.
  """
  rows = []
  for text, holds in _predictions(tiers, strictest):
    numbers: dict[tuple[str, str], float | None] = {}

    def share(arm: str, task_set: str, numbers=numbers) -> float:
      numbers[arm, task_set] = shares.get(arm, {}).get(task_set)
      return shares[arm][task_set]

    try:
      held = holds(share)
    except KeyError:
      held = None
    used = [[*key, value] for key, value in numbers.items()]
    rows.append({"text": text, "holds": held, "numbers": used})
  return rows
