"""Configuration of the optimizer."""

import dataclasses
from typing import Annotated, Literal

from phi1_jax.settings import (
  Count,
  NotNegative,
  Positive,
  PositiveInt,
  Range,
  Settings,
  Share,
)


@dataclasses.dataclass(frozen=True)
class OptimizerConfig(Settings):
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

  peak_learning_rate: Positive
  warmup_steps: Count
  weight_decay: NotNegative
  beta1: Share = 0.9
  beta2: Share = 0.95
  epsilon: Positive = 1e-8
  clip_norm: Positive = 1.0
  decay: Literal["matrices", "all"] = "matrices"
  end_learning_rate_fraction: Annotated[float, Range(least=0, most=1)] = 0.0
  schedule: Literal["linear", "cosine", "wsd"] = "linear"
  decay_steps: PositiveInt | None = None
  name: Literal["adamw", "muon"] = "adamw"
  moment_dtype: Literal["float32", "bfloat16"] | None = None

  def __post_init__(self):
    super().__post_init__()
    if self.schedule != "wsd" and self.decay_steps is not None:
      raise self.wrong("decay_steps", f"None with schedule={self.schedule!r}")
    if self.schedule == "wsd" and self.decay_steps is None:
      raise self.wrong("decay_steps", "an integer >= 1 with schedule='wsd'")
