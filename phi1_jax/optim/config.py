"""Configuration of the optimizer."""

import dataclasses

from phi1_jax import InputError

_CHOICES = {
  "name": ("adamw", "muon"),
  "schedule": ("linear", "cosine", "wsd"),
  "decay": ("matrices", "all"),
  "moment_dtype": (None, "float32", "bfloat16"),
}
_POSITIVE = ("peak_learning_rate", "epsilon", "clip_norm")


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
  """AdamW or Muon, with a warmup and a schedule (gin name: `Optimizer`).

  The paper trained with AdamW, linear warmup and linear decay. It gives the learning
  rates, warmup and weight decay (pretraining 1e-3, 750 steps, 0.1; finetuning 1e-4, 50
  steps, 0.01); it does not give beta1, beta2, epsilon, the clipping, or whether biases
  decay. Those defaults are this project's choice.

  Attributes:
    peak_learning_rate: learning rate at the end of the warmup.
    warmup_steps: steps from 0 to the peak.
    weight_decay: decoupled; multiplied by the learning rate.
    beta1: decay of the mean of gradients.
    beta2: decay of the mean of squared gradients.
    epsilon: added to the root of the latter.
    clip_norm: gradients are scaled down to this global norm.
    decay: "matrices" decays kernels and embeddings, "all" every parameter.
    end_learning_rate_fraction: share of the peak that is left at the last step.
    schedule: from the peak to the end. "linear"; "cosine", half a wave; "wsd"
      (warmup, stable, decay: MiniCPM, arXiv 2404.06395) stays at the peak and falls
      linearly in the last `decay_steps`. MiniCPM's own decay is exponential.
    decay_steps: for "wsd" only, which needs it.
    name: "adamw", or "muon" (Jordan 2024): the matrices of the layers move by their
      momentum, made orthogonal per layer and scaled to the size of AdamW's updates
      (arXiv 2502.16982), so that both take the same rates. Embedding, head, norms and
      biases stay with AdamW. Muon's momentum decays by 0.95.
    moment_dtype: of the means of gradients: "float32", or "bfloat16", which takes half
      the memory; None is that of the parameters.
  """

  peak_learning_rate: float
  warmup_steps: int
  weight_decay: float
  beta1: float = 0.9
  beta2: float = 0.95
  epsilon: float = 1e-8
  clip_norm: float = 1.0
  decay: str = "matrices"
  end_learning_rate_fraction: float = 0.0
  schedule: str = "linear"
  decay_steps: int | None = None
  name: str = "adamw"
  moment_dtype: str | None = None

  def __post_init__(self):
    """Refuse values out of range, and settings without effect."""
    values = dataclasses.asdict(self)
    if type(self.warmup_steps) is not int or self.warmup_steps < 0:
      raise _error("warmup_steps", self.warmup_steps, "an integer >= 0")
    for names, fits, expected in (
      (_POSITIVE, lambda x: x > 0, "a positive number"),
      (("weight_decay",), lambda x: x >= 0, "a number >= 0"),
      (("beta1", "beta2"), lambda x: 0 <= x < 1, "a number in [0, 1)"),
      (("end_learning_rate_fraction",), lambda x: 0 <= x <= 1, "a number in [0, 1]"),
    ):
      for name in names:
        if not _is_number(values[name]) or not fits(values[name]):
          raise _error(name, values[name], expected)
    for name, allowed in _CHOICES.items():
      if values[name] not in allowed:
        raise _error(name, values[name], f"one of {', '.join(map(str, allowed))}")
    steps = self.decay_steps
    if self.schedule != "wsd" and steps is not None:
      raise _error("decay_steps", steps, f"None with schedule={self.schedule!r}")
    if self.schedule == "wsd" and (type(steps) is not int or steps < 1):
      raise _error("decay_steps", steps, "a positive integer with schedule='wsd'")


def _is_number(value) -> bool:
  return isinstance(value, (int, float)) and not isinstance(value, bool)


def _error(name: str, got, expected: str) -> InputError:
  return InputError(f"Optimizer.{name}: got {got!r}, expected {expected}.")
