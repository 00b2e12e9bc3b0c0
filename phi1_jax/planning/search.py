"""Search for settings that fit a machine: the nearest, or the fastest."""

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from phi1_jax import InputError
from phi1_jax.kernels import attention
from phi1_jax.planning.account import GIB, Account, OutOfMemoryError

# From the least recomputation to the least memory.
REMAT = ("none", "matrices", "qkv_context", "full")

# Compiles the step of a run's configuration (model, train, ...) for the machine.
Measure = Callable[[Any], Account]


@dataclasses.dataclass(frozen=True)
class Trial:
  """One setting and its result.

  Attributes:
    sequences: held by one device at a time.
    remat: `Model.remat`.
    attention: `Model.attention`.
    account: None where it does not fit, or is refused.
    refusal: why there is no account.
  """

  sequences: int
  remat: str
  attention: str
  account: Account | None = None
  refusal: str = ""

  @property
  def seconds(self) -> float:
    """The bound of a step; 0 where there is none."""
    return max(self.account.bounds().values(), default=0.0) if self.account else 0.0

  @property
  def flags(self) -> str:
    """The setting as flags of a command."""
    return (
      f"--gin.Train.sequences_per_device={self.sequences} "
      f"--gin.Model.remat={self.remat} --gin.Model.attention={self.attention}"
    )

  def __str__(self) -> str:
    setting = f"{self.attention:<8}{self.remat:<12}{self.sequences:>3} sequences"
    if self.account is None:
      return f"{setting}  {self.refusal}"
    time = f", at least {self.seconds:.3g} s a step" if self.seconds else ""
    return f"{setting}  {self.account.total_bytes / GIB:6.2f} GiB{time}"

  def asdict(self) -> dict[str, Any]:
    """Return the fields of --json."""
    return {
      "sequences_per_device": self.sequences,
      "remat": self.remat,
      "attention": self.attention,
      **(self.account.asdict() if self.account else {"refused": self.refusal}),
    }


def nearest(config: Any, sequences: int, measure: Measure) -> Trial | None:
  """Find the fitting setting closest to one that does not fit.

  Tries fewer sequences first, then stronger rematerialisation.
  """
  now = config.model.remat
  remats = (now, *(REMAT[REMAT.index(now) + 1 :] if now in REMAT else REMAT[-2:]))
  sizes = [sequences >> halvings for halvings in range(sequences.bit_length())]
  for remat, size in itertools.product(remats, sizes):
    if (remat, size) != (now, sequences):
      trial = _try(config, size, remat, config.model.attention, measure)
      if trial.account:
        return trial
  return None


def search(config: Any, share: int, measure: Measure) -> Iterator[Trial]:
  """Try batch x remat x attention, and yield every trial.

  The batch doubles. What does not fit at one batch is not tried at a larger one, and
  stronger rematerialisation is only tried once the weaker no longer fits.

  Args:
    config: the run.
    share: sequences per step of one device, which batches must divide.
    measure: compiles a configuration.
  """
  for name in attention.NAMES[1:-1]:  # neither "auto" nor the reference
    remats = list(REMAT)
    size = 1
    while size <= share and share % size == 0 and remats:
      trial = _try(config, size, remats[0], name, measure)
      yield trial
      if trial.account:
        size *= 2
      elif trial.refusal.startswith("attention"):
        break
      else:
        remats.pop(0)


def fastest(trials: Sequence[Trial]) -> Trial | None:
  """Return the trial with the lowest bound; of equals, the one with most sequences.

  Fewer, larger products are faster, which bounds do not show.
  """
  fitting = [trial for trial in trials if trial.account]
  return min(fitting, key=lambda trial: (trial.seconds, -trial.sequences), default=None)


def _try(config, sequences: int, remat: str, name: str, measure: Measure) -> Trial:
  changed = dataclasses.replace(
    config,
    model=dataclasses.replace(config.model, remat=remat, attention=name),
    train=dataclasses.replace(config.train, sequences_per_device=sequences),
  )
  trial = Trial(sequences, remat, name)
  try:
    return dataclasses.replace(trial, account=measure(changed))
  except (OutOfMemoryError, InputError) as error:
    return dataclasses.replace(trial, refusal=str(error))
