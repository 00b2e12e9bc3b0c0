"""Settings of an evaluation, and the names of task sets."""

import dataclasses
import math

from evals import exercises, real_functions
from phi1_jax import InputError
from phi1_jax.model import DTYPES
from phi1_jax.problems import evalplus, humaneval, mbpp, written

# Prompt styles that suit a benchmark; evals/prompts.py says what they are.
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
TASK_SETS = {
  "humaneval": (humaneval.TASK_SET,),
  "mbpp": tuple(mbpp.TASK_SETS),
  "humaneval+": tuple(n for n in evalplus.TASK_SETS if n.startswith("humaneval")),
  "mbpp+": tuple(n for n in evalplus.TASK_SETS if n.startswith("mbpp")),
  "exercises": exercises.TASK_SETS,
  "unconventional": (written.UNCONVENTIONAL,),
  "doctests": (real_functions.TASK_SET,),
}
CUSTOM = "custom-"  # begins the name of a task set that the user gave as a file


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
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
  samples: int = 1
  temperature: float = 0.0
  top_p: float | None = None
  top_k: int | None = None
  max_new_tokens: int = 512
  seed: int = 0
  ks: tuple[int, ...] = (1,)
  dtype: str | None = None
  slots: int = 32
  workers: int = 0
  memory_bytes: int = 1 << 30

  def __post_init__(self):
    """Refuses what cannot be run or scored, by name."""
    known = [name for names in TASK_SETS.values() for name in names]
    if self.task_set not in known and not self.task_set.startswith(CUSTOM):
      raise _error("task_set", self.task_set, f"one of {', '.join(known)}")
    styles = PROMPT_STYLES[benchmark_of(self.task_set)]
    if self.prompt_style not in styles:
      expected = f"one of {', '.join(styles)} for {self.task_set}"
      raise _error("prompt_style", self.prompt_style, expected)
    for name, least in (
      ("samples", 1),
      ("max_new_tokens", 1),
      ("slots", 1),
      ("workers", 0),
      ("memory_bytes", 1 << 26),
      ("top_k", 1),
      ("seed", 0),
    ):
      value = getattr(self, name)
      if value is not None and value < least:
        raise _error(name, value, f"at least {least}")
    if not (math.isfinite(self.temperature) and self.temperature >= 0):
      raise _error("temperature", self.temperature, "a number >= 0")
    if self.top_p is not None and not 0 < self.top_p <= 1:
      raise _error("top_p", self.top_p, "a number in (0, 1], or None")
    if self.top_p is not None and self.top_k is not None:
      raise _error("top_k", self.top_k, f"None beside top_p = {self.top_p}")
    if self.dtype not in (None, *DTYPES):
      raise _error("dtype", self.dtype, f"None or one of {', '.join(DTYPES)}")
    if self.temperature == 0 and self.samples > 1:
      raise _error("samples", self.samples, "1 at temperature 0: all would be equal")
    if self.temperature == 0 and (self.top_p or self.top_k):
      raise InputError(
        "Evaluation.temperature: got 0 (greedy) beside top_p or top_k, which then do "
        "nothing; give a temperature, or leave them out"
      )
    if self.temperature == 0 and self.seed:
      raise _error("seed", self.seed, "0 at temperature 0, where no number is drawn")
    for k in self.ks or (0,):
      if not 1 <= k <= self.samples:
        raise _error("ks", self.ks, f"numbers from 1 to samples = {self.samples}")

  def sampling(self) -> dict[str, float | int | str | None]:
    """What decides, beside model, prompt and seed, which text is sampled."""
    names = ("temperature", "top_p", "top_k", "max_new_tokens")
    return {name: getattr(self, name) for name in names}


def benchmark_of(task_set: str) -> str:
  """Return the name of the benchmark that a task set belongs to, e.g. "humaneval"."""
  if task_set.startswith(CUSTOM):
    return "custom"
  return next(name for name, sets in TASK_SETS.items() if task_set in sets)


def _error(name: str, got: object, expected: str) -> InputError:
  return InputError(f"Evaluation.{name}: got {got!r}, expected {expected}")
