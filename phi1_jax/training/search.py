"""Looks for settings that fit a machine: the nearest, or the fastest."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from phi1_jax import InputError
from phi1_jax.kernels import attention
from phi1_jax.parallel import sharding
from phi1_jax.training import accounts
from phi1_jax.training.accounts import Account, OutOfMemoryError
from phi1_jax.training.setup import RunConfig, Setup, make_setup

# From what computes least to what keeps least.
REMAT = ("none", "matrices", "qkv_context", "full")


@dataclasses.dataclass(frozen=True)
class Trial:
  """One setting, and what came of it.

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
  refusal: str | None = None


Measure = Callable[[RunConfig], Account]


def measure_on(devices: Sequence[Any], kind: str) -> Measure:
  """Compiles the step of a configuration for these devices."""

  def measure(config: RunConfig) -> Account:
    return accounts.of_step(make_setup(config, Path(), devices), kind)

  return measure


def sequences_per_device(setup: Setup) -> int:
  """Sequences that a device holds at a time."""
  share = setup.config.train.batch_size // sharding.batch_shards(setup.mesh)
  return share // setup.accumulation_steps


def nearest(config: RunConfig, sequences: int, measure: Measure) -> Trial | None:
  """The setting closest to one that does not fit: fewer sequences, then less kept."""
  now = config.model.remat
  stronger = REMAT[REMAT.index(now) + 1 :] if now in REMAT else REMAT[-2:]
  for remat in (now, *stronger):
    size = sequences
    while size >= 1:
      if (remat, size) != (now, sequences):
        trial = _try(config, size, remat, config.model.attention, measure)
        if trial.account:
          return trial
      size //= 2
  return None


def search(config: RunConfig, share: int, measure: Measure) -> Iterator[Trial]:
  """Tries batch x remat x attention, and yields every trial.

  Batches double. What does not fit at one batch is not tried at a larger one, and what
  computes more is only tried once what computes less no longer fits.

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
      elif trial.refusal and trial.refusal.startswith("attention"):
        break
      else:
        remats.pop(0)


def fastest(trials: Sequence[Trial]) -> Trial | None:
  """The trial with the lowest bound; of equals, the one with most sequences at once.

  Fewer, larger products are faster, which bounds do not show.
  """
  fitting = [trial for trial in trials if trial.account]

  def cost(trial: Trial) -> tuple[float, int]:
    assert trial.account
    return max(trial.account.bounds().values(), default=0.0), -trial.sequences

  return min(fitting, key=cost, default=None)


def _try(
  config: RunConfig, sequences: int, remat: str, name: str, measure: Measure
) -> Trial:
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
