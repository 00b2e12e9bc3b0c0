"""Settings of an evaluation (gin name: `Evaluation`)."""

import dataclasses
from typing import Annotated

from evals.task_sets import KNOWN, benchmark_of
from phi1_jax.model import DType
from phi1_jax.settings import Count, NotNegative, PositiveInt, Range, Settings

# Prompt styles that suit a benchmark (see evals/prompts.py).
PROMPT_STYLES = {
  "humaneval": ("as-is", "stripped", "chat"),
  "mbpp": ("docstring-one-test", "paper-3shot", "phi-docstring", "chat"),
  "exercises": ("as-is", "stripped"),
  "unconventional": ("as-is", "stripped", "chat"),
  "doctests": ("as-is", "stripped"),
  "humaneval+": ("as-is", "stripped", "chat"),
  "mbpp+": ("docstring-one-test", "phi-docstring", "chat"),
  "custom": ("as-is", "stripped", "docstring-one-test", "chat"),
}


@dataclasses.dataclass(frozen=True)
class EvaluationConfig(Settings):
  """One benchmark, one way to ask, one way to sample (gin name: `Evaluation`).

  Attributes:
    task_set: exact name of the problems; names are never merged in one column.
    prompt_style: how a problem is put to the model (see evals/prompts.py).
    samples: completions per problem; 1 if greedy.
    temperature: 0 is greedy.
    top_p: the most likely tokens with this much probability together are kept; None
      keeps all.
    top_k: this many of the most likely tokens are kept; None keeps all.
    max_new_tokens: a completion that has not ended by then is cut.
    seed: together with a sample's key it decides the sample's random numbers.
    ks: the k of pass@k; none above `samples`.
    dtype: what a checkpoint computes in; None is what it was trained in. Greedy text
      differs between dtypes.
    slots: completions that are decoded, or asked for, at the same time.
    workers: sandboxes that judge at the same time; 0 is one per core.
    memory_bytes: address space that a judged program may take.
  """

  task_set: str
  prompt_style: str
  samples: PositiveInt = 1
  temperature: NotNegative = 0.0
  top_p: Annotated[float, Range(above=0, most=1)] | None = None
  top_k: PositiveInt | None = None
  max_new_tokens: PositiveInt = 512
  seed: Count = 0
  ks: tuple[PositiveInt, ...] = (1,)
  dtype: DType | None = None
  slots: PositiveInt = 32
  workers: Count = 0
  memory_bytes: Annotated[int, Range(least=1 << 26)] = 1 << 30

  def __post_init__(self):
    super().__post_init__()
    benchmark = benchmark_of(self.task_set)
    if benchmark is None:
      raise self.wrong("task_set", f"one of {', '.join(KNOWN)}")
    styles = PROMPT_STYLES[benchmark]
    if self.prompt_style not in styles:
      raise self.wrong(
        "prompt_style", f"one of {', '.join(styles)} for {self.task_set}"
      )
    if self.top_p is not None and self.top_k is not None:
      raise self.wrong("top_k", f"None beside top_p = {self.top_p}")
    if not self.ks or max(self.ks) > self.samples:
      raise self.wrong("ks", f"numbers from 1 to samples = {self.samples}")
    if self.temperature:
      return
    if self.samples > 1:
      raise self.wrong("samples", "1 at temperature 0: all would be equal")
    if self.top_p or self.top_k:
      raise self.wrong("temperature", "more than 0 (greedy) beside top_p or top_k")
    if self.seed:
      raise self.wrong("seed", "0 at temperature 0, where no number is drawn")

  def sampling(self) -> dict[str, float | int | str | None]:
    """What decides, beside model, prompt and seed, which text is sampled."""
    names = ("temperature", "top_p", "top_k", "max_new_tokens")
    return {name: getattr(self, name) for name in names}
