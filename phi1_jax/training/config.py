"""Settings of a training run, apart from its model, data, mesh and optimizer."""

import dataclasses

from phi1_jax import InputError
from phi1_jax.settings import Count, NotNegative, PositiveInt, Seed, Settings

# Settings that change no number, or that are compared by their content.
HARMLESS = {
  *("log_every", "evaluate_every", "evaluation_batches", "stop_at_step"),
  *("store", "processes", "verify", "attention", "remat", "scan_layers", "head_chunks"),
  "sequences_per_device",
}


@dataclasses.dataclass(frozen=True)
class TrainConfig(Settings):
  """The run (gin name: `Train`).

  Attributes:
    total_steps: length of the run, which the learning rate schedule spans.
    batch_size: sequences per step, over all devices and accumulation steps.
    sequence_length: tokens per sequence that the model reads.
    sequences_per_device: sequences that one device holds at a time; the rest of its
      share of the batch is accumulated. None holds the whole share at once.
    seed: decides the initial parameters, the order of the data and the dropout.
    stop_at_step: end here although the schedule goes on (the paper kept step 24,000
      of 36,000); None runs to `total_steps`.
    log_every: steps between rows of metrics.
    evaluate_every: steps between evaluations on held-out text; None only at the end.
    evaluation_batches: how much of each task's held-out text an evaluation reads, in
      batches of `batch_size` sequences, spread evenly over the text; None reads all
      of it. The sequences are the same for any number of devices.
    head_chunks: pieces that the head's logits are computed in; None holds them all,
      except on one CPU device, which takes as many as its caches like.
    z_loss: coefficient of log(Z)^2 of each target, Z the sum of the exponentials of its
      logits (PaLM: 1e-4). Metrics report it beside the loss. 0 is none.
    document_mask: attend only within a document. The paper did not.
    whole_documents: cut windows between documents, so that none is read without its
      beginning; the rest of a window is filled and counts as tokens, not as targets.
      The paper cut them anywhere.
    skip_nonfinite_steps: how many steps of a run may have a loss or gradient that is
      not finite. Such a step changes neither parameters nor moments, and the run goes
      on with the next batch. 0 stops at the first.
  """

  total_steps: PositiveInt
  batch_size: PositiveInt
  sequence_length: PositiveInt
  sequences_per_device: PositiveInt | None = None
  seed: Seed = 0
  stop_at_step: PositiveInt | None = None
  log_every: PositiveInt = 10
  evaluate_every: PositiveInt | None = None
  evaluation_batches: PositiveInt | None = None
  head_chunks: PositiveInt | None = None
  z_loss: NotNegative = 0.0
  document_mask: bool = False
  whole_documents: bool = False
  skip_nonfinite_steps: Count = 0

  def __post_init__(self):
    super().__post_init__()
    if self.stop_at_step and self.stop_at_step > self.total_steps:
      raise self.wrong("stop_at_step", f"at most Train.total_steps={self.total_steps}")
    if self.head_chunks and self.sequence_length % self.head_chunks:
      raise self.wrong(
        "head_chunks", f"a divisor of Train.sequence_length={self.sequence_length}"
      )

  @property
  def last_step(self) -> int:
    """The step after which the run ends."""
    return self.stop_at_step or self.total_steps

  @property
  def tokens_per_step(self) -> int:
    """Tokens that one step learns to predict."""
    return self.batch_size * self.sequence_length

  def accumulation_steps(self, batch_shards: int) -> int:
    """Return the number of parts of a batch that a step computes one after the other.

    Args:
      batch_shards: devices that hold different sequences (data x fsdp).

    Raises:
      InputError: the batch does not divide, with the numbers.
    """
    if self.batch_size % batch_shards:
      raise InputError(
        f"Train.batch_size: got {self.batch_size}, expected a multiple of the "
        f"{batch_shards} devices that the mesh (data x fsdp) splits a batch over"
      )
    share = self.batch_size // batch_shards
    at_once = min(self.sequences_per_device or share, share)
    if share % at_once:
      raise InputError(
        f"Train.sequences_per_device: got {at_once}, expected a divisor of {share}, "
        f"one device's share of Train.batch_size={self.batch_size}"
      )
    return share // at_once


@dataclasses.dataclass(frozen=True)
class RuntimeConfig(Settings):
  """Settings for watching a run; they do not change its numbers (gin: `Runtime`).

  Attributes:
    compilation_cache: folder that keeps compiled steps for the next start, relative to
      the work directory; None keeps none.
    profile_at: step at which a profile starts, into the work directory's `profile/`
      (TensorBoard and XProf open it); None takes none.
    profile_steps: how many steps it lasts.
    profiler_port: port of a profiler server on each host, from which TensorBoard and
      `jax.profiler` clients take profiles while the run goes on; None starts none.
    wandb_project: project of Weights & Biases that gets the numbers of metrics.jsonl,
      too; None sends nothing.
    hooks: more to do beside training, "module:function" -> period in steps, such as
      {"evals.hook:humaneval": 1000} (see `training.hooks.named`).
  """

  compilation_cache: str | None = "compiled"
  profile_at: PositiveInt | None = None
  profile_steps: PositiveInt = 5
  profiler_port: PositiveInt | None = None
  wandb_project: str | None = None
  hooks: dict[str, PositiveInt] = dataclasses.field(default_factory=dict)

  def __post_init__(self):
    super().__post_init__()
    if self.profile_at is None and self.profile_steps != type(self).profile_steps:
      raise InputError(
        f"Runtime.profile_steps: got {self.profile_steps}, which has no effect without "
        "Runtime.profile_at; give that too"
      )
