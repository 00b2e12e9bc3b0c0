"""Settings of a study: the gin name `Study`."""

from __future__ import annotations

import dataclasses
import math

from evals import exercises
from phi1_jax import InputError


@dataclasses.dataclass(frozen=True)
class StudyConfig:
  """The arms of the paper's Figure 2.1, its Table 3, and controls, in miniature.

  Attributes:
    recipe: gin file of a training; each run adds its own data and steps.
    models: size -> gin file of a model.
    steps: training steps of an arm.
    text_steps: those of them that are spent on text before exercises.
    seeds: of the trainings of each arm. A finished study goes on with more of them, if
      the first stays.
    data_seed: of the exercises, the textbooks and the controls.
    exercises: number of exercises.
    sections: number of textbook sections.
    raw_documents: modules of the raw pool, chosen by hash.
    vocabulary_size: of the BPE of all arms, trained on some raw code, the textbooks
      and the exercises.
    wrong_share: share of solutions that are exchanged in the control "wrong".
    few: exercises of the control "few".
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
  steps: int
  text_steps: int
  seeds: tuple[int, ...] = (0,)
  data_seed: int = 0
  exercises: int = 12_000
  sections: int = 2_000
  raw_documents: int = 1_000
  vocabulary_size: int = 1024
  wrong_share: float = 0.3
  few: int = 300
  leaks: int = 20
  leak_copies: int = 20
  taus: tuple[float, ...] = (0.95, 0.9, 0.85, 0.8)
  distance: float = 0.07
  max_new_tokens: int = 128
  sampled: int = 0
  benchmarks: bool = True
  jobs: int = 0

  def __post_init__(self):
    """Refuse values that no study can be made of."""
    for name, least in (
      ("steps", 4),
      ("exercises", 100),
      ("sections", 1),
      ("raw_documents", 300),  # fewer leave too few labels to test on
      ("few", 50),  # fewer do not fill one window of tokens
      ("leaks", 1),
      ("leak_copies", 1),
      ("max_new_tokens", 1),
      ("jobs", 0),
    ):
      if getattr(self, name) < least:
        raise _error(name, getattr(self, name), f"at least {least}")
    if self.sampled < 0 or self.sampled == 1:
      raise _error("sampled", self.sampled, "0, or at least 2")
    if self.text_steps % 2 or not 0 < self.text_steps < self.steps:
      expected = f"an even number below Study.steps = {self.steps}"
      raise _error("text_steps", self.text_steps, expected)
    if self.steps % self.text_steps:
      expected = f"a multiple of Study.text_steps = {self.text_steps}"
      raise _error("steps", self.steps, expected)
    if not self.models:
      raise _error("models", self.models, "size -> gin file of a model")
    different = len(set(self.seeds)) == len(self.seeds) > 0
    if not different or min(self.seeds) < 0:
      raise _error("seeds", self.seeds, "different numbers from 0, at least one")
    if not (math.isfinite(self.wrong_share) and 0 < self.wrong_share < 1):
      raise _error("wrong_share", self.wrong_share, "a number between 0 and 1")
    different = len({f"{tau:g}" for tau in self.taus}) == len(self.taus) > 0
    if not different or not all(0 < tau < 1 for tau in self.taus):
      raise _error("taus", self.taus, "different numbers between 0 and 1, at least one")
    if not 0 < self.distance <= 2:
      raise _error("distance", self.distance, "above 0 and at most 2")
    if self.leaks > exercises.NUMBER:
      raise _error("leaks", self.leaks, f"at most {exercises.NUMBER}: one task set's")
    if self.few >= self.exercises:
      raise _error("few", self.few, f"fewer than Study.exercises = {self.exercises}")
    for size in self.models:
      if not size.isalnum():
        raise _error("models", size, "sizes of letters and digits, such as '1M'")


def _error(name: str, got: object, expected: str) -> InputError:
  return InputError(f"Study.{name}: got {got!r}, expected {expected}")
