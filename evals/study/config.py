"""Settings of a study (gin name: `Study`), and its arms.

All arms but one take the same number of steps. An arm without exercises spends them on
text; one with exercises starts from the same run after `Study.text_steps` of them, and
spends the others on exercises, as phi-1 was finetuned from a checkpoint before the end.
In the controls, other exercises take the place of those of the full recipe.
"""

import dataclasses
from collections.abc import Sequence
from typing import Annotated

from evals import task_sets
from phi1_jax.settings import Count, PositiveInt, Range, Settings

Fraction = Annotated[float, Range(above=0, below=1)]
TEXTS = {
  "raw": "raw code",  # "The Stack" in the paper's Figure 2.1
  "filtered": "filtered code",
  "textbooks": "filtered code and textbooks",  # "CodeTextbook"
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
class StudyConfig(Settings):
  """The arms of the paper's Figure 2.1, its Table 3, and controls, in miniature.

  Attributes:
    recipe: gin file of a training; each run adds its own data and steps.
    models: size -> gin file of a model.
    steps: training steps of an arm.
    text_steps: those of them that are spent on text before exercises.
    seeds: of the trainings of each arm. A finished study can be resumed with more of
      them, if the first stays.
    data_seed: of the exercises, the textbooks and the controls.
    exercises: number of exercises.
    sections: number of textbook sections.
    raw_documents: modules of raw code, chosen by hash; fewer than 300 leave too few
      labels to test the classifier on.
    vocabulary_size: of the BPE of all arms, trained on some raw code, the textbooks
      and the exercises.
    wrong_share: share of solutions that are exchanged in the control "wrong".
    few: exercises of the control "few"; fewer than 50 do not fill a window of tokens.
    leaks: test problems that are planted in the arm "leaked".
    leak_copies: copies of each.
    taus: AST match rates of the pruning study.
    distance: the largest distance of embeddings at which a weaker match counts in it.
      Embeddings are the last hidden state of the first model after `text_steps`, of
      unit length. The default let 1 in 1,000 random pairs pass, and 2 of 3 renamed
      copies, where it was measured (docs/log: another recipe, 0.7M tokens of raw code).
    max_new_tokens: of a completion; solutions of the test problems are short.
    sampled: completions per problem of the nearest tier for pass@k; 0 leaves it out.
    benchmarks: whether the arms of the paper's figure are judged on HumanEval, and on
      MBPP if it is there.
    jobs: steps at a time, each on its share of the cores; 0 is one per core. With an
      accelerator, which they share, give a number.
  """

  recipe: str
  models: dict[str, str]
  steps: Annotated[int, Range(least=4)]
  text_steps: PositiveInt
  seeds: tuple[Count, ...] = (0,)
  data_seed: int = 0
  exercises: Annotated[int, Range(least=100)] = 12_000
  sections: PositiveInt = 2_000
  raw_documents: Annotated[int, Range(least=300)] = 1_000
  vocabulary_size: int = 1024
  wrong_share: Fraction = 0.3
  few: Annotated[int, Range(least=50)] = 300
  leaks: Annotated[int, Range(least=1, most=task_sets.NUMBER)] = 20
  leak_copies: PositiveInt = 20
  taus: tuple[Fraction, ...] = (0.95, 0.9, 0.85, 0.8)
  distance: Annotated[float, Range(above=0, most=2)] = 0.07
  max_new_tokens: PositiveInt = 128
  sampled: Count = 0
  benchmarks: bool = True
  jobs: Count = 0

  def __post_init__(self):
    super().__post_init__()
    if self.sampled == 1:
      raise self.wrong("sampled", "0, or at least 2")
    if self.text_steps % 2 or self.text_steps >= self.steps:
      raise self.wrong("text_steps", f"an even number below Study.steps = {self.steps}")
    if self.steps % self.text_steps:
      raise self.wrong("steps", f"a multiple of Study.text_steps = {self.text_steps}")
    if not self.models or not all(size.isalnum() for size in self.models):
      raise self.wrong("models", "gin files by sizes of letters and digits, as '1M'")
    several = {"seeds": self.seeds, "taus": [f"{tau:g}" for tau in self.taus]}
    for name, values in several.items():
      if not values or len(set(values)) < len(values):
        raise self.wrong(name, "different numbers, at least one")
    if self.few >= self.exercises:
      raise self.wrong("few", f"fewer than Study.exercises = {self.exercises}")


@dataclasses.dataclass(frozen=True)
class Arm:
  """The training data of a model."""

  name: str
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
