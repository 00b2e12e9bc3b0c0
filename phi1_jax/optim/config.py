"""Configuration of the optimizer."""

import dataclasses

from phi1_jax import InputError

DECAYS = ("matrices", "all")


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
  """AdamW with linear warmup and linear decay (gin name: `Optimizer`).

  The paper gives the learning rates, warmup and weight decay (pretraining 1e-3, 750
  steps, 0.1; finetuning 1e-4, 50 steps, 0.01); it does not give beta1, beta2, epsilon,
  the clipping, or whether biases decay. Those defaults are this project's choice.

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

  def __post_init__(self):
    if type(self.warmup_steps) is not int or self.warmup_steps < 0:
      raise _error("warmup_steps", self.warmup_steps, "an integer >= 0")
    for name in ("peak_learning_rate", "epsilon", "clip_norm"):
      if not _is_number(getattr(self, name)) or getattr(self, name) <= 0:
        raise _error(name, getattr(self, name), "a positive number")
    if not _is_number(self.weight_decay) or self.weight_decay < 0:
      raise _error("weight_decay", self.weight_decay, "a number >= 0")
    for name in ("beta1", "beta2"):
      if not _is_number(getattr(self, name)) or not 0 <= getattr(self, name) < 1:
        raise _error(name, getattr(self, name), "a number in [0, 1)")
    fraction = self.end_learning_rate_fraction
    if not _is_number(fraction) or not 0 <= fraction <= 1:
      raise _error("end_learning_rate_fraction", fraction, "a number in [0, 1]")
    if self.decay not in DECAYS:
      raise _error("decay", self.decay, f"one of {', '.join(DECAYS)}")


def _is_number(value) -> bool:
  return isinstance(value, (int, float)) and not isinstance(value, bool)


def _error(name: str, got, expected: str) -> InputError:
  return InputError(f"Optimizer.{name}: got {got!r}, expected {expected}.")
