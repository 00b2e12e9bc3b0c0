"""The arms of a study.

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
from collections.abc import Sequence

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
  alone = "exercises from scratch: fewer steps, no text before"
  return [
    *(Arm(text, text, None, about) for text, about in TEXTS.items()),
    *(
      Arm(f"{text}_exercises", text, "main", f"{about}, then exercises")
      for text, about in TEXTS.items()
    ),
    Arm("exercises_alone", None, "main", alone),
    *(
      Arm(name, "textbooks", name, f"{TEXTS['textbooks']}, then {about}")
      for name, about in sets.items()
    ),
  ]


def pruned(tau: float) -> str:
  """Return the name of the arm, and of the set, pruned at a match rate."""
  return f"pruned_{tau:g}"
